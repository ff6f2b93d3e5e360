"""Dispatch: scheduled jobs that are due become ready or blocked."""

from collections import defaultdict

from sqlalchemy import Connection, case, or_, select

from solidjq.database.among import among
from solidjq.database.deletions import delete_by_id
from solidjq.database.tables import jobs, scheduled
from solidjq.database.times import utcnow
from solidjq.queue.concurrency import NO_LIMITS, KeyAndLimit, Limits, admit
from solidjq.queue.executions import make_ready


def dispatch(connection: Connection, limit: int, limits: Limits = NO_LIMITS) -> list[int]:
    """Make up to ``limit`` scheduled jobs that are due ready, or blocked if their concurrency limit is used up.

    A job with a concurrency key whose class is not in ``limits`` is left alone: its limit is in Ruby code, and Rails'
    own dispatcher will dispatch it. Returns the ids of the jobs that moved.
    """
    # A subquery for each row: planned as a join, it may read the whole jobs table every second.
    ours = (
        select(case((or_(jobs.c.concurrency_key.is_(None), jobs.c.class_name.in_(list(limits))), 1), else_=0))
        .where(jobs.c.id == scheduled.c.job_id)
        .scalar_subquery()
    )
    due = connection.execute(
        select(scheduled.c.id, scheduled.c.job_id)
        .where(scheduled.c.scheduled_at <= utcnow(), ours == 1)
        .order_by(scheduled.c.scheduled_at, scheduled.c.priority, scheduled.c.job_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    if not due:
        return []
    job_ids = [row.job_id for row in due]
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
    connection.execute(delete_by_id(scheduled, [row.id for row in due]))
    return job_ids
