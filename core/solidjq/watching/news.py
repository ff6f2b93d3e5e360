"""Reads what is new: rows of ``jq_deaths`` and ``failed_executions``, by their primary keys alone."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, func, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.any_types import ANY_TEXT
from solidjq.database.functions import octets
from solidjq.database.tables import crashes, deaths, failed, jobs
from solidjq.database.times import boundary, clock
from solidjq.diff.pages import HEAD, SignatureCache, signatures_of
from solidjq.diff.signatures import CACHED, Signature
from solidjq.incidents.death_jobs import find_recorded
from solidjq.incidents.death_records import DeathRecord
from solidjq.ledger import operations
from solidjq.ledger.crashes import EVIDENCE, subject_of
from solidjq.queue import failure_counts
from solidjq.watching.id_windows import IdWindow, window_at
from solidjq.watching.position import GroupSeen, Position

PAGE = 2_000  # rows that one look reads; a further look follows at once if there are more
NEWEST = 1_000  # of the ids when a watch begins, between which gaps are looked for
BASELINE = 10_000  # failures whose groups were there before the watch began


class NewFailure(NamedTuple):
    """A failed job that was not there at the last look."""

    failure_id: int
    job_id: int
    active_job_id: str | None
    class_name: str
    queue_name: str | None
    failed_at: datetime
    head: str | None  # the beginning of its error
    signature: Signature


class UnrecordedFailure(NamedTuple):
    """A job that failed by a death which nobody recorded, as ``incidents.reconstruction`` reads it."""

    failure_id: int
    job_id: int
    subject: str
    class_name: str
    evidence: str
    crashed_at: datetime
    hostname: str | None = None
    pid: int | None = None
    failures: int = 1
    waiting: int = 1
    again: int = 1  # whether the job may have been in flight at another death; nobody has looked

    @property
    def last_failure_id(self) -> int:
        """The highest id of the failures that it counts: its own."""
        return self.failure_id


class News(NamedTuple):
    """What one look found. Failures by a recorded death are in none of the lists: the death has them."""

    deaths: list[DeathRecord]
    died: list[UnrecordedFailure]
    failures: list[NewFailure]
    more: bool  # whether there may be more to read at once
    restarts: list[str]  # in words, the tables whose ids began again below the position


class Reader:
    """Reads what is new since a position, and moves that on. Memory does not grow with what it has read."""

    def __init__(self) -> None:
        self._cache: SignatureCache = {}

    def read(self, connection: Connection, position: Position, now: float) -> News:
        """Return what is new, at most ``PAGE`` rows of each table. ``now``: the database's clock, in s since 1970."""
        if len(self._cache) > CACHED:
            self._cache.clear()
        recorded: list[DeathRecord] = []
        more = False
        restarts: list[str] = []
        has_ledger = operations.exists(connection)
        if has_ledger:
            restarts += _follow_restart(connection, position, "deaths", now)
            numbers, more = _new_rows(connection, select(deaths.c.id), position.deaths, now)
            recorded = find_recorded(connection, [row.id for row in numbers])
        restarts += _follow_restart(connection, position, "failures", now)
        rows, more_failures = _new_rows(connection, _failures(), position.failures, now)
        position.failures.note_times(row.created_at for row in rows)
        signatures = signatures_of(connection, rows, self._cache)
        new = [_failure(row, signature) for row, signature in zip(rows, signatures, strict=True)]
        died = [failure for failure in new if failure.signature.death is not None]
        known = _of_recorded_deaths(connection, [one.failure_id for one in died]) if has_ledger else set()
        return News(
            recorded,
            [_unrecorded(failure) for failure in died if failure.failure_id not in known],
            [failure for failure in new if failure.signature.death is None],
            more or more_failures,
            restarts,
        )

    def begin(self, connection: Connection, database: str, since: datetime | None) -> Position:
        """Return the position of a watch that begins now, or with what happened ``since``.

        The groups of the newest failures before it count as reported.
        """
        now = clock(connection).timestamp()
        position = Position(database)
        if operations.exists(connection):
            position.deaths = window_at(_newest(connection, deaths.c.id, _deaths_until(connection, since)), now)
        last = _failures_until(connection, since)
        position.failures = window_at(_newest(connection, failed.c.id, last), now)
        before = _failures().order_by(failed.c.id.desc()).limit(BASELINE)
        rows = connection.execute(before if last is None else before.where(failed.c.id <= last)).all()
        position.failures.note_times(row.created_at for row in rows)
        for signature in signatures_of(connection, rows[::-1], self._cache):
            if signature.death is None:
                position.groups[signature.name] = GroupSeen(place_of(signature), now)
        return position


