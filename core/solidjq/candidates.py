"""What is known of failed jobs before a verdict: their crashes, their old processes, other jobs for the same work."""

import socket
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, exists, false, func, or_, select

from solidjq import crashes, ledger, processes
from solidjq.dialects import among, utcnow
from solidjq.schema import blocked, claimed, failed, jobs, ready, scheduled
from solidjq.suspects import NO_SUSPICION, Suspicion
from solidjq.verdicts import Candidate


def find_candidates(
    connection: Connection, failure_ids: Collection[int], suspicion: Suspicion = NO_SUSPICION
) -> list[Candidate]:
    """Return what is known of these failures, those that are there, in id order.

    ``suspicion`` says which classes' deaths are to be looked at too. Most jobs died once and stand alone: only for the
    others more is read.
    """
    twin = jobs.alias()
    kept = ledger.exists(connection)
    rows = connection.execute(
        select(
            failed.c.id,
            failed.c.job_id,
            failed.c.created_at,
            func.substr(failed.c.error, 1, crashes.EVIDENCE).label("error"),
            jobs.c.active_job_id,
            jobs.c.class_name,
            jobs.c.queue_name,
            jobs.c.concurrency_key.is_not(None).label("limited"),
            jobs.c.finished_at.is_not(None).label("finished"),
            func.coalesce(jobs.c.scheduled_at > utcnow(), False).label("early"),
            (crashes.more_is_known(socket.gethostname(), suspicion.classes) if kept else false()).label("crashed"),
            exists().where(twin.c.active_job_id == jobs.c.active_job_id, twin.c.id != jobs.c.id).label("shared"),
        )
        .join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        .where(among(failed.c.id, failure_ids))
        .order_by(failed.c.id)
    ).all()
    found: list[Candidate] = []
    for row in rows:
        error = crashes.parse_evidence(row.error)
        found.append(
            Candidate(
                failure_id=row.id,
                job_id=row.job_id,
                active_job_id=row.active_job_id,
                class_name=row.class_name,
                queue_name=row.queue_name,
                failed_at=row.created_at,
                exception_class=error.exception_class,
                death=error.death,
                finished=bool(row.finished),
                limited=bool(row.limited),
                early=bool(row.early),
                crashes=() if error.death is None else (crashes.Crash(row.id, row.job_id, row.created_at, row.error),),
            )
        )
    if crashed := {row.id for row in rows if row.crashed}:
        found = _with_crashes(connection, found, crashed)
    if shared := {row.active_job_id for row in rows if row.shared}:
        found = _with_twins(connection, found, shared)
    return found


def _with_crashes(connection: Connection, candidates: Sequence[Candidate], wanted: Collection[int]) -> list[Candidate]:
    """Add the crashes counted before, and whether a process of one of them seems to live."""
    counted = crashes.crashes_of(
        connection,
        [crashes.subject_of(each.job_id, each.active_job_id) for each in candidates if each.failure_id in wanted],
    )
    known = {(crash.hostname, crash.pid) for group in counted.values() for crash in group if crash.pid is not None}
    beating = processes.beats_of(connection, known)
    completed: list[Candidate] = []
    for each in candidates:
        before = counted.get(crashes.subject_of(each.job_id, each.active_job_id), []) if each.death else []
        everything = {crash.failure_id: crash for crash in (*each.crashes, *before)}
        alive = next((words for crash in before if (words := _alive(crash, beating))), None)
        completed.append(replace(each, crashes=tuple(everything.values()), alive=alive))
    return completed


def _alive(crash: crashes.Crash, beating: Mapping[tuple[str, int], str]) -> str | None:
    """Say which process may still run the job: one that beats again, or that runs on this host."""
    if crash.hostname is None or crash.pid is None:
        return None
    if name := beating.get((crash.hostname, crash.pid)):
        return f"its old process, pid {crash.pid} at {crash.hostname}, sends heartbeats again, as {name}"
    beat = crash.last_heartbeat_at
    if crash.hostname == socket.gethostname() and beat is not None and processes.ran_before(crash.pid, beat):
        return f"its old process, pid {crash.pid}, still runs on this host"
    return None


def _with_twins(connection: Connection, candidates: Sequence[Candidate], shared: Collection[str]) -> list[Candidate]:
    """Add which other job stands for the same work: it waits, runs, failed later or finished since."""
    waits = or_(*(_is_in(table) for table in (ready, scheduled, blocked, claimed)))
    twins: dict[str, list[tuple[int, datetime | None, int | None, bool]]] = defaultdict(list)
    for row in connection.execute(
        select(
            jobs.c.id, jobs.c.active_job_id, jobs.c.finished_at, failed.c.id.label("failure_id"), waits.label("waits")
        )
        .join_from(jobs, failed, failed.c.job_id == jobs.c.id, isouter=True)
        .where(among(jobs.c.active_job_id, shared))
        .order_by(jobs.c.id)
    ):
        twins[row.active_job_id].append((row.id, row.finished_at, row.failure_id, bool(row.waits)))
    return [replace(each, twin=_twin(each, twins.get(each.active_job_id or "", ()))) for each in candidates]


def _is_in(table: Table) -> ColumnElement[bool]:
    return exists().where(table.c.job_id == jobs.c.id)


def _twin(candidate: Candidate, twins: Iterable[tuple[int, datetime | None, int | None, bool]]) -> str | None:
    for job_id, finished_at, failure_id, waits in twins:
        if job_id == candidate.job_id:
            continue
        who = f"job {job_id} has the same Active Job id and"
        if waits:
            return f"{who} waits or runs"
        if finished_at is not None and (candidate.failed_at is None or finished_at >= candidate.failed_at):
            return f"{who} finished since"
        if failure_id is not None and failure_id > candidate.failure_id:
            return f"{who} failed later"
    return None
