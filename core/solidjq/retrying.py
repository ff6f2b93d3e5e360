"""Put failed jobs back to work. The failure is archived first, in the same transaction."""

from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, select, update

from solidjq import ledger
from solidjq.activejob import reset_counters
from solidjq.batching import in_batches
from solidjq.database import Database
from solidjq.dialects import utcnow
from solidjq.endings import make_ready
from solidjq.queue import schedule
from solidjq.schema import failed, jobs


@dataclass(slots=True)
class Retried:
    """The jobs that a retry moved, by where they went."""

    ready: list[int] = field(default_factory=list)
    scheduled: list[int] = field(default_factory=list)

    @property
    def job_ids(self) -> list[int]:
        """All of them, in id order."""
        return sorted(self.ready + self.scheduled)


def retry(database: Database, job_ids: Collection[int], operation: ledger.Operation) -> Retried:
    """Retry those of these jobs that are failed now; the others are left alone.

    As in Solid Queue's retry of one job, ``executions`` and ``exception_executions`` start again from nothing. A job
    with a concurrency key goes to ``scheduled_executions``, due now: only a dispatcher that knows its class's limit may
    let it run. Batches commit one by one; a killed retry can simply be run again.

    Raises LedgerMissingError before it changes anything if there are no ``jq_`` tables.
    """
    with database.read() as connection:
        ledger.require(connection)
    total = Retried()
    for batch in in_batches(sorted(set(job_ids))):
        moved = database.transact(_retry, batch, operation)
        total.ready += moved.ready
        total.scheduled += moved.scheduled
    return total


def _retry(connection: Connection, job_ids: list[int], operation: ledger.Operation) -> Retried:
    locked = connection.execute(
        select(failed.c.id, failed.c.job_id).where(failed.c.job_id.in_(job_ids)).order_by(failed.c.id).with_for_update()
    ).all()
    candidates = connection.execute(
        select(jobs.c.id, jobs.c.arguments, jobs.c.concurrency_key, (jobs.c.scheduled_at > utcnow()).label("early"))
        .where(jobs.c.id.in_([row.job_id for row in locked]), jobs.c.finished_at.is_(None))
        .order_by(jobs.c.id)
    ).all()
    moved = Retried()
    early: list[int] = []
    for row in candidates:
        if row.early:
            early.append(row.id)
        elif row.concurrency_key is not None:
            moved.scheduled.append(row.id)
        else:
            moved.ready.append(row.id)
    chosen = {row.id for row in candidates}
    failure_ids = [row.id for row in locked if row.job_id in chosen]
    if not failure_ids:
        return moved
    ledger.archive(connection, failure_ids, operation.record(connection, len(failure_ids)))
    resets = [
        {"job_id": row.id, "counted_from_0": reset}
        for row in candidates
        if (reset := reset_counters(row.arguments)) != row.arguments
    ]
    if resets:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == bindparam("job_id"))
            .values(arguments=bindparam("counted_from_0"), updated_at=utcnow()),
            resets,
        )
    if moved.ready:
        make_ready(connection, moved.ready)
    if moved.scheduled:
        schedule(connection, moved.scheduled, at=utcnow())
    if early:
        schedule(connection, early)
        moved.scheduled += early
    connection.execute(delete(failed).where(failed.c.id.in_(failure_ids)))
    return moved
