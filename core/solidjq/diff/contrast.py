"""Traits that failed jobs have more often than finished jobs: class, queue, priority, hour, shape of the arguments."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, select

from solidjq.batching import in_batches
from solidjq.chance import fisher
from solidjq.database.among import among
from solidjq.database.functions import octets
from solidjq.database.statements import streamed
from solidjq.database.tables import failed, jobs
from solidjq.database.times import boundary
from solidjq.database.transactions import Database
from solidjq.rails.active_job import shown_arguments
from solidjq.text import count_of

SAMPLE = 20_000  # jobs on either side, the newest
ARGUMENTS_SAMPLE = 2_000  # jobs of a class on either side whose arguments are read
LONGEST_ARGUMENTS = 20_000  # bytes: longer arguments are not read
FEWEST_FINISHED = 20  # with fewer finished jobs nothing is compared
LEAST_TIME = timedelta(hours=1)  # the shortest span of finished jobs, even if all failures were at once
DAYLONG = timedelta(hours=12)  # failures of a shorter span share their hours: the hour is no trait then
SIGNIFICANT = 0.01  # a p-value below, corrected for the number of traits
LEAST_ODDS = 3.0  # a smaller odds ratio is not worth a line
MOST_TRAITS = 8  # shown
_CLASSES = 5  # the most frequent classes among the failed jobs, whose arguments are compared


@dataclass(frozen=True, slots=True)
class Trait:
    """A trait that failed jobs have more often than finished jobs."""

    trait: str
    failed_with: int
    failed: int
    finished_with: int
    finished: int
    odds: float  # the odds ratio
    p: float  # one-sided, Bonferroni-corrected for the number of traits tested


@dataclass(frozen=True, slots=True)
class Contrast:
    """Failed jobs compared with the jobs that finished from ``since`` to ``until``."""

    traits: list[Trait]
    failed: int  # failed jobs compared
    finished: int  # finished jobs compared
    since: datetime | None = None
    until: datetime | None = None

    @property
    def possible(self) -> bool:
        """Whether there were enough finished jobs to compare with. Rails deletes them, by default after a day."""
        return self.finished >= FEWEST_FINISHED


class _Kind(NamedTuple):
    """What a job has in common with many others."""

    class_name: str
    queue_name: str
    priority: int
    is_limited: bool


class _Job(NamedTuple):
    id: int
    kind: _Kind
    at: datetime | None


_Traits = Counter[frozenset[str]]  # how many jobs have these traits


def contrast(database: Database, failed_ids: Iterable[int]) -> Contrast:
    """Return the traits that set failed jobs apart from jobs that finished between the first and the last failure.

    At most ``SAMPLE`` jobs are compared on either side; the span is at least ``LEAST_TIME``.
    """
    with database.read() as connection:
        died = _jobs(
            row
            for batch in in_batches(islice(failed_ids, SAMPLE))
            for row in connection.execute(_failed_query().where(among(failed.c.job_id, batch)))
        )
        times = [job.at for job in died if job.at is not None]
        if not times:
            return Contrast([], 0, 0)
        until = max(times)
        since = min(*times, until - LEAST_TIME)
        query = _finished_query().where(jobs.c.finished_at >= boundary(since), jobs.c.finished_at <= until)
        others = _jobs(streamed(connection, query.order_by(jobs.c.finished_at.desc()).limit(SAMPLE)))
        if len(others) < FEWEST_FINISHED:
            return Contrast([], len(died), len(others), since, until)
        hours = max(times) - min(times) >= DAYLONG
        tables = list(_tables(*(_traits(side, hours=hours) for side in (died, others))))
        for class_name, _ in Counter(job.kind.class_name for job in died).most_common(_CLASSES):
            tables += _tables(*(_argument_traits(connection, side, class_name) for side in (died, others)))
    return Contrast(significant_traits(tables), len(died), len(others), since, until)


def significant_traits(tables: Sequence[tuple[str, int, int, int, int]]) -> list[Trait]:
    """Return the traits whose 2x2 tables are significant, the least p-value first, at most ``MOST_TRAITS``.

    A table is a trait, then how many failed jobs have it, of how many, how many finished jobs have it, of how many.
    """
    traits = []
    for trait, failed_with, failed_all, finished_with, finished_all in tables:
        a, b, c, d = failed_with, failed_all - failed_with, finished_with, finished_all - finished_with
        odds = (a + 0.5) * (d + 0.5) / ((b + 0.5) * (c + 0.5))  # Haldane: no division by zero
        if odds < LEAST_ODDS:
            continue
        p = min(1.0, one_sided_p(a, b, c, d) * len(tables))
        if p < SIGNIFICANT:
            traits.append(Trait(trait, failed_with, failed_all, finished_with, finished_all, round(odds, 1), p))
    return sorted(traits, key=lambda trait: (trait.p, -trait.odds))[:MOST_TRAITS]


_FEW = 5  # expected in a cell: with fewer, the approximation is not exact enough


def one_sided_p(a: int, b: int, c: int, d: int) -> float:
    """Return the one-sided p-value of the 2x2 table ``a b / c d``: the chance of ``a`` or more, its margins fixed.

    By Fisher's exact test, or the chi-square test with Yates's correction if ``_FEW`` are expected in every cell.
    """
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


def _jobs(rows: Iterable[Row[Any]]) -> list[_Job]:
    """Return the jobs of these rows; those of one kind share what they have in common."""
    kinds: dict[_Kind, _Kind] = {}
    made = []
    for row in rows:
        kind = _Kind(row.class_name, row.queue_name, row.priority, bool(row.concurrency_key))
        made.append(_Job(row.id, kinds.setdefault(kind, kind), row.at))
    return made


def _traits(sample: Iterable[_Job], *, hours: bool) -> _Traits:
    """Count the jobs by their traits; the hour is one of them with ``hours``."""
    alike = Counter((job.kind, f"{job.at:%H}" if hours and job.at is not None else None) for job in sample)
    traits: _Traits = Counter()
    for (kind, hour), count in alike.items():
        of_kind = {
            f"class {kind.class_name}",
            f"queue {kind.queue_name}",
            f"priority {kind.priority}",
            "a concurrency limit" if kind.is_limited else "no concurrency limit",
        }
        traits[frozenset(of_kind if hour is None else {*of_kind, f"the hour {hour}:00-{hour}:59 UTC"})] += count
    return traits


def _argument_traits(connection: Connection, sample: Iterable[_Job], class_name: str) -> _Traits:
    """Count the jobs of one class by the shapes of their arguments."""
    ids = islice((job.id for job in sample if job.kind.class_name == class_name), ARGUMENTS_SAMPLE)
    return Counter(
        frozenset(f"{class_name} with {shape}" for shape in _shapes(arguments))
        for batch in in_batches(ids)
        for arguments in connection.scalars(
            select(jobs.c.arguments).where(among(jobs.c.id, batch), octets(jobs.c.arguments) <= LONGEST_ARGUMENTS)
        )
    )


def _shapes(arguments: str | None) -> Iterator[str]:
    """Yield how many arguments there are, and the type of each and of each key of a hash. No value is shown."""
    shown = shown_arguments(arguments)
    if not isinstance(shown, list):
        yield "arguments that are not a list"
        return
    yield count_of(len(shown), "argument")
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


def _tables(failed_jobs: _Traits, finished_jobs: _Traits) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield a 2x2 table for each of the 200 most frequent traits of the failed jobs; nothing if a side is empty."""
    if not failed_jobs or not finished_jobs:
        return
    failed_with, finished_with = (_by_trait(side) for side in (failed_jobs, finished_jobs))
    for trait, count in failed_with.most_common(200):
        yield trait, count, failed_jobs.total(), finished_with[trait], finished_jobs.total()


def _by_trait(traits: _Traits) -> Counter[str]:
    counts: Counter[str] = Counter()
    for together, count in traits.items():
        for trait in together:
            counts[trait] += count
    return counts
