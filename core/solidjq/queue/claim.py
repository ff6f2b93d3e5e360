"""A job's way to a worker: enqueue, dispatch, claim; and discard, pause, resume. Exactly Solid Queue's table moves.

Each function is one move inside the caller's transaction (see database.py), and returns what it really moved.
How a claim ends is in endings.py.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Delete,
    Executable,
    Exists,
    FromClause,
    Insert,
    Row,
    Select,
    String,
    Text,
    any_,
    bindparam,
    cast,
    delete,
    exists,
    insert,
    select,
    true,
)
from sqlalchemy.sql.dml import ReturningInsert

from solidjq.database.hot import array_of, execute_hot, ids_in, number_in_text
from solidjq.database.statements import distinct_values, leaping, returns_changed, writes_in_with
from solidjq.database.tables import claimed, jobs, pauses, processes, ready
from solidjq.database.times import utcnow
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, ProcessGoneError, UsageError
from solidjq.queue.endings import finish_in_with

ALL_QUEUES = ("*",)


class Claim(NamedTuple):
    """A job in a worker's hands. ``id`` names this claim; a later claim of the same job has another."""

    id: int
    job_id: int
    active_job_id: str | None
    queue_name: str
    priority: int
    class_name: str
    arguments: str | None
    concurrency_key: str | None


def claim(connection: Connection, process_id: int, queues: Sequence[str], limit: int) -> list[Claim]:
    """Claim up to ``limit`` ready jobs for a process, by queue order, then priority, then age.

    ``queues`` are names and prefixes (``mail*``), polled in the order given; ``*`` is every queue. Paused queues are
    left out. Raises ProcessGoneError if the process was pruned: it must not claim any more.
    """
    if writes_in_with(connection):
        claims = _claim_in_one(partial(execute_hot, connection), process_id, queues, limit)
        if claims is not None:
            return claims
    # Shared lock: a prune of this process waits for this claim and sees it, or was first and this stops here.
    found = execute_hot(connection, _alive_and_paused, process_id=process_id)
    if not found:
        raise ProcessGoneError(f"process {process_id} was pruned")
    names = _to_poll(connection, queues, paused=bool(found[0].paused))
    taken: list[int] = []
    for name in names:
        taken += _take_ready(connection, process_id, limit - len(taken), name)
        if len(taken) >= limit:
            break
    if not taken:
        return []
    claims = [Claim._make(row) for row in execute_hot(connection, _claims_of_jobs, job_ids=taken)]
    turn = {name: number for number, name in enumerate(names)}
    return sorted(claims, key=lambda each: (turn.get(each.queue_name, 0), each.priority, each.job_id))


def _take_ready(connection: Connection, process_id: int, most: int, name: str | None) -> list[int]:
    """Turn the first ready rows, of all queues or of one, into claims; return their jobs' ids."""
    of_queue: dict[str, Any] = {} if name is None else {"queue_name": name}
    told = returns_changed(connection)
    if told:
        build: Callable[[], Executable] = _claiming_first_of_queue if of_queue else _claiming_first
        rows = execute_hot(connection, build, process_id=process_id, most=most, **of_queue)
    else:
        build = _candidates_of_queue if of_queue else _candidates
        rows = execute_hot(connection, build, most=most, **of_queue)
    job_ids = [row.job_id for row in rows]
    if job_ids and not told:
        execute_hot(connection, _claiming, process_id=process_id, job_ids=job_ids)
    if job_ids:
        execute_hot(connection, _leaving, job_ids=job_ids)
    return job_ids


def exchange(
    database: Database, process_id: int, claim_ids: Collection[int], queues: Sequence[str], limit: int
) -> list[Claim] | None:
    """Finish claims of jobs that hold no slot, and claim up to ``limit`` others, in one round trip.

    Queues that are named take one round trip each, and prefixes one more. None where the database has no such
    statement, or no queue that a prefix fits has a job: what of it is undone then is to be done as ever.
    Raises ProcessGoneError likewise.
    """
    if not database.writes_in_with:
        return None
    return _claim_in_one(database.execute, process_id, queues, limit, claim_ids=list(claim_ids))


def _claim_in_one(
    execute: Callable[..., Sequence[Row[Any]]], process_id: int, queues: Sequence[str], limit: int, **finish: list[int]
) -> list[Claim] | None:
    """Claim in one statement, or one for each queue; the first one also finishes what is given."""
    if "*" in queues:
        build: Callable[[], Executable] = _finish_and_claim if finish else _claim_from_all
        of_all = _read(process_id, execute(build, process_id=process_id, most=limit, **finish))
        if of_all is not None:
            return of_all
        queues, finish = ALL_QUEUES, {}  # one is paused: what that leaves out must not hide the rest
    if any(name.endswith("*") for name in queues):
        queues = select_queues(queues, [row.value for row in execute(_queues_with_jobs)])
        if not queues:
            return None
    claims: list[Claim] = []
    for name in dict.fromkeys(queues):
        build = _finish_and_claim_from_queue if finish else _claim_from_queue
        given_ = {"process_id": process_id, "queue_name": name, "most": limit - len(claims), **finish}
        try:
            claims += _read(process_id, execute(build, **given_)) or []
        except DatabaseError:
            if not claims:
                raise
            break  # each statement may be a transaction: what is claimed already must not be forgotten
        finish = {}
        if len(claims) >= limit:
            break
    return claims


