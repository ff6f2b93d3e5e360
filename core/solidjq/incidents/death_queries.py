"""Reads deaths: from ``jq_deaths``, and reconstructed from failures where nobody recorded them.

``jq work`` writes a row of ``jq_deaths`` when it reaps a child, and every prune of ``jq`` writes one from the last
sample.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, cast, exists, func, literal, null, or_, select, union_all

from solidjq.database import tables
from solidjq.database.statements import among, streamed
from solidjq.database.tables import deaths, failed, jobs, processes
from solidjq.database.times import boundary
from solidjq.incidents.claimed_jobs import UNREAD, ClaimedJobs, ClassCount
from solidjq.incidents.death_records import DeathRecord, FailureSpan
from solidjq.incidents.reconstruction import death_of, reconstruct
from solidjq.ledger import crashes, operations
from solidjq.ledger.deaths import DeathSource, source_of
from solidjq.processes.samples import instant, sample_of
from solidjq.queue.failed import is_death
from solidjq.rails.error_text import Death
from solidjq.text import parse_id
from solidjq.untrusted import part, read_object


def list_deaths(
    connection: Connection, *, since: datetime | None = None, until: datetime | None = None, waiting: bool = False
) -> list[DeathRecord]:
    """Return the deaths noticed from ``since`` on and before ``until``, the oldest first; their jobs are only counted.

    With ``waiting`` it is counted, too, how many of them are failed still; ``death_jobs.with_jobs`` reads the jobs.

    Works without the ``jq_`` tables: then every death is reconstructed from the failures that exist now. A row without
    any time that makes sense is left out.
    """
    has_ledger = operations.exists(connection)
    records: list[DeathRecord] = []
    if has_ledger:
        within = list(_between(deaths.c.noticed_at, since, until))
        counted = _count_recorded(connection, within, waiting=waiting)
        records = [replace(death, counted=counted.get(death.key, {})) for death in _recorded(connection, within)]
    every = union_all(*unrecorded_failures(since, until, has_ledger=has_ledger, waiting=waiting)).subquery().c
    grouped = (
        select(
            func.min(every.failure_id).label("failure_id"),
            func.max(every.failure_id).label("last_failure_id"),
            func.min(every.job_id).label("job_id"),
            func.min(every.subject).label("subject"),
            every.class_name,
            every.evidence,
            every.crashed_at,
            func.min(every.hostname).label("hostname"),
            func.min(every.pid).label("pid"),
            func.count().label("failures"),
            func.count(every.waiting_id).label("waiting"),
        )
        .group_by(every.crashed_at, every.evidence, every.class_name)
        .order_by(every.crashed_at, "failure_id")
    )
    records += reconstruct(row for row in streamed(connection, grouped) if row.crashed_at is not None)
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
    recorded = _recorded(connection, _between(deaths.c.noticed_at, since, None)) if has_ledger else []
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
    unrecorded = (
        union_all(
            *unrecorded_failures(
                since, None, has_ledger=has_ledger, within=[] if above is None else [(above + 1, None)]
            )
        )
        .subquery()
        .c
    )
    grouped = select(
        func.min(unrecorded.failure_id).label("failure_id"),
        func.max(unrecorded.failure_id).label("last_failure_id"),
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
            ids = (row.failure_id, row.last_failure_id, *(death.span or ())[:2])
            by_error[row.evidence] = replace(death, jobs=UNREAD, span=FailureSpan(min(ids), max(ids)))
            charged[death.name][row.class_name] += row.failures
    return [(death, charged[death.name]) for death in (*recorded, *by_error.values())]


def list_recorded(
    connection: Connection, *, since: datetime | None = None, numbers: Sequence[int] | None = None
) -> list[DeathRecord]:
    """Return the deaths of ``jq_deaths`` noticed since then, or with these ids, as if without jobs.

    A row without any time is left out.
    """
    which = [*_between(deaths.c.noticed_at, since, None), *([] if numbers is None else [among(deaths.c.id, numbers)])]
    return [replace(death, jobs=ClaimedJobs()) for death in _recorded(connection, which)]


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


def recorded_death(connection: Connection, name: str) -> str | None:
    """Return the name of the death of ``jq_deaths`` that the failure of a name such as ``f123`` is counted for."""
    number = parse_id(name[1:])
    if name[:1] != "f" or number is None or not operations.exists(connection):
        return None
    columns = tables.crashes.c
    death_id = connection.scalar(select(columns.death_id).where(columns.failure_id == number))
    return None if death_id is None else f"d{death_id}"


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


def _recorded(connection: Connection, which: Iterable[ColumnElement[bool]]) -> list[DeathRecord]:
    query = select(deaths).where(*which).order_by(deaths.c.id)
    return [
        _record_of(row, noticed_at)
        for row in streamed(connection, query)
        if (noticed_at := row.noticed_at or row.last_heartbeat_at or row.started_at) is not None
    ]


def _count_recorded(
    connection: Connection, which: Iterable[ColumnElement[bool]], *, waiting: bool
) -> Mapping[Any, Mapping[str, ClassCount]]:
    """Return how many jobs of which class crashed at each of these deaths of ``jq_deaths``.

    It reads a row a class and death.
    """
    columns = tables.crashes.c
    crashed = tables.crashes.join(deaths, deaths.c.id == columns.death_id)
    if waiting:
        crashed = crashed.outerjoin(failed, failed.c.id == columns.failure_id)
    query = (
        select(
            columns.death_id,
            columns.class_name,
            func.count(),
            func.count(columns.started_at),
            func.count(failed.c.id) if waiting else literal(0),
            func.min(columns.subject),
            func.min(columns.job_id),
        )
        .select_from(crashed)
        .where(*which)
        .group_by(columns.death_id, columns.class_name)
        .order_by(columns.death_id, func.min(columns.failure_id))
    )
    counted: dict[Any, dict[str, ClassCount]] = defaultdict(dict)
    for death_id, class_name, *counts in connection.execute(query):
        counted[death_id][class_name] = ClassCount(*counts)
    return counted


def _record_of(row: Row[Any], noticed_at: datetime) -> DeathRecord:
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
        jobs=UNREAD,
    )


def unrecorded_failures(
    since: datetime | None,
    until: datetime | None,
    *,
    has_ledger: bool,
    within: Sequence[tuple[int, int | None]] = (),
    waiting: bool = False,
) -> list[Select[Any]]:
    """Return the statements for jobs that failed by a death, and crashes counted since, of deaths without a record.

    ``within`` are ranges of failure_ids, without an end if that is None; all if it is empty.
    With ``waiting`` the rows of failures that are there still have their failure_id as ``waiting_id``, too.
    """
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
            failed.c.id.label("waiting_id"),
        )
        .join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        .where(is_death(), *_between(failed.c.created_at, since, until), *_within(failed.c.id, within))
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
        (failed.c.id if waiting else cast(null(), failed.c.id.type)).label("waiting_id"),
    ).where(
        columns.death_id.is_(None), *_between(columns.crashed_at, since, until), *_within(columns.failure_id, within)
    )
    if waiting:
        counted = counted.join_from(tables.crashes, failed, failed.c.id == columns.failure_id, isouter=True)
    return [counted, current.where(~exists().where(columns.failure_id == failed.c.id))]


def _between(time: ColumnElement[Any], since: datetime | None, until: datetime | None) -> Iterator[ColumnElement[bool]]:
    if since is not None:
        yield time >= boundary(since)
    if until is not None:
        yield time < boundary(until)


def _within(failure_id: ColumnElement[int], ranges: Sequence[tuple[int, int | None]]) -> Iterator[ColumnElement[bool]]:
    if ranges:
        yield or_(*(failure_id >= first if last is None else failure_id.between(first, last) for first, last in ranges))


def _number_of(name: str) -> int:
    return int(name[1:])
