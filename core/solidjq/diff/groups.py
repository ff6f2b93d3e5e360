"""What is different between failures: groups of the same signature, two times, two jobs, failed and finished jobs."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select
from sqlalchemy.sql.visitors import replacement_traverse

from solidjq.batching import in_batches
from solidjq.chance import fisher, log_comb
from solidjq.database.statements import among, octets
from solidjq.database.tables import failed, failures, jobs
from solidjq.database.times import AnyText, boundary
from solidjq.database.transactions import Database
from solidjq.diff.signatures import READ, Signature, outline, signature_of
from solidjq.errors import NoSuchJobError
from solidjq.incidents import incidents
from solidjq.ledger import archive, operations
from solidjq.processes.samples import number
from solidjq.queue.failed import Failure, Filter, conditions, failures_of
from solidjq.queue.jobs import find_jobs
from solidjq.rails.active_job import shown_arguments
from solidjq.rails.error_text import ErrorInfo, parse_error

HEAD = 500  # characters of an error that are read of every failure; the rest of one failure of each kind
AROUND = timedelta(hours=1)  # a death may be noticed so long after its first job failed
PAGE = 20_000  # failures a statement
EXAMPLES = 100  # whole errors a statement


# -- where failures are -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """A table with failures, under one set of names."""

    id: ColumnElement[int]
    job_id: ColumnElement[int]
    error: ColumnElement[Any]
    failed_at: ColumnElement[Any]
    class_name: ColumnElement[str]
    queue_name: ColumnElement[str]
    conditions: Callable[[Filter], Iterable[ColumnElement[bool]]]
    joined: bool = False

    def page(self, chosen: Filter, after: int) -> Select[Any]:
        """Choose the next failures, with the beginnings of their errors."""
        query = select(
            self.id.label("id"),
            self.job_id.label("job_id"),
            func.substr(self.error, 1, HEAD, type_=AnyText).label("head"),
            octets(self.error).label("size"),
            self.class_name.label("class_name"),
            self.queue_name.label("queue_name"),
            self.failed_at.label("failed_at"),
        )
        if self.joined:
            query = query.join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        return query.where(self.id > after, *self.conditions(chosen)).order_by(self.id).limit(PAGE)


_ARCHIVED = {
    failed.c.id: failures.c.failure_id,
    failed.c.error: failures.c.error,
    failed.c.created_at: failures.c.failed_at,
    jobs.c.queue_name: failures.c.queue_name,
    jobs.c.class_name: failures.c.class_name,
}


def _archived_conditions(chosen: Filter) -> Iterator[ColumnElement[bool]]:
    """Ask the archive what the filter asks failed executions."""
    yield failures.c.restored_by.is_(None)  # what an undo brought back is a failed execution again
    for condition in conditions(chosen):
        yield replacement_traverse(condition, {}, lambda element, **_: _ARCHIVED.get(element))


_NOW = _Source(
    failed.c.id,
    failed.c.job_id,
    failed.c.error,
    failed.c.created_at,
    jobs.c.class_name,
    jobs.c.queue_name,
    conditions,
    joined=True,
)
_ARCHIVE = _Source(
    failures.c.id,
    failures.c.job_id,
    failures.c.error,
    failures.c.failed_at,
    failures.c.class_name,
    failures.c.queue_name,
    _archived_conditions,
)


# -- groups -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Group:
    """Failures of one signature."""

    signature: Signature
    count: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    queues: Counter[str] = field(default_factory=Counter)
    first_at: datetime | None = None
    last_at: datetime | None = None
    example: int = 0  # the newest job's id
    causes: Counter[str] = field(default_factory=Counter)  # of deaths: in words, and how many jobs were in flight
    hosts: Counter[str] = field(default_factory=Counter)  # of deaths likewise; of own errors nobody keeps the host

    @property
    def name(self) -> str:
        """What an operator calls it by."""
        return self.signature.name

    def add(
        self,
        class_name: str,
        queue_name: str,
        failures: int,
        first_at: datetime | None,
        last_at: datetime | None,
        job_id: int,
    ) -> None:
        """Count in failures of one kind."""
        self.count += failures
        self.classes[class_name] += failures
        self.queues[queue_name] += failures
        if first_at is not None and (self.first_at is None or first_at < self.first_at):
            self.first_at = first_at
        if last_at is not None and (self.last_at is None or last_at > self.last_at):
            self.last_at = last_at
        self.example = max(self.example, job_id)


def group_failures(database: Database, chosen: Filter, *, archived: bool = False) -> list[Group]:
    """Group failures by signature, the most numerous first.

    With ``archived`` also those that jq took away since: retried or discarded.
    """
    known: _Known = {}
    groups: dict[Signature, Group] = {}
    with database.read() as connection:
        for source in _sources(connection, archived=archived):
            for page in _kinds(connection, source, chosen):
                for row, signature in _signed(connection, source, page, known):
                    if (group := groups.get(signature)) is None:
                        group = groups[signature] = Group(signature)
                    _head, _size, *counted, _id = row
                    group.add(*counted)
        _add_deaths(connection, [group for group in groups.values() if group.signature.death is not None])
    return sorted(groups.values(), key=lambda group: (-group.count, -group.example))


def _add_deaths(connection: Connection, died: Collection[Group]) -> None:
    """Say what the deaths of these groups are put down to, and where they were."""
    since = min((group.first_at for group in died if group.first_at is not None), default=None)
    if since is None:
        return
    by_name = {group.name: group for group in died}
    for death, classes, finding in incidents.judge_by_class(connection, since - AROUND):
        if (group := by_name.get(signature_of(death.error).name)) is not None and classes:
            group.causes[finding.words] += classes.total()
            if death.hostname is not None:
                group.hosts[death.hostname] += classes.total()


def find_group(database: Database, name: str, chosen: Filter | None = None) -> Group | None:
    """Return the group of this name: of what is failed now, or else of what was once."""
    for archived in (False, True):
        for group in group_failures(database, chosen or Filter(), archived=archived):
            if group.name == name:
                return group
    return None


def job_ids(database: Database, chosen: Filter, names: Collection[str]) -> Iterator[int]:
    """Yield the jobs of these groups that are failed now, in the order of their failures."""
    known: _Known = {}
    after = 0
    while True:
        with database.read() as connection:
            rows = connection.execute(_NOW.page(chosen, after)).all()
            taken = [row.job_id for row, signature in _signed(connection, _NOW, rows, known) if signature.name in names]
        yield from taken
        if len(rows) < PAGE:
            return
        after = rows[-1].id


def newest_job_ids(connection: Connection, chosen: Filter, limit: int) -> list[int]:
    """Return the jobs that failed last."""
    query = select(failed.c.job_id).join_from(failed, jobs, jobs.c.id == failed.c.job_id)
    newest = query.where(*conditions(chosen)).order_by(failed.c.id.desc()).limit(limit)
    return list(connection.scalars(newest))


_Known = dict[tuple[object, ...], Signature]


def _sources(connection: Connection, *, archived: bool) -> list[_Source]:
    return [_NOW, _ARCHIVE] if archived and operations.exists(connection) else [_NOW]


def _kinds(connection: Connection, source: _Source, chosen: Filter) -> Iterator[Sequence[Any]]:
    """Read failures page by page, equal ones already counted by the database."""
    after = 0
    while True:
        page = source.page(chosen, after).subquery()
        kind = (page.c.head, page.c.size, page.c.class_name, page.c.queue_name)
        query = select(
            *kind,
            func.count().label("failures"),
            func.min(page.c.failed_at).label("first_at"),
            func.max(page.c.failed_at).label("last_at"),
            func.max(page.c.job_id).label("job_id"),
            func.max(page.c.id).label("id"),
        ).group_by(*kind)
        rows = connection.execute(query).all()
        yield rows
        if sum(row.failures for row in rows) < PAGE:
            return
        after = max(row.id for row in rows)


def _signed(
    connection: Connection, source: _Source, rows: Sequence[Any], known: _Known
) -> Iterator[tuple[Any, Signature]]:
    """Yield each row with its signature; of errors that look alike only one is read to its end."""
    outlines = [outline(row.head, row.size, HEAD) for row in rows]
    wanted = {row.id: kind for row, kind in zip(rows, outlines, strict=True) if not _whole(kind) and kind not in known}
    examples = {kind: row_id for row_id, kind in wanted.items()}
    for batch in in_batches(examples.values(), EXAMPLES):
        text = func.substr(source.error, 1, READ, type_=AnyText)
        for row_id, error in connection.execute(select(source.id, text).where(among(source.id, batch))):
            known[wanted[row_id]] = signature_of(error)
    for row, kind in zip(rows, outlines, strict=True):
        # A failure that somebody took away meanwhile is known by its beginning only.
        yield row, kind[0] if isinstance(kind[0], Signature) else known.get(kind) or signature_of(row.head)


def _whole(kind: tuple[object, ...]) -> bool:
    return isinstance(kind[0], Signature)


# -- two times --------------------------------------------------------------------------------------------------------

CHANCE = 0.01  # a difference that chance makes more often is none
FACTOR = 1.5  # nor is one that is smaller
_EXACT = 1000  # up to so many failures the test is exact


class Kind(Enum):
    """How a group's rate has changed; the value is what ``jq`` calls it."""

    NEW = "new"  # it did not occur in the earlier time
    GROWN = "grown"
    SHRUNK = "shrunk"
    GONE = "gone"  # it does not occur any more

    @property
    def mark(self) -> str:
        """One character for it."""
        return {Kind.NEW: "+", Kind.GROWN: ">", Kind.SHRUNK: "<", Kind.GONE: "-"}[self]


