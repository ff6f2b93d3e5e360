"""The facts that a verdict rests on, read from the database: a job's crashes, its old process, its twins.

A twin is another job with the same Active Job id: it does the same work.
"""

import socket
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    null,
    or_,
    select,
    true,
    tuple_,
)

from solidjq.batching import in_batches
from solidjq.database import tables
from solidjq.database.among import among, read_among
from solidjq.database.functions import holds
from solidjq.database.grouping import before, exactly, gathered, gathers
from solidjq.database.tables import blocked, claimed, deaths, failed, jobs, ready, scheduled
from solidjq.database.times import utcnow
from solidjq.ledger import crashes, positions
from solidjq.processes import heartbeat
from solidjq.processes.pids import are_two, look_up, ran_then
from solidjq.processes.samples import sample_of
from solidjq.rails.active_job import CLEAN_COUNTERS, COUNTER_KEY
from solidjq.rails.error_text import DEATH_PREFIX
from solidjq.recovery.verdicts import Candidate


def find_candidates(
    connection: Connection,
    failure_ids: Collection[int],
    *,
    has_ledger: bool,
    twins: bool = True,
) -> list[Candidate]:
    """Return a candidate for each of these failures that still exists, by failure id.

    ``has_ledger``: whether the ``jq_`` tables exist. ``twins``: whether to look for twins. One statement covers the
    many jobs that died once and have no twin; the others cost a few more.
    """
    query = _candidate_query(has_ledger=has_ledger, twins_matter=true() if twins else false(), own_crash=true())
    rows = connection.execute(query.where(read_among(failed.c.id, failure_ids)).order_by(failed.c.id)).all()
    candidates = [_candidate(*row) for row in rows]
    if long := [row.failure_id for row in rows if row.long]:
        stands = positions.find_present(connection, long)
        candidates = [one._replace(stands=stands.get(one.failure_id)) for one in candidates]
    if crashed := {row.failure_id for row in rows if row.crashed}:
        candidates = _with_crashes(connection, candidates, crashed)
    if shared := {row.active_job_id for row in rows if row.shared}:
        candidates = _with_twins(connection, candidates, shared)
    return candidates


class CandidateGroup(NamedTuple):
    """Failures of simple cases that differ in nothing but their jobs and times: no earlier crash, no twin, no step.

    ``oldest`` and ``newest`` are one candidate with two times: those of the group's first and last failure.
    """

    oldest: Candidate
    newest: Candidate
    failure_ids: Sequence[int]


def find_groups(
    connection: Connection,
    failure_ids: Collection[int],
    *,
    has_ledger: bool,
    twins: bool = True,
) -> list[CandidateGroup]:
    """Group those of these failures that are simple cases, in the database; leave out all others.

    Returns no group if the database does not ``gathers``. ``has_ledger`` is that of ``find_candidates``. Even without
    ``twins``, a job with a twin is left out while its own crash is not counted yet: counted, the crash may count for
    the twin as well.
    """
    if not gathers(connection):
        return []
    rows = connection.execute(
        _group_query(has_ledger=has_ledger, twins=twins),
        {"ids": failure_ids, "first": min(failure_ids), "last": max(failure_ids)},
    )
    groups: list[CandidateGroup] = []
    for oldest, newest, ids, *row in rows:
        candidate = _candidate(*row)
        of_oldest = candidate if candidate.failed_at == oldest else candidate._replace(failed_at=oldest)
        of_newest = of_oldest if oldest == newest else candidate._replace(failed_at=newest)
        groups.append(CandidateGroup(of_oldest, of_newest, ids))
    return groups


_OWN = tables.crashes.alias()  # the crash that a failure was counted as
_EVIDENCE = func.substr(failed.c.error, 1, crashes.EVIDENCE)
_DIED = func.coalesce(holds(_EVIDENCE, DEATH_PREFIX), False)  # with false positives: Python parses the error
_FLAGS = ("limited", "finished", "early", "worn", "counted", "death_id")


