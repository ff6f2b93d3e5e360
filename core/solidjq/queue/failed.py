"""Failed jobs: the filter that selects them, and the list of them."""

import json
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, and_, case, func, not_, null, or_, select

from solidjq.batching import BATCH, in_batches
from solidjq.database.among import among
from solidjq.database.functions import holds, octets, own_arguments
from solidjq.database.tables import crashes, deaths, failed, jobs
from solidjq.database.times import boundary
from solidjq.database.transactions import Database
from solidjq.queue.patterns import fits_in_sql
from solidjq.rails.error_text import DEATH_PREFIX, Death, ErrorInfo, parse_error, parse_summary

PAGE = 1000
PAGE_OF_IDS = 10_000


class Failure(NamedTuple):
    """One failed job. ``failure_id`` is the id of its failed execution; failures are listed and paged by it."""

    failure_id: int
    job_id: int
    active_job_id: str | None
    class_name: str
    queue_name: str
    priority: int
    enqueued_at: datetime | None
    failed_at: datetime | None
    error: ErrorInfo
    arguments: str | None
    changed_at: datetime | None  # the job's row; of a job that saves its progress, its last checkpoint


@dataclass(frozen=True, slots=True)
class NamedFailures:
    """The failures that names stand for: incidents, groups of failures or jobs. Their ids were looked up before."""

    kind: str  # what the names name: "incidents", "groups", or "names" for a mixture
    names: tuple[str, ...]
    failure_ids: Sequence[int]  # ascending


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Selects failures: every field that is set must match; several values in one field are alternatives.

    ``hosts`` needs the ``jq_`` tables: no other table stores where a job died.
    """

    deaths: frozenset[Death] = frozenset()
    error: str | None = None  # anywhere in the error: class, message or backtrace; case is ignored
    queues: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    not_classes: tuple[str, ...] = ()  # of none of these
    argument: str | None = None  # anywhere in the job's arguments, as JSON; case is ignored
    since: datetime | None = None  # failed then or later
    until: datetime | None = None  # failed before
    hosts: tuple[str, ...] = ()  # of the process that the job died with
    named: tuple[NamedFailures, ...] = ()  # a failure must be in each

    @property
    def reads_jobs(self) -> bool:
        """Whether a query needs the failures' jobs, whose columns some fields are about."""
        return bool(self.queues or self.classes or self.not_classes or self.argument)

    def failure_ids(self) -> Sequence[int] | None:
        """Return the ids of the failures that are in each of ``named``, ascending; None if nothing is named."""
        if not self.named:
            return None
        first, *others = (each.failure_ids for each in self.named)
        return sorted(set(first).intersection(*others)) if others else first

    def to_record(self) -> dict[str, object]:
        """Return the fields that are set, for the record of operations."""
        fields = {
            "deaths": sorted(death.value for death in self.deaths),
            "error": self.error,
            "queues": list(self.queues),
            "classes": list(self.classes),
            "not_classes": list(self.not_classes),
            "argument": self.argument,
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
            "hosts": list(self.hosts),
            **{each.kind: list(each.names) for each in self.named},
        }
        return {key: value for key, value in fields.items() if value}


class FailureIds(NamedTuple):
    """The two ids of a failed job."""

    failure_id: int
    job_id: int


def list_failures(
    database: Database, chosen: Filter, *, limit: int | None, after: int | None = None, arguments: bool = True
) -> Iterator[Failure]:
    """Yield failures, newest first, from below the failure_id ``after``. Reads page by page: memory is constant.

    Without ``arguments``, neither arguments nor backtraces are read: they are None and empty.
    """
    query, parse = (_COLUMNS, parse_error) if arguments else (_WITHOUT_ARGUMENTS, parse_summary)
    return (_failure(row, parse) for row in _pages(database, chosen, lambda _: query, PAGE, limit, after))


def list_failure_ids(
    database: Database, chosen: Filter, *, limit: int | None, after: int | None = None
) -> Iterator[FailureIds]:
    """Yield the ids of what ``list_failures`` yields, in the same order; it reads nothing else of a failure."""

    def query(part: Filter) -> Select[Any]:
        return select(failed.c.id, failed.c.job_id).select_from(_source(part))

    return map(FailureIds._make, _pages(database, chosen, query, PAGE_OF_IDS, limit, after))


