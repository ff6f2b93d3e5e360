"""Endings of a claim: finish, fail, release. Every ending, in every program, passes one door.

The door deletes the claim's row first, or locks it, and does nothing if the row is gone. Whatever happened in between
(a prune, another program, this same ending committed just before a crash), a job ends once.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Row,
    Select,
    Update,
    any_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from solidjq.batching import LOCKED, in_batches
from solidjq.database.among import among, read_among
from solidjq.database.deletions import BY_ID, delete_by_id
from solidjq.database.faults import Fault, fault_of, words_of
from solidjq.database.grouping import ALL_ROWS, lock_rows, read_ids, read_numbers
from solidjq.database.hot import array_of, hot, ids_in
from solidjq.database.inserts import lacks
from solidjq.database.statements import WriteStyle, write_style, writes_in_with
from solidjq.database.tables import claimed, failed, jobs
from solidjq.database.times import utcnow
from solidjq.queue.concurrency import NO_LIMITS, Limits, give_back, locked_keys
from solidjq.queue.executions import make_ready
from solidjq.queue.refused import all_but_refused

log = logging.getLogger("solidjq")

MOST_REFUSED = 500  # claims that the database refuses to end in one transaction, while it ends none


def claims_of(process_id: int, claim_ids: Collection[int] | None = None) -> ColumnElement[bool]:
    """Return the condition that a claim is this process's and, with ``claim_ids``, one of these.

    With the jobs of the claims, a mapping, it must also be a claim of one of these jobs: see ``finish_claims``.
    """
    condition = claimed.c.process_id == process_id
    if isinstance(claim_ids, Mapping):
        condition &= among(claimed.c.job_id, claim_ids.values())
    return condition if claim_ids is None else condition & among(claimed.c.id, claim_ids)


def finish(connection: Connection, claims: ColumnElement[bool], limits: Limits = NO_LIMITS) -> list[int]:
    """Mark the jobs of these claims as finished. Returns the ids of the jobs that this call finished."""
    found = connection.execute(select(claimed.c.id, claimed.c.job_id, claimed.c.process_id).where(claims)).all()
    held: dict[int, dict[int, int]] = defaultdict(dict)
    for row in found:
        held[row.process_id][row.id] = row.job_id
    return [
        job_id
        for process_id, jobs_of in held.items()
        for job_id in finish_claims(connection, process_id, jobs_of, limits)
    ]


def finish_claims(
    connection: Connection, process_id: int, held: Mapping[int, int], limits: Limits = NO_LIMITS
) -> list[int]:
    """Mark jobs as finished, by the ids of their process's claims. Returns the ids of the jobs that this call finished.

    ``held`` has the job of each claim. A claim that has ended is passed over. So is one of another job or process: a
    server that lost its last commits, in a failover, gives ids of lost claims to others.
    """
    if writes_in_with(connection):
        finished = finish_claims_at_once(connection, process_id=process_id, **by_claim(held))
        return _give_back(connection, finished, limits)
    finish_batch = _FINISH_BATCH[write_style(connection)]
    return [
        job_id
        for batch in in_batches(held.items())
        for job_id in finish_batch(connection, {"process_id": process_id, **by_claim(dict(batch))}, limits)
    ]


def by_claim(held: Mapping[int, int]) -> dict[str, list[int]]:
    """Return the values of ``claim_deletion`` for claims, each with its job."""
    return {"claim_ids": list(held), "job_ids": list(held.values())}


def _finish_returning(connection: Connection, values: Mapping[str, Any], limits: Limits) -> list[int]:
    job_ids = [row.job_id for row in delete_claims_returning(connection, **values)]
    return _give_back(connection, finish_jobs_returning(connection, job_ids=job_ids), limits) if job_ids else []


def _finish_locked(connection: Connection, values: Mapping[str, Any], limits: Limits) -> list[int]:
    locked = lock_claims(connection, **values)
    job_ids = [row.job_id for row in locked]
    if job_ids:
        finish_jobs(connection, job_ids=job_ids)
        delete_claims(connection, claim_ids=[row.id for row in locked])
    if limited := [row.job_id for row in locked if row.concurrency_key is not None]:
        give_back(connection, limited, limits)
    return job_ids


# PostgreSQL finishes all claims by finish_claims_at_once.
_FINISH_BATCH = {WriteStyle.RETURNING: _finish_returning, WriteStyle.SILENT: _finish_locked}


def _give_back(connection: Connection, finished: Collection[Row[Any]], limits: Limits) -> list[int]:
    """Give back the slots of these jobs, if they held any; return the jobs' ids."""
    if limited := [row.id for row in finished if row.concurrency_key is not None]:
        give_back(connection, limited, limits)
    return [row.id for row in finished]


