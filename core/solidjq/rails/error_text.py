"""The error text in ``failed_executions.error``: written as Solid Queue writes it, read from any of its versions."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

from solidjq.untrusted import moment_of, parse_time

# MySQL's TEXT holds 65,535 bytes; it refuses a longer error, and then the job could not be failed at all.
MAX_ERROR_BYTES = 65_535
MAX_MESSAGE_CHARACTERS = 10_000
MAX_CLASS_CHARACTERS = 500


class Death(Enum):
    """The three ways in which Solid Queue records that a job's process ended; the value is the word ``jq`` uses."""

    PRUNED = "pruned"  # its heartbeat stopped
    EXITED = "exited"  # its supervisor reaped it
    MISSING = "missing"  # unknown: its row was gone, its claims were not

    @property
    def exception_class(self) -> str:
        """The Ruby exception class that ``failed_executions.error`` has for this death."""
        return _EXCEPTION_CLASSES[self]


DEATH_PREFIX = "SolidQueue::Processes::"  # the exception class of every death begins with it
_EXCEPTION_CLASSES = {
    Death.PRUNED: f"{DEATH_PREFIX}ProcessPrunedError",
    Death.EXITED: f"{DEATH_PREFIX}ProcessExitError",
    Death.MISSING: f"{DEATH_PREFIX}ProcessMissingError",
}
_DEATHS = {name: death for death, name in _EXCEPTION_CLASSES.items()}


def error_json(exception_class: str, message: str, backtrace: Sequence[str] | None = None) -> str:
    """Return an error as Solid Queue stores it, JSON. One too long for MySQL's TEXT loses its outermost frames."""
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


def without_details(error: str) -> str:
    """Return an error that a database refused, without message and backtrace, and its class only if that is ASCII."""
    kind = parse_error(error).exception_class or ""
    plain = "the job failed; the database refused to store its error"
    return error_json(kind if kind.isascii() and kind.isprintable() else "solidjq.errors.ValueRefusedError", plain)


def pruned_error(last_heartbeat_at: datetime) -> str:
    """Return Solid Queue's error for the jobs of a process whose heartbeat is older than the threshold."""
    beat = last_heartbeat_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return _death_json(Death.PRUNED, f"Process was found dead and pruned (last heartbeat at: {beat})")


def exit_error(pid: int, returncode: int) -> str:
    """Return a Solid Queue supervisor's error for the jobs of a dead child; a negative ``returncode`` is a signal."""
    how = f"Exited with status {returncode}." if returncode >= 0 else f"Received unhandled signal {-returncode}."
    return _death_json(Death.EXITED, f"Process pid={pid} exited unexpectedly. {how}")


def missing_error() -> str:
    """Return Solid Queue's error for a claim whose process row is gone."""
    return _death_json(Death.MISSING, "The process that was running this job no longer exists")


def _death_json(death: Death, message: str) -> str:
    return error_json(death.exception_class, message)


_TRUNCATED_CLASS = re.compile(r'"exception_class"\s*:\s*"((?:[^"\\]|\\.)*)"')
_TRUNCATED_MESSAGE = re.compile(r'"message"\s*:\s*"((?:[^"\\]|\\.)*)')
_SUMMARY = re.compile(r'\{"exception_class":"([^"\\\x00-\x1f]*)","message":"([^"\\\x00-\x1f]*)","backtrace":\[')
_ESCAPED_LETTER = re.compile(r"\\u00[5-7]")  # Rails escapes none
_HEARTBEAT = re.compile(r"last heartbeat at: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (UTC|[+-]\d\d:?\d\d)")
_PID = re.compile(r"pid=(\d{1,18})(?!\d)")
_STATUS = re.compile(r"status (\d{1,18})(?!\d)")
_SIGNAL = re.compile(r"signal (\d{1,18})(?!\d)")


class ErrorInfo(NamedTuple):
    """The parts of an error text. If the text is not Solid Queue's JSON, ``message`` is the whole text."""

    exception_class: str | None = None
    message: str | None = None
    backtrace: tuple[str, ...] = ()
    death: Death | None = None
    pid: int | None = None
    exit_status: int | None = None
    signal: int | None = None
    last_heartbeat_at: datetime | None = None


def parse_error(text: str | None) -> ErrorInfo:
    """Parse an error text of any Solid Queue version; NULL, truncated and foreign text too. Never raises."""
    if not text:
        return ErrorInfo()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = _truncated(text)
    if not isinstance(data, dict) or not ("exception_class" in data or "message" in data):
        return ErrorInfo(message=text)
    name, message, frames = data.get("exception_class"), data.get("message"), data.get("backtrace")
    name = None if name is None else str(name)
    message = None if message is None else str(message)
    backtrace = tuple(map(str, frames)) if isinstance(frames, list) else ()
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


def parse_summary(text: str | None) -> ErrorInfo:
    """Parse an error as ``parse_error`` does, but for the backtrace, which a list does not show."""
    match = _SUMMARY.match(text) if text else None
    if text and match and match[1] not in _DEATHS:
        after = match.end()
        # Of two keys of one name, the last counts. Its letters may be escaped.
        names = text.find('"exception_class"', after) >= 0 or text.find('"message"', after) >= 0
        if not names and not _ESCAPED_LETTER.search(text, after):
            return ErrorInfo(match[1], match[2])
    return _summary(text)


@lru_cache(64)  # the jobs of one process have one error
def _summary(text: str | None) -> ErrorInfo:
    return parse_error(text)._replace(backtrace=())


def _truncated(text: str) -> Any:
    """Parse the complete parts of truncated JSON: MySQL without strict mode cuts text at 64 KB."""
    name, message = _TRUNCATED_CLASS.search(text), _TRUNCATED_MESSAGE.search(text)
    if name is None:
        return None
    return {"exception_class": _unescaped(name[1]), "message": message and _unescaped(message[1])}


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:  # truncated within an escape sequence
        return text


def _number(pattern: re.Pattern[str], message: str) -> int | None:
    match = pattern.search(message)
    return int(match[1]) if match else None


def _heartbeat(message: str) -> datetime | None:
    """Parse the time in a ProcessPrunedError, which Rails writes in the application's time zone; return it in UTC."""
    match = _HEARTBEAT.search(message)
    return None if match is None else moment_of(parse_time(f"{match[1]}{match[2].replace('UTC', '+00:00')}"))
