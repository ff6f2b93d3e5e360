"""Moves of waiting jobs, those that are ready, scheduled or blocked: run now, postpone, to another queue.

Each move takes jobs that ``lock_waiting`` has locked in the same transaction. A job that a worker claims meanwhile is
not among them: whoever locks its row first has it. ``discard`` has the moves that take jobs out of their queues.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, literal, select, update

from solidjq.database import notices
from solidjq.database.among import among
from solidjq.database.tables import blocked, jobs, ready, scheduled
from solidjq.database.times import utcnow
from solidjq.queue.concurrency import NO_LIMITS, Limits
from solidjq.queue.discard import take, withdraw
from solidjq.queue.executions import EXECUTIONS, make_ready, schedule
from solidjq.queue.states import State

WAITING = (State.READY, State.SCHEDULED, State.BLOCKED)


def lock_waiting(connection: Connection, job_ids: Collection[int]) -> dict[int, State]:
    """Lock the execution rows of those of these jobs that wait; return each job's state, in the order of ids.

    A damaged job in several of these states counts as in the first of them.
    """
    found: dict[int, State] = {}
    for state in WAITING:
        table = EXECUTIONS[state]
        rows = select(table.c.job_id).where(among(table.c.job_id, job_ids)).order_by(table.c.id).with_for_update()
        for job_id in connection.scalars(rows):
            found.setdefault(job_id, state)
    return dict(sorted(found.items()))


def run_now(connection: Connection, job_ids: Collection[int]) -> None:
    """Let scheduled jobs run now: ready, or due for the dispatcher that knows their concurrency limit."""
    limited = set(
        connection.scalars(select(jobs.c.id).where(among(jobs.c.id, job_ids), jobs.c.concurrency_key.is_not(None)))
    )
    free = [job_id for job_id in job_ids if job_id not in limited]
    _set_due(connection, job_ids, utcnow())
    connection.execute(update(scheduled).where(among(scheduled.c.job_id, limited)).values(scheduled_at=utcnow()))
    take(connection, scheduled, free)
    make_ready(connection, free)
    if free:
        notices.send(connection)


def postpone(connection: Connection, job_ids: Collection[int], until: datetime, limits: Limits = NO_LIMITS) -> None:
    """Schedule waiting jobs for a time. A ready job's slot of a concurrency limit goes to the next one."""
    withdraw(connection, job_ids, limits)
    _set_due(connection, job_ids, until)
    schedule(connection, job_ids)


def move_to(connection: Connection, job_ids: Collection[int], queue_name: str) -> None:
    """Let waiting jobs wait in another queue, in the state that they have."""
    changed = {"queue_name": queue_name}
    connection.execute(update(jobs).where(among(jobs.c.id, job_ids)).values(**changed, updated_at=utcnow()))
    for table in (ready, scheduled, blocked):
        connection.execute(update(table).where(among(table.c.job_id, job_ids)).values(changed))


def _set_due(connection: Connection, job_ids: Collection[int], at: datetime | ColumnElement[datetime]) -> None:
    connection.execute(update(jobs).where(among(jobs.c.id, job_ids)).values(scheduled_at=at, updated_at=utcnow()))


def wait_again(connection: Connection, before: Mapping[int, tuple[State, datetime | None]]) -> None:
    """Give jobs without a state the one that they had: ready, or scheduled for a time, by default that of the job.

    A job of a concurrency limit that was ready or blocked is scheduled, due now: the dispatcher that knows the limit
    decides.
    """
    columns = select(jobs.c.id, jobs.c.scheduled_at, jobs.c.concurrency_key).where(among(jobs.c.id, before))
    own_time: list[int] = []
    now: list[int] = []
    free: list[int] = []
    for row in connection.execute(columns).all():
        state, due = before[row.id]
        if state is not State.SCHEDULED:
            (free if row.concurrency_key is None else now).append(row.id)
        elif due is None or due == row.scheduled_at:
            own_time.append(row.id)
        else:  # a retry paced it
            schedule(connection, [row.id], at=literal(due, scheduled.c.scheduled_at.type))
    schedule(connection, own_time)
    schedule(connection, now, at=utcnow())
    make_ready(connection, free)
