"""Dispatch: scheduled jobs that are due become ready or blocked."""

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, case, or_, select
from sqlalchemy.exc import DBAPIError

from solidjq.database.among import among
from solidjq.database.deletions import delete_by_id
from solidjq.database.tables import jobs, scheduled
from solidjq.database.times import utcnow
from solidjq.queue.concurrency import NO_LIMITS, KeyAndLimit, Limits, admit, locked_keys
from solidjq.queue.executions import make_ready
from solidjq.queue.refused import all_but_refused

MOST_REFUSED = 50  # jobs that the database refuses to dispatch, while it dispatches none


def dispatch(
    connection: Connection, limit: int, limits: Limits = NO_LIMITS, *, passed: Collection[int] = ()
) -> list[int]:
    """Make up to ``limit`` scheduled jobs that are due ready, or blocked if their concurrency limit is used up.

    A job with a concurrency key whose class is not in ``limits`` is left alone: its limit is in Ruby code, and Rails'
    own dispatcher will dispatch it. So are the jobs ``passed``. Returns the ids of the jobs that moved.
    """
    due = _lock_due(connection, limit, limits, passed)
    return _dispatch(connection, due, limits) if due else []


def dispatch_but_refused(
    connection: Connection, limit: int, limits: Limits = NO_LIMITS, *, passed: Collection[int] = ()
) -> tuple[list[int], dict[int, DBAPIError], set[int]]:
    """Dispatch as ``dispatch`` does, but jobs that the database refuses, by a trigger say, stay scheduled.

    So do those of whose concurrency key another transaction has locked the semaphore: nothing is waited for. Returns
    the ids of the jobs that moved, the error of each job that was refused, and the ids of those whose key is locked. If
    more than ``MOST_REFUSED`` are refused and none moves, the database refuses them all: the error is raised.
    """
    due = _lock_due(connection, limit, limits, passed)
    keyed = select(jobs.c.id, jobs.c.concurrency_key).where(among(jobs.c.id, due), jobs.c.concurrency_key.is_not(None))
    key_of: dict[int, str] = {row.id: row.concurrency_key for row in connection.execute(keyed)}
    locked = locked_keys(connection, set(key_of.values()))
    left = {job_id for job_id, key in key_of.items() if key in locked}
    moved, refused = all_but_refused(
        connection,
        [job_id for job_id in due if job_id not in left],
        lambda part: _dispatch(connection, {job_id: due[job_id] for job_id in part}, limits),
        most=MOST_REFUSED,
    )
    return moved, refused, left


def _lock_due(connection: Connection, limit: int, limits: Limits, passed: Collection[int]) -> dict[int, int]:
    """Lock the first jobs that are due, in the order in which they are dispatched; return their rows' ids by job."""
    # A subquery for each row: planned as a join, it may read the whole jobs table every second.
    ours = (
        select(case((or_(jobs.c.concurrency_key.is_(None), jobs.c.class_name.in_(list(limits))), 1), else_=0))
        .where(jobs.c.id == scheduled.c.job_id)
        .scalar_subquery()
    )
    due = (
        select(scheduled.c.job_id, scheduled.c.id)
        .where(scheduled.c.scheduled_at <= utcnow(), ours == 1)
        .order_by(scheduled.c.scheduled_at, scheduled.c.priority, scheduled.c.job_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if passed:
        due = due.where(scheduled.c.job_id.not_in(sorted(passed)))
    return {row.job_id: row.id for row in connection.execute(due)}


def _dispatch(connection: Connection, due: Mapping[int, int], limits: Limits) -> list[int]:
    job_ids = list(due)
    limited: dict[KeyAndLimit, list[int]] = defaultdict(list)
    keyed = connection.execute(
        select(jobs.c.id, jobs.c.concurrency_key, jobs.c.class_name)
        .where(among(jobs.c.id, job_ids), jobs.c.concurrency_key.is_not(None))
        .order_by(jobs.c.priority, jobs.c.id)
    )
    for row in keyed:
        limited[row.concurrency_key, limits[row.class_name]].append(row.id)
    bound = {job_id for group in limited.values() for job_id in group}
    if free := [job_id for job_id in job_ids if job_id not in bound]:
        make_ready(connection, free)
    admit(connection, limited)
    connection.execute(delete_by_id(scheduled, due.values()))
    return job_ids
