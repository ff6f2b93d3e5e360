"""Execution rows, which give jobs their states: the table of each state, and inserts of the states of waiting jobs."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Insert, Select, Table, insert, select

from solidjq.database.among import among
from solidjq.database.inserts import lacks
from solidjq.database.tables import blocked, claimed, failed, jobs, ready, scheduled
from solidjq.database.times import ago, utcnow
from solidjq.queue.states import State

# The table of each state. A finished job has a row in none of them.
EXECUTIONS: Mapping[State, Table] = {
    State.READY: ready,
    State.SCHEDULED: scheduled,
    State.BLOCKED: blocked,
    State.CLAIMED: claimed,
    State.FAILED: failed,
}


def schedule(connection: Connection, job_ids: Collection[int], at: ColumnElement[datetime] | None = None) -> None:
    """Insert the scheduled rows of these jobs, due ``at`` this time, else at each job's own ``scheduled_at``.

    A job that is scheduled already stays as it is.
    """
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
            .where(among(jobs.c.id, job_ids), lacks(scheduled.c.job_id, jobs.c.id))
            .order_by(jobs.c.id),
        )
    )


def make_ready(connection: Connection, job_ids: Collection[int]) -> None:
    """Insert the ready rows of these jobs, with the queue and priority in each job's own row.

    A job that is ready already stays as it is: rows that other programs damaged stop no other job.
    """
    connection.execute(ready_insertion(select().where(among(jobs.c.id, job_ids)).order_by(jobs.c.id)))


def ready_insertion(chosen: Select[Any]) -> Insert:
    """Return the INSERT of ``make_ready`` for the jobs that a query finds, which selects no columns yet."""
    rows = chosen.add_columns(jobs.c.id, jobs.c.queue_name, jobs.c.priority, utcnow())
    absent = lacks(ready.c.job_id, jobs.c.id)
    return insert(ready).from_select(["job_id", "queue_name", "priority", "created_at"], rows.where(absent))


def block(connection: Connection, job_ids: Collection[int], duration: float) -> None:
    """Insert the blocked rows of these jobs; each waits ``duration`` seconds at most for a slot of its key."""
    connection.execute(
        insert(blocked).from_select(
            ["job_id", "queue_name", "priority", "concurrency_key", "expires_at", "created_at"],
            select(
                jobs.c.id, jobs.c.queue_name, jobs.c.priority, jobs.c.concurrency_key, ago(-duration), utcnow()
            ).where(among(jobs.c.id, job_ids)),
        )
    )
