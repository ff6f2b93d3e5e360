"""Reads deaths: from ``jq_deaths``, and reconstructed from failures where nobody recorded them.

``jq work`` writes a row of ``jq_deaths`` when it reaps a child, and every prune of ``jq`` writes one from the last
sample.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import merge
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, literal, select

from solidjq.batching import in_batches
from solidjq.database import tables
from solidjq.database.among import among
from solidjq.database.grouping import exactly
from solidjq.database.statements import streamed
from solidjq.database.tables import deaths, failed, processes
from solidjq.database.times import boundary
from solidjq.incidents.claimed_jobs import UNREAD, ClaimedJobs, ClassCount
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.packed_deaths import in_order
from solidjq.incidents.stored_evidence import StoredEvidence
from solidjq.incidents.unrecorded import ErrorCount, between, list_by_error, list_unrecorded
from solidjq.ledger import operations
from solidjq.ledger.deaths import DeathSource, source_of
from solidjq.processes.samples import instant, sample_of
from solidjq.queue import failure_counts
from solidjq.rails.error_text import Death
from solidjq.text import parse_id
from solidjq.untrusted import part

CLOCKS = timedelta(hours=1)  # that the clocks of two hosts may differ by
AT_ONCE = 200  # recorded deaths that are read together: each has a few kB of evidence


def each_death(
    connection: Connection,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    waiting: bool = False,
    once: bool = False,
) -> Iterator[DeathRecord]:
    """Yield the deaths noticed from ``since`` on and before ``until``, as they fell silent, their jobs only counted.

    With ``waiting`` it is counted, too, how many of them are failed still; ``death_jobs.with_jobs`` reads the jobs.
    With ``once`` the spans of unrecorded deaths have ``once``.

    Works without the ``jq_`` tables: then every death is reconstructed from the failures that exist now. A row without
    any time that makes sense is left out. Of recorded deaths those of one batch are held at a time.
    """
    has_ledger = operations.exists(connection)
    reconstructed = list_unrecorded(connection, since, until, has_ledger=has_ledger, waiting=waiting, once=once)
    recorded = _recorded(connection, between(deaths.c.noticed_at, since, until)) if has_ledger else iter(())
    counted = _with_counts(connection, recorded, waiting=waiting)
    return merge(counted, in_order(reconstructed), key=_silence)


def each_around(connection: Connection, since: datetime, until: datetime) -> Iterator[DeathRecord]:
    """Yield the deaths noticed from ``since`` on and before ``until``, as they fell silent, for those around one death.

    Unlike in ``each_death`` the jobs of recorded ones are not even counted, and failures are searched for along the
    primary key: of a host whose clock is wrong by more than ``CLOCKS`` they may be missed. So it does not read the
    whole queue, where no index has the time.
    """
    has_ledger = operations.exists(connection)
    within = [failure_counts.ids_between(connection, since - CLOCKS, until + CLOCKS)]
    reconstructed = list_unrecorded(connection, since, until, has_ledger=has_ledger, within=within)
    recorded = _recorded(connection, between(deaths.c.noticed_at, since, until)) if has_ledger else iter(())
    return merge(chain.from_iterable(recorded), in_order(reconstructed), key=_silence)


def each_by_class(
    connection: Connection,
    since: datetime,
    *,
    once: bool = False,
    above: int | None = None,
    uncounted: Iterable[ErrorCount] | None = None,
) -> Iterator[tuple[DeathRecord, Counter[str]]]:
    """Yield the deaths noticed since then without their jobs, each with how many jobs of which class it charges.

    They come as they fell silent. It reads a row a class and death, however many jobs there are. Unlike in
    ``each_death``, all unrecorded failures with the same error are one death, whenever they failed. ``once``: as there.
    With ``above``, unrecorded deaths are searched for among the failures above that failure_id alone: by the primary
    key, where no index has the time. ``uncounted``: as in ``list_by_error``.
    """
    has_ledger = operations.exists(connection)
    reconstructed = list_by_error(connection, since, has_ledger=has_ledger, once=once, above=above, uncounted=uncounted)
    recorded = _recorded(connection, between(deaths.c.noticed_at, since, None)) if has_ledger else iter(())
    charged = _with_charges(connection, recorded, since)
    pairs = ((death, death.by_class) for death in in_order(reconstructed))
    return merge(charged, pairs, key=_silence_of_pair)


def _silence(death: DeathRecord) -> tuple[datetime, datetime, int]:
    return death.silent_at, death.noticed_at, int(death.name[1:])


def _silence_of_pair(pair: tuple[DeathRecord, Counter[str]]) -> tuple[datetime, datetime, int]:
    return _silence(pair[0])


def each_recorded(connection: Connection, *, since: datetime) -> Iterator[DeathRecord]:
    """Yield the deaths of ``jq_deaths`` noticed since then, in the order of their ids, their jobs unread.

    A row without any time is left out. Fetch all of them before the next statement on this connection.
    """
    rows = streamed(connection, select(deaths).where(*between(deaths.c.noticed_at, since, None)).order_by(deaths.c.id))
    yield from (_record_of(row, at) for row in rows if (at := _noticed_at(row)) is not None)


def list_recorded(connection: Connection, numbers: Iterable[int]) -> list[DeathRecord]:
    """Return the deaths with these ids of ``jq_deaths``, as if without jobs. A row without any time is left out."""
    query = select(deaths).order_by(deaths.c.id)
    rows = (row for some in in_batches(numbers) for row in connection.execute(query.where(among(deaths.c.id, some))))
    records = (_record_of(row, at) for row in rows if (at := _noticed_at(row)) is not None)
    return [replace(death, jobs=ClaimedJobs()) for death in records]


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


def _recorded(connection: Connection, which: Iterable[ColumnElement[bool]]) -> Iterator[list[DeathRecord]]:
    """Yield deaths of ``jq_deaths`` in batches, as they fell silent: that order no index has, so it is read first."""
    columns = deaths.c
    times = (columns.noticed_at, columns.last_heartbeat_at, columns.started_at)
    narrow = select(columns.id, columns.noticed_by, columns.exit_status, columns.signal, *times).where(*which)
    order = [
        (_silent_at(row, at), at, row.id)
        for row in streamed(connection, narrow)
        if (at := _noticed_at(row)) is not None
    ]
    ids = array("q", [number for _, _, number in sorted(order)])
    del order
    for batch in in_batches(ids, AT_ONCE):
        rows = connection.execute(select(deaths).where(among(columns.id, batch)))
        records = [_record_of(row, at) for row in rows if (at := _noticed_at(row)) is not None]
        yield sorted(records, key=_silence)


def _noticed_at(row: Row[Any]) -> datetime | None:
    at: datetime | None = row.noticed_at or row.last_heartbeat_at or row.started_at
    return at


def _silent_at(row: Row[Any], noticed_at: datetime) -> datetime:
    """Return when a process fell silent, as ``DeathRecord`` has it."""
    pruned = source_of(row) is DeathSource.PRUNE
    return row.last_heartbeat_at if pruned and row.last_heartbeat_at is not None else noticed_at


def _with_counts(
    connection: Connection, batches: Iterable[list[DeathRecord]], *, waiting: bool
) -> Iterator[DeathRecord]:
    """Yield deaths of ``jq_deaths`` with how many jobs of which class crashed at each: a row a class and death."""
    columns = tables.crashes.c
    crashed = tables.crashes
    query = select(
        columns.death_id,
        func.min(columns.class_name),
        func.count(),
        func.count(columns.started_at),
        func.count(failed.c.id) if waiting else literal(0),
        func.min(columns.subject),
        func.min(columns.job_id),
    ).select_from(crashed.outerjoin(failed, failed.c.id == columns.failure_id) if waiting else crashed)
    query = query.group_by(columns.death_id, exactly(columns.class_name)).order_by(
        columns.death_id, func.min(columns.failure_id)
    )
    for batch in batches:
        counted: dict[Any, dict[str, ClassCount]] = defaultdict(dict)
        of_batch = query.where(among(columns.death_id, [death.key for death in batch]))
        for death_id, class_name, *counts in connection.execute(of_batch):
            counted[death_id][class_name] = ClassCount(*counts)
        yield from (replace(death, counted=counted.get(death.key, {})) for death in batch)


def _with_charges(
    connection: Connection, batches: Iterable[list[DeathRecord]], since: datetime
) -> Iterator[tuple[DeathRecord, Counter[str]]]:
    """Yield deaths of ``jq_deaths`` with how many jobs of which class that crashed since then each charges."""
    columns = tables.crashes.c
    query = (
        select(columns.death_id, func.min(columns.class_name), func.count(), func.count(columns.started_at))
        .where(columns.crashed_at >= boundary(since))
        .group_by(columns.death_id, exactly(columns.class_name))
    )
    for batch in batches:
        # Of one that charges a single job, all jobs are counted: none, if none of them failed by it.
        by_key = {death.key: replace(death, counted={}) if death.faulting else death for death in batch}
        charged: dict[Any, Counter[str]] = defaultdict(Counter)
        for death_id, class_name, count, begun in connection.execute(
            query.where(among(columns.death_id, list(by_key)))
        ):
            death = by_key[death_id]
            if death.faulting is not None:
                charged[death_id] = Counter([death.faulting[1]])
                counts = {**(death.counted or {}), class_name: ClassCount(count, begun)}
                by_key[death_id] = replace(death, counted=counts)
            elif jobs_charged := begun if death.ahead else count:
                charged[death_id][class_name] += jobs_charged
        yield from ((death, charged.get(key, Counter())) for key, death in by_key.items())


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
        evidence=StoredEvidence(row.evidence),
        jobs=UNREAD,
    )
