"""Find processes whose heartbeat stopped, fail the jobs they held, and remove them. Never put those jobs back.

The job may be what killed its process; putting it back by itself would be a crash loop (Solid Queue's own rule).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, exists, func, or_, select

from solidjq.batching import BATCH
from solidjq.database.deletions import delete_by_id
from solidjq.database.statements import among
from solidjq.database.tables import claimed, jobs, processes
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, concerns_all
from solidjq.ledger import crashes, deaths, operations
from solidjq.processes.heartbeat import silent
from solidjq.processes.pids import host_evidence
from solidjq.processes.samples import runs_of, sample_of
from solidjq.processes.survivors import find_survivors
from solidjq.queue.concurrency import NO_LIMITS, Limits
from solidjq.queue.endings import claims_of, fail, release
from solidjq.rails.error_text import exit_error, missing_error, pruned_error
from solidjq.untrusted import read_object

T = TypeVar("T")

AT_ONCE = 200  # silent processes that one transaction removes
MOST_REFUSED = 10  # processes, or orphaned claims, that the database refuses to remove; then it refuses that of all

Record = Callable[[Connection, int], None]  # is called in each transaction with the number of jobs that it moved


@dataclass(frozen=True, slots=True)
class PrunedProcess:
    """A process that was removed, or would be, and the jobs that failed with it.

    ``process_id``, ``kind`` and ``pid`` are None where the claims outlived their process's row.
    """

    process_id: int | None
    kind: str | None
    name: str
    hostname: str | None
    pid: int | None
    last_heartbeat_at: datetime | None
    job_ids: list[int] = field(default_factory=list)


def find_dead(connection: Connection, threshold: float) -> list[PrunedProcess]:
    """Return the processes that a prune would remove now, with the jobs they hold. Changes nothing."""
    dead = [PrunedProcess(*row) for row in connection.execute(_dead(threshold))]
    for process in dead:
        process.job_ids.extend(_claimed_jobs(connection, claimed.c.process_id == process.process_id))
    return dead


def _claimed_jobs(connection: Connection, claims: ColumnElement[bool]) -> Iterator[int]:
    ids = connection.scalars(select(claimed.c.job_id).where(claims).order_by(claimed.c.id))
    return (job_id for job_id in ids if job_id is not None)


def prune(
    database: Database,
    threshold: float,
    *,
    only: Collection[int] | None = None,
    limits: Limits = NO_LIMITS,
    record: Record | None = None,
    witness: Mapping[str, object] | None = None,
) -> Iterator[PrunedProcess]:
    """Prune every process whose last sign of life is ``threshold`` seconds old or older by the database's clock.

    One transaction for up to ``AT_ONCE`` processes with up to ``BATCH`` claims in all, or for one with more: their
    claims fail with ProcessPrunedError and their rows go. Any number of programs may prune at once; only one of them
    prunes a process, and none prunes a process that has beaten meanwhile, because the heartbeat is checked again under
    the row's lock. There is no other check that a silent process is dead: call ``prune_guard`` first, and pass the
    processes that it finds dead as ``only``. ``witness`` is what the pruning program adds to the evidence of each death
    (see deaths.py).

    A process whose prune the database refuses, because of a trigger say, keeps no other: up to ``MOST_REFUSED`` are
    passed over, and the error of the first is raised at the end.
    """
    for pruned in _passing_over(
        lambda attempt: database.transact(_prune_some, threshold, only, limits, record, witness or {}, attempt),
        AT_ONCE,
    ):
        yield from pruned


@dataclass(slots=True)
class _Attempt:
    """What one transaction of a prune may take, at most ``at_once`` and none of ``passed``, and what it tried."""

    at_once: int
    passed: list[int] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)

    def of(self, query: Select[T], number: ColumnElement[int]) -> Select[T]:
        """Return the query for the rows that this transaction may take; ``number`` is their id."""
        return (query.where(number.not_in(self.passed)) if self.passed else query).limit(self.at_once)


def _passing_over(move: Callable[[_Attempt], T | None], at_once: int) -> Iterator[T]:
    """Make moves, a transaction each, until one returns None; what the database refuses alone keeps nothing else.

    A move that was refused is made again with one row at a time until the refused one is found. Up to ``MOST_REFUSED``
    are passed over, and the error of the first is raised at the end.
    """
    attempt = _Attempt(at_once)
    first: DatabaseError | None = None
    while True:
        attempt.tried = []
        try:
            moved = move(attempt)
        except DatabaseError as error:
            if not attempt.tried or concerns_all(error) or len(attempt.passed) >= MOST_REFUSED:
                raise
            attempt.at_once = 1
            if len(attempt.tried) == 1:
                attempt.passed += attempt.tried
                first, attempt.at_once = first or error, at_once
            continue
        if moved is None:
            break
        yield moved
    if first is not None:
        raise first


def _prune_some(
    connection: Connection,
    threshold: float,
    only: Collection[int] | None,
    limits: Limits,
    record: Record | None,
    witness: Mapping[str, object],
    attempt: _Attempt,
) -> list[PrunedProcess] | None:
    query = select(processes).where(silent(threshold)).order_by(processes.c.id)
    if only is not None:
        query = query.where(among(processes.c.id, only))
    rows = connection.execute(attempt.of(query, processes.c.id).with_for_update(skip_locked=True)).all()
    if not rows:
        return None
    rows = rows[: _how_many(connection, [row.id for row in rows])]
    attempt.tried = ids = [row.id for row in rows]
    claims = select(claimed.c.id, claimed.c.process_id, claimed.c.job_id).where(among(claimed.c.process_id, ids))
    held = connection.execute(claims.order_by(claimed.c.id)).all()
    errors = {row.id: _error_of(row) for row in rows}
    failed = set(
        fail(
            connection,
            among(claimed.c.id, [claim.id for claim in held]),
            {claim.id: errors[claim.process_id] for claim in held},
            limits,
        )
        if held
        else ()
    )
    jobs_of: dict[int, list[int]] = {number: [] for number in ids}
    for claim in held:
        if claim.job_id in failed:
            jobs_of[claim.process_id].append(claim.job_id)
    if operations.exists(connection):
        _record_deaths(connection, rows, jobs_of, threshold, witness)
    connection.execute(delete_by_id(processes, ids))
    if record is not None:
        record(connection, len(failed))
    return [
        PrunedProcess(row.id, row.kind, row.name, row.hostname, row.pid, row.last_heartbeat_at, jobs_of[row.id])
        for row in rows
    ]


def _how_many(connection: Connection, ids: Sequence[int]) -> int:
    """Return how many of these processes, from the first on, have no more than ``BATCH`` claims in all; at least 1."""
    counted = select(claimed.c.process_id, func.count()).where(among(claimed.c.process_id, ids))
    claims: dict[int, int] = dict(connection.execute(counted.group_by(claimed.c.process_id)).all())
    totals = accumulate(claims.get(number, 0) for number in ids)
    return max(1, sum(1 for total in totals if total <= BATCH))


def _error_of(process: Row[Any]) -> str:
    beat = process.last_heartbeat_at
    return missing_error() if beat is None else pruned_error(beat)


def _record_deaths(
    connection: Connection,
    rows: Sequence[Row[Any]],
    jobs_of: Mapping[int, Sequence[int]],
    threshold: float,
    witness: Mapping[str, object],
) -> None:
    """Write the deaths of these processes, and count a crash of each of their jobs."""
    survivors = find_survivors(connection, threshold)
    samples = {row.id: sample_of(row.metadata) for row in rows}
    evidence = {
        row.id: {
            **witness,
            "threshold": threshold,
            "here": host_evidence(row),
            "fleet": survivors.of(row),
            **({"ahead": True} if read_object(row.metadata).get("prefetch") else {}),
        }
        for row in rows
    }
    origins = deaths.record_pruned(connection, rows, evidence, samples)
    runs = {number: runs_of(samples[number]) for number, job_ids in jobs_of.items() if job_ids}
    if len(rows) == 1:  # perhaps with very many jobs: the database copies what their crashes share
        ((number, origin),) = origins.items()
        crashes.count_failed(connection, jobs_of[number], origin)
        crashes.note_runs(connection, origin, runs.get(number, ()))
    else:
        by_job = {job_id: origins[number] for number, job_ids in jobs_of.items() for job_id in job_ids}
        crashes.count_pruned(connection, by_job, {run.job_id: run for some in runs.values() for run in some})


def fail_exited(
    connection: Connection,
    process_id: int,
    *,
    pid: int,
    returncode: int,
    limits: Limits = NO_LIMITS,
    witness: Mapping[str, object] | None = None,
    not_begun: Collection[int] = (),
    faulting: int | None = None,
) -> list[int]:
    """Fail the jobs that a dead child still held, with ProcessExitError, and remove its row.

    Solid Queue leaves the row until it is pruned; here its death is certain, so the row is not needed any more.
    ``witness`` is what the supervisor adds to the evidence (see deaths.py). The claims ``not_begun`` are innocent, and
    their jobs go back to their queues. ``faulting`` is the claim of the job whose thread crashed: the death charges it
    alone. Returns the ids of the jobs that failed.
    """
    # Until a claim of this process that was being committed is there, or cannot come any more.
    connection.execute(select(processes.c.id).where(processes.c.id == process_id).with_for_update())
    if not_begun:
        release(connection, claims_of(process_id, not_begun))
    witness = {**(witness or {}), **_accused(connection, process_id, faulting)}
    failed = fail(connection, claims_of(process_id), exit_error(pid, returncode), limits)
    record_exit(connection, process_id, failed, returncode=returncode, witness=witness)
    connection.execute(delete(processes).where(processes.c.id == process_id))
    return failed


def _accused(connection: Connection, process_id: int, faulting: int | None) -> dict[str, object]:
    """Return, as evidence, the job of the claim that the crashed thread was executing."""
    if faulting is None:
        return {}
    query = select(jobs.c.id, jobs.c.class_name).join(claimed, claimed.c.job_id == jobs.c.id)
    job = connection.execute(query.where(claims_of(process_id, [faulting]))).one_or_none()
    return {} if job is None else {"faulting": {"job_id": job.id, "class_name": job.class_name}}


def record_exit(
    connection: Connection,
    process_id: int,
    failed: Sequence[int] = (),
    *,
    returncode: int,
    witness: Mapping[str, object] | None = None,
) -> None:
    """Write the death of a child whose row is still there, and the crashes of its failed jobs, if there is a ledger."""
    if operations.exists(connection):
        how = {"exit_status": returncode} if returncode >= 0 else {"signal": -returncode}
        process = _row_of(connection, process_id)
        _count(connection, failed, process, deaths.DeathSource.SUPERVISOR, witness or {}, **how)


def _row_of(connection: Connection, process_id: int) -> Row[Any]:
    return connection.execute(select(processes).where(processes.c.id == process_id)).one()


def _count(
    connection: Connection,
    job_ids: Sequence[int],
    process: Row[Any],
    source: deaths.DeathSource,
    evidence: Mapping[str, object],
    **how: int,
) -> None:
    """Write the death and count a crash of each job."""
    sample = sample_of(process.metadata)
    origin = deaths.record(connection, process, source, evidence=evidence, sample=sample, **how)
    if job_ids:
        crashes.count_failed(connection, job_ids, origin)
        crashes.note_runs(connection, origin, runs_of(sample))


def find_orphans(connection: Connection) -> list[int]:
    """Return the jobs claimed by no process that exists. Changes nothing."""
    return list(_claimed_jobs(connection, _orphaned()))


def fail_orphans(
    database: Database, *, limits: Limits = NO_LIMITS, record: Record | None = None
) -> Iterator[list[int]]:
    """Fail claims whose process row is gone, with ProcessMissingError; yield the jobs of each transaction.

    Solid Queue looks for them only when a supervisor boots. As in ``prune``, a claim whose end the database refuses
    keeps no other.
    """
    yield from _passing_over(lambda attempt: database.transact(_fail_orphans, limits, record, attempt), BATCH)


def _fail_orphans(connection: Connection, limits: Limits, record: Record | None, attempt: _Attempt) -> list[int] | None:
    """Fail some orphaned claims, and return their jobs; None if there is no such claim."""
    query = attempt.of(select(claimed.c.id).where(_orphaned()).order_by(claimed.c.id), claimed.c.id)
    attempt.tried = ids = list(connection.scalars(query))
    if not ids:
        return None
    failed = fail(connection, and_(among(claimed.c.id, ids), _orphaned()), missing_error(), limits)
    if operations.exists(connection):
        crashes.count_failed(connection, failed)
    if record is not None:
        record(connection, len(failed))
    return failed


def _orphaned() -> ColumnElement[bool]:
    return or_(claimed.c.process_id.is_(None), ~exists().where(processes.c.id == claimed.c.process_id))


def _dead(threshold: float) -> Select[tuple[Any, ...]]:
    return (
        select(
            processes.c.id,
            processes.c.kind,
            processes.c.name,
            processes.c.hostname,
            processes.c.pid,
            processes.c.last_heartbeat_at,
        )
        .where(silent(threshold))
        .order_by(processes.c.id)
    )