def _pages(
    database: Database,
    chosen: Filter,
    query_for: Callable[[Filter], Select[Any]],
    size: int,
    limit: int | None,
    after: int | None,
) -> Iterator[Row[Any]]:
    """Yield rows that begin with a failure_id, newest first. Each page is read in a transaction of its own."""
    for part in parts(chosen, newest_first=True):
        rows_of_part = query_for(part)
        below = after
        while limit is None or limit > 0:
            wanted = size if limit is None else min(size, limit)
            query = rows_of_part.where(*conditions(part, below)).order_by(failed.c.id.desc()).limit(wanted)
            with database.read() as connection:
                rows = connection.execute(query).all()
            yield from rows
            limit = None if limit is None else limit - len(rows)
            if len(rows) < wanted:
                break
            below = rows[-1][0]


def parts(chosen: Filter, *, newest_first: bool = False) -> Iterator[Filter]:
    """Yield filters that together select what this one does, none of which names more than ``BATCH`` failures.

    A filter that names no failures is its only part. The parts are in the order of their failures, the oldest first.
    """
    failure_ids = chosen.failure_ids()
    if failure_ids is None:
        yield chosen
        return
    starts = range(0, len(failure_ids), BATCH)
    for start in reversed(starts) if newest_first else starts:
        batch = failure_ids[start : start + BATCH]
        yield replace(chosen, named=(NamedFailures("names", (), batch),))


def failures_of(connection: Connection, job_ids: Sequence[int]) -> list[Failure]:
    """Return the failures of those of these jobs that have failed."""
    return [
        _failure(row)
        for batch in in_batches(job_ids)
        for row in connection.execute(_COLUMNS.where(among(failed.c.job_id, batch)))
    ]


def newest(connection: Connection) -> int:
    """Return the highest failure_id; 0 if no job has failed."""
    return connection.scalar(select(func.max(failed.c.id))) or 0


def page_of_ids(chosen: Filter, *, above: int, top: int, limit: int) -> Select[int]:
    """Select the next ``limit`` failure_ids that match a filter, oldest first, above ``above`` and up to ``top``."""
    return _ids(chosen).where(failed.c.id > above, failed.c.id <= top).limit(limit)


def ids_of(job_ids: Collection[int], chosen: Filter) -> Select[int]:
    """Select the failure_ids of those of these jobs that have failed and match the filter."""
    return _ids(chosen).where(among(failed.c.job_id, job_ids)).limit(len(job_ids))


def _ids(chosen: Filter) -> Select[int]:
    """Select failure_ids from the failed executions alone, so that FOR UPDATE locks no other table's rows."""
    wanted = list(conditions(chosen))
    if chosen.reads_jobs:
        wanted = [select(jobs.c.id).where(jobs.c.id == failed.c.job_id, *wanted).correlate(failed).exists()]
    return select(failed.c.id).where(*wanted).order_by(failed.c.id)


def count_failures(connection: Connection, chosen: Filter, *, after: int | None = None) -> int:
    """Count the failures that match a filter, below the failure_id ``after``."""
    return sum(
        connection.scalar(select(func.count()).select_from(_source(part)).where(*conditions(part, after))) or 0
        for part in parts(chosen)
    )


def count_with_older(connection: Connection, chosen: Filter, last: int) -> tuple[int, int]:
    """Count the failures that match a filter, and those of them below the failure_id ``last``."""
    counts = [
        connection.execute(
            select(func.count(), func.count(case((failed.c.id < last, 1))))
            .select_from(_source(part))
            .where(*conditions(part))
        ).one()
        for part in parts(chosen)
    ]
    return sum(every for every, _ in counts), sum(older for _, older in counts)


def count_up_to(connection: Connection, chosen: Filter, most: int) -> int:
    """Count the failures that match a filter, but no more than ``most``: the database stops there."""
    count = 0
    for part in parts(chosen):
        if count >= most:
            break
        found = select(failed.c.id).select_from(_source(part)).where(*conditions(part)).limit(most - count)
        count += connection.scalar(select(func.count()).select_from(found.subquery())) or 0
    return count


def _source(chosen: Filter) -> FromClause:
    # Every failure has a job: the join is needed only for a filter on the job's columns.
    return failed.join(jobs, jobs.c.id == failed.c.job_id) if chosen.reads_jobs else failed


_COLUMNS = select(
    failed.c.id.label("failure_id"),
    failed.c.job_id,
    jobs.c.active_job_id,
    jobs.c.class_name,
    jobs.c.queue_name,
    jobs.c.priority,
    jobs.c.created_at.label("enqueued_at"),
    failed.c.created_at.label("failed_at"),
    failed.c.error,
    jobs.c.arguments,
    jobs.c.updated_at.label("changed_at"),
).join(jobs, jobs.c.id == failed.c.job_id)