def fail(
    connection: Connection, claims: ColumnElement[bool], errors: Mapping[int, str] | str, limits: Limits = NO_LIMITS
) -> list[int]:
    """Mark the jobs of these claims as failed, with one error for all or one a claim id.

    Errors are Solid Queue's JSON text (see rails/error_text.py). Returns the ids of the jobs that this call failed.
    """
    return fail_locked(connection, _lock(connection, claims), errors, limits)


def fail_locked(
    connection: Connection,
    locked: Mapping[int, int | None],
    errors: Mapping[int, str] | str,
    limits: Limits = NO_LIMITS,
) -> list[int]:
    """Fail claims that this transaction has locked, each with the id of its job; see ``fail``."""
    by_error: dict[str, list[int]] = defaultdict(list)
    for claim_id, job_id in locked.items():
        if job_id is not None:
            by_error[errors if isinstance(errors, str) else errors[claim_id]].append(job_id)
    for error, job_ids in by_error.items():
        for batch in in_batches(job_ids, LOCKED):
            _insert_failed(connection, batch, error)
    _end(connection, locked, limits)
    return _jobs_of(locked)


def fail_but_refused(
    connection: Connection,
    claims: ColumnElement[bool],
    errors: Mapping[int, str] | str,
    limits: Limits = NO_LIMITS,
) -> tuple[list[int], dict[int, DBAPIError]]:
    """Fail claims as ``fail`` does, but those that the database refuses, by a trigger say, stay as they are.

    Returns the ids of the jobs that this call failed, and the error of each claim that was refused. If more than
    ``MOST_REFUSED`` are refused and none has failed, the database refuses them all: the error is raised. The refused
    are found by halves, each in a savepoint.
    """
    ids = connection.scalars(select(claimed.c.id).where(claims).order_by(claimed.c.id)).all()
    return all_but_refused(
        connection,
        ids,
        lambda part: fail(connection, claims & among(claimed.c.id, part), errors, limits),
        most=MOST_REFUSED,
    )


def _insert_failed(connection: Connection, job_ids: Collection[int], error: str) -> None:
    """Insert failed rows, but none for a job that has finished or failed, even if a claim of it was left behind."""
    connection.execute(
        insert(failed).from_select(
            ["job_id", "error", "created_at"],
            select(jobs.c.id, literal(error), utcnow())
            .where(read_among(jobs.c.id, job_ids), _unfinished(), lacks(failed.c.job_id, jobs.c.id))
            .order_by(jobs.c.id),
        )
    )


def locked_elsewhere(connection: Connection, claim_ids: Collection[int]) -> set[int]:
    """Lock what the endings of these claims change, but wait for nobody; return the claims of which that was not free.

    Those are claims that are still there, and whose own row, or the row of its job or of the semaphore of its key,
    another transaction has locked. The caller may end the others in this transaction.
    """
    free: set[int] = set()
    for batch in in_batches(sorted(claim_ids)):
        lock = _claim_lock(among(claimed.c.id, batch), skip_locked=True).with_hint(claimed, BY_ID, "mysql")
        job_of = {row.id: row.job_id for row in connection.execute(lock)}
        of_jobs = select(jobs.c.id, jobs.c.concurrency_key).where(among(jobs.c.id, job_of.values())).order_by(jobs.c.id)
        key_of = dict(connection.execute(of_jobs.with_for_update(skip_locked=True, key_share=True)).all())
        busy_keys = locked_keys(connection, {key for key in key_of.values() if key is not None})
        not_locked = among(jobs.c.id, set(job_of.values()) - key_of.keys())  # or not there at all
        of_others = set(connection.scalars(select(jobs.c.id).where(not_locked)))
        busy = of_others | {job_id for job_id, key in key_of.items() if key in busy_keys}
        free |= {claim_id for claim_id, job_id in job_of.items() if job_id not in busy}
    there = connection.scalars(select(claimed.c.id).where(among(claimed.c.id, claim_ids)))
    return set(there) - free


