"""Deaths: how processes ended, with the evidence. Written where we see it; put together from what is left elsewhere.

Our supervisor writes a death when it reaps a child, and every prune of ours writes one from the last sample. Deaths
that Rails recorded leave only failures behind: they are put together from the errors' text, which jobs that died
together share, and from when they failed. Such a death tells of a signal, a status or a last heartbeat, and no more.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, cast, exists, func, null, select, union_all

from solidjq.batching import in_batches
from solidjq.database import tables
from solidjq.database.statements import among
from solidjq.database.tables import deaths, failed, jobs, processes
from solidjq.database.times import boundary
from solidjq.ledger import crashes, operations
from solidjq.ledger.deaths import DeathSource
from solidjq.processes.samples import instant, sample_of
from solidjq.queue.failed import is_death
from solidjq.rails.error_text import Death, exit_error, missing_error, pruned_error
from solidjq.text import parse_id

SAME_DEATH_WITHIN = timedelta(
    seconds=60
)  # failures with the same error this close are of one death: Rails fails them in turn


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that a process held when it died. ``started_at`` and ``growth`` (bytes) only where its process told."""

    job_id: int
    subject: str  # its Active Job id; else 'job 42'
    class_name: str
    failure_id: int | None = None
    started_at: datetime | None = None
    growth: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeathRecord:
    """One process's end. ``evidence`` is what was written down then: ``sample``, and what the witness saw."""

    name: str  # d17: jq_deaths.id 17; f123: put together from failure 123 and those beside it
    source: DeathSource
    how: Death
    noticed_at: datetime
    process_id: int | None = None
    kind: str | None = None
    process_name: str | None = None
    hostname: str | None = None
    pid: int | None = None
    supervisor_id: int | None = None
    started_at: datetime | None = None
    last_heartbeat_at: datetime | None = None
    exit_status: int | None = None
    signal: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    jobs: tuple[HeldJob, ...] = ()

    @property
    def key(self) -> int | str:
        """What a crash of it carries: jq_deaths.id, else the beginning of its error."""
        return self.error if self.source is DeathSource.FAILURES else int(self.name[1:])

    @property
    def error(self) -> str:
        """The error that its jobs were failed with."""
        if self.source is DeathSource.FAILURES:
            return str(self.evidence["error"])
        if self.how is Death.PRUNED:
            return missing_error() if self.last_heartbeat_at is None else pruned_error(self.last_heartbeat_at)
        return exit_error(self.pid or 0, -self.signal if self.signal is not None else self.exit_status or 0)

    @property
    def sample(self) -> Mapping[str, Any]:
        """The last sample; empty if there was none."""
        found = self.evidence.get("sample")
        return found if isinstance(found, Mapping) else {}

    @property
    def ahead(self) -> bool:
        """Whether it also held jobs that had not begun, and nobody knows which: only those known to run are charged."""
        return bool(self.evidence.get("ahead"))

    @property
    def charged(self) -> tuple[HeldJob, ...]:
        """The jobs that may have killed it."""
        return tuple(job for job in self.jobs if job.started_at is not None) if self.ahead else self.jobs

    @property
    def silent_at(self) -> datetime:
        """When it was last known to live."""
        if self.how is Death.PRUNED and self.last_heartbeat_at is not None:
            return self.last_heartbeat_at
        return self.noticed_at


def list_deaths(
    connection: Connection, *, since: datetime | None = None, until: datetime | None = None
) -> list[DeathRecord]:
    """Return the deaths noticed from ``since`` on and before ``until``, the oldest first.

    Works without the ``jq_`` tables: then all are put together from the failures that are there now.
    """
    kept = operations.exists(connection)
    found = _recorded(connection, since, until) if kept else []
    rows = [row for query in _told_by_failures(since, until, kept=kept) for row in connection.execute(query)]
    timed = sorted(
        (row for row in rows if row.crashed_at is not None), key=lambda row: (row.crashed_at, row.failure_id)
    )
    found += _reconstructed(timed)
    return sorted(found, key=lambda death: (death.noticed_at, _number_of(death.name)))


def list_by_class(connection: Connection, since: datetime) -> list[tuple[DeathRecord, Counter[str]]]:
    """Return the deaths since then without their jobs, but with how many of each class are charged.

    It reads a row a class and death, however many jobs there are. Failures with the same error are one death here.
    """
    kept = operations.exists(connection)
    columns = tables.crashes.c
    held: dict[str, Counter[str]] = defaultdict(Counter)
    found = _recorded(connection, since, None, jobs=False) if kept else []
    ahead = {death.name for death in found if death.ahead}
    if kept:
        counted = (
            select(columns.death_id, columns.class_name, func.count(), func.count(columns.started_at))
            .where(columns.death_id.is_not(None), columns.crashed_at >= boundary(since))
            .group_by(columns.death_id, columns.class_name)
        )
        for death_id, class_name, count, begun in connection.execute(counted):
            name = f"d{death_id}"
            if charged := begun if name in ahead else count:
                held[name][class_name] += charged
    told = union_all(*_told_by_failures(since, None, kept=kept)).subquery()
    grouped = select(
        func.min(told.c.failure_id).label("failure_id"),
        func.min(told.c.job_id).label("job_id"),
        func.min(told.c.subject).label("subject"),
        told.c.class_name,
        told.c.evidence,
        func.min(told.c.crashed_at).label("crashed_at"),
        func.min(told.c.hostname).label("hostname"),
        func.min(told.c.pid).label("pid"),
        func.count().label("failures"),
    ).group_by(told.c.evidence, told.c.class_name)
    by_error: dict[str, DeathRecord] = {}
    for row in connection.execute(grouped.order_by("failure_id")):
        death = by_error.get(row.evidence) or _death_of(row)
        if death is not None:
            by_error[row.evidence] = death
            held[death.name][row.class_name] += row.failures
    return [(death, held[death.name]) for death in (*found, *by_error.values())]


