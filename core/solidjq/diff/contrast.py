"""What failed jobs have in common that finished jobs of the same class lack."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Select, select

from solidjq.batching import in_batches
from solidjq.chance import fisher
from solidjq.database.statements import among, octets
from solidjq.database.tables import failed, jobs
from solidjq.database.times import boundary
from solidjq.database.transactions import Database
from solidjq.rails.active_job import shown_arguments

SAMPLE = 20_000  # jobs on either side, the newest
ARGUMENTS_SAMPLE = 2_000  # of them those whose arguments are read
LONGEST_ARGUMENTS = 20_000  # bytes
FEWEST_FINISHED = 20  # finished jobs to compare with
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
        return self.finished >= FEWEST_FINISHED


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
        if len(others) < FEWEST_FINISHED:
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