def end_plainly(
    connection: Connection, process_id: int, claim_id: int, error: str | None, limits: Limits = NO_LIMITS
) -> None:
    """End one claim whose ending was refused because of a value: finish its job, or fail it with ``error``.

    If the value is one of the concurrency limit's, the job's slot is left to expire.
    """
    locked = _lock(connection, claims_of(process_id, [claim_id]))
    job_ids = _jobs_of(locked)
    if error is None:
        connection.execute(_job_finish(among(jobs.c.id, job_ids)))
    else:
        _insert_failed(connection, job_ids, error)
    _delete(connection, locked)
    try:
        with connection.begin_nested():
            give_back(connection, job_ids, limits)
    except DBAPIError as refusal:
        if fault_of(refusal) is not Fault.VALUE:
            raise


def release(connection: Connection, claims: ColumnElement[bool]) -> list[int]:
    """Make the jobs of these claims ready again; a job keeps its concurrency slot, as in Solid Queue.

    Returns the ids of the jobs that this call released.
    """
    locked = _lock(connection, claims)
    for batch in in_batches(_jobs_of(locked)):
        make_ready(connection, batch)
    _delete(connection, locked)
    return _jobs_of(locked)


def release_but_refused(connection: Connection, process_id: int, claim_ids: Iterable[int]) -> list[int]:
    """Release these claims of a process as ``release`` does, but those that the database refuses stay, and are logged.

    Raises the error if it refuses all of them.
    """
    return end_but_refused(
        connection, process_id, sorted(claim_ids), lambda part: release(connection, claims_of(process_id, part))
    )


def end_but_refused(
    connection: Connection, process_id: int, claim_ids: Sequence[int], end: Callable[[Sequence[int]], list[int]]
) -> list[int]:
    """End these claims of a process by ``end``, and return what it returned; those that the database refuses stay.

    Each of them is logged. Raises the error if it refuses all of them.
    """
    ended, refused = all_but_refused(connection, claim_ids, end, most=MOST_REFUSED)
    if refused and len(refused) == len(claim_ids):
        raise next(iter(refused.values()))
    for claim_id, refusal in refused.items():
        log.error("claim %d of process %d stays: the database refused: %s", claim_id, process_id, words_of(refusal))
    return ended


def release_others(connection: Connection, process_id: int, claim_ids: Collection[int]) -> list[int]:
    """Release all claims of a process but ``claim_ids``; return the ids of the released jobs.

    A claim that the database refuses to release stays; if it refuses all of them, the error is raised.
    """
    claims = connection.scalars(select(claimed.c.id).where(claims_of(process_id)))
    return release_but_refused(connection, process_id, others) if (others := set(claims) - set(claim_ids)) else []


def lock_held(connection: Connection, process_ids: Collection[int], *, lock: bool = True) -> list[tuple[int, ...]]:
    """Lock the claims of these processes, in id order; return their ids, ``job_id`` and ``process_id``.

    Without ``lock`` they are only read.
    """
    held = among(claimed.c.process_id, process_ids)
    query = select(claimed.c.id, claimed.c.job_id, claimed.c.process_id).order_by(claimed.c.id).limit(ALL_ROWS)
    if not lock:
        return read_numbers(connection, query.where(held))
    return [row for rows in _locks(connection, query, held) for row in lock_rows(connection, rows)]


def _lock(connection: Connection, claims: ColumnElement[bool]) -> dict[int, int | None]:
    """Open the door: lock the claims that are still there, in id order; return their jobs' ids by claim id.

    The id is None if a program wrote into the claim what is no id: SQLite takes it.
    """
    locked: dict[int, int | None] = {}
    for lock in _locks(connection, _claims().with_for_update(), claims):
        locked.update((row.id, row.job_id) for row in connection.execute(lock))
    return locked


def _locks(connection: Connection, query: Select[Any], claims: ColumnElement[bool]) -> Iterator[Select[Any]]:
    """Yield the statements that lock claims: one, but on MySQL one for every ``LOCKED`` ids.

    There they find the claims by their ids: a scan would wait for claims of others that are locked.
    """
    if write_style(connection) is not WriteStyle.SILENT:
        yield query.where(claims)
        return
    page = select(claimed.c.id).where(claims).order_by(claimed.c.id).limit(LOCKED)
    ids = read_ids(connection, page)
    while ids:
        yield query.where(claims, among(claimed.c.id, ids)).with_hint(claimed, BY_ID, "mysql")
        ids = read_ids(connection, page.where(claimed.c.id > ids[-1])) if len(ids) == LOCKED else ()


def _jobs_of(locked: Mapping[int, int | None]) -> list[int]:
    return [job_id for job_id in locked.values() if job_id is not None]


def _end(connection: Connection, locked: Mapping[int, int | None], limits: Limits) -> None:
    _delete(connection, locked)
    for batch in in_batches(_jobs_of(locked), LOCKED):
        give_back(connection, batch, limits)


