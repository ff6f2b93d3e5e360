"""The jobs of deaths that were only counted, read when somebody looks at them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, union_all

from solidjq.batching import BATCH, in_batches
from solidjq.database import tables
from solidjq.database.among import among
from solidjq.database.statements import streamed
from solidjq.database.times import boundary
from solidjq.incidents.claimed_jobs import ClaimedJobs
from solidjq.incidents.death_queries import list_recorded
from solidjq.incidents.death_records import DeathRecord, FailureSpan
from solidjq.incidents.unrecorded import SPANS, crashed_again, find_repeated, ranges_over, unrecorded_failures
from solidjq.ledger import operations
from solidjq.text import parse_id


def with_jobs(
    connection: Connection,
    records: Collection[DeathRecord],
    class_name: str | None = None,
    *,
    repeated: bool = False,
    has_ledger: bool | None = None,
) -> list[DeathRecord]:
    """Return these deaths with their jobs, or with those of one class only.

    ``repeated``: only with those that may have been in flight at another death, too. ``has_ledger``: None to look.
    """
    keys = [death.key for death in records if death.span is None]
    recorded = _of_recorded(connection, keys, class_name, repeated=repeated)
    unrecorded = [death for death in records if death.span is not None]
    if unrecorded and has_ledger is None:
        has_ledger = operations.exists(connection)
    reconstructed = _of_reconstructed(
        connection, unrecorded, class_name, repeated=repeated, has_ledger=bool(has_ledger)
    )
    empty = ClaimedJobs()
    return [
        replace(
            death,
            counted=None,
            jobs=recorded.get(death.key, empty) if death.span is None else reconstructed.get(death.name, empty),
        )
        for death in records
    ]


def find_recorded(connection: Connection, numbers: Collection[int]) -> list[DeathRecord]:
    """Return the deaths with these ids of ``jq_deaths``, with their jobs. A row without any time is left out."""
    return with_jobs(connection, list_recorded(connection, numbers))


def find_apart(connection: Connection, since: datetime, deaths: Collection[DeathRecord]) -> set[str]:
    """Return the names of the deaths that may share a job, which crashed since then, or have one with a growth.

    The database finds the jobs, by subject; of the others nothing is read. Of the failures that are not counted, only
    those of deaths whose span is not ``once`` are searched.
    """
    has_ledger = operations.exists(connection)
    columns = tables.crashes.c
    within = ranges_over(_ends(death) for death in deaths if death.span is not None and not death.span.once)
    twice = find_repeated(connection, since, has_ledger=has_ledger, within=within)
    names: set[str] = set()
    if has_ledger:
        of_death = select(columns.death_id).distinct().where(columns.death_id.is_not(None))
        grown = of_death.where(columns.crashed_at >= boundary(since), columns.growth.is_not(None))
        names |= {f"d{death_id}" for death_id in connection.scalars(grown)}
        for batch in in_batches(twice):
            of_batch = of_death.where(among(columns.subject, batch))
            names |= {f"d{death_id}" for death_id in connection.scalars(of_batch)}
    by_error = _by_error(deaths)
    if twice and by_error:
        for query in unrecorded_failures(since, None, has_ledger=has_ledger):
            rows = query.subquery()
            of_some = rows.select().where(among(rows.c.subject, twice)) if len(twice) <= BATCH else rows.select()
            for row in streamed(connection, of_some):
                if row.subject in twice:
                    of_row = (pair for pair in by_error.get(row.evidence, ()) if _spans(pair[1], row.failure_id))
                    names |= {death.name for death, _ in of_row}
    return names


def may_be_of(failure: str, death: DeathRecord) -> bool:
    """Whether the failure of a name such as ``f123`` may be one of those that a death was reconstructed from."""
    number = parse_id(failure[1:])
    return number is not None and death.span is not None and _spans(death.span, number)


def _spans(span: FailureSpan, failure_id: int) -> bool:
    return span.first_id <= failure_id <= span.last_id


def _of_recorded(
    connection: Connection, death_ids: Iterable[Any], class_name: str | None, *, repeated: bool
) -> Mapping[Any, ClaimedJobs]:
    """Return the jobs that crashed at these deaths of ``jq_deaths``."""
    claimed: dict[Any, ClaimedJobs] = defaultdict(ClaimedJobs)
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
        if class_name is not None:
            of_batch = of_batch.where(columns.class_name == class_name)
        if repeated:
            of_batch = of_batch.where(crashed_again())
        for row in streamed(connection, of_batch):
            job = (row.job_id, row.subject, row.class_name, row.failure_id, row.started_at, row.growth)
            claimed[row.death_id].add(*job)
    return claimed


def _of_reconstructed(
    connection: Connection,
    records: Sequence[DeathRecord],
    class_name: str | None,
    *,
    repeated: bool,
    has_ledger: bool,
) -> Mapping[str, ClaimedJobs]:
    """Return, by name, the jobs of deaths that were reconstructed from failures."""
    claimed: dict[str, ClaimedJobs] = {}
    by_time = sorted((death for death in records if death.span and death.span.last_at), key=_ends)
    by_error = [death for death in records if death.span and not death.span.last_at]
    for batch in (*in_batches(by_time, SPANS), *in_batches(by_error)):
        ranges = ranges_over(_ends(death) for death in batch if death.span and death.span.last_at)
        errors = {death.error for death in batch}  # in each part of the union: PostgreSQL pushes it into none
        failures = unrecorded_failures(
            None, None, has_ledger=has_ledger, within=ranges, errors=errors, repeated=repeated
        )
        if repeated and all(death.span.once for death in batch if death.span):
            *failures, _ = failures  # no failure that is not counted is of such a job
        if not failures:
            continue
        every = union_all(*failures).subquery()
        rows = every.select()
        if class_name is not None:
            rows = rows.where(every.c.class_name == class_name)
        rows = rows.order_by(every.c.crashed_at, every.c.failure_id)
        claimed |= jobs_among(streamed(connection, rows), batch)
    return claimed


def jobs_among(rows: Iterable[Any], records: Iterable[DeathRecord]) -> dict[str, ClaimedJobs]:
    """Return, by name, the jobs of deaths that were reconstructed, among failures that are sorted by time."""
    of_error = _by_error(records)
    claimed: dict[str, ClaimedJobs] = defaultdict(ClaimedJobs)
    for row in rows:
        for death, span in of_error.get(row.evidence, ()):
            if _is_of(row, death, span):
                claimed[death.name].add(row.job_id, row.subject, row.class_name, row.failure_id)
    return claimed


def _by_error(deaths: Iterable[DeathRecord]) -> Mapping[str, Sequence[tuple[DeathRecord, FailureSpan]]]:
    """Return the deaths that were reconstructed, with the failures that they span, by their error."""
    found: dict[str, list[tuple[DeathRecord, FailureSpan]]] = defaultdict(list)
    for death in deaths:
        if death.span is not None:
            found[death.error].append((death, death.span))
    return found


def _ends(death: DeathRecord) -> tuple[int, int]:
    return (0, 0) if death.span is None else (death.span.first_id, death.span.last_id)


def _is_of(row: Any, death: DeathRecord, span: FailureSpan) -> bool:
    """Whether a failure with the error of a death is one of its own."""
    if span.last_at is None:
        return True
    if not _spans(span, row.failure_id):
        return False
    if span.at_once:
        return bool(row.crashed_at == death.noticed_at)
    return death.noticed_at <= row.crashed_at <= span.last_at and row.crashed_at not in span.others_at
