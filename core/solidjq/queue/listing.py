"""Jobs in any state: the filter that selects them, and the list of them."""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, case, func, or_, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.grouping import read_ids
from solidjq.database.tables import claimed, jobs, processes
from solidjq.database.times import boundary
from solidjq.database.transactions import Database
from solidjq.queue.executions import EXECUTIONS
from solidjq.queue.failed import of_jobs
from solidjq.queue.jobs import JobView, read_finished, views_of
from solidjq.queue.patterns import fits_in_sql
from solidjq.queue.states import State
from solidjq.text import parse_id

T = TypeVar("T", "JobId", JobView)
Read = Callable[[Connection, State, Select[int]], tuple[int, int, Sequence[T]]]  # reads a page, as _pages says

PAGE = 1000
PAGE_OF_IDS = 10_000
WINDOW = 10_000  # executions whose jobs are looked through at once
UNFINISHED = tuple(EXECUTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Selects jobs by their state and more: every field that is set must match; values of one field are alternatives.

    Names of queues, classes, processes, hosts and keys may end in a star.
    """

    states: tuple[State, ...] = UNFINISHED
    job_ids: Sequence[int] | None = None
    queues: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    not_classes: tuple[str, ...] = ()
    argument: str | None = None  # anywhere in the job's arguments, as JSON; case is ignored
    since: datetime | None = None  # enqueued then or later
    until: datetime | None = None  # enqueued before
    keys: tuple[str, ...] = ()  # concurrency keys
    processes: tuple[str, ...] = ()  # names or ids of the processes that run the jobs
    hosts: tuple[str, ...] = ()  # of these processes

    def to_record(self) -> dict[str, object]:
        """Return the fields that are set, for the record of operations; of ids, how many there are."""
        fields: dict[str, object] = {
            "states": [state.value for state in self.states],
            "ids": None if self.job_ids is None else len(self.job_ids),
            "queues": list(self.queues),
            "classes": list(self.classes),
            "not_classes": list(self.not_classes),
            "argument": self.argument,
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
            "keys": list(self.keys),
            "processes": list(self.processes),
            "hosts": list(self.hosts),
        }
        return {key: value for key, value in fields.items() if value or value == 0}


class JobId(NamedTuple):
    """A job's id, where nothing else of the job is read."""

    job_id: int


def list_jobs(
    database: Database, chosen: JobFilter, *, limit: int | None = None, after: int | None = None
) -> Iterator[JobView]:
    """Yield jobs, the newest first, from below the job id ``after``. Reads page by page: memory is constant."""

    def read(connection: Connection, state: State, page: Select[int]) -> tuple[int, int, list[JobView]]:
        if state is State.FINISHED:
            ids, views = read_finished(connection, page)
        else:
            ids = read_ids(connection, page, descending=True)
            views = {view.job_id: view for view in views_of(connection, ids)}
        # A job that has left the state between two statements is not of this list any more.
        listed = [view for each in ids if (view := views.get(each)) is not None and state in view.states]
        return len(ids), ids[-1] if ids else 0, listed

    return _listed(database, chosen, limit, after, PAGE, read)


def list_job_ids(
    database: Database, chosen: JobFilter, *, limit: int | None = None, after: int | None = None
) -> Iterator[JobId]:
    """Yield the ids of what ``list_jobs`` yields, in the same order; it reads nothing else of a job."""

    def read(connection: Connection, _state: State, page: Select[int]) -> tuple[int, int, list[JobId]]:
        ids = read_ids(connection, page, descending=True)
        return len(ids), ids[-1] if ids else 0, list(map(JobId, ids))

    return _listed(database, chosen, limit, after, PAGE_OF_IDS, read)


def _listed(
    database: Database, chosen: JobFilter, limit: int | None, after: int | None, most: int, read: Read[T]
) -> Iterator[T]:
    """Yield what ``read`` returns of the jobs in all states, the newest first, in pages of ``most`` jobs or fewer."""
    size = most if limit is None else min(most, max(limit, 1))
    states = dict.fromkeys(chosen.states)
    return _merged([_pages(database, state, chosen, after, size, read) for state in states], limit)


def _merged(states: Sequence[Iterator[T]], limit: int | None) -> Iterator[T]:
    """Yield the jobs of all states, the newest first, at most ``limit``; one in several states, being damaged, once."""
    if len(states) == 1:
        yield from islice(states[0], limit)
        return
    before = None
    for job in heapq.merge(*states, key=lambda job: job.job_id, reverse=True):
        if limit == 0:
            return
        if job.job_id != before:
            before = job.job_id
            limit = None if limit is None else limit - 1
            yield job


def _pages(
    database: Database,
    state: State,
    chosen: JobFilter,
    after: int | None,
    size: int,
    read: Read[T],
) -> Iterator[T]:
    """Yield what ``read`` returns of the jobs in one state, the newest first.

    ``read`` gets the query for the ids of a page; it returns how many ids there are, the last one, and the jobs.
    """
    for part in _parts(chosen):
        below = after
        windows = 0 if part is not None else _windows(state, chosen)
        while True:
            with database.read() as connection:
                window = _window(connection, state, below) if windows else None
                query = _ids_below(state, chosen, part, below) if window is None else window.matching(chosen)
                count, last, page = read(connection, state, query.limit(size))
            yield from page
            if count == size:
                below = last
            elif window is None or window.is_last:
                break
            else:
                below, windows = window.lowest, windows - 1


def _ids_below(state: State, chosen: JobFilter, part: Sequence[int] | None, below: int | None) -> Select[int]:
    column = id_column(state)
    query = ids_in(state, chosen, part).order_by(column.desc())
    return query if below is None else query.where(column < below)


@dataclass(frozen=True, slots=True)
class _Window:
    """The newest executions of a state below some job id, ``WINDOW`` of them at most, and the ids that they span."""

    ids: ColumnElement[int]
    lowest: int
    highest: int
    is_last: bool  # whether the state has no older ones

    def matching(self, chosen: JobFilter) -> Select[int]:
        """Select the ids of those whose job matches the filter, the newest first."""
        span = jobs.c.id.between(self.lowest, self.highest)
        query = select(self.ids).join(jobs, jobs.c.id == self.ids).where(span, *conditions_of(chosen))
        return query.order_by(self.ids.desc())


def _windows(state: State, chosen: JobFilter) -> float:
    """Return in how many windows to look for the jobs of a page before the planner of the database chooses its way.

    PostgreSQL takes the jobs that it looks for to be spread evenly over the table of jobs, and reads that from the
    newest job on: all jobs that finished since the newest failure, for a page of failed jobs. If hardly any job of the
    state matches, an index of the jobs can be the better way, but there is none of what is in their arguments.
    """
    if state is State.FINISHED or chosen.processes or chosen.hosts or next(conditions_of(chosen), None) is None:
        return 0
    return math.inf if chosen.argument else 1


def _window(connection: Connection, state: State, below: int | None) -> _Window | None:
    """Return the next window; None if there is no execution below this job id."""
    column = id_column(state)
    newest = select(column.label("job_id")).order_by(column.desc()).limit(WINDOW)
    ids = (newest if below is None else newest.where(column < below)).subquery().c.job_id
    lowest, highest, count = connection.execute(select(func.min(ids), func.max(ids), func.count())).one()
    return _Window(ids, lowest, highest, count < WINDOW) if count else None


def _parts(chosen: JobFilter) -> Iterator[Sequence[int] | None]:
    """Yield the job ids in batches, the highest first; None once if no ids are named."""
    if chosen.job_ids is None:
        yield None
        return
    yield from in_batches(sorted(set(chosen.job_ids), reverse=True))


def count_jobs(connection: Connection, chosen: JobFilter, *, after: int | None = None) -> int:
    """Count the jobs that match a filter, below the job id ``after``; one in several states is counted in each."""
    return count_with_older(connection, chosen, 0, after=after)[0]


def count_with_older(
    connection: Connection, chosen: JobFilter, last: int, *, after: int | None = None
) -> tuple[int, int]:
    """Count the jobs that match a filter, as ``count_jobs`` does, and those of them below the job id ``last``."""
    every = older = 0
    for state in dict.fromkeys(chosen.states):
        for part in _parts(chosen):
            matching = ids_in(state, chosen, part)
            if after is not None:
                matching = matching.where(id_column(state) < after)
            (job_id,) = (found := matching.subquery()).c
            counts = select(func.count(), func.count(case((job_id < last, 1)))).select_from(found)
            number, below = connection.execute(counts).one()
            every, older = every + number, older + below
    return every, older


def id_column(state: State) -> ColumnElement[int]:
    """Return the column with the job's id that ``ids_in`` selects."""
    return jobs.c.id if state is State.FINISHED else EXECUTIONS[state].c.job_id


def ids_in(state: State, chosen: JobFilter, among_ids: Sequence[int] | None = None) -> Select[int]:
    """Select the ids of the jobs in a state that match the filter, of these only if ``among_ids`` is not None.

    It reads the table of the state first: the table of jobs may be a thousand times as large.
    """
    column: ColumnElement[Any] = id_column(state)
    query: Select[Any] = select(column)
    wanted = list(conditions_of(chosen))
    if state is State.FINISHED:
        wanted.append(jobs.c.finished_at.is_not(None))
    elif wanted:
        query = query.join(jobs, jobs.c.id == column)
    if chosen.processes or chosen.hosts:
        if state is State.CLAIMED:
            query = query.join(processes, processes.c.id == claimed.c.process_id)
            wanted += _of_processes(chosen)
        else:  # no process has it
            wanted.append(column.is_(None))
    if among_ids is not None:
        wanted.append(among(column, among_ids))
    return query.where(*wanted)


def conditions_of(chosen: JobFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of a filter on the columns of the job itself, whatever its state."""
    yield from of_jobs(chosen.queues, chosen.classes, chosen.not_classes, chosen.argument)
    if chosen.since:
        yield jobs.c.created_at >= boundary(chosen.since)
    if chosen.until:
        yield jobs.c.created_at < boundary(chosen.until)
    if chosen.keys:
        yield or_(*(fits_in_sql(pattern, jobs.c.concurrency_key) for pattern in chosen.keys))


def _of_processes(chosen: JobFilter) -> Iterator[ColumnElement[bool]]:
    if chosen.processes:
        numbers = [number for text in chosen.processes if (number := parse_id(text)) is not None]
        named = (fits_in_sql(pattern, processes.c.name) for pattern in chosen.processes)
        yield or_(among(processes.c.id, numbers), *named)
    if chosen.hosts:
        yield or_(*(fits_in_sql(pattern, processes.c.hostname) for pattern in chosen.hosts))
