"""Discard: delete waiting or failed jobs. Withdraw: take waiting jobs out of their queues."""

from collections.abc import Collection

from sqlalchemy import Connection, Table, select

from solidjq.database.among import among
from solidjq.database.deletions import delete_by_id
from solidjq.database.grouping import ALL_ROWS, lock_rows
from solidjq.database.tables import blocked, failed, jobs, ready, scheduled
from solidjq.queue.concurrency import NO_LIMITS, Limits, give_back


def discard(connection: Connection, job_ids: Collection[int], limits: Limits = NO_LIMITS) -> list[int]:
    """Delete those of these jobs that are ready, scheduled, blocked or failed; claimed and finished jobs stay.

    Returns the ids of the deleted jobs.
    """
    gone = withdraw(connection, job_ids, limits) + take(connection, failed, job_ids)
    connection.execute(delete_by_id(jobs, gone))
    return gone


def withdraw(connection: Connection, job_ids: Collection[int], limits: Limits = NO_LIMITS) -> list[int]:
    """Delete the execution rows of those of these jobs that are ready, scheduled or blocked; return the jobs' ids.

    The caller gives the jobs another state, or deletes them, in the same transaction.
    """
    of_ready = take(connection, ready, job_ids)
    others = [job_id for table in (scheduled, blocked) for job_id in take(connection, table, job_ids)]
    # Of these states, only ready holds a slot of a concurrency limit. Slots are given back last, so that none goes to a
    # blocked job that is withdrawn here too.
    give_back(connection, of_ready, limits)
    return of_ready + others


def take(connection: Connection, table: Table, job_ids: Collection[int]) -> list[int]:
    """Delete the rows that these jobs have in a table of executions; return the ids of the jobs that had one."""
    of_jobs = select(table.c.id, table.c.job_id).where(among(table.c.job_id, job_ids)).order_by(table.c.id)
    locked = lock_rows(connection, of_jobs.limit(ALL_ROWS))
    if locked:
        connection.execute(delete_by_id(table, [row_id for row_id, _ in locked]))
    return [job_id for _, job_id in locked]
