"""How long the jobs of each class wait and run: percentiles over bounded samples.

Solid Queue stores when a job was due and when it finished, and not when it began. So of finished jobs the whole time is
known, from due to finished; waiting and running are told apart for the jobs that wait or run now.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, select

from solidjq.database.tables import claimed, jobs, ready
from solidjq.database.times import boundary, clock
from solidjq.queue.failed import of_jobs

SAMPLE = 20_000  # finished, waiting and running jobs that are read, each
_RANKS = (0.5, 0.95, 0.99)


class Percentiles(NamedTuple):
    """The 50th, 95th and 99th percentile of so many ``times``, in seconds."""

    times: int
    p50: float
    p95: float
    p99: float


@dataclass(slots=True)
class ClassTimes:
    """The times of one class; None where it has no such job."""

    class_name: str
    finished: Percentiles | None = None  # from due to finished
    waiting: Percentiles | None = None  # of ready jobs: since they were due
    waited: Percentiles | None = None  # of jobs that run now: from due to claimed
    running: Percentiles | None = None  # of jobs that run now: since they were claimed


@dataclass(frozen=True, slots=True)
class JobTimes:
    """The times of all classes, and since when the finished jobs finished that were read."""

    classes: list[ClassTimes] = field(default_factory=list)
    since: datetime | None = None
    sampled: bool = False  # there are more finished jobs than were read


def job_times(
    connection: Connection,
    *,
    queues: Sequence[str] = (),
    classes: Sequence[str] = (),
    since: datetime | None = None,
    sample: int = SAMPLE,
) -> JobTimes:
    """Return the times by class: those of the ``sample`` jobs that finished last, wait longest, or run.

    ``since``: of jobs that finished then or later.
    """
    now = clock(connection)
    wanted = list(of_jobs(queues, classes))
    columns = (jobs.c.class_name, jobs.c.created_at, jobs.c.scheduled_at)
    ended = select(*columns, jobs.c.finished_at.label("at")).where(jobs.c.finished_at.is_not(None), *wanted)
    if since is not None:
        ended = ended.where(jobs.c.finished_at >= boundary(since))
    finished = connection.execute(ended.order_by(jobs.c.finished_at.desc()).limit(sample)).all()
    waiting = connection.execute(_now(columns, ready, wanted).order_by(ready.c.job_id).limit(sample)).all()
    running = connection.execute(_now(columns, claimed, wanted).order_by(claimed.c.job_id).limit(sample)).all()
    times: dict[str, ClassTimes] = {}
    for name, each in (
        ("finished", ((row.class_name, _between(_due(row), row.at)) for row in finished)),
        ("waiting", ((row.class_name, _between(row.at, now)) for row in waiting)),
        ("waited", ((row.class_name, _between(_due(row), row.at)) for row in running)),
        ("running", ((row.class_name, _between(row.at, now)) for row in running)),
    ):
        for class_name, percentiles in _by_class(each).items():
            setattr(times.setdefault(class_name, ClassTimes(class_name)), name, percentiles)
    ordered = sorted(times.values(), key=lambda one: (-(one.finished.times if one.finished else 0), one.class_name))
    return JobTimes(ordered, min((row.at for row in finished if row.at), default=None), len(finished) == sample)


def _now(columns: Iterable[ColumnElement[Any]], table: Any, wanted: Iterable[ColumnElement[bool]]) -> Select[Any]:
    return select(*columns, table.c.created_at.label("at")).join(table, table.c.job_id == jobs.c.id).where(*wanted)


def _due(row: Any) -> datetime | None:
    """Return when a job was due: at the time that it was scheduled for, or when it was enqueued if that is later."""
    return max(filter(None, (row.created_at, row.scheduled_at)), default=None)


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())


def _by_class(times: Iterable[tuple[str, float | None]]) -> dict[str, Percentiles]:
    groups: dict[str, list[float]] = defaultdict(list)
    for class_name, seconds in times:
        if seconds is not None:
            groups[class_name].append(seconds)
    return {class_name: percentiles(seconds) for class_name, seconds in groups.items()}


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Return the percentiles of at least one time, each a time that occurs (nearest rank)."""
    ordered = sorted(seconds)
    ranks = (max(0, -int(-rank * len(ordered) // 1) - 1) for rank in _RANKS)
    return Percentiles(len(ordered), *(ordered[rank] for rank in ranks))
