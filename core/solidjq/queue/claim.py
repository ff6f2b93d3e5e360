"""Claim: a worker gets ready jobs, by queue order, then priority, then age. How a claim ends is in endings.py.

The statements are in claim_statements.py, with a table of which database executes which.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from solidjq.database.hot import Execute, within
from solidjq.database.statements import WriteStyle, among, distinct_values, write_style, writes_in_with
from solidjq.database.tables import pauses, ready
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, ProcessGoneError
from solidjq.queue import claim_statements as statements
from solidjq.queue.claim_statements import Locked
from solidjq.queue.endings import by_claim, finish_jobs
from solidjq.queue.patterns import ALL_QUEUES, PolledQueues, select_queues


class Claim(NamedTuple):
    """A job that a worker has claimed. ``id`` names this claim; a later claim of the same job has another id."""

    id: int
    job_id: int
    active_job_id: str | None
    queue_name: str
    priority: int
    class_name: str
    arguments: str | None
    concurrency_key: str | None


def claim(
    connection: Connection,
    process_id: int,
    queues: Sequence[str],
    limit: int,
    excepted: Sequence[str] = (),
    *,
    sound: bool = False,
    paused: bool | None = None,
) -> list[Claim]:
    """Claim up to ``limit`` ready jobs for a process, by queue order, then priority, then age.

    ``queues`` are names and prefixes (``mail*``), polled in this order; ``*`` is every queue. Queues that fit an
    ``excepted`` name or prefix and paused queues are skipped. With an exception, the queues that fit one pattern
    are polled in the order of their first jobs. Raises ProcessGoneError if the process was pruned: it must not claim
    any more.

    Raises ValueRefusedError if the database refuses the claim of any of them: its job is gone, or claimed already. With
    ``sound``, which is slower, such ready rows are passed over. ``paused`` is what ``lock_process`` returned, if this
    transaction has called it.
    """
    polled = PolledQueues(queues, excepted)
    if not sound and writes_in_with(connection):
        claims = _claim_at_once(within(connection), process_id, polled, limit)
        if claims is not None:
            return claims
    if paused is None:
        paused = lock_process(connection, process_id)
    return _claim_in_steps(connection, process_id, polled, limit, sound=sound, paused=paused)


def lock_process(connection: Connection, process_id: int) -> bool:
    """Lock a process's row until the transaction ends, so that no prune comes in between; return if a queue is paused.

    A transaction that ends claims of the process and then claims others calls this first: a prune locks the process
    and then its claims, and in two orders both may deadlock. Raises ProcessGoneError if the process was pruned.
    """
    process = statements.lock_process_and_see_pauses(connection, process_id=process_id)
    if not process:
        raise ProcessGoneError(f"process {process_id} was pruned")
    return bool(process[0].paused)


def exchange(
    database: Database,
    process_id: int,
    held: Mapping[int, int],
    queues: Sequence[str],
    limit: int,
    excepted: Sequence[str] = (),
) -> list[Claim] | None:
    """Finish claims of jobs that hold no slot, and claim up to ``limit`` other jobs, in few round trips.

    ``held`` has the job of each claim, as for ``finish_claims``.
    On PostgreSQL one; queues by name take one a queue, prefixes and exceptions one more. On MySQL one transaction that
    locks everything at once, for all queues or one by its name. Returns None if the database has no such statement, or
    no queue that fits has a ready job: then call ``finish_claims``, which passes over those that this finished already,
    and ``claim``. Raises ProcessGoneError if the process was pruned.
    """
    polled = PolledQueues(queues, excepted)
    if database.write_style is WriteStyle.SILENT and _is_one(polled):
        return database.transact(_exchange_locked, process_id, held, polled, limit)
    if database.write_style is not WriteStyle.CHAINED:
        return None
    return _claim_at_once(database.execute, process_id, polled, limit, **by_claim(held))


def _claim_at_once(
    execute: Execute, process_id: int, polled: PolledQueues, limit: int, **finish: list[int]
) -> list[Claim] | None:
    """Claim in one statement, or in one a queue; the first also finishes the claims in ``finish``."""
    queues, excepted = polled
    if "*" in queues and excepted:
        queues = ALL_QUEUES
    elif "*" in queues:
        statement = (statements.FINISH_AND_CLAIM if finish else statements.CLAIM).from_all
        claims = _claims_in(execute(statement, process_id=process_id, most=limit, **finish), process_id)
        if claims is not None:
            return claims
        queues, finish = ALL_QUEUES, {}  # one is paused: its jobs must not hide the others
    wild = any(name.endswith("*") for name in queues)
    if wild or excepted:
        existing_queues = statements.queues_by_first_job if excepted else statements.queues_with_ready_jobs
        existing = execute(existing_queues) if wild else []
        queues = select_queues(queues, [row.value for row in existing], excepted)
        if not queues:
            return None
    claims = []
    for name in dict.fromkeys(queues):
        statement = (statements.FINISH_AND_CLAIM if finish else statements.CLAIM).from_queue
        most = limit - len(claims)
        try:
            rows = execute(statement, process_id=process_id, queue_name=name, most=most, **finish)
        except DatabaseError:
            if not claims:
                raise
            break  # each statement may be a transaction: jobs that are claimed already must be performed
        claims += _claims_in(rows, process_id) or []
        finish = {}
        if len(claims) >= limit:
            break
    return claims


def _is_one(polled: PolledQueues) -> bool:
    """Whether one statement can poll these queues: all, or one by its name."""
    queues, excepted = polled
    return not excepted and ("*" in queues or (len(queues) == 1 and not queues[0].endswith("*")))


def _exchange_locked(
    connection: Connection, process_id: int, held: Mapping[int, int], polled: PolledQueues, limit: int
) -> list[Claim]:
    values = {"process_id": process_id, "most": limit, **by_claim(held)}
    if "*" in polled.patterns:
        rows = statements.LOCK_TURN.from_all(connection, **values)
    else:
        rows = statements.LOCK_TURN.from_queue(connection, queue_name=polled.patterns[0], **values)
    locked: dict[str, dict[int, int]] = {what: {} for what in Locked}
    for row in rows:
        locked[row.what][row.id] = row.job_id
    if process_id not in locked[Locked.PROCESS]:
        raise ProcessGoneError(f"process {process_id} was pruned")
    paused = bool(locked[Locked.PROCESS][process_id])
    ended, first = locked[Locked.CLAIM], {} if paused else locked[Locked.READY]
    if ended:
        finish_jobs(connection, job_ids=list(ended.values()))
    if first:
        statements.insert_claims(connection, process_id=process_id, job_ids=list(first.values()))
    if ended or first:
        statements.delete_claims_and_ready(connection, claim_ids=list(ended), ready_ids=list(first))
    if paused:
        return _claim_in_steps(connection, process_id, polled, limit, sound=False, paused=True)
    return _read_claims(connection, list(first.values())) if first else []


def _read_claims(connection: Connection, job_ids: list[int]) -> list[Claim]:
    claims = [Claim._make(row) for row in statements.read_claims(connection, job_ids=job_ids)]
    return sorted(claims, key=lambda claim: (claim.priority, claim.job_id))


def _claims_in(rows: Sequence[Row[Any]], process_id: int) -> list[Claim] | None:
    """Return the claims in the rows of a statement that claims at once; None if it found a queue paused."""
    if not rows:
        raise ProcessGoneError(f"process {process_id} was pruned")
    if rows[0].paused:
        return None
    claims = [Claim._make(row[1:]) for row in rows if row.id is not None]
    return sorted(claims, key=lambda claim: (claim.priority, claim.job_id))


def _claim_in_steps(
    connection: Connection, process_id: int, polled: PolledQueues, limit: int, *, sound: bool, paused: bool
) -> list[Claim]:
    names = _queues_to_poll(connection, polled, paused=paused)
    job_ids: list[int] = []
    claim_first = _claim_sound if sound else _claim_first
    for name in names:
        job_ids += claim_first(connection, process_id, limit - len(job_ids), name)
        if len(job_ids) >= limit:
            break
    if not job_ids:
        return []
    claims = _read_claims(connection, job_ids)
    turn = {name: number for number, name in enumerate(names)}
    return sorted(claims, key=lambda claim: turn.get(claim.queue_name, 0))


def _queues_to_poll(connection: Connection, polled: PolledQueues, *, paused: bool) -> Sequence[str | None]:
    """Return the queues to poll, in order; a None is all queues in one statement, if none is paused or excepted."""
    without = set(connection.scalars(select(pauses.c.queue_name))) if paused else set()
    queues, excepted = polled
    if "*" in queues:
        if not without and not excepted:
            return [None]
        queues = ALL_QUEUES
    existing: Sequence[str] = []
    if any(name.endswith("*") for name in queues):
        existing = _queues_in_turn(connection) if excepted else distinct_values(connection, ready.c.queue_name)
    return [name for name in select_queues(queues, existing, excepted) if name not in without]


def _queues_in_turn(connection: Connection) -> Sequence[str]:
    statement = statements.QUEUES_BY_FIRST_JOB.get(write_style(connection), statements.queues_by_first_job)
    return [row.value for row in statement(connection)]


def _claim_first(connection: Connection, process_id: int, most: int, queue_name: str | None) -> list[int]:
    """Claim the first ready jobs of one queue, or of all queues for None; return the jobs' ids."""
    style = write_style(connection)
    take, insert_claims_of = statements.TAKE_FIRST[style], statements.INSERT_CLAIMS.get(style)
    values = {"most": most} if insert_claims_of else {"most": most, "process_id": process_id}
    if queue_name is None:
        rows = take.from_all(connection, **values)
    else:
        rows = take.from_queue(connection, queue_name=queue_name, **values)
    job_ids = [row.job_id for row in rows]
    if job_ids and insert_claims_of:
        insert_claims_of(connection, process_id=process_id, job_ids=job_ids)
    _delete_ready(connection, rows)
    return job_ids


def _delete_ready(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    """Delete the ready rows of jobs that were just claimed: each has its job's id, and its own if it is locked."""
    if not rows:
        return
    if write_style(connection) is WriteStyle.SILENT:
        statements.delete_ready_rows(connection, ready_ids=[row.id for row in rows])
    else:
        statements.delete_ready(connection, job_ids=[row.job_id for row in rows])


def _claim_sound(connection: Connection, process_id: int, most: int, queue_name: str | None) -> list[int]:
    """Claim as ``_claim_first`` does, but only jobs that exist and are not claimed."""
    rows = connection.execute(statements.sound_ready(queue_name, most)).all()
    job_ids = [row.job_id for row in rows]
    if job_ids:
        insertion = statements.claim_insertion(select(ready.c.job_id).where(among(ready.c.job_id, job_ids)))
        connection.execute(insertion, {"process_id": process_id})
        _delete_ready(connection, rows)
    return job_ids
