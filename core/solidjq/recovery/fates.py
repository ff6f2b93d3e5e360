"""Fates of the jobs that an operation put back to work: a canary and a bisect go on, or stop, by them.

``outcome`` says more about them, for a person.
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, literal_column, or_, select

from solidjq.database.functions import without_index
from solidjq.database.tables import crashes, failed, failures, jobs
from solidjq.queue.failed import is_death


class Fate(StrEnum):
    """What became of a job since an operation put it back to work."""

    WAITING = "waiting"  # it waits or runs
    DIED = "died"  # its process died
    FAILED = "failed"  # it failed with an error of its own
    ENDED = "ended"  # it finished, or was deleted


def fates_of(operation_id: int) -> Select[Any]:
    """Select ``job_id``, ``fate`` and ``restored_by`` of each job that this operation put back to work.

    One statement: a job that dies between two would be missed by the first, and fail with its own error for the second.
    A job that died has died for good, although a line in cron may retry or discard it before anybody looks.
    """
    moved = failures.alias("moved")
    # Without statistics MySQL reads the whole archive for each row, as where an undo looks for such moves.
    died_since = (
        select(moved.c.id)
        .join(crashes, crashes.c.failure_id == moved.c.failure_id)
        .where(moved.c.job_id == failures.c.job_id, without_index(moved.c.operation_id) > operation_id)
        .with_hint(moved, "FORCE INDEX (index_jq_failures_on_job_id)", "mysql")
        .exists()
    )
    fails = failed.c.id.is_not(None)
    fates = (
        (or_(and_(fails, is_death()), died_since), Fate.DIED),
        (fails, Fate.FAILED),
        (and_(jobs.c.id.is_not(None), jobs.c.finished_at.is_(None)), Fate.WAITING),
    )
    named: list[tuple[ColumnElement[bool], Any]] = [
        (condition, literal_column(f"'{fate.value}'")) for condition, fate in fates
    ]
    fate: Any = case(*named, else_=literal_column(f"'{Fate.ENDED.value}'"))
    return (
        select(failures.c.job_id, fate.label("fate"), failures.c.restored_by)
        .join_from(failures, jobs, jobs.c.id == failures.c.job_id, isouter=True)
        .join(failed, failed.c.job_id == jobs.c.id, isouter=True)
        .where(failures.c.operation_id == operation_id)
    )