_ERROR = [column.name for column in _COLUMNS.selected_columns].index("error")
# They may be long, and a list does not show them.
_WITHOUT_ARGUMENTS = _COLUMNS.with_only_columns(
    *(null().label("arguments") if column.name == "arguments" else column for column in _COLUMNS.selected_columns),
    maintain_column_froms=True,
)


def _failure(row: Any, parse: Callable[[str | None], ErrorInfo] = parse_error) -> Failure:
    values = list(row)
    values[_ERROR] = parse(values[_ERROR])
    return Failure._make(values)


def conditions(chosen: Filter, after: int | None = None) -> Iterator[ColumnElement[bool]]:
    """Yield a filter's conditions, and that of failures below ``after``, for a query on failed and jobs."""
    if after is not None:
        yield failed.c.id < after
    if chosen.deaths:
        yield _is_of(chosen.deaths)
    if chosen.error:
        yield contains(failed.c.error, chosen.error)
    yield from of_jobs(chosen.queues, chosen.classes, chosen.not_classes, chosen.argument)
    if chosen.since:
        yield failed.c.created_at >= boundary(chosen.since)
    if chosen.until:
        yield failed.c.created_at < boundary(chosen.until)
    if chosen.hosts:
        yield failed.c.id.in_(_died_on(chosen.hosts))
    if (failure_ids := chosen.failure_ids()) is not None:
        yield among(failed.c.id, failure_ids)


def of_jobs(
    queues: Sequence[str] = (),
    classes: Sequence[str] = (),
    not_classes: Sequence[str] = (),
    argument: str | None = None,
) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions on a job's own columns; each name may end in a star."""
    if queues:
        yield or_(*(fits_in_sql(pattern, jobs.c.queue_name) for pattern in queues))
    if classes:
        yield or_(*(fits_in_sql(pattern, jobs.c.class_name) for pattern in classes))
    if not_classes:
        yield not_(or_(*(fits_in_sql(pattern, jobs.c.class_name) for pattern in not_classes)))
    if argument:
        # The whole payload first: that is quick, and most payloads do not contain the text.
        yield and_(contains(jobs.c.arguments, argument), contains(own_arguments(jobs.c.arguments), argument))


def contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the condition that a column, which is JSON or plain text, contains a text; case is ignored."""
    return or_(*(column.icontains(form, autoescape=True) for form in _json_forms(text)))


def _died_on(hosts: Sequence[str]) -> Select[int]:
    """Select the ids of the failures whose process ran on one of these hosts."""
    there = select(deaths.c.id).where(or_(*(fits_in_sql(pattern, deaths.c.hostname) for pattern in hosts)))
    # Crashes that were counted before deaths were recorded have only the host of their own.
    alone = or_(*(fits_in_sql(pattern, crashes.c.hostname) for pattern in hosts))
    return select(crashes.c.failure_id).where(
        or_(crashes.c.death_id.in_(there), and_(crashes.c.death_id.is_(None), alone))
    )


def is_death() -> ColumnElement[bool]:
    """Return the condition that a failure is a process's death."""
    return _is_of(Death.__members__.values())


def _is_of(deaths: Container[Death]) -> ColumnElement[bool]:
    # The commonest first: the others are not evaluated then.
    names = [death.exception_class for death in Death if death in deaths]
    # A JSON string has no unescaped quote, so this text can only be the key itself. Rails writes it first, compactly.
    as_rails_writes_it = (failed.c.error.startswith(f'{{"exception_class":"{name}"', autoescape=True) for name in names)
    # Another program, or a column that was jsonb for a while, puts blanks and other keys before it.
    colons = (":", ": ", " : ", " :")
    anywhere = (holds(failed.c.error, f'"exception_class"{colon}"{name}"') for name in names for colon in colons)
    # Most short errors are no deaths: they are searched once, for what the classes of all deaths begin with.
    named = holds(failed.c.error, DEATH_PREFIX)
    return or_(*as_rails_writes_it, and_(octets(failed.c.error) < _LONGEST_DEATH, named, or_(*anywhere)))


_LONGEST_DEATH = 1000  # bytes; the error of a death has no backtrace, so long errors need not be read

_RAILS_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def _json_forms(text: str) -> list[str]:
    """Return the forms of ``text`` in a column: in JSON, in JSON with Rails' escapes, in text that is not JSON."""
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    forms = [plain, plain.translate(_RAILS_ESCAPES), *([] if "\0" in text else [text])]
    return list(dict.fromkeys(forms))