def noticed_at(connection: Connection, name: str) -> datetime | None:
    """Return when the death of this name was noticed, or the failure that names it was written; None if none was."""
    kept = operations.exists(connection)
    match name[:1], parse_id(name[1:]):
        case _, None:
            return None
        case "d", number if kept:
            return connection.scalar(select(deaths.c.noticed_at).where(deaths.c.id == number))
        case "f", number:
            counted = select(tables.crashes.c.crashed_at).where(tables.crashes.c.failure_id == number)
            now = select(failed.c.created_at).where(failed.c.id == number)
            return (connection.scalar(counted) if kept else None) or connection.scalar(now)
    return None


def outages(connection: Connection) -> list[tuple[datetime, datetime | None]]:
    """Return when heartbeats of processes that live now failed last: from when, and until when if it is over."""
    found = []
    for metadata in connection.scalars(select(processes.c.metadata).where(processes.c.metadata.is_not(None))):
        outage = sample_of(metadata).get("outage")
        if isinstance(outage, dict) and (start := instant(outage.get("from"))) is not None:
            found.append((start, instant(outage.get("to"))))
    return found


def _recorded(
    connection: Connection, since: datetime | None, until: datetime | None, *, jobs: bool = True
) -> list[DeathRecord]:
    rows = connection.execute(
        select(deaths).where(*_between(deaths.c.noticed_at, since, until)).order_by(deaths.c.id)
    ).all()
    held: dict[int, list[HeldJob]] = defaultdict(list)
    columns = tables.crashes.c
    for batch in in_batches(row.id for row in rows if jobs):
        query = select(
            columns.death_id,
            columns.job_id,
            columns.subject,
            columns.class_name,
            columns.failure_id,
            columns.started_at,
            columns.growth,
        )
        for row in connection.execute(query.where(among(columns.death_id, batch)).order_by(columns.failure_id)):
            held[row.death_id].append(HeldJob(*row[1:]))
    return [
        DeathRecord(
            name=f"d{row.id}",
            source=DeathSource(row.noticed_by),
            how=Death.PRUNED if row.noticed_by == DeathSource.PRUNE else Death.EXITED,
            noticed_at=row.noticed_at,
            process_id=row.process_id,
            kind=row.kind,
            process_name=row.name,
            hostname=row.hostname,
            pid=row.pid,
            supervisor_id=row.supervisor_id,
            started_at=row.started_at,
            last_heartbeat_at=row.last_heartbeat_at,
            exit_status=row.exit_status,
            signal=row.signal,
            evidence=json.loads(row.evidence or "{}"),
            jobs=tuple(held[row.id]),
        )
        for row in rows
    ]


def _told_by_failures(since: datetime | None, until: datetime | None, *, kept: bool) -> list[Select[Any]]:
    """Ask for the failed jobs, and the crashes counted of such, that belong to no recorded death."""
    columns = tables.crashes.c
    current = (
        select(
            failed.c.id.label("failure_id"),
            failed.c.job_id,
            crashes.subject().label("subject"),
            jobs.c.class_name,
            func.substr(failed.c.error, 1, crashes.EVIDENCE).label("evidence"),
            failed.c.created_at.label("crashed_at"),
            cast(null(), columns.hostname.type).label("hostname"),
            cast(null(), columns.pid.type).label("pid"),
        )
        .join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        .where(is_death(), *_between(failed.c.created_at, since, until))
    )
    if not kept:
        return [current]
    counted = select(
        columns.failure_id,
        columns.job_id,
        columns.subject,
        columns.class_name,
        columns.evidence,
        columns.crashed_at,
        columns.hostname,
        columns.pid,
    ).where(columns.death_id.is_(None), *_between(columns.crashed_at, since, until))
    return [counted, current.where(~exists().where(columns.failure_id == failed.c.id))]


def _between(column: Any, since: datetime | None, until: datetime | None) -> Iterator[ColumnElement[bool]]:
    if since is not None:
        yield column >= boundary(since)
    if until is not None:
        yield column < boundary(until)


def _reconstructed(rows: Iterable[Row[Any]]) -> list[DeathRecord]:
    """Put deaths together: the same words of the error, within a minute of each other."""
    latest: dict[str, datetime] = {}
    found: dict[str, tuple[DeathRecord, list[HeldJob]]] = {}  # by error, the one that may still grow
    closed: list[tuple[DeathRecord, list[HeldJob]]] = []
    for row in rows:
        known = found.get(row.evidence)
        if known is None or row.crashed_at - latest[row.evidence] > SAME_DEATH_WITHIN:
            if (death := _death_of(row)) is None:
                continue
            known = found[row.evidence] = (death, [])
            closed.append(known)
        known[1].append(HeldJob(row.job_id, row.subject, row.class_name, row.failure_id))
        latest[row.evidence] = row.crashed_at
    return [replace(death, jobs=tuple(held)) for death, held in closed]


def _death_of(row: Row[Any]) -> DeathRecord | None:
    """Read the death that a failure tells of; None if it tells of none, or not when."""
    error = crashes.parse_evidence(row.evidence)
    if error.death is None or row.crashed_at is None:
        return None
    return DeathRecord(
        name=f"f{row.failure_id}",
        source=DeathSource.FAILURES,
        how=error.death,
        noticed_at=row.crashed_at,
        hostname=row.hostname,
        pid=row.pid if error.pid is None else error.pid,
        last_heartbeat_at=error.last_heartbeat_at,
        exit_status=error.exit_status,
        signal=error.signal,
        evidence={"error": row.evidence},
    )


def _number_of(name: str) -> int:
    return int(name[1:])
