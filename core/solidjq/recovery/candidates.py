"""What is known of failed jobs before a verdict: their crashes, their old processes, other jobs for the same work."""

import socket
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    or_,
    select,
    true,
    tuple_,
)

from solidjq.database import tables
from solidjq.database.hot import ids_in
from solidjq.database.statements import among, array_literal, first, gathers, holds
from solidjq.database.tables import blocked, claimed, failed, jobs, ready, scheduled
from solidjq.database.times import utcnow
from solidjq.incidents.suspects import NO_SUSPICION, Suspicion
from solidjq.ledger import crashes
from solidjq.processes import heartbeat
from solidjq.rails.active_job import CLEAN_COUNTERS, COUNTER_KEY
from solidjq.rails.error_text import OF_PROCESSES
from solidjq.recovery.verdicts import Candidate


def find_candidates(
    connection: Connection,
    failure_ids: Collection[int],
    suspicion: Suspicion = NO_SUSPICION,
    *,
    kept: bool,
    twins: bool = True,
) -> list[Candidate]:
    """Return what is known of these failures, those that are there, in id order.

    ``suspicion`` says which classes' deaths are to be looked at too, ``kept`` whether the database has a ledger,
    ``twins`` whether to look for other jobs of the same work. Most jobs died once and stand alone: only for the others
    more is read.
    """
    known = _known(kept=kept, twins=true() if twins else false(), near=true(), suspects=suspicion.classes)
    rows = connection.execute(known.where(among(failed.c.id, failure_ids)).order_by(failed.c.id)).all()
    found = [_candidate(*row) for row in rows]
    if crashed := {row.failure_id for row in rows if row.crashed}:
        found = _with_crashes(connection, found, crashed)
    if shared := {row.active_job_id for row in rows if row.shared}:
        found = _with_twins(connection, found, shared)
    return found


class Alike(NamedTuple):
    """Failures that died at most once and stand alone, and differ in nothing but their jobs and times.

    Two candidates, one the other's copy but for its time: ``oldest`` has the first of all times, ``newest`` the last.
    """

    oldest: Candidate
    newest: Candidate
    failure_ids: Sequence[int]


def find_alike(
    connection: Connection,
    failure_ids: Collection[int],
    suspicion: Suspicion = NO_SUSPICION,
    *,
    kept: bool,
    twins: bool = True,
) -> list[Alike]:
    """Let the database put together those of these failures that are alike. Whoever is in no group is no simple case.

    Nothing where the database cannot do it. Without ``twins`` none is in a group, either, whose crash is still to be
    counted and may then count for another job of the same work.
    """
    if not gathers(connection):
        return []
    rows = connection.execute(
        _alike(kept=kept, twins=twins, suspects=tuple(suspicion.classes)),
        {"ids": array_literal(failure_ids), "first": min(failure_ids), "last": max(failure_ids)},
    )
    found: list[Alike] = []
    for oldest, newest, ids, job_id, active_job_id, class_name, queue_name, *rest in rows:
        one = _candidate(ids[0], job_id, active_job_id, class_name, queue_name, oldest, *rest)
        found.append(Alike(one, one._replace(failed_at=newest), ids))
    return found


_OWN = tables.crashes.alias()  # the crash that a failure was counted as
_EVIDENCE = func.substr(failed.c.error, 1, crashes.EVIDENCE)
_DIED = func.coalesce(holds(_EVIDENCE, OF_PROCESSES), False)  # or only speaks of it; Python reads the error
_FLAGS = ("limited", "finished", "early", "worn", "counted")


@lru_cache(maxsize=8)
def _alike(*, kept: bool, twins: bool, suspects: tuple[str, ...]) -> Select[Any]:
    """Put failures together; made once, as to make it takes longer than a verdict."""
    shares = true() if twins else and_(_DIED, _OWN.c.failure_id.is_(None)) if kept else false()
    near = _OWN.c.failure_id.between(bindparam("first"), bindparam("last"))  # else it may well read all crashes
    known = _known(kept=kept, twins=shares, near=near, suspects=suspects)
    each = known.where(ids_in(failed.c.id, "ids")).subquery()
    # Of an own error no more matters than its class, which stands before its message; that is often its own.
    told = case(
        (holds(each.c.evidence, OF_PROCESSES), each.c.evidence),
        else_=func.split_part(each.c.evidence, ',"message":', 1),
    )
    same = (each.c.class_name, each.c.queue_name, told, *(each.c[name] for name in _FLAGS), each.c.failed_at.is_(None))
    return (
        select(
            func.min(each.c.failed_at),
            func.max(each.c.failed_at),
            func.array_agg(each.c.failure_id),
            first(each.c.job_id),
            first(each.c.active_job_id),
            *same[:-1],
        )
        .where(~each.c.crashed, ~each.c.shared)
        .group_by(*same)
    )