@dataclass(frozen=True, slots=True)
class Window:
    """A time: from ``since`` on, before ``until``."""

    since: datetime
    until: datetime

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.until - self.since


@dataclass(frozen=True, slots=True)
class Change:
    """A group that occurs more or less often than before. ``factor`` compares the rates; None if it is new."""

    kind: Kind
    group: Group  # of the later time, of the earlier if it is gone
    now: int
    before: int
    factor: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two times compared. ``same``: groups whose difference may be chance."""

    changes: list[Change]
    same: int
    archive: bool  # whether failures that were retried since are known


def compare_windows(database: Database, chosen: Filter, now: Window, before: Window) -> Comparison:
    """Compare the failures of two times, those that jq retried or discarded since too."""
    with database.read() as connection:
        archive = operations.exists(connection)
    grouped = [
        group_failures(database, replace(chosen, since=window.since, until=window.until), archived=True)
        for window in (now, before)
    ]
    changes = compare(grouped[0], grouped[1], now.length, before.length)
    names = {group.name for groups in grouped for group in groups}
    return Comparison(changes, len(names) - len(changes), archive)


def compare(
    now: Iterable[Group], before: Iterable[Group], now_length: timedelta, before_length: timedelta
) -> list[Change]:
    """Return the groups whose rate differs by more than chance; new ones always. The new and the grown come first."""
    later, earlier = ({group.name: group for group in groups} for groups in (now, before))
    share = now_length / (now_length + before_length)
    changes = [
        change for name in later | earlier if (change := _change(later.get(name), earlier.get(name), share)) is not None
    ]
    order = list(Kind)
    return sorted(changes, key=lambda change: (order.index(change.kind), -max(change.now, change.before)))


def _change(later: Group | None, earlier: Group | None, share: float) -> Change | None:
    now, before = (0 if group is None else group.count for group in (later, earlier))
    if earlier is None:
        return None if later is None else Change(Kind.NEW, later, now, 0, None)
    factor = now / before * (1 - share) / share
    if 1 / FACTOR < factor < FACTOR or by_chance(now, before, share) >= CHANCE:
        return None
    if later is None:
        return Change(Kind.GONE, earlier, 0, before, 0.0)
    return Change(Kind.GROWN if factor > 1 else Kind.SHRUNK, later, now, before, factor)


def by_chance(now: int, before: int, share: float) -> float:
    """Return how often chance alone divides as unequally, if each failure falls into the later time with ``share``."""
    total = now + before
    if total > _EXACT:
        spread = math.sqrt(total * share * (1 - share))
        distance = max(0.0, abs(now - total * share) - 0.5) / spread
        return math.erfc(distance / math.sqrt(2))
    rising = now >= total * share
    tail = range(now, total + 1) if rising else range(now + 1)
    return min(1.0, 2 * math.fsum(math.exp(_log_binomial(total, count, share)) for count in tail))


def _log_binomial(total: int, count: int, share: float) -> float:
    return log_comb(total, count) + count * math.log(share) + (total - count) * math.log1p(-share)


# -- side by side -----------------------------------------------------------------------------------------------------

GROUP_NAME = re.compile(r"g[0-9a-f]{7}")
MOST_ARGUMENTS = 60  # rows for the arguments of a job
# What always differs between two jobs, and tells nothing by itself.
CONTEXT = frozenset({"job_id", "jobs", "failed_at", "enqueued_at", "waited", "first_failed_at", "last_failed_at"})


@dataclass(frozen=True, slots=True)
class Side:
    """One of two things that are compared."""

    kind: str  # job, group or incident
    name: str  # as the operator names it
    group: str | None  # that it is, or that the job belongs to
    fields: Mapping[str, Any]
    job_ids: tuple[int, ...] = ()  # of a job or an incident


class Difference(NamedTuple):
    """One field of both sides."""

    field: str
    left: Any
    right: Any
    differs: bool


def find_side(database: Database, text: str) -> Side:
    """Find what an operator names: a group, an incident, or a failed job by its id or Active Job id.

    Raises NoSuchJobError.
    """
    if GROUP_NAME.fullmatch(text):
        group = find_group(database, text)
        if group is None:
            raise NoSuchJobError(f"no group {text}; jq failed diff lists them")
        return Side("group", text, group.name, _group_fields(group))
    with database.read() as connection:
        if incidents.NAME.fullmatch(text):
            incident = incidents.find_incident(connection, text)
            if incident is None:
                raise NoSuchJobError(f"no incident {text}; jq incidents list shows them")
            return Side("incident", text, None, _incident_fields(incident), tuple(incident.job_ids))
        failure = _failure_now(connection, text) or _failure_once(connection, text)
        if failure is None:
            known = any(find_jobs(connection, [text]).values())
            raise NoSuchJobError(f"job {text} has not failed" if known else f"no job {text}")
    signature = signature_of(_written(failure.error))
    return Side("job", text, signature.name, _job_fields(failure, signature), (failure.job_id,))


def side_by_side(left: Side, right: Side) -> list[Difference]:
    """Compare field by field; a job and a group in what both have."""
    alike = left.kind == right.kind
    found = []
    for name in dict.fromkeys((*left.fields, *right.fields)):
        one, other = left.fields.get(name), right.fields.get(name)
        if (one is None and other is None) or not (alike or (name in left.fields and name in right.fields)):
            continue
        found.append(Difference(name, one, other, name not in CONTEXT and not _agree(one, other)))
    return found


def _agree(one: Any, other: Any) -> bool:
    """Tell whether two values say the same: a job's class is one of its group's."""
    if isinstance(one, list) and isinstance(other, str):
        return other in one
    if isinstance(other, list) and isinstance(one, str):
        return one in other
    return bool(one == other) and type(one) is type(other)


def _failure_now(connection: Connection, text: str) -> Failure | None:
    """Return the last failed job of this id."""
    found = find_jobs(connection, [text])[text]
    return max(failures_of(connection, [view.job_id for view in found]), key=lambda f: f.failure_id, default=None)


def _failure_once(connection: Connection, text: str) -> Failure | None:
    """Return the last failure of this id that jq took away."""
    if not operations.exists(connection):
        return None
    asked = failures.c.active_job_id == text
    if text.isascii() and text.isdigit() and int(text) < 2**63:
        asked = or_(asked, failures.c.job_id == int(text))
    query = (
        select(*archive.ARCHIVED).where(asked, failures.c.restored_by.is_(None)).order_by(failures.c.id.desc()).limit(1)
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    return Failure(
        failure_id=row.failure_id,
        job_id=row.job_id,
        active_job_id=row.active_job_id,
        class_name=row.class_name,
        queue_name=row.queue_name,
        priority=row.priority,
        enqueued_at=row.enqueued_at,
        failed_at=row.failed_at,
        error=parse_error(row.error),
        arguments=row.arguments,
    )


def _written(error: ErrorInfo) -> str | None:
    """Write an error back as it was stored, as far as a signature needs it."""
    if error == ErrorInfo():
        return None
    if error.exception_class is None and not error.backtrace:
        return error.message
    parts = {"exception_class": error.exception_class, "message": error.message, "backtrace": error.backtrace}
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def _job_fields(failure: Failure, signature: Signature) -> dict[str, Any]:
    waited = failure.failed_at - failure.enqueued_at if failure.failed_at and failure.enqueued_at else None
    return {
        "job_id": failure.job_id,
        **_signature_fields(signature),
        "message": failure.error.message,
        "class_name": failure.class_name,
        "queue_name": failure.queue_name,
        "priority": failure.priority,
        "executions": _executions(failure.arguments),
        **_argument_fields(shown_arguments(failure.arguments)),
        "enqueued_at": failure.enqueued_at,
        "failed_at": failure.failed_at,
        "waited": None if waited is None else round(waited.total_seconds(), 3),
    }


def _group_fields(group: Group) -> dict[str, Any]:
    return {
        "jobs": group.count,
        **_signature_fields(group.signature),
        "class_name": [name for name, _ in group.classes.most_common()],
        "queue_name": [name for name, _ in group.queues.most_common()],
        "hosts": [name for name, _ in group.hosts.most_common()] or None,
        "first_failed_at": group.first_at,
        "last_failed_at": group.last_at,
    }


def _incident_fields(incident: incidents.Incident) -> dict[str, Any]:
    found, finding = incident.deaths, incident.finding
    return {
        "jobs": len(incident.jobs),
        "cause": finding.cause.value,
        "confidence": finding.confidence.value,
        "facts": list(finding.used),
        "processes": len(found),
        "kinds": _distinct(death.kind for death in found),
        "hosts": incident.hosts,
        "signals": _distinct(death.signal for death in found),
        "exit_statuses": _distinct(death.exit_status for death in found),
        "class_name": incident.classes,
        "releases": _distinct(death.sample.get("release") for death in found),
        "peak_memory": max((int(number(death.sample, "peak") or 0) for death in found), default=0) or None,
        "memory_limit": max((int(number(death.sample, "cgroup", "max") or 0) for death in found), default=0) or None,
        "first_failed_at": incident.at,
        "last_failed_at": incident.noticed_at,
    }


def _distinct(values: Iterable[Any]) -> list[Any]:
    return sorted({value for value in values if value is not None})


def _signature_fields(signature: Signature) -> dict[str, Any]:
    return {
        "group": signature.name,
        "death": signature.death and signature.death.value,
        "error_class": signature.exception_class,
        "signature": signature.message,
        "frames": list(signature.frames),
    }


def _executions(arguments: str | None) -> int | None:
    """Return how often Active Job had begun the job, itself retrying it."""
    try:
        data = json.loads(arguments or "")
    except (ValueError, RecursionError):
        return None
    count = data.get("executions") if isinstance(data, dict) else None
    return count if isinstance(count, int) else None


def _argument_fields(arguments: Any) -> dict[str, Any]:
    """Name each argument, and each key of those that are hashes."""
    if not isinstance(arguments, list):
        return {"arguments": arguments}
    named = ((f"arguments{path}", value) for path, value in _members(arguments))
    return {"arguments": len(arguments), **dict(islice(named, MOST_ARGUMENTS))}


def _members(arguments: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for at, value in enumerate(arguments):
        if isinstance(value, dict) and (keys := [key for key in value if not key.startswith("_aj_")]):
            yield from ((f"[{at}].{key}", _explicit(value[key])) for key in keys)
        else:
            yield f"[{at}]", _explicit(value)


def _explicit(value: Any) -> Any:
    """Tell null from an argument that is not there, and "1" from 1."""
    return "null" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value


# -- failed and finished jobs -----------------------------------------------------------------------------------------

SAMPLE = 20_000  # jobs on either side, the newest
ARGUMENTS_SAMPLE = 2_000  # of them those whose arguments are read
LONGEST_ARGUMENTS = 20_000  # bytes
FEWEST = 20  # finished jobs to compare with
LEAST_TIME = timedelta(hours=1)  # jobs finished in it are looked at, even if all failed at once
DAYLONG = timedelta(hours=12)  # failures of a shorter time have an hour of the day by nature
SIGNIFICANT = 0.01
LEAST_ODDS = 3.0
MOST_TRAITS = 8
_CLASSES = 5  # the failed jobs' most frequent classes, whose arguments are compared


@dataclass(frozen=True, slots=True)
class Trait:
    """What failed jobs have more often than finished ones. ``p`` is corrected for how many traits were tried."""

    trait: str
    failed_with: int
    failed: int
    finished_with: int
    finished: int
    odds: float
    p: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """Failed jobs against those that finished in the same time."""

    traits: list[Trait]
    failed: int  # jobs that were compared
    finished: int
    since: datetime | None = None
    until: datetime | None = None

    @property
    def possible(self) -> bool:
        """Tell whether enough finished jobs are kept."""
        return self.finished >= FEWEST


@dataclass(frozen=True, slots=True)
class _Job:
    id: int
    class_name: str
    traits: frozenset[str]


def contrast(database: Database, failed_ids: Iterable[int]) -> Contrast:
    """Find what sets failed jobs apart from jobs that finished between the first and the last of the failures."""
    with database.read() as connection:
        rows = [
            row
            for batch in in_batches(islice(failed_ids, SAMPLE))
            for row in connection.execute(_failed_query().where(among(failed.c.job_id, batch)))
        ]
        times = [row.at for row in rows if row.at is not None]
        if not times:
            return Contrast([], 0, 0)
        until = max(times)
        since = min(*times, until - LEAST_TIME)
        query = _finished_query().where(jobs.c.finished_at >= boundary(since), jobs.c.finished_at <= until)
        others = connection.execute(query.order_by(jobs.c.finished_at.desc()).limit(SAMPLE)).all()
        if len(others) < FEWEST:
            return Contrast([], len(rows), len(others), since, until)
        hours = max(times) - min(times) >= DAYLONG
        jobs_failed, jobs_finished = ([_job(row, hours=hours) for row in each] for each in (rows, others))
        found = list(_tables(jobs_failed, jobs_finished))
        for class_name, _ in Counter(job.class_name for job in jobs_failed).most_common(_CLASSES):
            sides = [_with_arguments(connection, each, class_name) for each in (jobs_failed, jobs_finished)]
            found += _tables(sides[0], sides[1])
    return Contrast(most_telling(found), len(rows), len(others), since, until)


def most_telling(tables: Sequence[tuple[str, int, int, int, int]]) -> list[Trait]:
    """Choose, of 2x2 tables (with and of all, failed and finished), those that chance does not make."""
    telling = []
    for trait, failed_with, failed_all, finished_with, finished_all in tables:
        a, b, c, d = failed_with, failed_all - failed_with, finished_with, finished_all - finished_with
        odds = (a + 0.5) * (d + 0.5) / ((b + 0.5) * (c + 0.5))  # Haldane: no division by zero
        if odds < LEAST_ODDS:
            continue
        p = min(1.0, more_often(a, b, c, d) * len(tables))
        if p < SIGNIFICANT:
            telling.append(Trait(trait, failed_with, failed_all, finished_with, finished_all, round(odds, 1), p))
    return sorted(telling, key=lambda trait: (trait.p, -trait.odds))[:MOST_TRAITS]


_FEW = 5  # expected in a cell; with fewer the approximation does not hold


def more_often(a: int, b: int, c: int, d: int) -> float:
    """Return how often chance alone makes ``a`` as great: Fisher's exact test, chi-square where all is plenty."""
    total, row, column = a + b + c + d, a + b, a + c
    expected = row * column / total
    if a <= expected:
        return 1.0
    if min(expected, row - expected, column - expected, total - row - column + expected) >= _FEW:
        variance = expected * (total - row) / total * (total - column) / (total - 1)
        deviation = max(0.0, a - expected - 0.5) / math.sqrt(variance)
        return math.erfc(deviation / math.sqrt(2)) / 2
    return fisher(a, row, c, c + d)


