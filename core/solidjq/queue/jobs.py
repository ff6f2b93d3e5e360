"""Jobs by id, with their states."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, exists, or_, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.tables import blocked, claimed, failed, jobs, processes, ready, scheduled
from solidjq.queue.executions import EXECUTIONS
from solidjq.queue.states import State
from solidjq.text import parse_id


class JobView(NamedTuple):
    """A job, its state and its execution row. A job in several states is damaged; ``states`` lists all of them."""

    job_id: int
    active_job_id: str | None
    class_name: str
    queue_name: str
    priority: int
    concurrency_key: str | None
    arguments: str | None
    enqueued_at: datetime | None
    scheduled_at: datetime | None  # when it is, or was, due
    finished_at: datetime | None
    claimed_at: datetime | None
    process_id: int | None
    process_name: str | None
    process_hostname: str | None
    process_pid: int | None
    blocked_until: datetime | None
    failed_at: datetime | None
    error: str | None
    changed_at: datetime | None  # the job's row; of a job that saves its progress, its last checkpoint
    states: tuple[State, ...]


def find_jobs(connection: Connection, ids: Sequence[str]) -> dict[str, list[JobView]]:
    """Look up jobs by job id or Active Job id, as an operator has them from a log.

    Every id in ``ids`` is a key; its list is empty if there is no such job, and has several jobs where ``retry_on``
    made a new row for each attempt.
    """
    views: dict[str, list[JobView]] = {text: [] for text in ids}
    for batch in in_batches(views):
        _find(connection, batch, views)
    return views


def _find(connection: Connection, ids: list[str], views: dict[str, list[JobView]]) -> None:
    """Add the jobs with these ids to ``views``."""
    by_number: dict[int, list[str]] = defaultdict(list)  # 42 and 042 are the same job
    for text in ids:
        if (number := parse_id(text)) is not None:
            by_number[number].append(text)
    # A statement for either index: MariaDB reads the whole table for an OR of both that is to be sorted.
    attempts = connection.scalars(select(jobs.c.id).where(among(jobs.c.active_job_id, ids)))
    for view in views_of(connection, sorted({*by_number, *attempts})):
        for key in {*by_number[view.job_id], view.active_job_id} & views.keys():
            views[str(key)].append(view)


def views_of(connection: Connection, job_ids: Sequence[int]) -> list[JobView]:
    """Return those of these jobs that there are, by id."""
    query = _QUERY.order_by(jobs.c.id)
    return [
        _view(row) for batch in in_batches(job_ids) for row in connection.execute(query.where(among(jobs.c.id, batch)))
    ]


def read_finished(connection: Connection, page: Select[int]) -> tuple[Sequence[int], dict[int, JobView]]:
    """Return the ids of a page of finished jobs, in its order, and their views, read in one statement.

    ``page`` selects ids from the table of jobs. A finished job has no execution, so half of the
    columns need no read. One that has an execution is damaged, and read as other jobs are.
    """
    query = page.with_only_columns(*_FINISHED_COLUMNS, maintain_column_froms=True)
    views, damaged = {}, []
    rows = connection.execute(query).all()
    for row in rows:
        if row[-1]:
            damaged.append(row[0])
        else:
            views[row[0]] = JobView._make((*row[:_OWN], *_NO_EXECUTION, row[_OWN], _IS_FINISHED))
    if damaged:
        views |= {view.job_id: view for view in views_of(connection, damaged)}
    return [row[0] for row in rows], views


def _view(row: Any) -> JobView:
    *own, has_finished = row[: -len(EXECUTIONS)]
    execution_ids = row[-len(EXECUTIONS) :]
    states = [state for state, there in zip(EXECUTIONS, execution_ids, strict=True) if there is not None]
    if has_finished:
        states.append(State.FINISHED)
    return JobView._make((*own, tuple(states)))


_QUERY = (
    select(
        jobs.c.id.label("job_id"),
        jobs.c.active_job_id,
        jobs.c.class_name,
        jobs.c.queue_name,
        jobs.c.priority,
        jobs.c.concurrency_key,
        jobs.c.arguments,
        jobs.c.created_at.label("enqueued_at"),
        jobs.c.scheduled_at,
        jobs.c.finished_at,
        claimed.c.created_at.label("claimed_at"),
        claimed.c.process_id,
        processes.c.name.label("process_name"),
        processes.c.hostname.label("process_hostname"),
        processes.c.pid.label("process_pid"),
        blocked.c.expires_at.label("blocked_until"),
        failed.c.created_at.label("failed_at"),
        failed.c.error,
        jobs.c.updated_at.label("changed_at"),
        jobs.c.finished_at.is_not(None).label("has_finished"),  # even at a time that cannot be read
        *(table.c.id.label(state.name) for state, table in EXECUTIONS.items()),
    )
    .outerjoin(ready, ready.c.job_id == jobs.c.id)
    .outerjoin(scheduled, scheduled.c.job_id == jobs.c.id)
    .outerjoin(blocked, blocked.c.job_id == jobs.c.id)
    .outerjoin(claimed, claimed.c.job_id == jobs.c.id)
    .outerjoin(failed, failed.c.job_id == jobs.c.id)
    .outerjoin(processes, processes.c.id == claimed.c.process_id)
)

_OWN = JobView._fields.index("finished_at") + 1
_NO_EXECUTION = (None,) * (JobView._fields.index("changed_at") - _OWN)
_IS_FINISHED = (State.FINISHED,)
_FINISHED_COLUMNS = (
    *list(_QUERY.selected_columns)[:_OWN],
    jobs.c.updated_at.label("changed_at"),
    or_(*(exists().where(table.c.job_id == jobs.c.id) for table in EXECUTIONS.values())).label("has_execution"),
)
