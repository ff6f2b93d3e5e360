"""Failed executions: the error text that Solid Queue writes and reads, and the list an operator asks for."""

import json
import re
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from solidjq.batching import in_batches
from solidjq.database.statements import among
from solidjq.database.tables import failed, jobs
from solidjq.database.times import boundary
from solidjq.database.transactions import Database

# MySQL's TEXT holds 65,535 bytes; a longer error would be refused there, and the job could not be failed at all.
MAX_ERROR_BYTES = 65_535
MAX_MESSAGE_CHARACTERS = 10_000
MAX_CLASS_CHARACTERS = 500
PAGE = 500


class Death(Enum):
    """How a job's process ended, as Solid Queue tells it apart; the value is what ``jq`` calls it."""

    PRUNED = "pruned"  # its heartbeat stopped
    EXITED = "exited"  # its supervisor saw it exit
    MISSING = "missing"  # nobody knows: its row was gone

    @property
    def exception_class(self) -> str:
        """Name the Ruby class in ``failed_executions.error``."""
        return _EXCEPTION_CLASSES[self]


OF_PROCESSES = "SolidQueue::Processes::"  # every death's class begins so
_EXCEPTION_CLASSES = {
    Death.PRUNED: f"{OF_PROCESSES}ProcessPrunedError",
    Death.EXITED: f"{OF_PROCESSES}ProcessExitError",
    Death.MISSING: f"{OF_PROCESSES}ProcessMissingError",
}
_DEATHS = {name: death for death, name in _EXCEPTION_CLASSES.items()}


# -- writing ----------------------------------------------------------------------------------------------------------


