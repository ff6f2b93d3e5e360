"""Checkpoints: a running job's progress, written into the job's own row if its claim is still there."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    String,
    Subquery,
    Update,
    bindparam,
    cast,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.sql.functions import FunctionElement

from solidjq.database.hot import HotStatement, hot, ids_in
from solidjq.database.statements import WriteStyle, write_style
from solidjq.database.tables import claimed, jobs
from solidjq.database.times import utcnow
from solidjq.database.transactions import Database
from solidjq.queue.claim import Claim

MOST = 100  # checkpoints in one statement
MOST_CHARACTERS = 64 * 1024  # of their arguments: MySQL reads them all once for each of them


def save(database: Database, process_id: int, claim: Claim, arguments: str) -> bool:
    """Write the arguments of a claimed job as ``save_within`` does, in a transaction of its own.

    On PostgreSQL that is one round trip. A busy SQLite file is waited for once.
    """
    if database.writes_in_with:
        values = {"process_id": process_id, "claim_id": claim.id, "arguments": arguments}
        return database.count(save_arguments_locking, **values) == 1
    return database.transact_briefly(save_within, process_id, claim, arguments)


def save_within(connection: Connection, process_id: int, claim: Claim, arguments: str) -> bool:
    """Write the arguments of a claimed job, with the time in ``updated_at``, in the caller's transaction.

    Returns whether the process still has the claim; if not, nothing is changed. Until the transaction ends, nobody else
    can end the claim.
    """
    save_arguments = _SAVE[write_style(connection)]
    return save_arguments.count(connection, process_id=process_id, claim_id=claim.id, arguments=arguments) == 1


def save_group(database: Database, process_id: int, arguments: Mapping[Claim, str]) -> set[int]:
    """Write the arguments of several claimed jobs as ``save_group_within`` does, in a transaction of its own.

    On PostgreSQL that is one round trip.
    """
    if database.writes_in_with:
        values = _group_values(process_id, arguments)
        return {row.id for row in database.execute(save_group_locking, **values)}
    return database.transact_briefly(save_group_within, process_id, arguments)


def save_group_within(connection: Connection, process_id: int, arguments: Mapping[Claim, str]) -> set[int]:
    """Write the arguments of several claimed jobs, with the time in ``updated_at``, in the caller's transaction.

    Returns the ids of the jobs that were written. A claim that the process no longer has is left out, and so is one
    that another transaction has locked at this moment: no job waits for another one's claim.
    """
    values = _group_values(process_id, arguments)
    match write_style(connection):
        case WriteStyle.CHAINED:
            return {row.id for row in save_group_locking(connection, **values)}
        case WriteStyle.RETURNING:
            return {row.id for row in save_group_alone(connection, **values)}
    payloads = values.pop("payloads")
    given = {claim.job_id for claim in arguments}
    # A claim's id may be another job's: after a failover that lost commits, the server gives ids once more.
    job_ids = [row.job_id for row in lock_unlocked_claims(connection, **values) if row.job_id in given]
    if job_ids:
        save_group_of_jobs(connection, job_ids=job_ids, payloads=payloads)
    return set(job_ids)


def parted(arguments: Mapping[Claim, str]) -> Iterator[dict[Claim, str]]:
    """Yield the arguments of claims in parts that one statement writes quickly; a part has at least one."""
    part: dict[Claim, str] = {}
    size = 0
    for claim, text in arguments.items():
        if part and (len(part) >= MOST or size + len(text) > MOST_CHARACTERS):
            yield part
            part, size = {}, 0
        part[claim] = text
        size += len(text)
    if part:
        yield part


def _group_values(process_id: int, arguments: Mapping[Claim, str]) -> dict[str, Any]:
    payloads = {str(claim.job_id): text for claim, text in arguments.items()}
    return {
        "process_id": process_id,
        "claim_ids": [claim.id for claim in arguments],
        "payloads": json.dumps(payloads, ensure_ascii=False),
    }


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


@hot(WriteStyle.CHAINED)
def save_group_locking() -> ReturningUpdate[Any]:
    """Write the arguments of several claimed jobs, and return their ids: checkpoints that fell due together.

    Guard: the claims are locked first, by their ids and their process; only jobs of these are written. A claim that
    another transaction has locked is passed over: its job then waits alone, with save_arguments_locking.
    """
    claim = _free_claims().cte("claim")
    given = _payloads(func.json_each_text(cast(_payloads_value(), JSON))).subquery("given")
    return _checkpoints(given, jobs.c.id == claim.c.job_id)


@hot(WriteStyle.SILENT)
def lock_unlocked_claims() -> Select[Any]:
    """Lock those of several claims that nobody else has locked, and return the ids of their jobs.

    Guard: a claim that has ended, or is another process's, has no row.
    """
    return _free_claims()


@hot(WriteStyle.SILENT)
def save_group_of_jobs() -> Update:
    """Write the arguments of several claimed jobs: checkpoints that fell due together.

    Guard: this transaction has locked their claims.
    """
    path = literal('$."', String()).concat(cast(jobs.c.id, String(20))).concat(literal('"', String()))
    arguments = func.json_unquote(func.json_extract(_payloads_value(), path))
    return update(jobs).where(ids_in(jobs.c.id, "job_ids")).values(arguments=arguments, updated_at=utcnow())


@hot(WriteStyle.RETURNING)
def save_group_alone() -> ReturningUpdate[Any]:
    """Write the arguments of several claimed jobs, and return their ids: checkpoints that fell due together.

    Guard: the claims must exist. No ending comes in between, because SQLite has one writer at a time.
    """
    given = _payloads(func.json_each(_payloads_value())).subquery("given")
    mine = select(claimed.c.job_id).where(_claims())
    return _checkpoints(given, jobs.c.id.in_(mine))


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


def _claims() -> ColumnElement[bool]:
    return ids_in(claimed.c.id, "claim_ids") & (claimed.c.process_id == bindparam("process_id", type_=BigInteger()))


def _free_claims() -> Select[tuple[int]]:
    return select(claimed.c.job_id).where(_claims()).order_by(claimed.c.id).with_for_update(skip_locked=True)


def _payloads_value() -> ColumnElement[str]:
    return bindparam("payloads", type_=String())


def _payloads(rows: FunctionElement[Any]) -> Select[Any]:
    """Select the jobs' ids and their arguments from a JSON object."""
    pairs = rows.table_valued("key", "value")
    return select(cast(pairs.c.key, BigInteger).label("job_id"), pairs.c.value.label("arguments"))


def _checkpoints(given: Subquery, condition: ColumnElement[bool]) -> ReturningUpdate[Any]:
    values = {jobs.c.arguments: given.c.arguments, jobs.c.updated_at: utcnow()}
    return update(jobs).where(condition, jobs.c.id == given.c.job_id).values(values).returning(jobs.c.id)