def place_of(signature: Signature) -> str:
    """Return where in the code failures come from: the same for groups that may be one problem."""
    return Signature(signature.exception_class, "", signature.frames).name


def _follow_restart(connection: Connection, position: Position, which: str, now: float) -> Iterator[str]:
    """If the ids of a table began again below its window, begin there, with the rows written since; yield it in words.

    What was remembered by the old ids says nothing about the new ones.
    """
    table, time, last_before = _TABLES[which]
    window: IdWindow = getattr(position, which)
    read = select(table.c.id, time).where(table.c.id <= window.high).order_by(table.c.id.desc()).limit(1)
    last_read = connection.execute(read).one_or_none()
    if last_read is None or not window.begins_again(last_read[1] and last_read[1].timestamp()):
        return
    last = last_before(connection, datetime.fromtimestamp(window.high_at or 0.0, UTC))
    begun = window_at(_newest(connection, table.c.id, last), now)
    setattr(position, which, begun)
    position.forget(which)
    yield (
        f"the ids of {table.name} begin again: {last_read[0]} is new, and {window.high} was read before, so the "
        f"database was restored or emptied; the watch goes on above {begun.high}"
    )


def _new_rows(
    connection: Connection, query: Select[Any], window: IdWindow, now: float
) -> tuple[Sequence[Row[Any]], bool]:
    """Return the rows that are new by their ids, and whether there may be more; move the window on."""
    column = query.selected_columns.id
    rows = list(connection.execute(query.where(column > window.high).order_by(column).limit(PAGE)))
    more = len(rows) == PAGE
    complete = True
    for condition in window.late(column):
        late = connection.execute(query.where(condition).order_by(column).limit(PAGE)).all()
        complete = complete and len(late) < PAGE
        rows += late
    if rows:  # none of them was written later than this
        window.add([row.id for row in rows], clock(connection).timestamp())
    if complete:
        window.forget(now)
    return rows, more or not complete


def _failures() -> Select[Any]:
    return select(
        failed.c.id,
        failed.c.job_id,
        jobs.c.active_job_id,
        jobs.c.class_name,
        jobs.c.queue_name,
        failed.c.created_at,
        func.substr(failed.c.error, 1, HEAD, type_=ANY_TEXT).label("head"),
        octets(failed.c.error).label("size"),
    ).join_from(failed, jobs, jobs.c.id == failed.c.job_id, isouter=True)


def _failure(row: Row[Any], signature: Signature) -> NewFailure:
    return NewFailure(
        row.id,
        row.job_id,
        row.active_job_id,
        row.class_name or "",
        row.queue_name,
        row.created_at or datetime.now(UTC),
        row.head,
        signature,
    )


def _unrecorded(failure: NewFailure) -> UnrecordedFailure:
    return UnrecordedFailure(
        failure.failure_id,
        failure.job_id,
        subject_of(failure.job_id, failure.active_job_id),
        failure.class_name,
        (failure.head or "")[:EVIDENCE],
        failure.failed_at,
    )


def _of_recorded_deaths(connection: Connection, failure_ids: Sequence[int]) -> set[int]:
    """Return those of these failures whose death stands in ``jq_deaths``."""
    query = select(crashes.c.failure_id).where(crashes.c.death_id.is_not(None))
    return {
        number
        for batch in in_batches(failure_ids)
        for number in connection.scalars(query.where(among(crashes.c.failure_id, batch)))
    }


# -- where a watch begins ---------------------------------------------------------------------------------------------


def _newest(connection: Connection, column: Any, last: int | None) -> list[int]:
    query = select(column).order_by(column.desc()).limit(NEWEST)
    return list(connection.scalars(query if last is None else query.where(column <= last)))


def _deaths_until(connection: Connection, since: datetime | None) -> int | None:
    """Return the id of the last death before ``since``; None for the last of all."""
    if since is None:
        return None
    first = connection.scalar(select(func.min(deaths.c.id)).where(deaths.c.noticed_at >= boundary(since)))
    return None if first is None else first - 1


def _failures_until(connection: Connection, since: datetime | None) -> int | None:
    """Return the id of the last failure before ``since``, 0 if there is none; None for the last of all."""
    return None if since is None else failure_counts.last_before(connection, since) or 0


# By the window: its table, when a row was written, and the last id before a time.
_TABLES: dict[str, tuple[Any, Any, Callable[[Connection, datetime | None], int | None]]] = {
    "deaths": (deaths, deaths.c.noticed_at, _deaths_until),
    "failures": (failed, failed.c.created_at, _failures_until),
}