def error_json(exception_class: str, message: str, backtrace: Sequence[str] | None = None) -> str:
    """Write an error as Solid Queue stores it. The innermost frames are kept where it would not fit in MySQL."""
    exception_class, message = exception_class[:MAX_CLASS_CHARACTERS], message[:MAX_MESSAGE_CHARACTERS]
    frames = None if backtrace is None else list(backtrace)
    while True:
        written = json.dumps(
            {"exception_class": exception_class, "message": message, "backtrace": frames},
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode("utf-8", "replace")
        if len(written) <= MAX_ERROR_BYTES or not frames:
            return written.decode("utf-8")
        frames = frames[: len(frames) // 2]


def pruned_error(last_heartbeat_at: datetime) -> str:
    """Write what Solid Queue writes when a heartbeat is older than the threshold."""
    beat = last_heartbeat_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return _death_json(Death.PRUNED, f"Process was found dead and pruned (last heartbeat at: {beat})")


def exit_error(pid: int, returncode: int) -> str:
    """Write what a supervisor writes for a dead child; a negative returncode is a signal, as in subprocess."""
    how = f"Exited with status {returncode}." if returncode >= 0 else f"Received unhandled signal {-returncode}."
    return _death_json(Death.EXITED, f"Process pid={pid} exited unexpectedly. {how}")


def missing_error() -> str:
    """Write what Solid Queue writes for a claim whose process row is gone."""
    return _death_json(Death.MISSING, "The process that was running this job no longer exists")


def _death_json(death: Death, message: str) -> str:
    return error_json(death.exception_class, message)


# -- parsing ----------------------------------------------------------------------------------------------------------

_TRUNCATED_CLASS = re.compile(r'"exception_class"\s*:\s*"((?:[^"\\]|\\.)*)"')
_TRUNCATED_MESSAGE = re.compile(r'"message"\s*:\s*"((?:[^"\\]|\\.)*)')
_HEARTBEAT = re.compile(r"last heartbeat at: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (UTC|[+-]\d\d:?\d\d)")
_PID = re.compile(r"pid=(\d{1,18})(?!\d)")
_STATUS = re.compile(r"status (\d{1,18})(?!\d)")
_SIGNAL = re.compile(r"signal (\d{1,18})(?!\d)")


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What an error text says. ``message`` is the text itself where it is not Solid Queue's JSON."""

    exception_class: str | None = None
    message: str | None = None
    backtrace: tuple[str, ...] = ()
    death: Death | None = None
    pid: int | None = None
    exit_status: int | None = None
    signal: int | None = None
    last_heartbeat_at: datetime | None = None


def parse_error(text: str | None) -> ErrorInfo:
    """Read an error text of any Solid Queue version; NULL, cut off and foreign text too. Never raises."""
    if not text:
        return ErrorInfo()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = _truncated(text)
    if not isinstance(data, dict) or not ("exception_class" in data or "message" in data):
        return ErrorInfo(message=text)
    name, message, frames = (data.get(key) for key in ("exception_class", "message", "backtrace"))
    name = None if name is None else str(name)
    message = None if message is None else str(message)
    backtrace = tuple(str(frame) for frame in frames) if isinstance(frames, list) else ()
    death = _DEATHS.get(name or "")
    if death is None or message is None:
        return ErrorInfo(name, message, backtrace, death)
    return ErrorInfo(
        name,
        message,
        backtrace,
        death,
        pid=_number(_PID, message),
        exit_status=_number(_STATUS, message) if death is Death.EXITED else None,
        signal=_number(_SIGNAL, message) if death is Death.EXITED else None,
        last_heartbeat_at=_heartbeat(message),
    )


def _truncated(text: str) -> Any:
    """Save what is whole in JSON that was cut off, as MySQL without strict mode does at 64 KB."""
    name, message = _TRUNCATED_CLASS.search(text), _TRUNCATED_MESSAGE.search(text)
    if name is None:
        return None
    return {"exception_class": _unescaped(name[1]), "message": message and _unescaped(message[1])}


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:  # cut in the middle of an escape
        return text


def _number(pattern: re.Pattern[str], message: str) -> int | None:
    match = pattern.search(message)
    return int(match[1]) if match else None


def _heartbeat(message: str) -> datetime | None:
    """Read the time in a ProcessPrunedError; Rails writes it in the application's own time zone."""
    match = _HEARTBEAT.search(message)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(f"{match[1]}{match[2].replace('UTC', '+00:00')}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed job. ``failure_id`` is the failed execution's own id: failures are listed and paged by it."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which failures; everything that is given must hold. Several values of one field are alternatives."""

    deaths: frozenset[Death] = frozenset()
    error: str | None = None  # anywhere in the error: class, message or backtrace; case does not matter
    queues: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    since: datetime | None = None  # failed then or later
    until: datetime | None = None  # failed before

    def given(self) -> dict[str, object]:
        """Return what it asks for, for the record."""
        asked = {
            "deaths": sorted(death.value for death in self.deaths),
            "error": self.error,
            "queues": list(self.queues),
            "classes": list(self.classes),
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
        }
        return {key: value for key, value in asked.items() if value}


def list_failures(
    database: Database, chosen: Filter, *, limit: int | None, after: int | None = None
) -> Iterator[Failure]:
    """Yield failures, newest first, starting below the failure_id ``after``. Reads page by page: memory is constant."""
    while limit is None or limit > 0:
        wanted = PAGE if limit is None else min(PAGE, limit)
        with database.read() as connection:
            rows = _page(connection, chosen, after, wanted)
        yield from map(_failure, rows)
        if len(rows) < wanted:
            return
        after = rows[-1].failure_id
        limit = None if limit is None else limit - wanted


def failures_of(connection: Connection, job_ids: Sequence[int]) -> list[Failure]:
    """Return the failures of these jobs, those that have failed."""
    return [
        _failure(row)
        for batch in in_batches(job_ids)
        for row in connection.execute(_COLUMNS.where(among(failed.c.job_id, batch)))
    ]


def newest(connection: Connection) -> int:
    """Return the highest failure_id there is; 0 if nothing has failed."""
    return connection.scalar(select(func.max(failed.c.id))) or 0


def page_of_ids(chosen: Filter, *, above: int, top: int, limit: int) -> Select[int]:
    """Choose the next ``limit`` failure_ids that a filter takes, the oldest first, from ``above`` to ``top``."""
    return _ids(chosen).where(failed.c.id > above, failed.c.id <= top).limit(limit)


def ids_of(job_ids: Collection[int], chosen: Filter) -> Select[int]:
    """Choose the failure_ids of these jobs, those that have failed and that the filter takes."""
    return _ids(chosen).where(among(failed.c.job_id, job_ids))


def _ids(chosen: Filter) -> Select[int]:
    """Choose failure_ids in a way that they can be locked, and nothing else with them."""
    wanted = list(conditions(chosen))
    if chosen.queues or chosen.classes:
        wanted = [select(jobs.c.id).where(jobs.c.id == failed.c.job_id, *wanted).correlate(failed).exists()]
    return select(failed.c.id).where(*wanted).order_by(failed.c.id)


def count_failures(connection: Connection, chosen: Filter, *, after: int | None = None) -> int:
    """Count the failures that a filter takes, those below the failure_id ``after``."""
    # Every failure has its job: that is joined only where the filter asks for it.
    asks_jobs = chosen.queues or chosen.classes
    counted = select(func.count()).select_from(failed.join(jobs, jobs.c.id == failed.c.job_id) if asks_jobs else failed)
    return connection.scalar(counted.where(*conditions(chosen, after))) or 0


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
).join(jobs, jobs.c.id == failed.c.job_id)


def _page(connection: Connection, chosen: Filter, after: int | None, limit: int) -> Sequence[Any]:
    query = _COLUMNS.where(*conditions(chosen, after)).order_by(failed.c.id.desc()).limit(limit)
    return connection.execute(query).all()


def _failure(row: Any) -> Failure:
    values = row._asdict()
    return Failure(**{**values, "error": parse_error(values["error"])})


def conditions(chosen: Filter, after: int | None = None) -> Iterator[ColumnElement[bool]]:
    """Say in SQL what a filter takes, of failures below the failure_id ``after``; for a query on failed and jobs."""
    if after is not None:
        yield failed.c.id < after
    if chosen.deaths:
        yield _is_of(chosen.deaths)
    if chosen.error:
        yield or_(*(failed.c.error.icontains(form, autoescape=True) for form in _error_forms(chosen.error)))
    if chosen.queues:
        yield or_(*(_matches(jobs.c.queue_name, pattern) for pattern in chosen.queues))
    if chosen.classes:
        yield or_(*(_matches(jobs.c.class_name, pattern) for pattern in chosen.classes))
    if chosen.since:
        yield failed.c.created_at >= boundary(chosen.since)
    if chosen.until:
        yield failed.c.created_at < boundary(chosen.until)


def is_death() -> ColumnElement[bool]:
    """Hold, in SQL, for the failures whose process died."""
    return _is_of(Death.__members__.values())


def _is_of(deaths: Container[Death]) -> ColumnElement[bool]:
    # The commonest is asked first.
    return or_(*(_of_class(death.exception_class) for death in Death if death in deaths))


def _of_class(name: str) -> ColumnElement[bool]:
    # No JSON string can hold an unescaped quote, so this can only be the key itself. Rails writes it first, compactly.
    forms = (f'{{"exception_class":"{name}"', f'{{"exception_class": "{name}"')
    return or_(*(failed.c.error.startswith(form, autoescape=True) for form in forms))


_RAILS_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def _error_forms(text: str) -> list[str]:
    """Return ``text`` as it may stand in an error: in plain JSON, with Rails' escapes, and in what is no JSON."""
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    forms = [plain, plain.translate(_RAILS_ESCAPES), *([] if "\0" in text else [text])]
    return list(dict.fromkeys(forms))


def _matches(column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """Compare with a name, or with a prefix written as ``mail*``."""
    return column.startswith(pattern[:-1], autoescape=True) if pattern.endswith("*") else column == pattern
