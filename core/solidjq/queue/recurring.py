"""Recurring tasks: when each ran last, and how many of its ticks were missed.

Solid Queue's scheduler writes a row for each tick, with the job that it enqueued. The row goes with its job: where
finished jobs are cleared, the rows of ticks that were kept are gone too. So a missing row shows a missed tick only
within the time for which finished jobs are still there.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from solidjq.database.tables import jobs, recurring_executions, recurring_tasks
from solidjq.database.times import clock
from solidjq.rails.schedule_texts import parse_schedule
from solidjq.rails.schedules import Schedule, count_missed

MOST_TASKS = 1000
LATE = 60.0  # seconds that the row of a tick may come late


@dataclass(frozen=True, slots=True)
class RecurringTask:
    """A recurring task. Its ``schedule`` is None if it cannot be read here."""

    key: str
    text: str  # the schedule as it is written
    schedule: Schedule | None
    last_run_at: datetime | None
    age: float | None  # seconds since the last run, or since the task was set up
    missed: int | None  # ticks; None if that cannot be known


def list_recurring(connection: Connection, *, late: float = LATE) -> list[RecurringTask]:
    """Return the first ``MOST_TASKS`` tasks by key, each with the ticks of more than ``late`` seconds ago it missed."""
    now = clock(connection)
    kept_since = connection.scalar(select(func.min(jobs.c.finished_at)).where(jobs.c.finished_at.is_not(None)))
    last_run = (
        select(func.max(recurring_executions.c.run_at))
        .where(recurring_executions.c.task_key == recurring_tasks.c.key)
        .scalar_subquery()
    )
    tasks = connection.execute(
        select(
            recurring_tasks.c.key, recurring_tasks.c.schedule, recurring_tasks.c.created_at, last_run.label("run_at")
        )
        .order_by(recurring_tasks.c.key)
        .limit(MOST_TASKS)
    )
    return [_task(key, text, created_at, run_at, kept_since, now, late) for key, text, created_at, run_at in tasks]


def _task(
    key: str,
    text: str,
    created_at: datetime | None,
    run_at: datetime | None,
    kept_since: datetime | None,
    now: datetime,
    late: float,
) -> RecurringTask:
    schedule = parse_schedule(text)
    known = run_at or created_at
    age = None if known is None else max(0.0, (now - known).total_seconds())
    missed = None
    if schedule is not None and kept_since is not None and known is not None:
        since = max(kept_since, created_at) if created_at else kept_since
        missed = count_missed(schedule, last=run_at, since=since, now=now, late=late)
    return RecurringTask(key, text, schedule, run_at, age, missed)
