"""Deaths as one kind of record: how processes ended, with the evidence. Read from ``jq_deaths``, or from failures.

``jq work`` writes a row of ``jq_deaths`` when it reaps a child, and every prune of ``jq`` writes one from the last
sample. A death that Rails recorded leaves only failures: it is reconstructed from the errors' text, which is the same
for all jobs of the process, and from when they failed. Its evidence is a signal, a status or a last heartbeat, no more.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from solidjq.processes.heartbeat import HEARTBEAT_INTERVAL
from solidjq.processes.samples import instant, number, sample_of
from solidjq.queue.failed import is_death
from solidjq.rails.error_text import Death, exit_error, missing_error, pruned_error
from solidjq.text import parse_id

# Failures with the same error are of one death, as far as they tell: each this close to the one before, for Rails
# writes them one by one, and the last of them this close to the first.
SAME_DEATH_WITHIN = timedelta(seconds=10)
LONGEST_FAILING = timedelta(seconds=60)
LONGEST_INTERVAL = 3600.0  # seconds between heartbeats: evidence that claims more is not believed


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that a process had claimed when it died.

    ``started_at``, and ``growth`` of the process since then in bytes, are None if no sample recorded them.
    """

    job_id: int
    subject: str  # its Active Job id; else "job 42"
    class_name: str
    failure_id: int | None = None
    started_at: datetime | None = None
    growth: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeathRecord:
    """One process's end. ``evidence`` has its last ``sample``, and what the supervisor or the prune observed.

    What nobody recorded is None. Times are in UTC.
    """

    name: str  # d17: jq_deaths.id 17; f123: reconstructed from failure 123 and those of the same error
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
    jobs: tuple[ClaimedJob, ...] = ()
    several: bool = False  # its failures may be of several processes, which nothing tells apart

    @property
    def key(self) -> int | str:
        """The key by which the crashes of its jobs refer to it: ``jq_deaths.id``, else the beginning of its error."""
        return self.error if self.source is DeathSource.FAILURES else int(self.name[1:])

    @property
    def error(self) -> str:
        """The error that its jobs failed with, as stored."""
        if self.source is DeathSource.FAILURES:
            return str(self.evidence["error"])
        if self.how is Death.PRUNED:
            return missing_error() if self.last_heartbeat_at is None else pruned_error(self.last_heartbeat_at)
        return exit_error(self.pid or 0, -self.signal if self.signal is not None else self.exit_status or 0)

    @property
    def sample(self) -> Mapping[str, Any]:
        """The last sample of the process, as ``processes.samples`` defines it; empty if there is none."""
        sample = self.evidence.get("sample")
        return sample if isinstance(sample, Mapping) else {}

    @property
    def ahead(self) -> bool:
        """Whether the process claimed jobs ahead: then only jobs with a recorded start are charged."""
        return bool(self.evidence.get("ahead"))

    @property
    def faulting(self) -> tuple[int, str] | None:
        """The id and class of the job whose thread crashed, if that was recorded."""
        match self.evidence.get("faulting"):
            case {"job_id": int(job_id), "class_name": str(class_name)}:
                return job_id, class_name
        return None

    @property
    def charged(self) -> tuple[ClaimedJob, ...]:
        """The jobs that may have killed the process."""
        return tuple(job for job in self.jobs if self.charges(job.job_id, job.started_at))

    def charges(self, job_id: int, started_at: datetime | None) -> bool:
        """Whether a job that it had claimed may have killed the process; ``started_at`` is None if that is unknown.

        Only the one whose thread crashed, if that is recorded; else those that it executed, as far as that is recorded.
        """
        if self.faulting is not None:
            return job_id == self.faulting[0]
        return started_at is not None or not self.ahead

    @property
    def silent_at(self) -> datetime:
        """When the process was last known to live: its last heartbeat if it was pruned, else when it was reaped."""
        if self.how is Death.PRUNED and self.last_heartbeat_at is not None:
            return self.last_heartbeat_at
        return self.noticed_at

    @property
    def interval(self) -> timedelta:
        """The time between two of its heartbeats: it died at most so long after it was last known to live.

        Recorded by its last sample; else Solid Queue's default, but at most half of the silence that it was pruned for,
        since an alive threshold is at least two heartbeats.
        """
        recorded = number(self.sample, "interval")
        if recorded is not None and 0 < recorded <= LONGEST_INTERVAL:
            return timedelta(seconds=recorded)
        default = timedelta(seconds=HEARTBEAT_INTERVAL)
        if self.how is not Death.PRUNED:
            return default
        threshold = number(self.evidence, "threshold")
        silence = self.noticed_at - self.silent_at
        if threshold is not None and 0 < threshold <= 2 * LONGEST_INTERVAL:
            silence = timedelta(seconds=threshold)
        return max(timedelta(), min(default, silence / 2))