def _failed_query() -> Select[Any]:
    return select(*_JOB_COLUMNS, failed.c.created_at.label("at")).join_from(failed, jobs, jobs.c.id == failed.c.job_id)


def _finished_query() -> Select[Any]:
    return select(*_JOB_COLUMNS, jobs.c.finished_at.label("at"))


_JOB_COLUMNS = (jobs.c.id, jobs.c.class_name, jobs.c.queue_name, jobs.c.priority, jobs.c.concurrency_key)


def _job(row: Any, *, hours: bool) -> _Job:
    traits = {
        f"class {row.class_name}",
        f"queue {row.queue_name}",
        f"priority {row.priority}",
        "a concurrency limit" if row.concurrency_key else "no concurrency limit",
    }
    if hours and row.at is not None:
        traits.add(f"the hour {row.at:%H}:00-{row.at:%H}:59 UTC")
    return _Job(row.id, row.class_name, frozenset(traits))


def _with_arguments(connection: Connection, sample: Sequence[_Job], class_name: str) -> list[_Job]:
    """Return jobs of one class with the shape of their arguments for traits."""
    ids = [job.id for job in islice((job for job in sample if job.class_name == class_name), ARGUMENTS_SAMPLE)]
    return [
        _Job(job_id, class_name, frozenset(f"{class_name} with {shape}" for shape in _shapes(arguments)))
        for batch in in_batches(ids)
        for job_id, arguments in connection.execute(
            select(jobs.c.id, jobs.c.arguments).where(
                among(jobs.c.id, batch), octets(jobs.c.arguments) <= LONGEST_ARGUMENTS
            )
        )
    ]