@lru_cache(maxsize=4)
def _group_query(*, has_ledger: bool, twins: bool) -> Select[Any]:
    """Return the statement that groups failures; cached, since building it takes longer than a verdict."""
    twins_matter = true() if twins else and_(_DIED, _OWN.c.failure_id.is_(None)) if has_ledger else false()
    # Without these bounds PostgreSQL may read all crashes.
    own_crash = _OWN.c.failure_id.between(bindparam("first"), bindparam("last"))
    query = _candidate_query(has_ledger=has_ledger, twins_matter=twins_matter, own_crash=own_crash)
    rows = query.where(read_among(failed.c.id, "ids")).subquery("simple")
    # A verdict on a job's own error needs only the exception class, which Rails stores before the message. Messages
    # differ from job to job, and would leave every group with one failure.
    head = before(rows.c.evidence, ',"message":')
    named = and_(~holds(rows.c.evidence, DEATH_PREFIX), holds(head, '"exception_class":'))
    error = case((named, head), else_=rows.c.evidence)
    flags = [rows.c[name] for name in _FLAGS]
    groups = (
        select(
            func.min(rows.c.failure_id).label("first_id"),
            func.min(rows.c.failed_at).label("oldest"),
            func.max(rows.c.failed_at).label("newest"),
            gathered(rows.c.failure_id).label("ids"),
            *flags,
        )
        .where(~rows.c.crashed, ~rows.c.shared, ~rows.c.long)
        .group_by(
            *(exactly(text) for text in (rows.c.class_name, rows.c.queue_name, error)),
            *flags,
            rows.c.failed_at.is_(None),
        )
        .subquery("groups")
    )
    return (
        select(groups.c.oldest, groups.c.newest, groups.c.ids, *_facts(), *(groups.c[name] for name in _FLAGS))
        .join(failed, failed.c.id == groups.c.first_id)
        .join(jobs, jobs.c.id == failed.c.job_id)
    )


def _candidate_query(
    *, has_ledger: bool, twins_matter: ColumnElement[bool], own_crash: ColumnElement[bool]
) -> Select[Any]:
    """Return the statement that reads each failure, and whether its crashes or twins must be read as well.

    ``twins_matter``: the condition under which a twin counts. ``own_crash``: a condition that every crash which one of
    the failures was counted as fulfils; it bounds the join.
    """
    twin = jobs.alias()
    has_twin = exists().where(twin.c.active_job_id == jobs.c.active_job_id, twin.c.id != jobs.c.id)
    source = failed.join(jobs, jobs.c.id == failed.c.job_id)
    if has_ledger:
        source = source.outerjoin(_OWN, and_(_OWN.c.failure_id == failed.c.id, own_crash))
    return select(  # in the order of _candidate's parameters
        *_facts(),
        jobs.c.concurrency_key.is_not(None).label("limited"),
        jobs.c.finished_at.is_not(None).label("finished"),
        func.coalesce(jobs.c.scheduled_at > utcnow(), False).label("early"),
        worn().label("worn"),
        (_OWN.c.failure_id.is_not(None) if has_ledger else false()).label("counted"),
        (_OWN.c.death_id if has_ledger else null()).label("death_id"),
        (_OWN.c.started_at if has_ledger else null()).label("started_at"),
        (and_(_DIED, _crashes_matter()) if has_ledger else false()).label("crashed"),
        and_(twins_matter, has_twin).label("shared"),
        positions.have_begun().label("long"),
    ).select_from(source)


def _facts() -> tuple[ColumnElement[Any], ...]:
    """Return the columns of ``_candidate``'s first parameters."""
    return (
        failed.c.id.label("failure_id"),
        failed.c.job_id,
        jobs.c.active_job_id,
        jobs.c.class_name,
        jobs.c.queue_name,
        failed.c.created_at.label("failed_at"),
        _EVIDENCE.label("evidence"),
    )


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
    death_id: int | None,
    started_at: datetime | None = None,
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
        death_id=death_id,
        started_at=started_at,
    )


def _crashes_matter() -> ColumnElement[bool]:
    """Return the SQL condition under which the rows of ``jq_crashes`` can change the verdict on a job that died.

    That is so if it crashed before, if its class was another one then, or if its process may live: it ran on this host,
    or is registered.
    """
    other = tables.crashes.alias()
    earlier = exists().where(other.c.subject == crashes.subject(), other.c.failure_id != failed.c.id)
    registered = tuple_(_OWN.c.hostname, _OWN.c.pid).in_(select(tables.processes.c.hostname, tables.processes.c.pid))
    here = _OWN.c.hostname == socket.gethostname()
    renamed = exactly(_OWN.c.class_name) != exactly(jobs.c.class_name)
    return func.coalesce(or_(here, registered, renamed, earlier), False)


def worn() -> ColumnElement[bool]:
    """Return the SQL condition that a job's Active Job error counters may be above 0.

    Few jobs' are, and a retry fetches and rewrites the arguments of those alone.
    """
    text = exactly(func.coalesce(jobs.c.arguments, ""))
    return holds(func.replace(text, CLEAN_COUNTERS, ""), COUNTER_KEY)