def list_deaths(
    connection: Connection, *, since: datetime | None = None, until: datetime | None = None
) -> list[DeathRecord]:
    """Return the deaths noticed from ``since`` on and before ``until``, the oldest first.

    Works without the ``jq_`` tables: then every death is reconstructed from the failures that exist now.
    """
    has_ledger = operations.exists(connection)
    records = _recorded(connection, since, until) if has_ledger else []
    queries = _unrecorded_failures(since, until, has_ledger=has_ledger)
    rows = [row for query in queries for row in connection.execute(query) if row.crashed_at is not None]
    records += _reconstructed(sorted(rows, key=lambda row: (row.crashed_at, row.failure_id)))
    return sorted(records, key=lambda death: (death.noticed_at, _number_of(death.name)))


def list_by_class(connection: Connection, since: datetime) -> list[tuple[DeathRecord, Counter[str]]]:
    """Return the deaths noticed since then without their jobs, each with how many jobs of which class it charges.

    It reads a row a class and death, however many jobs there are. Unlike in ``list_deaths``, all unrecorded failures
    with the same error are one death, whenever they failed.
    """
    has_ledger = operations.exists(connection)
    columns = tables.crashes.c
    charged: dict[str, Counter[str]] = defaultdict(Counter)
    recorded = _recorded(connection, since, None, jobs=False) if has_ledger else []
    ahead = {death.name for death in recorded if death.ahead}
    faulting = {death.name: death.faulting[1] for death in recorded if death.faulting is not None}
    if has_ledger:
        counted = (
            select(columns.death_id, columns.class_name, func.count(), func.count(columns.started_at))
            .where(columns.death_id.is_not(None), columns.crashed_at >= boundary(since))
            .group_by(columns.death_id, columns.class_name)
        )
        for death_id, class_name, count, begun in connection.execute(counted):
            name = f"d{death_id}"
            if name in faulting:
                charged[name] = Counter([faulting[name]])
            elif jobs_charged := begun if name in ahead else count:
                charged[name][class_name] += jobs_charged
    unrecorded = union_all(*_unrecorded_failures(since, None, has_ledger=has_ledger)).subquery().c
    grouped = select(
        func.min(unrecorded.failure_id).label("failure_id"),
        func.min(unrecorded.job_id).label("job_id"),
        func.min(unrecorded.subject).label("subject"),
        unrecorded.class_name,
        unrecorded.evidence,
        func.min(unrecorded.crashed_at).label("crashed_at"),
        func.min(unrecorded.hostname).label("hostname"),
        func.min(unrecorded.pid).label("pid"),
        func.count().label("failures"),
    ).group_by(unrecorded.evidence, unrecorded.class_name)
    by_error: dict[str, DeathRecord] = {}
    for row in connection.execute(grouped.order_by("failure_id")):
        death = by_error.get(row.evidence) or _death_of(row)
        if death is not None:
            by_error[row.evidence] = death
            charged[death.name][row.class_name] += row.failures
    return [(death, charged[death.name]) for death in (*recorded, *by_error.values())]


def with_jobs(connection: Connection, records: Collection[DeathRecord]) -> list[DeathRecord]:
    """Return these deaths, which ``list_by_class`` returned, with their jobs."""
    claimed = _claimed_jobs(connection, [death.key for death in records if death.source is not DeathSource.FAILURES])
    errors = {death.error for death in records if death.source is DeathSource.FAILURES}
    by_error: dict[str, list[ClaimedJob]] = defaultdict(list)
    if errors:
        for query in _unrecorded_failures(None, None, has_ledger=operations.exists(connection)):
            rows = query.subquery()
            for batch in in_batches(errors):
                for row in connection.execute(rows.select().where(rows.c.evidence.in_(batch))):
                    by_error[row.evidence].append(ClaimedJob(row.job_id, row.subject, row.class_name, row.failure_id))
    return [
        replace(
            death, jobs=tuple(claimed[death.key] if death.source is not DeathSource.FAILURES else by_error[death.error])
        )
        for death in records
    ]


