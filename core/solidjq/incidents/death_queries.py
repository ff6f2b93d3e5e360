"""Reads deaths: from ``jq_deaths``, and reconstructed from failures where nobody recorded them.

``jq work`` writes a row of ``jq_deaths`` when it reaps a child, and every prune of ``jq`` writes one from the last
sample.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, cast, exists, func, null, select, union_all

from solidjq.batching import in_batches
from solidjq.database import tables
from solidjq.database.statements import among, streamed
from solidjq.database.tables import deaths, failed, jobs, processes
from solidjq.database.times import boundary
from solidjq.incidents.claimed_jobs import ClaimedJobs
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.reconstruction import death_of, reconstruct
from solidjq.ledger import crashes, operations
from solidjq.ledger.deaths import DeathSource, source_of
from solidjq.processes.samples import instant, sample_of
from solidjq.queue.failed import is_death
from solidjq.rails.error_text import Death
from solidjq.text import parse_id
from solidjq.untrusted import part, read_object


def list_deaths(
    connection: Connection, *, since: datetime | None = None, until: datetime | None = None
) -> list[DeathRecord]:
    """Return the deaths noticed from ``since`` on and before ``until``, the oldest first.

    Works without the ``jq_`` tables: then every death is reconstructed from the failures that exist now. A row without
    any time that makes sense is left out.
    """
    has_ledger = operations.exists(connection)
    records = _recorded(connection, since, until) if has_ledger else []
    unrecorded = union_all(*_unrecorded_failures(since, until, has_ledger=has_ledger)).subquery()
    by_time = unrecorded.select().order_by(unrecorded.c.crashed_at, unrecorded.c.failure_id)
    records += reconstruct(row for row in streamed(connection, by_time) if row.crashed_at is not None)
    return sorted(records, key=lambda death: (death.noticed_at, _number_of(death.name)))


def list_by_class(
    connection: Connection, since: datetime, *, above: int | None = None
) -> list[tuple[DeathRecord, Counter[str]]]:
    """Return the deaths noticed since then without their jobs, each with how many jobs of which class it charges.

    It reads a row a class and death, however many jobs there are. Unlike in ``list_deaths``, all unrecorded failures
    with the same error are one death, whenever they failed. With ``above``, unrecorded deaths are searched for among
    the failures above that failure_id alone: by the primary key, where no index has the time.
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
    unrecorded = union_all(*_unrecorded_failures(since, None, has_ledger=has_ledger, above=above)).subquery().c
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
        death = by_error.get(row.evidence) or death_of(row)
        if death is not None:
            by_error[row.evidence] = death
            charged[death.name][row.class_name] += row.failures
    return [(death, charged[death.name]) for death in (*recorded, *by_error.values())]


def with_jobs(connection: Connection, records: Collection[DeathRecord]) -> list[DeathRecord]:
    """Return these deaths, which ``list_by_class`` returned, with their jobs."""
    claimed = _claimed_jobs(connection, [death.key for death in records if death.source is not DeathSource.FAILURES])
    errors = {death.error for death in records if death.source is DeathSource.FAILURES}
    by_error: dict[str, ClaimedJobs] = defaultdict(ClaimedJobs)
    if errors:
        for query in _unrecorded_failures(None, None, has_ledger=operations.exists(connection)):
            rows = query.subquery()
            for batch in in_batches(errors):
                for row in streamed(connection, rows.select().where(rows.c.evidence.in_(batch))):
                    by_error[row.evidence].add(row.job_id, row.subject, row.class_name, row.failure_id)
    return [
        replace(death, jobs=claimed[death.key] if death.source is not DeathSource.FAILURES else by_error[death.error])
        for death in records
    ]


def find_recorded(connection: Connection, numbers: Collection[int]) -> list[DeathRecord]:
    """Return the deaths with these ids of ``jq_deaths``, with their jobs. A row without any time is left out."""
    return [
        death for batch in in_batches(numbers) for death in _records(connection, [among(deaths.c.id, batch)], jobs=True)
    ]


def list_recorded(connection: Connection, since: datetime) -> list[DeathRecord]:
    """Return the deaths of ``jq_deaths`` noticed since then, without their jobs."""
    return _recorded(connection, since, None, jobs=False)


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
        outage = part(sample_of(metadata), "outage")
        if (start := instant(outage.get("from"))) is not None:
            spans.append((start, instant(outage.get("to"))))
    return spans


def _recorded(
    connection: Connection, since: datetime | None, until: datetime | None, *, jobs: bool = True
) -> list[DeathRecord]:
    return _records(connection, _between(deaths.c.noticed_at, since, until), jobs=jobs)


def _records(connection: Connection, which: Iterable[ColumnElement[bool]], *, jobs: bool) -> list[DeathRecord]:
    rows = connection.execute(select(deaths).where(*which).order_by(deaths.c.id)).all()
    claimed = _claimed_jobs(connection, [row.id for row in rows if jobs])
    return [
        _record_of(row, noticed_at, claimed[row.id])
        for row in rows
        if (noticed_at := row.noticed_at or row.last_heartbeat_at or row.started_at) is not None
    ]


def _record_of(row: Row[Any], noticed_at: datetime, claimed: ClaimedJobs) -> DeathRecord:
    source = source_of(row)
    return DeathRecord(
        name=f"d{row.id}",
        source=source,
        how=Death.PRUNED if source is DeathSource.PRUNE else Death.EXITED,
        noticed_at=noticed_at,
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
        evidence=read_object(row.evidence),
        jobs=claimed,
    )


def _claimed_jobs(connection: Connection, death_ids: Iterable[Any]) -> Mapping[Any, ClaimedJobs]:
    """Return the jobs that crashed at these deaths of ``jq_deaths``."""
    claimed: dict[int, ClaimedJobs] = defaultdict(ClaimedJobs)
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
        of_batch = query.where(among(columns.death_id, batch)).order_by(columns.failure_id)
        for row in streamed(connection, of_batch):
            job = (row.job_id, row.subject, row.class_name, row.failure_id, row.started_at, row.growth)
            claimed[row.death_id].add(*job)
    return claimed


def _unrecorded_failures(
    since: datetime | None, until: datetime | None, *, has_ledger: bool, above: int | None = None
) -> list[Select[Any]]:
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
        .where(is_death(), *_between(failed.c.created_at, since, until), *_above(failed.c.id, above))
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
    ).where(columns.death_id.is_(None), *_between(columns.crashed_at, since, until), *_above(columns.failure_id, above))
    return [counted, current.where(~exists().where(columns.failure_id == failed.c.id))]


def _between(time: ColumnElement[Any], since: datetime | None, until: datetime | None) -> Iterator[ColumnElement[bool]]:
    if since is not None:
        yield time >= boundary(since)
    if until is not None:
        yield time < boundary(until)


def _above(failure_id: ColumnElement[int], least: int | None) -> Iterator[ColumnElement[bool]]:
    if least is not None:
        yield failure_id > least


def _number_of(name: str) -> int:
    return int(name[1:])
