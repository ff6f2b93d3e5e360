"""Checkpoints: a running job's progress, written into the job's own row if its claim is still there."""

from sqlalchemy import BigInteger, ColumnElement, Connection, Update, bindparam, exists, select, update

from solidjq.database.hot import HotStatement, hot
from solidjq.database.statements import WriteStyle, write_style
from solidjq.database.tables import claimed, jobs
from solidjq.database.times import utcnow
from solidjq.database.transactions import Database
from solidjq.queue.claim import Claim


def save(database: Database, process_id: int, claim: Claim, arguments: str) -> bool:
    """Write the arguments of a claimed job as ``save_within`` does, in a transaction of its own.

    On PostgreSQL that is one round trip.
    """
    if database.writes_in_with:
        values = {"process_id": process_id, "claim_id": claim.id, "arguments": arguments}
        return database.count(save_arguments_locking, **values) == 1
    return database.transact(save_within, process_id, claim, arguments)


def save_within(connection: Connection, process_id: int, claim: Claim, arguments: str) -> bool:
    """Write the arguments of a claimed job, with the time in ``updated_at``, in the caller's transaction.

    Returns whether the process still has the claim; if not, nothing is changed. Until the transaction ends, nobody else
    can end the claim.
    """
    save_arguments = _SAVE[write_style(connection)]
    return save_arguments.count(connection, process_id=process_id, claim_id=claim.id, arguments=arguments) == 1


@hot(WriteStyle.CHAINED)
def save_arguments_locking() -> Update:
    """Write the arguments of a claimed job: a checkpoint.

    Guard: the claim is locked first, by its id and its process. A prune or another ending waits for this statement, or
    came first: then no claim is returned, and no job is written. A mere EXISTS would read the claim as it was when the
    statement began, and could overwrite the row of a job that was pruned and retried meanwhile.
    """
    claim = select(claimed.c.job_id).where(_claim()).with_for_update().cte("claim")
    return _checkpoint(jobs.c.id == select(claim.c.job_id).scalar_subquery())


@hot(WriteStyle.SILENT)
def save_arguments_joining() -> Update:
    """Write the arguments of a claimed job: a checkpoint.

    Guard: an UPDATE of two tables locks the rows that it reads of both, as they are now and not as they were when the
    transaction began. An ending of the claim waits, or came first: then no job is written.
    """
    return _checkpoint((jobs.c.id == claimed.c.job_id) & _claim())


@hot(WriteStyle.RETURNING)
def save_arguments_alone() -> Update:
    """Write the arguments of a claimed job: a checkpoint.

    Guard: the claim must exist. No ending comes in between, because SQLite has one writer at a time.
    """
    return _checkpoint(exists().where(claimed.c.job_id == jobs.c.id, _claim()).correlate(jobs))


_SAVE: dict[WriteStyle, HotStatement[Update]] = {
    WriteStyle.CHAINED: save_arguments_locking,
    WriteStyle.SILENT: save_arguments_joining,
    WriteStyle.RETURNING: save_arguments_alone,
}


def _claim() -> ColumnElement[bool]:
    return (claimed.c.id == bindparam("claim_id", type_=BigInteger())) & (
        claimed.c.process_id == bindparam("process_id", type_=BigInteger())
    )


def _checkpoint(condition: ColumnElement[bool]) -> Update:
    arguments = bindparam("arguments", type_=jobs.c.arguments.type)
    return update(jobs).where(condition).values({jobs.c.arguments: arguments, jobs.c.updated_at: utcnow()})