def noticed_at(connection: Connection, name: str) -> datetime | None:
    """Return when the death of this name was noticed; None if there is no such death.

    For a name such as ``f123`` that is when failure 123 was written, be it the first of its death or not.
    """
    has_ledger = operations.exists(connection)
    match name[:1], parse_id(name[1:]):
        case _, None:
            return None
        case "d", number if has_ledger:
            return connection.scalar(select(deaths.c.noticed_at).where(deaths.c.id == number))
        case "f", number:
            counted = select(tables.crashes.c.crashed_at).where(tables.crashes.c.failure_id == number)
            now = select(failed.c.created_at).where(failed.c.id == number)
            return (connection.scalar(counted) if has_ledger else None) or connection.scalar(now)
    return None


def outages(connection: Connection) -> list[tuple[datetime, datetime | None]]:
    """Return the last outage of every process that lives now: the times between which it could not send a heartbeat.

    The end is None if the outage had not ended at the process's last sample.
    """
    spans = []
    for metadata in connection.scalars(select(processes.c.metadata).where(processes.c.metadata.is_not(None))):
        outage = sample_of(metadata).get("outage")
        if isinstance(outage, dict) and (start := instant(outage.get("from"))) is not None:
            spans.append((start, instant(outage.get("to"))))
    return spans


def _recorded(
    connection: Connection, since: datetime | None, until: datetime | None, *, jobs: bool = True
) -> list[DeathRecord]:
    rows = connection.execute(
        select(deaths).where(*_between(deaths.c.noticed_at, since, until)).order_by(deaths.c.id)
    ).all()
    claimed = _claimed_jobs(connection, [row.id for row in rows if jobs])
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
            jobs=tuple(claimed[row.id]),
        )
        for row in rows
    ]


def _claimed_jobs(connection: Connection, death_ids: Iterable[Any]) -> Mapping[Any, list[ClaimedJob]]:
    """Return the jobs that crashed at these deaths of ``jq_deaths``."""
    claimed: dict[int, list[ClaimedJob]] = defaultdict(list)
    columns = tables.crashes.c
    for batch in in_batches(death_ids):
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
            claimed[row.death_id].append(ClaimedJob(*row[1:]))
    return claimed


def _unrecorded_failures(since: datetime | None, until: datetime | None, *, has_ledger: bool) -> list[Select[Any]]:
    """Return the statements for jobs that failed by a death, and crashes counted since, of deaths without a record."""
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
    if not has_ledger:
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


def _between(time: ColumnElement[Any], since: datetime | None, until: datetime | None) -> Iterator[ColumnElement[bool]]:
    if since is not None:
        yield time >= boundary(since)
    if until is not None:
        yield time < boundary(until)


def _reconstructed(rows: Sequence[Row[Any]]) -> list[DeathRecord]:
    """Return the deaths that failures, sorted by time, report: the same error, written one soon after the other.

    Two processes whose last heartbeats fell into one second have the same error, as have two of one pid in different
    containers, and jobs whose process has no row always do. What tells them apart is the time: a prune by ``jq`` writes
    the failures of one process at one instant, which those of no other process share. Where all instants differ, as
    Rails leaves them, nothing does, and the record says that it may stand for several processes.
    """
    written = Counter((row.evidence, row.crashed_at) for row in rows)
    deaths: dict[tuple[str, datetime | None], _GrowingDeath] = {}
    records: list[_GrowingDeath] = []
    for row in rows:
        at_once = written[row.evidence, row.crashed_at] > 1
        key = (row.evidence, row.crashed_at if at_once else None)
        growing = deaths.get(key)
        if growing is None or not growing.includes(row.crashed_at):
            if (death := _death_of(row)) is None:
                continue
            growing = deaths[key] = _GrowingDeath(death, at_once, row.crashed_at)
            records.append(growing)
        growing.add(row)
    return [growing.record for growing in records]


@dataclass(slots=True)
class _GrowingDeath:
    """A death that is put together from failures, one after the other."""

    death: DeathRecord
    at_once: bool  # all its failures were written at one instant
    last_at: datetime
    jobs: list[ClaimedJob] = field(default_factory=list)

    def includes(self, at: datetime) -> bool:
        """Whether a failure with its error that was written at this time is of this death."""
        return at - self.last_at <= SAME_DEATH_WITHIN and at - self.death.noticed_at <= LONGEST_FAILING

    def add(self, row: Row[Any]) -> None:
        self.jobs.append(ClaimedJob(row.job_id, row.subject, row.class_name, row.failure_id))
        self.last_at = row.crashed_at

    @property
    def record(self) -> DeathRecord:
        told_apart = self.at_once and self.death.how is not Death.MISSING
        return replace(self.death, jobs=tuple(self.jobs), several=len(self.jobs) > 1 and not told_apart)


def _death_of(row: Row[Any]) -> DeathRecord | None:
    """Return the death that a failure's error reports; None if it reports none, or the failure has no time."""
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
