"""Deaths that nobody recorded: the failures that they left, grouped by the database."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    case,
    cast,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from solidjq.batching import BATCH, in_batches
from solidjq.database import tables
from solidjq.database.among import among
from solidjq.database.grouping import exactly, gathered_pairs, gathers
from solidjq.database.statements import streamed
from solidjq.database.tables import failed, jobs
from solidjq.database.times import boundary, micros
from solidjq.incidents.claimed_jobs import UNREAD, ClassCount
from solidjq.incidents.death_records import DeathRecord, FailureSpan
from solidjq.incidents.reconstruction import death_from, reconstruct, reconstruct_one
from solidjq.ledger import crashes
from solidjq.queue.failed import is_death

SPANS = 50  # ranges of failures that one statement reads


def list_unrecorded(
    connection: Connection,
    since: datetime | None,
    until: datetime | None,
    *,
    has_ledger: bool,
    waiting: bool = False,
    once: bool = False,
    within: Sequence[tuple[int, int | None]] = (),
) -> Iterator[DeathRecord]:
    """Yield the deaths whose failures were written between these times; their jobs are counted by class.

    ``within``, ``waiting``: as in ``unrecorded_failures``. With ``once`` the spans of the deaths have ``once``.
    """
    chosen = partial(
        unrecorded_failures, since, until, has_ledger=has_ledger, waiting=waiting, marked=once, within=within
    )
    if not gathers(connection):
        yield from reconstruct(_by_instant(connection, chosen()))
        return
    divided: dict[str, tuple[int, int]] = {}  # errors whose failures may be of several deaths, and the ids they span
    for error, group in groupby(_by_error(connection, chosen()), key=attrgetter("evidence")):
        if crashes.parse_evidence(error).death is not None:
            rows = list(group)
            if (death := reconstruct_one(rows)) is None:
                divided[error] = min(row.failure_id for row in rows), max(row.last_failure_id for row in rows)
            else:
                yield death
    if divided:
        errors = divided.keys() if len(divided) <= BATCH else ()
        instants = _by_instant(connection, chosen(errors=errors, within=ranges_over(divided.values())))
        yield from reconstruct(row for row in instants if row.evidence in divided)


def _by_instant(connection: Connection, failures: Sequence[Select[Any]]) -> Iterator[Row[Any]]:
    """Yield a row an instant, error and class, sorted by time."""
    every = union_all(*failures).subquery().c
    grouped = (
        select(*_of_group(every), every.crashed_at, func.count(every.waiting_id).label("waiting"))
        .group_by(every.crashed_at, exactly(every.evidence), exactly(every.class_name))
        .order_by(every.crashed_at, "failure_id")
    )
    return (row for row in streamed(connection, grouped) if row.crashed_at is not None)


def _by_error(connection: Connection, failures: Sequence[Select[Any]]) -> Iterator[Row[Any]]:
    """Yield a row an error and class, sorted by error, with what ``reconstruct_one`` needs.

    Rails writes each failure at an instant of its own: these are a tenth of the rows of ``_by_instant`` or fewer.
    """
    every = union_all(*failures).subquery().c
    grouped = select(
        *_of_group(every),
        func.count(every.waiting_id).label("waiting"),
        (func.count(every.hostname) + func.count(every.pid)).label("hosts"),
        gathered_pairs(micros(every.crashed_at), every.failure_id).label("moments"),
    )
    error = exactly(cast(every.evidence, Text()))
    return streamed(connection, grouped.group_by(exactly(every.evidence), exactly(every.class_name)).order_by(error))


def _of_group(every: ReadOnlyColumnCollection[str, Any]) -> Iterator[ColumnElement[Any]]:
    """Yield what is read of failures of one class and one error."""
    yield every.evidence
    lowest = ("class_name", "failure_id", "job_id", "subject", "hostname", "pid")
    yield from (func.min(every[name]).label(name) for name in lowest)
    yield func.max(every.failure_id).label("last_failure_id")
    yield func.max(every.again).label("again")
    yield func.count().label("failures")


class ErrorCount(NamedTuple):
    """Failures with one error, of jobs of one class, that are not counted in ``jq_crashes``."""

    evidence: str
    class_name: str
    failure_id: int  # the lowest
    last_failure_id: int
    failures: int
    crashed_at: datetime | None  # when the first of them was written
    again: int = 1  # some of these jobs may have died before
    hostname: str | None = None
    pid: int | None = None


def list_by_error(
    connection: Connection,
    since: datetime,
    *,
    has_ledger: bool,
    once: bool = False,
    above: int | None = None,
    uncounted: Iterable[ErrorCount] | None = None,
) -> Iterator[DeathRecord]:
    """Yield a death for each error of failures written since then; their jobs are counted by class.

    With ``once`` the spans of the deaths have ``once``. With ``above`` only failures above that failure_id count.
    ``uncounted``: the failures written since then that are not counted, if the caller has read them all; then they are
    not read again.
    """
    within = [] if above is None else [(above + 1, None)]
    failures = unrecorded_failures(since, None, has_ledger=has_ledger, marked=once, within=within)
    if uncounted is None:
        rows: Iterable[Any] = _of_errors(connection, failures)
    else:
        counted: Iterable[Any] = _of_errors(connection, failures[:-1]) if has_ledger else ()
        with_error = (row for row in chain(counted, uncounted) if row.evidence is not None)
        rows = sorted(with_error, key=attrgetter("evidence", "failure_id"))
    for _, group in groupby(rows, key=attrgetter("evidence")):
        if (death := _death_of_error(list(group))) is not None:
            yield death


def _of_errors(connection: Connection, failures: Sequence[Select[Any]]) -> Iterator[Row[Any]]:
    """Yield a row an error and class, sorted by error and lowest failure_id."""
    every = union_all(*failures).subquery().c
    grouped: Select[Any] = select(*_of_group(every), func.min(every.crashed_at).label("crashed_at")).group_by(
        exactly(every.evidence), exactly(every.class_name)
    )
    # SQLite may have stored the same error as text and as bytes, which it keeps apart.
    return streamed(connection, grouped.order_by(exactly(cast(every.evidence, Text())), "failure_id"))


def _death_of_error(alike: Sequence[Any]) -> DeathRecord | None:
    """Return the death that the error of these rows reports, the one with the lowest failure_id first."""
    first = alike[0]
    of_class = [row for row in alike if row.class_name == first.class_name]
    at, hostname, pid = (
        min((value for value in map(attrgetter(name), of_class) if value is not None), default=None)
        for name in ("crashed_at", "hostname", "pid")
    )
    if at is None or (death := death_from(first.failure_id, first.evidence, at, hostname, pid)) is None:
        return None
    by_class: Counter[str] = Counter()
    for row in alike:
        by_class[row.class_name] += row.failures
    counted = {name: ClassCount(failures) for name, failures in by_class.items()}
    last_id, again = (max(map(attrgetter(name), alike)) for name in ("last_failure_id", "again"))
    span = FailureSpan(first.failure_id, last_id, once=not again)
    return replace(death, jobs=UNREAD, counted=counted, span=span)


def unrecorded_failures(
    since: datetime | None,
    until: datetime | None,
    *,
    has_ledger: bool,
    within: Sequence[tuple[int, int | None]] = (),
    errors: Collection[str] = (),
    waiting: bool = False,
    marked: bool = False,
    repeated: bool = False,
) -> list[Select[Any]]:
    """Return the statements for crashes that were counted, and jobs that failed by a death since, without a record.

    The last one is for the failures that are not counted; without a ledger it is the only one.

    ``within`` are ranges of failure_ids, without an end if that is None; all if it is empty.
    ``errors``: only failures whose errors begin with these ``crashes.EVIDENCE`` characters; all if it is empty.
    With ``waiting`` the rows of failures that are there still have their failure_id as ``waiting_id``, too.
    ``repeated``: only of jobs that may have been in flight at another death, too. If ``marked``, such a job that is not
    counted has ``again`` 1, and every other row 0. Otherwise ``again`` is 1.
    """
    columns = tables.crashes.c
    again = _may_have_died_before(has_ledger=has_ledger)
    evidence = func.substr(failed.c.error, 1, crashes.EVIDENCE)
    current = (
        select(
            failed.c.id.label("failure_id"),
            failed.c.job_id,
            crashes.subject().label("subject"),
            jobs.c.class_name,
            evidence.label("evidence"),
            failed.c.created_at.label("crashed_at"),
            # Not cast to their types: on MySQL such a text has the session's collation, and no union joins two.
            null().label("hostname"),
            null().label("pid"),
            failed.c.id.label("waiting_id"),
            (case((again, 1), else_=0) if marked else literal_column("1")).label("again"),
        )
        .join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        .where(*between(failed.c.created_at, since, until), *_within(failed.c.id, within), is_death())
    )
    if errors:
        current = current.where(evidence.in_(errors))
    if repeated:
        current = current.where(again)
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
        (failed.c.id if waiting else null()).label("waiting_id"),
        literal_column("0" if marked else "1").label("again"),
    ).where(
        columns.death_id.is_(None), *between(columns.crashed_at, since, until), *_within(columns.failure_id, within)
    )
    if errors:
        counted = counted.where(columns.evidence.in_(errors))
    if repeated:
        counted = counted.where(crashed_again())
    if waiting:
        counted = counted.join_from(tables.crashes, failed, failed.c.id == columns.failure_id, isouter=True)
    # Without these bounds PostgreSQL may read all crashes.
    return [
        counted,
        current.where(~exists().where(columns.failure_id == failed.c.id, *_within(columns.failure_id, within))),
    ]


def _may_have_died_before(*, has_ledger: bool) -> ColumnElement[bool]:
    """Return the SQL condition that a failed job has a twin, or a crash that was counted."""
    twin = jobs.alias()
    has_twin = exists().where(twin.c.active_job_id == jobs.c.active_job_id, twin.c.id != jobs.c.id)
    if not has_ledger:
        return has_twin
    counted = exists().where(tables.crashes.c.subject == crashes.subject()).correlate_except(tables.crashes)
    return or_(has_twin, counted)


def find_repeated(
    connection: Connection, since: datetime, *, has_ledger: bool, within: Sequence[tuple[int, int | None]]
) -> set[str]:
    """Return the subjects of jobs that crashed twice since then, counted or not.

    A crash that is not counted is found only ``within`` these ranges of failure_ids; none if there are no ranges.

    To group all subjects would take MySQL several seconds: here few are grouped, or by their index alone.
    """
    found: set[str] = set()
    columns = tables.crashes.c
    recent = columns.crashed_at >= boundary(since)
    if within:
        failures = unrecorded_failures(since, None, has_ledger=has_ledger, within=within, repeated=True)[-1]
        subject = failures.subquery().c.subject
        grouped = select(subject, func.count().label("times")).group_by(subject).subquery().c
        twice = grouped.times > 1
        if has_ledger:
            counted = exists().where(columns.subject == grouped.subject, recent).correlate_except(tables.crashes)
            twice = or_(twice, counted)
        found.update(connection.scalars(select(grouped.subject).where(twice)))
    if not has_ledger:
        return found
    several = select(columns.subject).group_by(columns.subject).having(func.count() > 1)
    for batch in in_batches(connection.scalars(several).all()):
        found.update(connection.scalars(several.where(among(columns.subject, batch), recent)))
    return found


def crashed_again() -> ColumnElement[bool]:
    """Return the SQL condition that the job of a row of ``jq_crashes`` has another one."""
    columns, other = tables.crashes.c, tables.crashes.alias()
    return exists().where(other.c.subject == columns.subject, other.c.failure_id != columns.failure_id)


def ranges_over(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return at most ``SPANS`` ranges of failure_ids that together contain these."""
    ranges = list(_merged(sorted(spans)))
    if len(ranges) > SPANS:
        ranges = [(ranges[0][0], ranges[-1][1])]
    # Padded, so that statements have few lengths: each is compiled once, and kept.
    length = next(length for length in (0, 1, 4, 16, SPANS) if length >= len(ranges))
    return ranges + ranges[-1:] * (length - len(ranges))


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the ranges that these sorted spans cover, none twice."""
    first, last = 0, -1
    for low, high in spans:
        if low > last:
            if first <= last:
                yield first, last
            first, last = low, high
        last = max(last, high)
    if first <= last:
        yield first, last


def between(time: ColumnElement[Any], since: datetime | None, until: datetime | None) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for a time from ``since`` on and before ``until``; None is no limit."""
    if since is not None:
        yield time >= boundary(since)
    if until is not None:
        yield time < boundary(until)


def _within(failure_id: ColumnElement[int], ranges: Sequence[tuple[int, int | None]]) -> Iterator[ColumnElement[bool]]:
    if ranges:
        yield or_(*(failure_id >= first if last is None else failure_id.between(first, last) for first, last in ranges))
