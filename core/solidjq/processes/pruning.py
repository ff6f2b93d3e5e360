"""Find processes whose heartbeat stopped, fail the jobs they held, and remove them. Never put those jobs back.

The job may be what killed its process; putting it back by itself would be a crash loop (Solid Queue's own rule).
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, exists, func, or_, select

from solidjq.batching import BATCH
from solidjq.database.among import among
from solidjq.database.deletions import delete_by_id
from solidjq.database.engines import lock_limit
from solidjq.database.faults import words_of
from solidjq.database.tables import claimed, jobs, processes
from solidjq.database.transactions import Database
from solidjq.ledger import crashes, deaths, operations
from solidjq.processes.heartbeat import silent
from solidjq.processes.pids import host_evidence
from solidjq.processes.samples import runs_of, sample_of
from solidjq.processes.survivors import Survivors, find_survivors
from solidjq.queue.attempts import LOCK_WAIT, Attempt, passing_over
from solidjq.queue.concurrency import NO_LIMITS, Limits
from solidjq.queue.endings import claims_of, fail_but_refused, lock_held, release
from solidjq.rails.error_text import exit_error, missing_error, pruned_error
from solidjq.untrusted import read_object

log = logging.getLogger("solidjq")

AT_ONCE = 200  # silent processes that one transaction removes

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

    A job or a process that the database refuses to end, because of a trigger say, keeps no other: it stays as it is,
    and RowsRefusedError names the jobs at the end. A process of whose jobs some failed goes, and the refused claims are
    orphans then. One of whose jobs none failed stays. What another transaction has locked is waited for once, for
    ``LOCK_WAIT`` seconds, and left like what is refused after that.
    """
    with database.read() as connection:  # once: each batch removes processes that were silent with those of the next
        survivors = find_survivors(connection, threshold)
    for pruned in passing_over(
        database,
        lambda attempt: database.transact(
            _prune_some, threshold, only, limits, record, witness or {}, survivors, attempt
        ),
        AT_ONCE,
        what="process",
    ):
        yield from pruned


def _prune_some(
    connection: Connection,
    threshold: float,
    only: Collection[int] | None,
    limits: Limits,
    record: Record | None,
    witness: Mapping[str, object],
    survivors: Survivors,
    attempt: Attempt,
) -> list[PrunedProcess] | None:
    query = select(processes).where(silent(threshold))
    if only is not None:
        query = query.where(among(processes.c.id, only))
    rows = connection.execute(attempt.of(query, processes.c.id).with_for_update(skip_locked=True)).all()
    if not rows:
        return None
    rows = rows[: _how_many(connection, [row.id for row in rows])]
    attempt.tried = ids = [row.id for row in rows]
    error_of = {row.id: _error_of(row) for row in rows}
    with lock_limit(connection, LOCK_WAIT):
        held = lock_held(connection, ids, lock=attempt.waits)
        jobs_by_claim = {claim_id: job_id for claim_id, job_id, _ in held}
        errors = {claim_id: error_of[holder] for claim_id, _, holder in held}
        still = None if attempt.waits else among(claimed.c.process_id, ids)
        failed = set(attempt.fail(connection, jobs_by_claim, errors, limits, still=still))
    jobs_of: dict[int, list[int]] = {number: [] for number in ids}
    for _, job_id, holder in held:
        if job_id in failed:
            jobs_of[holder].append(job_id)
    if attempt.refused:
        stuck = {holder for _, job_id, holder in held if job_id in attempt.refused and not jobs_of[holder]}
        attempt.left = list(stuck)
        rows = [row for row in rows if row.id not in stuck]
        ids = [row.id for row in rows]
    if rows and operations.exists(connection):
        _record_deaths(connection, rows, jobs_of, threshold, witness, survivors)
    connection.execute(delete_by_id(processes, ids))
    if rows and record is not None:
        record(connection, len(failed))
    return [
        PrunedProcess(row.id, row.kind, row.name, row.hostname, row.pid, row.last_heartbeat_at, jobs_of[row.id])
        for row in rows
    ]


def _how_many(connection: Connection, ids: Sequence[int]) -> int:
    """Return how many of these processes, from the first on, have no more than ``BATCH`` claims in all; at least 1."""
    if len(ids) == 1:
        return 1
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
    survivors: Survivors,
) -> None:
    """Write the deaths of these processes, and count a crash of each of their jobs."""
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
    alone. A claim that the database refuses to end stays, as an orphan that each prune tries again; but if it refuses
    all of them, nothing is done. Returns the ids of the jobs that failed. Raises LockedError if another transaction has
    locked a row of these for ``LOCK_WAIT`` seconds.
    """
    with lock_limit(connection, LOCK_WAIT):
        # Until a claim of this process that was being committed is there, or cannot come any more.
        connection.execute(select(processes.c.id).where(processes.c.id == process_id).with_for_update())
        if not_begun:
            release(connection, claims_of(process_id, not_begun))
        witness = {**(witness or {}), **_accused(connection, process_id, faulting)}
        error = exit_error(pid, returncode)
        failed, refused = fail_but_refused(connection, claims_of(process_id), error, limits)
    if refused and not failed:
        raise next(iter(refused.values()))
    for claim_id, refusal in refused.items():
        log.error(
            "claim %d of pid %d stays: the database refused to fail its job: %s", claim_id, pid, words_of(refusal)
        )
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
    yield from passing_over(
        database, lambda attempt: database.transact(_fail_orphans, limits, record, attempt), BATCH, what="claim"
    )


def _fail_orphans(connection: Connection, limits: Limits, record: Record | None, attempt: Attempt) -> list[int] | None:
    """Fail some orphaned claims, and return their jobs; None if there is no such claim."""
    query = select(claimed.c.id, claimed.c.job_id).where(_orphaned())
    orphans: dict[int, int | None] = {row.id: row.job_id for row in connection.execute(attempt.of(query, claimed.c.id))}
    attempt.tried = list(orphans)
    if not orphans:
        return None
    with lock_limit(connection, LOCK_WAIT):
        failed = attempt.fail(connection, orphans, missing_error(), limits, still=_orphaned())
    if failed and operations.exists(connection):
        crashes.count_failed(connection, failed)
    if failed and record is not None:
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
