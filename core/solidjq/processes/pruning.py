"""Find processes whose heartbeat stopped, fail the jobs they held, and remove them. Never put those jobs back.

The job may be what killed its process; putting it back by itself would be a crash loop (Solid Queue's own rule).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, exists, func, or_, select

from solidjq.batching import BATCH
from solidjq.database.statements import among
from solidjq.database.tables import claimed, jobs, processes
from solidjq.database.times import ago, boundary
from solidjq.database.transactions import Database
from solidjq.ledger import crashes, deaths, operations
from solidjq.processes.heartbeat import silent
from solidjq.processes.pids import host_evidence
from solidjq.processes.samples import runs_of, sample_of
from solidjq.queue.concurrency import NO_LIMITS, Limits
from solidjq.queue.endings import claims_of, fail, release
from solidjq.rails.error_text import exit_error, missing_error, pruned_error
from solidjq.untrusted import read_object

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

    One transaction a process: its claims fail with ProcessPrunedError and its row goes. Any number of programs may
    prune at once; only one of them prunes a process, and none prunes a process that has beaten meanwhile, because the
    heartbeat is checked again under the row's lock. There is no other check that a silent process is dead: call
    ``prune_guard`` first, and pass the processes that it finds dead as ``only``. ``witness`` is what
    the pruning program adds to the evidence of each death (see deaths.py).
    """
    while pruned := database.transact(_prune_one, threshold, only, limits, record, witness or {}):
        yield pruned


def _prune_one(
    connection: Connection,
    threshold: float,
    only: Collection[int] | None,
    limits: Limits,
    record: Record | None,
    witness: Mapping[str, object],
) -> PrunedProcess | None:
    query = _dead(threshold).limit(1).with_for_update(skip_locked=True)
    if only is not None:
        query = query.where(among(processes.c.id, only))
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    pruned = PrunedProcess(*row)
    beat = pruned.last_heartbeat_at
    error = missing_error() if beat is None else pruned_error(beat)
    pruned.job_ids.extend(fail(connection, claims_of(row.id), error, limits))
    if operations.exists(connection):
        process = _row_of(connection, row.id)
        evidence = {
            **witness,
            "threshold": threshold,
            "here": host_evidence(process),
            "fleet": survivors(connection, process, threshold),
            **({"ahead": True} if read_object(process.metadata).get("prefetch") else {}),
        }
        _count(connection, pruned.job_ids, process, deaths.DeathSource.PRUNE, evidence)
    connection.execute(delete(processes).where(processes.c.id == row.id))
    if record is not None:
        record(connection, len(pruned.job_ids))
    return pruned


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


def fail_orphans(database: Database, *, limits: Limits = NO_LIMITS, record: Record | None = None) -> list[int]:
    """Fail claims whose process row is gone, with ProcessMissingError; return their jobs.

    Solid Queue looks for them only when a supervisor boots.
    """
    failed: list[int] = []
    while (batch := database.transact(_fail_orphans, limits, record)) is not None:
        failed += batch
    return failed


def _fail_orphans(connection: Connection, limits: Limits, record: Record | None) -> list[int] | None:
    """Fail some orphaned claims, and return their jobs; None if there is no such claim."""
    ids = list(connection.scalars(select(claimed.c.id).where(_orphaned()).order_by(claimed.c.id).limit(BATCH)))
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


def survivors(connection: Connection, process: Row[Any], threshold: float) -> dict[str, int]:
    """Count the processes that ran when this one fell silent: which still beat, which are silent too, and their hosts.

    A process that was registered after the silence began proves nothing about it. The silent process itself counts.
    """
    beat = process.last_heartbeat_at
    counts = {"alive": 0, "silent": 0, "alive_here": 0, "silent_here": 0}
    hosts: dict[bool, set[str | None]] = {True: set(), False: set()}
    query = select(processes.c.hostname, (processes.c.last_heartbeat_at > ago(threshold)).label("alive"), func.count())
    if beat is not None:
        query = query.where(processes.c.created_at <= boundary(beat))
    for hostname, alive, count in connection.execute(query.group_by(processes.c.hostname, "alive")):
        hosts[bool(alive)].add(hostname)
        key = "alive" if alive else "silent"
        counts[key] += count
        counts[f"{key}_here"] += count if hostname == process.hostname else 0
    return {**counts, "hosts_alive": len(hosts[True]), "hosts_silent": len(hosts[False] - hosts[True])}