def _known(
    *, kept: bool, twins: ColumnElement[bool], near: ColumnElement[bool], suspects: Collection[str]
) -> Select[Any]:
    """Ask of each failure what it tells by itself, and whether there is more to be read.

    ``twins`` holds for those whose other jobs matter, ``near`` for all crashes that can be theirs.
    """
    twin = jobs.alias()
    shares = exists().where(twin.c.active_job_id == jobs.c.active_job_id, twin.c.id != jobs.c.id)
    there = failed.join(jobs, jobs.c.id == failed.c.job_id)
    if kept:
        there = there.outerjoin(_OWN, and_(_OWN.c.failure_id == failed.c.id, near))
    return select(  # in the order of _candidate's parameters
        failed.c.id.label("failure_id"),
        failed.c.job_id,
        jobs.c.active_job_id,
        jobs.c.class_name,
        jobs.c.queue_name,
        failed.c.created_at.label("failed_at"),
        _EVIDENCE.label("evidence"),
        jobs.c.concurrency_key.is_not(None).label("limited"),
        jobs.c.finished_at.is_not(None).label("finished"),
        func.coalesce(jobs.c.scheduled_at > utcnow(), False).label("early"),
        worn().label("worn"),
        (_OWN.c.failure_id.is_not(None) if kept else false()).label("counted"),
        (and_(_DIED, _known_crashes(suspects)) if kept else false()).label("crashed"),
        and_(twins, shares).label("shared"),
    ).select_from(there)


def _candidate(
    failure_id: int,
    job_id: int,
    active_job_id: str | None,
    class_name: str,
    queue_name: str,
    failed_at: datetime | None,
    evidence: str | None,
    limited: object,
    finished: object,
    early: object,
    worn: object,
    counted: object,
    *_: object,
) -> Candidate:
    error = crashes.parse_evidence(evidence)
    return Candidate(
        failure_id,
        job_id,
        active_job_id,
        class_name,
        queue_name,
        failed_at,
        error.exception_class,
        error.death,
        finished=bool(finished),
        limited=bool(limited),
        early=bool(early),
        worn=bool(worn),
        counted=bool(counted),
        evidence=evidence,
    )


def _known_crashes(suspects: Collection[str]) -> ColumnElement[bool]:
    """Say in SQL whether crashes tell more than the failure itself does.

    That is an earlier crash, a process that may live (one of this host, or one that is registered), or the death of a
    job whose class is among ``suspects``.
    """
    other = tables.crashes.alias()
    earlier = exists().where(other.c.subject == crashes.subject(), other.c.failure_id != failed.c.id)
    registered = tuple_(_OWN.c.hostname, _OWN.c.pid).in_(select(tables.processes.c.hostname, tables.processes.c.pid))
    here = _OWN.c.hostname == socket.gethostname()
    return func.coalesce(or_(here, registered, jobs.c.class_name.in_(suspects), earlier), False)


def worn() -> ColumnElement[bool]:
    """Hold, in SQL, for jobs whose counters may have counted an error: few, so the others' are not fetched."""
    return holds(func.replace(func.coalesce(jobs.c.arguments, ""), CLEAN_COUNTERS, ""), COUNTER_KEY)


def _with_crashes(connection: Connection, candidates: Sequence[Candidate], wanted: Collection[int]) -> list[Candidate]:
    """Add the crashes counted before, and whether a process of one of them seems to live."""
    counted = crashes.crashes_of(
        connection,
        [crashes.subject_of(each.job_id, each.active_job_id) for each in candidates if each.failure_id in wanted],
    )
    known = {(crash.hostname, crash.pid) for group in counted.values() for crash in group if crash.pid is not None}
    beating = heartbeat.registered_names(connection, known)
    completed: list[Candidate] = []
    for each in candidates:
        before = counted.get(crashes.subject_of(each.job_id, each.active_job_id), []) if each.death else []
        everything = {crash.failure_id: crash for crash in (*each.crashes, *before)}
        alive = next((words for crash in before if (words := _alive(crash, beating))), None)
        completed.append(each._replace(counted_crashes=tuple(everything.values()), alive=alive))
    return completed


def _alive(crash: crashes.Crash, beating: Mapping[tuple[str, int], str]) -> str | None:
    """Say which process may still run the job: one that beats again, or that runs on this host."""
    if crash.hostname is None or crash.pid is None:
        return None
    if name := beating.get((crash.hostname, crash.pid)):
        return f"its old process, pid {crash.pid} at {crash.hostname}, sends heartbeats again, as {name}"
    beat = crash.last_heartbeat_at
    if crash.hostname == socket.gethostname() and beat is not None and heartbeat.ran_before(crash.pid, beat):
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
    return [each._replace(twin=_twin(each, twins.get(each.active_job_id or "", ()))) for each in candidates]


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
