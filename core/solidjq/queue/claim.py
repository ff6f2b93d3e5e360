"""Claim: a worker gets ready jobs, by queue order, then priority, then age. How a claim ends is in endings.py.

The statements are in claim_statements.py, with a table of which database executes which, and turn_statements.py.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, literal, select

from solidjq.database.among import among
from solidjq.database.hot import Execute, within
from solidjq.database.statements import WriteStyle, distinct_values, write_style, writes_in_with
from solidjq.database.tables import pauses, ready
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, ProcessGoneError
from solidjq.queue import claim_statements as statements
from solidjq.queue import ready_rows, turn_statements
from solidjq.queue.endings import by_claim, finish_jobs
from solidjq.queue.patterns import ALL_QUEUES, PolledQueues, select_queues
from solidjq.queue.scan_start import Bound, ScanStart
from solidjq.queue.turn_statements import Locked

MEASUREMENTS = 3  # of a scan, of which the quickest counts: the others may have waited for the CPU


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
    scan_start: ScanStart | None = None,
) -> list[Claim]:
    """Claim up to ``limit`` ready jobs for a process, by queue order, then priority, then age.

    ``queues`` are names and prefixes (``mail*``), polled in this order; ``*`` is every queue. Queues that fit an
    ``excepted`` name or prefix and paused queues are skipped. With an exception, or if one of all queues is paused, the
    queues that fit one pattern are polled in the order of their first jobs. Raises ProcessGoneError if the process was
    pruned: it must not claim any more.

    Raises ValueRefusedError if the database refuses the claim of any of them: its job is gone, or claimed already. With
    ``sound``, which is slower, such ready rows are passed over. ``paused`` is what ``lock_process`` returned, if this
    transaction has called it. With ``scan_start``, some scans pass over ready rows before a bound.
    """
    polled = PolledQueues(queues, excepted)
    if not sound and writes_in_with(connection):
        claims = _claim_at_once(within(connection), process_id, polled, limit, scan_start or ScanStart())
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
    scan_start: ScanStart | None = None,
) -> list[Claim] | None:
    """Finish claims of jobs that hold no slot, and claim up to ``limit`` other jobs, in few round trips.

    ``held`` has the job of each claim, as for ``finish_claims``. PostgreSQL takes one round trip; with queues by name,
    one for each queue, and one more for prefixes and exceptions. MySQL takes one transaction that locks everything at
    once, for all queues or one by its name. Returns None if the database has no such statement, or
    no queue that fits has a ready job: then call ``finish_claims``, which passes over those that this finished already,
    and ``claim``. Raises ProcessGoneError if the process was pruned. With ``scan_start``, some scans pass over ready
    rows before a bound.
    """
    polled = PolledQueues(queues, excepted)
    scan_start = scan_start or ScanStart()
    if database.write_style is WriteStyle.SILENT and _is_one(polled):
        return database.transact(_exchange_locked, process_id, held, polled, limit, scan_start)
    if database.write_style is not WriteStyle.CHAINED:
        return None
    return _claim_at_once(database.execute, process_id, polled, limit, scan_start, **by_claim(held))


def scan_cost(database: Database, queue_name: str | None, bound: Bound) -> float:
    """Return how many seconds a bound saves a scan of a queue, or of all for None.

    A scan spends them on index entries of deleted rows, which stay while another transaction is open.
    """
    return database.transact(_scan_cost, ready_rows.ready_before(queue_name, database.write_style), bound)


def _scan_cost(connection: Connection, ready_before: Select[Any], bound: Bound) -> float:
    nothing = select(literal(1))  # which takes a round trip
    connection.execute(nothing)  # the first statement of a transaction takes longer
    of_nothing, of_scan = [], []
    for _ in range(MEASUREMENTS):
        of_nothing.append(_seconds_of(connection, nothing))
        of_scan.append(_seconds_of(connection, ready_before, bound._asdict()))
    return min(of_scan) - min(of_nothing)


def _seconds_of(connection: Connection, query: Select[Any], values: Mapping[str, int] | None = None) -> float:
    start = time.monotonic()
    connection.execute(query, values)
    return time.monotonic() - start


def _claim_at_once(
    execute: Execute, process_id: int, polled: PolledQueues, limit: int, scan_start: ScanStart, **finish: list[int]
) -> list[Claim] | None:
    """Claim in one statement, or in one a queue; the first also finishes the claims in ``finish``."""
    patterns, excepted = polled
    if "*" in patterns and not excepted:
        claims = _claims_in(_claim_from(None, execute, process_id, limit, scan_start, finish), process_id)
        if claims is not None:
            scan_start.note(None, claims)
            return claims
        finish = {}  # one is paused: its jobs must not hide the others
    queues = _queues_with_jobs(execute, polled, scan_start)
    if not queues:
        return None
    claims = []
    for name in queues:
        try:
            rows = _claim_from(name, execute, process_id, limit - len(claims), scan_start, finish)
        except DatabaseError:
            if not claims:
                raise
            break  # each statement may be a transaction: jobs that are claimed already must be performed
        of_queue = _claims_in(rows, process_id) or []
        scan_start.note(name, of_queue)
        claims += of_queue
        finish = {}
        if len(claims) >= limit:
            break
    return claims


def _queues_with_jobs(execute: Execute, polled: PolledQueues, scan_start: ScanStart) -> list[str]:
    """Return the queues to poll, in order: those that are named, and those with ready jobs that fit a pattern."""
    patterns = ALL_QUEUES if "*" in polled.patterns else polled.patterns
    if scan_start.queues is None and any(name.endswith("*") for name in patterns):
        existing = statements.queues_by_first_job if polled.by_first_job else statements.queues_with_ready_jobs
        scan_start.queues = [row.value for row in execute(existing)]
    return select_queues(patterns, scan_start.queues or (), polled.excepted)


def _claim_from(
    queue_name: str | None,
    execute: Execute,
    process_id: int,
    most: int,
    scan_start: ScanStart,
    finish: Mapping[str, list[int]],
) -> Sequence[Row[Any]]:
    """Execute the statement that claims from one queue, or from all for None; it finishes the claims in ``finish``."""
    values: dict[str, Any] = {"process_id": process_id, "most": most, **finish}
    kind = statements.FINISH_AND_CLAIM if finish else statements.CLAIM
    bound = scan_start.bound(queue_name)
    if bound is not None:
        kind = statements.FINISH_AND_CLAIM_BEHIND
        values |= {**by_claim({}), **finish, **bound._asdict()}
    if queue_name is None:
        return execute(kind.from_all, **values)
    return execute(kind.from_queue, queue_name=queue_name, **values)


def _is_one(polled: PolledQueues) -> bool:
    """Whether one statement can poll these queues: all, or one by its name."""
    queues, excepted = polled
    return not excepted and ("*" in queues or (len(queues) == 1 and not queues[0].endswith("*")))


def _exchange_locked(
    connection: Connection,
    process_id: int,
    held: Mapping[int, int],
    polled: PolledQueues,
    limit: int,
    scan_start: ScanStart,
) -> list[Claim]:
    values = {"process_id": process_id, "most": limit, **by_claim(held)}
    queue_name = None if "*" in polled.patterns else polled.patterns[0]
    bound = scan_start.bound(queue_name)
    lock_turn = turn_statements.LOCK_TURN if bound is None else turn_statements.LOCK_TURN_BEHIND
    values |= {} if bound is None else bound._asdict()
    if queue_name is None:
        rows = lock_turn.from_all(connection, **values)
    else:
        rows = lock_turn.from_queue(connection, queue_name=queue_name, **values)
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
        turn_statements.delete_claims_and_ready(connection, claim_ids=list(ended), ready_ids=list(first))
    if paused:
        return _claim_in_steps(connection, process_id, polled, limit, sound=False, paused=True)
    claims = _read_claims(connection, list(first.values())) if first else []
    scan_start.note(queue_name, claims)
    return claims


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
        in_turn = polled.by_first_job
        existing = _queues_in_turn(connection) if in_turn else distinct_values(connection, ready.c.queue_name)
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
    rows = connection.execute(ready_rows.sound_ready(queue_name, most)).all()
    job_ids = [row.job_id for row in rows]
    if job_ids:
        insertion = ready_rows.claim_insertion(select(ready.c.job_id).where(among(ready.c.job_id, job_ids)))
        connection.execute(insertion, {"process_id": process_id})
        _delete_ready(connection, rows)
    return job_ids