def _delete(connection: Connection, locked: Iterable[int]) -> None:
    for batch in in_batches(locked, LOCKED):
        connection.execute(delete_by_id(claimed, batch))


# -- statements -------------------------------------------------------------------------------------------------------


@hot(WriteStyle.CHAINED)
def finish_claims_at_once() -> Select[Any]:
    """Delete claims and mark their jobs as finished.

    Guard: only the jobs of claims that this statement itself deleted are marked; a claim that has ended, or is of
    another job or process, is passed over.
    """
    gone, finished = finish_ctes()
    return select(finished).add_cte(gone)


@hot(WriteStyle.RETURNING)
def delete_claims_returning() -> ReturningDelete[Any]:
    """Delete claims, and return the ids of their jobs.

    Guard: a claim that has ended has no row, so its job is not returned; nor is that of another job or process.
    """
    return _claim_deletion().returning(claimed.c.job_id)


@hot(WriteStyle.RETURNING)
def finish_jobs_returning() -> ReturningUpdate[Any]:
    """Mark jobs as finished, and return their ids and concurrency keys.

    Guard: the jobs are those of claims that this transaction deleted.
    """
    return _job_finish(ids_in(jobs.c.id, "job_ids")).returning(jobs.c.id, jobs.c.concurrency_key)


@hot(WriteStyle.SILENT)
def lock_claims() -> Select[Any]:
    """Lock claims in the order of their ids, and return the ids of their jobs and the keys of their limits.

    Guard: a claim that has ended has no row, so its job is not returned, nor is one of another job or process; another
    ending of a claim waits for the lock. The jobs' rows are not locked by this.
    """
    return held_claims().add_columns(
        select(jobs.c.concurrency_key).where(jobs.c.id == claimed.c.job_id).scalar_subquery().label("concurrency_key")
    )


@hot(WriteStyle.SILENT)
def finish_jobs() -> Update:
    """Mark jobs as finished.

    Guard: the jobs are those of claims that this transaction has locked.
    """
    return _job_finish(ids_in(jobs.c.id, "job_ids"))


@hot(WriteStyle.SILENT)
def delete_claims() -> Delete:
    """Delete the claims of jobs that were just marked as finished.

    Guard: this transaction has locked the claims.
    """
    return delete_by_id(claimed, "claim_ids")


def finish_ctes() -> tuple[CTE, CTE]:
    """Return two CTEs: one deletes the claims ``claim_ids``, the other marks the jobs of the deleted as finished."""
    gone = _claim_deletion().returning(claimed.c.job_id).cte("ended")
    finish = _job_finish(jobs.c.id == any_(array_of(gone.c.job_id)))
    return gone, finish.returning(jobs.c.id, jobs.c.concurrency_key).cte("finished")


def held_claims() -> Select[Any]:
    """Return the query that locks claims by ``claim_ids``, ``job_ids`` and ``process_id``."""
    return _claim_lock(_held()).with_hint(claimed, BY_ID, "mysql")


def _claim_lock(claims: ColumnElement[bool], *, skip_locked: bool = False) -> Select[Any]:
    return _claims().where(claims).with_for_update(skip_locked=skip_locked)


def _claims() -> Select[tuple[int, int]]:
    return select(claimed.c.id, claimed.c.job_id).order_by(claimed.c.id)


def _claim_deletion() -> Delete:
    return delete(claimed).where(_held())


def _held() -> ColumnElement[bool]:
    """Return the condition of claims by ``claim_ids``, each of one of ``job_ids`` and of the process ``process_id``.

    In a form in which only the index on the ids can serve it.
    """
    process_id = bindparam("process_id", type_=BigInteger())
    own = (claimed.c.process_id == process_id) & ids_in(claimed.c.job_id, "job_ids")
    return ids_in(claimed.c.id, "claim_ids") & (case((own, 1), else_=0) == 1)


def _job_finish(condition: ColumnElement[bool]) -> Update:
    first = func.coalesce(jobs.c.finished_at, utcnow())
    return update(jobs).where(condition).values(finished_at=first, updated_at=utcnow())


def _unfinished() -> ColumnElement[bool]:
    """Return the condition that a job has not finished, in a form that no index serves.

    A planner whose statistics say that few jobs are unfinished would use the index on finished_at, and read every
    unfinished job at each end of a job.
    """
    return case((jobs.c.finished_at.is_(None), 1), else_=0) == 1
