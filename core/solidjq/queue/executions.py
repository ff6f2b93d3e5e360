"""Insert the execution row that gives jobs a state: ready, scheduled or blocked."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, insert, select

from solidjq.database.statements import among
from solidjq.database.tables import blocked, jobs, ready, scheduled
from solidjq.database.times import ago, utcnow


def schedule(connection: Connection, job_ids: Collection[int], at: ColumnElement[datetime] | None = None) -> None:
    """Insert the scheduled rows of these jobs, for ``at``, else for the time that each job itself names."""
    connection.execute(
        insert(scheduled).from_select(
            ["job_id", "queue_name", "priority", "scheduled_at", "created_at"],
            select(
                jobs.c.id,
                jobs.c.queue_name,
                jobs.c.priority,
                jobs.c.scheduled_at if at is None else at,
                utcnow(),
            )
            .where(among(jobs.c.id, job_ids))
            .order_by(jobs.c.id),
        )
    )


def make_ready(connection: Connection, job_ids: Collection[int]) -> None:
    """Insert the ready rows of these jobs; their queue and priority are read from the jobs themselves."""
    connection.execute(
        insert(ready).from_select(
            ["job_id", "queue_name", "priority", "created_at"],
            select(jobs.c.id, jobs.c.queue_name, jobs.c.priority, utcnow())
            .where(among(jobs.c.id, job_ids))
            .order_by(jobs.c.id),
        )
    )


def block(connection: Connection, job_ids: Collection[int], duration: float) -> None:
    """Let these jobs wait for a slot of their concurrency key."""
    connection.execute(
        insert(blocked).from_select(
            ["job_id", "queue_name", "priority", "concurrency_key", "expires_at", "created_at"],
            select(
                jobs.c.id, jobs.c.queue_name, jobs.c.priority, jobs.c.concurrency_key, ago(-duration), utcnow()
            ).where(among(jobs.c.id, job_ids)),
        )
    )