def _shapes(arguments: str | None) -> Iterator[str]:
    """Say how many arguments there are, of which types, and which keys."""
    shown = shown_arguments(arguments)
    if not isinstance(shown, list):
        yield "arguments that are no list"
        return
    yield f"{len(shown)} arguments"
    for at, value in enumerate(shown[:20]):
        if isinstance(value, dict) and "_aj_serialized" not in value and "_aj_globalid" not in value:
            yield f"arguments[{at}] a hash"
            keys = [key for key in value if not key.startswith("_aj_")]
            yield from (f"arguments[{at}].{key[:80]} {_type(value[key])}" for key in keys[:50])
        else:
            yield f"arguments[{at}] {_type(value)}"


def _type(value: Any) -> str:  # noqa: PLR0911  (one for each type)
    match value:
        case None | bool():
            return json.dumps(value)
        case str():
            return "a string" if value else "an empty string"
        case int() | float():
            return "a number" if value > 0 else "0" if value == 0 else "a negative number"
        case list():
            return "a list" if value else "an empty list"
        case {"_aj_globalid": str(name)}:
            return f"a record, {name.rpartition('/')[0][-80:]}"
        case {"_aj_serialized": str(name)}:
            return f"of {name.removeprefix('ActiveJob::Serializers::')[:80]}"
    return "a hash"


def _tables(failed_jobs: Sequence[_Job], finished_jobs: Sequence[_Job]) -> Iterator[tuple[str, int, int, int, int]]:
    """Count each trait of the failed jobs on both sides; none where there is nothing to compare with."""
    if not failed_jobs or not finished_jobs:
        return
    here, there = (Counter(trait for job in each for trait in job.traits) for each in (failed_jobs, finished_jobs))
    for trait, count in here.most_common(200):
        yield trait, count, len(failed_jobs), there[trait], len(finished_jobs)