def _alive() -> Select[Any]:
    process_id = bindparam("process_id", type_=BigInteger())
    return select(processes.c.id).where(processes.c.id == process_id).with_for_update(read=True, key_share=True)


def _alive_and_paused() -> Select[Any]:
    return _alive().add_columns(exists().select_from(pauses).label("paused"))


def _candidates() -> Select[Any]:
    return (
        select(ready.c.job_id)
        .order_by(ready.c.priority, ready.c.job_id)
        .limit(number_in_text("most"))
        .with_for_update(skip_locked=True)
    )


def _candidates_of_queue() -> Select[Any]:
    return _candidates().where(ready.c.queue_name == bindparam("queue_name", type_=String()))


def _queues_with_jobs() -> Select[Any]:
    return leaping(ready.c.queue_name)


def _claiming() -> Insert:
    return _claimed(select(ready.c.job_id).where(ids_in(ready.c.job_id, "job_ids")).order_by(ready.c.job_id))


def _claiming_first() -> ReturningInsert[Any]:
    return _claimed(_candidates()).returning(claimed.c.job_id)


def _claiming_first_of_queue() -> ReturningInsert[Any]:
    return _claimed(_candidates_of_queue()).returning(claimed.c.job_id)


def _claimed(job_ids: Select[Any]) -> Insert:
    rows = job_ids.add_columns(bindparam("process_id", type_=BigInteger()), utcnow())
    return insert(claimed).from_select(["job_id", "process_id", "created_at"], rows)


def _leaving() -> Delete:
    return delete(ready).where(ids_in(ready.c.job_id, "job_ids"))


def _claims_of_jobs() -> Select[Any]:
    return _claims_of(claimed).where(ids_in(claimed.c.job_id, "job_ids"))


def _claims_of(taken: FromClause) -> Select[Any]:
    """Select what a Claim holds."""
    return select(
        taken.c.id,
        jobs.c.id.label("job_id"),
        jobs.c.active_job_id,
        jobs.c.queue_name,
        jobs.c.priority,
        jobs.c.class_name,
        cast(jobs.c.arguments, Text()).label("arguments"),
        jobs.c.concurrency_key,
    ).join(jobs, jobs.c.id == taken.c.job_id)


def _claim_from_all() -> Select[Any]:
    """Claim from every queue in one statement, where none is paused.

    It returns at least one row if the process lives: whether a queue is paused, and a claim or nothing.
    """
    return _claim_from(_candidates(), exists().select_from(pauses))


def _claim_from_queue() -> Select[Any]:
    """Do the same from one queue, where that one is not paused."""
    return _claim_from(
        _candidates_of_queue(), exists().where(pauses.c.queue_name == bindparam("queue_name", type_=String()))
    )


def _claim_from(candidates: Select[Any], paused: Exists) -> Select[Any]:
    alive = _alive().cte("alive")
    picked = candidates.where(exists().select_from(alive), ~paused).cte("picked")
    gone = delete(ready).where(ready.c.job_id == any_(array_of(picked.c.job_id))).returning(ready.c.job_id).cte("gone")
    taken = _claimed(select(gone.c.job_id)).returning(claimed.c.id, claimed.c.job_id).cte("taken")
    claims = _claims_of(taken).subquery("claims")
    return select(paused.label("paused"), claims).select_from(alive.outerjoin(claims, true()))


def _finish_and_claim() -> Select[Any]:
    return _claim_from_all().add_cte(*finish_in_with())


def _finish_and_claim_from_queue() -> Select[Any]:
    return _claim_from_queue().add_cte(*finish_in_with())


def _read(process_id: int, rows: Sequence[Row[Any]]) -> list[Claim] | None:
    """Read what such a statement returned; None where a queue is paused."""
    if not rows:
        raise ProcessGoneError(f"process {process_id} was pruned")
    if rows[0].paused:
        return None
    claims = [Claim._make(row[1:]) for row in rows if row.id is not None]
    return sorted(claims, key=lambda each: (each.priority, each.job_id))


def _to_poll(connection: Connection, queues: Sequence[str], *, paused: bool) -> Sequence[str | None]:
    """Return the queues to poll, in order; or nothing but None, which is all at once, where none is paused."""
    without = set(connection.scalars(select(pauses.c.queue_name))) if paused else set()
    if "*" in queues:
        if not without:
            return [None]
        queues = ALL_QUEUES
    wild = any(name.endswith("*") for name in queues)
    names = select_queues(queues, distinct_values(connection, ready.c.queue_name) if wild else [])
    return [name for name in names if name not in without]


def select_queues(patterns: Sequence[str], existing: Sequence[str]) -> list[str]:
    """Put queue names in the order of the patterns; a name that two patterns fit stands where the first is."""
    names: dict[str, None] = {}
    for pattern in patterns:
        if pattern.endswith("*"):
            names.update((name, None) for name in existing if name.startswith(pattern[:-1]))
        else:
            names[pattern] = None
    return list(names)


def parse_queues(text: str) -> tuple[str, ...]:
    """Read ``mailers,report*`` as an operator writes it.

    Raises UsageError for a star that is not at the end.
    """
    patterns = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for pattern in patterns:
        if "*" in pattern[:-1]:
            raise UsageError(f"a star can only end a queue's name, as in 'mail*'; got {pattern!r}")
    return patterns or ALL_QUEUES