def _with_crashes(connection: Connection, candidates: Sequence[Candidate], crashed: Collection[int]) -> list[Candidate]:
    """Add the crashes counted so far of the jobs of the failures ``crashed``, and the process that may still run one.

    Any other candidate that died gets only the crash of its own failure. Where a long job stands now is known from its
    payload: its crash may not be counted yet.
    """
    subjects = [crashes.subject_of(one.job_id, one.active_job_id) for one in candidates if one.failure_id in crashed]
    counted = crashes.crashes_of(connection, subjects)
    old = {(crash.hostname, crash.pid) for group in counted.values() for crash in group if crash.pid is not None}
    registered = heartbeat.processes_at(connection, old)
    samples = _last_samples(connection, (crash for group in counted.values() for crash in group), registered)
    completed: list[Candidate] = []
    for candidate in candidates:
        subject = crashes.subject_of(candidate.job_id, candidate.active_job_id)
        before = counted.get(subject, []) if candidate.death else []
        by_failure = {crash.failure_id: crash for crash in (*candidate.crashes, *before)}
        if (own := by_failure.get(candidate.failure_id)) is not None and candidate.position is not None:
            by_failure[own.failure_id] = own._replace(position=candidate.position)
        alive = next((words for crash in before if (words := _alive(crash, registered, samples))), None)
        completed.append(candidate._replace(counted_crashes=tuple(by_failure.values()), alive=alive))
    return completed


def _last_samples(
    connection: Connection, counted: Iterable[crashes.Crash], registered: Collection[tuple[str | None, int | None]]
) -> dict[int, tuple[datetime | None, Any]]:
    """Return when each process was registered that may still live, and its last sample, by its death."""
    host = socket.gethostname()
    death_ids = {
        crash.death_id
        for crash in counted
        if crash.death_id is not None and (crash.hostname == host or (crash.hostname, crash.pid) in registered)
    }
    samples: dict[int, tuple[datetime | None, Any]] = {}
    for batch in in_batches(death_ids):
        columns = (deaths.c.id, deaths.c.started_at, deaths.c.evidence)
        for death_id, registered_at, evidence in connection.execute(select(*columns).where(among(deaths.c.id, batch))):
            samples[death_id] = registered_at, sample_of(evidence)
    return samples


def _alive(
    crash: crashes.Crash,
    registered: Mapping[tuple[str, int], Iterable[Row[Any]]],
    samples: Mapping[int, tuple[datetime | None, Any]],
) -> str | None:
    """Return, in words, why the process of a crash may still run the job; None if it does not seem to live.

    ``registered``: the processes registered now, by host and pid. Only one that ran before the crash and has beaten
    since is the old one. Any other got its pid later, as in a container that was restarted in place, or has the pid in
    another container of the same host name, which its sample shows.
    """
    beat = crash.last_heartbeat_at or crashes.parse_evidence(crash.evidence).last_heartbeat_at
    if crash.hostname is None or crash.pid is None or beat is None:
        return None
    registered_at, sample = samples.get(crash.death_id or 0, (None, {}))
    for row in registered.get((crash.hostname, crash.pid), ()):
        has_beaten = row.last_heartbeat_at is not None and row.last_heartbeat_at > beat
        if has_beaten and ran_then(row, beat) and not are_two(sample, sample_of(row.metadata)):
            return f"its old process, pid {crash.pid} at {crash.hostname}, still sends heartbeats, as {row.name}"
    if crash.hostname != socket.gethostname():
        return None
    found = look_up(crash.pid, sample, registered_at=registered_at, last_heartbeat_at=beat)
    if not found.runs:
        return None
    other = "" if found.certain else f", or another program has its pid (ps -o lstart,args -p {crash.pid})"
    return f"its old process, pid {crash.pid}, still runs on this host{other}"


def _with_twins(connection: Connection, candidates: Sequence[Candidate], shared: Collection[str]) -> list[Candidate]:
    """Add the twin, of the Active Job ids ``shared``, that waits, runs, failed later or finished since the failure."""
    waits = or_(*(_is_in(table) for table in (ready, scheduled, blocked, claimed)))
    twins: dict[str | None, list[tuple[int, datetime | None, int | None, bool]]] = defaultdict(list)
    for row in connection.execute(
        select(
            jobs.c.id, jobs.c.active_job_id, jobs.c.finished_at, failed.c.id.label("failure_id"), waits.label("waits")
        )
        .join_from(jobs, failed, failed.c.job_id == jobs.c.id, isouter=True)
        .where(among(jobs.c.active_job_id, shared))
        .order_by(jobs.c.id)
    ):
        twins[row.active_job_id].append((row.id, row.finished_at, row.failure_id, bool(row.waits)))
    return [one._replace(twin=_twin(one, twins.get(one.active_job_id, ()))) for one in candidates]


def _is_in(table: Table) -> ColumnElement[bool]:
    return exists().where(table.c.job_id == jobs.c.id)


def _twin(candidate: Candidate, twins: Iterable[tuple[int, datetime | None, int | None, bool]]) -> str | None:
    for job_id, finished_at, failure_id, waits in twins:
        if job_id == candidate.job_id:
            continue
        words = f"job {job_id} has the same Active Job id and"
        if waits:
            return f"{words} waits or runs"
        if finished_at is not None and (candidate.failed_at is None or finished_at >= candidate.failed_at):
            return f"{words} finished since"
        if failure_id is not None and failure_id > candidate.failure_id:
            return f"{words} failed later"
    return None
