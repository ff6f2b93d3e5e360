"""The end of a claim: finish, fail, release. Every ending passes one door, whoever asks for it.

The door takes the claim's row first, or locks it, and does nothing where it is gone. Whatever happened in between (a
prune, another program, this very ending committed just before a crash), a job ends once.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Delete,
    Row,
    Select,
    Update,
    any_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from solidjq.batching import in_batches
from solidjq.database.hot import array_of, execute_hot, ids_in
from solidjq.database.statements import among, returns_changed, writes_in_with
from solidjq.database.tables import claimed, failed, jobs
from solidjq.database.times import utcnow
from solidjq.queue.concurrency import NO_LIMITS, Limits, give_back
from solidjq.queue.executions import make_ready


def held_by(process_id: int, claim_ids: Collection[int] | None = None) -> ColumnElement[bool]:
    """Select a process's claims, or those of them that have these ids."""
    condition = claimed.c.process_id == process_id
    return condition if claim_ids is None else condition & among(claimed.c.id, claim_ids)


def finish(connection: Connection, claims: ColumnElement[bool], limits: Limits = NO_LIMITS) -> list[int]:
    """Mark the jobs of these claims as finished. Returns the ids of the jobs that this call finished."""
    return finish_claims(connection, connection.scalars(select(claimed.c.id).where(claims)).all(), limits)


def finish_claims(connection: Connection, claim_ids: Collection[int], limits: Limits = NO_LIMITS) -> list[int]:
    """Do the same for claims by their ids; no other claim ever gets such an id again."""
    if writes_in_with(connection):
        return _give_back(connection, execute_hot(connection, _finish_in_one, claim_ids=list(claim_ids)), limits)
    finished: list[int] = []
    for batch in in_batches(claim_ids):
        told = returns_changed(connection)
        ended = [row.job_id for row in execute_hot(connection, _ending if told else _locking, claim_ids=batch)]
        if not ended:
            continue
        if told:
            finished += _give_back(connection, execute_hot(connection, _finishing, job_ids=ended), limits)
        else:
            execute_hot(connection, _finishing_untold, job_ids=ended)
            execute_hot(connection, _deleting, claim_ids=batch)
            give_back(connection, ended, limits)
            finished += ended
    return finished


def _give_back(connection: Connection, finished: Collection[Row[Any]], limits: Limits) -> list[int]:
    """Give back the slots of these jobs, if they held any; return the jobs' ids."""
    if limited := [row.id for row in finished if row.concurrency_key is not None]:
        give_back(connection, limited, limits)
    return [row.id for row in finished]


def _locking() -> Select[Any]:
    return _locked(ids_in(claimed.c.id, "claim_ids"))


def _deleting() -> Delete:
    return delete(claimed).where(ids_in(claimed.c.id, "claim_ids"))


def _ending() -> ReturningDelete[Any]:
    return _deleting().returning(claimed.c.job_id)


def _finishing_untold() -> Update:
    return _finished(ids_in(jobs.c.id, "job_ids"))


def _finishing() -> ReturningUpdate[Any]:
    return _finishing_untold().returning(jobs.c.id, jobs.c.concurrency_key)


def _finished(condition: ColumnElement[bool]) -> Update:
    first = func.coalesce(jobs.c.finished_at, utcnow())
    return update(jobs).where(condition).values(finished_at=first, updated_at=utcnow())


def _unfinished() -> ColumnElement[bool]:
    """Hold for jobs that have not finished, in a form that no index serves.

    From the index on finished_at a planner that remembers few of them would read all there are, at each end of a job.
    """
    return case((jobs.c.finished_at.is_(None), 1), else_=0) == 1


def finish_in_with() -> tuple[CTE, CTE]:
    """Remove the claims and mark their jobs, in parts of a statement; a claim that is not found has ended before."""
    gone = _ending().cte("ended")
    finish = _finished(jobs.c.id == any_(array_of(gone.c.job_id)))
    return gone, finish.returning(jobs.c.id, jobs.c.concurrency_key).cte("finished")


def _finish_in_one() -> Select[Any]:
    gone, finished = finish_in_with()
    return select(finished).add_cte(gone)


def fail(
    connection: Connection, claims: ColumnElement[bool], errors: Mapping[int, str] | str, limits: Limits = NO_LIMITS
) -> list[int]:
    """Mark the jobs of these claims as failed, with one error for all or one for each claim id.

    Errors are Solid Queue's JSON text (see failures.py). Returns the ids of the jobs that this call failed.
    """
    locked = _lock(connection, claims)
    alike: dict[str, list[int]] = defaultdict(list)
    for claim_id, job_id in locked.items():
        alike[errors if isinstance(errors, str) else errors[claim_id]].append(job_id)
    for error, job_ids in alike.items():
        for batch in in_batches(job_ids):
            _insert_failed(connection, batch, error)
    _end(connection, locked, limits)
    return list(locked.values())


def _insert_failed(connection: Connection, job_ids: Collection[int], error: str) -> None:
    """Insert failed rows, but none for a job that ended already, however it came to be claimed still."""
    connection.execute(
        insert(failed).from_select(
            ["job_id", "error", "created_at"],
            select(jobs.c.id, literal(error), utcnow())
            .where(among(jobs.c.id, job_ids), _unfinished(), ~exists().where(failed.c.job_id == jobs.c.id))
            .order_by(jobs.c.id),
        )
    )


def release(connection: Connection, claims: ColumnElement[bool]) -> list[int]:
    """Put the jobs of these claims back into their queues; a concurrency slot stays with its job, as in Solid Queue.

    Returns the ids of the jobs that this call released.
    """
    locked = _lock(connection, claims)
    for batch in in_batches(locked.values()):
        make_ready(connection, batch)
    _delete(connection, locked)
    return list(locked.values())


def release_others(connection: Connection, process_id: int, known: Collection[int]) -> list[int]:
    """Put back the jobs that a process claimed, but for the claims that it knows of; return the jobs' ids."""
    claims = connection.scalars(select(claimed.c.id).where(held_by(process_id)))
    return release(connection, among(claimed.c.id, others)) if (others := set(claims) - set(known)) else []


def _lock(connection: Connection, claims: ColumnElement[bool]) -> dict[int, int]:
    """Open the door: lock the claims that are still there, in id order; return their jobs' ids by claim id."""
    return {row.id: row.job_id for row in connection.execute(_locked(claims))}


def _locked(claims: ColumnElement[bool]) -> Select[Any]:
    return select(claimed.c.id, claimed.c.job_id).where(claims).order_by(claimed.c.id).with_for_update()


def _end(connection: Connection, locked: Mapping[int, int], limits: Limits) -> None:
    _delete(connection, locked)
    for batch in in_batches(locked.values()):
        give_back(connection, batch, limits)


def _delete(connection: Connection, locked: Mapping[int, int]) -> None:
    for batch in in_batches(locked):
        connection.execute(delete(claimed).where(among(claimed.c.id, batch)))
