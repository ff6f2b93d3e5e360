"""One argument of a job, between a Python value and Active Job's JSON."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from solidjq.errors import ArgumentsError
from solidjq.rails.ruby_values import GlobalID, Symbol

_SERIALIZED = "_aj_serialized"
_SYMBOL_KEYS = "_aj_symbol_keys"
KEYWORDS = "_aj_ruby2_keywords"
_INDIFFERENT = "_aj_hash_with_indifferent_access"
_GLOBALID = "_aj_globalid"
_SERIALIZER = "ActiveJob::Serializers::"
_DURATION = f"{_SERIALIZER}DurationSerializer"
_RANGE = f"{_SERIALIZER}RangeSerializer"


def serialize(value: Any) -> Any:  # noqa: C901, PLR0911  (one case a type)
    """Return a value in Active Job's form. Raises ArgumentsError for one that has none."""
    match value:
        case Symbol():
            return _tagged("SymbolSerializer", str(value))
        case GlobalID():
            return {_GLOBALID: str(value)}
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            check_keys(value)
            symbols = [str(key) for key in value if isinstance(key, Symbol)]
            return {**{str(key): serialize(item) for key, item in value.items()}, _SYMBOL_KEYS: symbols}
        case timedelta():
            seconds = value.total_seconds()
            whole = int(seconds) if seconds == int(seconds) else seconds
            return _tagged("DurationSerializer", whole, parts=[[serialize(Symbol("seconds")), whole]])
        case range() if value.step == 1:
            return {
                _SERIALIZED: f"{_SERIALIZER}RangeSerializer",
                "begin": value.start,
                "end": value.stop,
                "exclude_end": True,
            }
        case datetime():
            if value.tzinfo is None:
                raise ArgumentsError(
                    "a datetime without a time zone is another instant on another machine; give it a time zone"
                )
            return _tagged("TimeSerializer", format_instant(value))
        case date():
            return _tagged("DateSerializer", value.isoformat())
        case Decimal():
            return _tagged("BigDecimalSerializer", str(value))
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return [serialize(item) for item in value]
        case _:
            raise ArgumentsError(f"a job's argument cannot be of type {type(value).__name__}; pass plain data or an id")


def check_keys(mapping: Mapping[Any, Any]) -> None:
    """Raise ArgumentsError for a key that a hash in Active Job's form cannot have."""
    for key in mapping:
        if not isinstance(key, str):
            raise ArgumentsError(f"{key!r} cannot be a key in a job's argument; use a string")
        if key.startswith("_aj_"):
            raise ArgumentsError(f"the key {key!r} is reserved by Active Job; use another one")


def deserialize(value: Any) -> Any:  # noqa: PLR0911  (one case a form)
    """Return the Python value of one argument in Active Job's form; plain JSON is returned as it is.

    Raises ArgumentsError for a value that only Ruby can read.
    """
    match value:
        case list():
            return [deserialize(item) for item in value]
        case {"_aj_serialized": str(name), "value": int() | float() as seconds, "parts": list(parts)} if (
            name == _DURATION
        ):
            return _duration(seconds, parts)
        case {"_aj_serialized": str(name), "begin": int(first), "end": int(last), "exclude_end": bool(exclusive)} if (
            name == _RANGE
        ):
            return range(first, last if exclusive else last + 1)
        case {"_aj_serialized": str(name), "value": str(text)}:
            return _from_tagged(name.removeprefix(_SERIALIZER), text)
        case dict() if _SERIALIZED in value:
            raise ArgumentsError(f"only Ruby can read an argument of {value[_SERIALIZED]!r}")
        case dict() if _GLOBALID in value:
            return _record(value[_GLOBALID])
        case dict():
            return deserialize_hash(value)
        case _:
            return value


def deserialize_hash(value: dict[str, Any]) -> dict[str, Any]:
    """Return a hash in Active Job's form as a dict, without the keys that describe it. Raises ArgumentsError."""
    marks = {_SYMBOL_KEYS, KEYWORDS, _INDIFFERENT}
    symbols = value.get(_SYMBOL_KEYS)
    symbol_keys = set(symbols) if isinstance(symbols, list) and all(isinstance(key, str) for key in symbols) else set()
    return {
        Symbol(key) if key in symbol_keys else key: deserialize(item) for key, item in value.items() if key not in marks
    }


def _record(name: object) -> GlobalID:
    try:
        return GlobalID(str(name))
    except ValueError as error:
        raise ArgumentsError(str(error)) from None


def _duration(seconds: float, parts: list[Any]) -> timedelta:
    """Return a duration of exact length; months and years have no exact length."""
    units = {str(deserialize(part[0])) for part in parts if isinstance(part, list) and part}
    if units & {"months", "years"}:
        raise ArgumentsError(f"only Ruby can read a duration of {' and '.join(sorted(units))}; pass days instead")
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise ArgumentsError(f"a duration of {seconds} seconds is longer than Python can represent") from None


def _from_tagged(serializer: str, text: str) -> Any:
    try:
        match serializer:
            case "SymbolSerializer":
                return Symbol(text)
            case "TimeSerializer" | "TimeWithZoneSerializer" | "DateTimeSerializer":
                return datetime.fromisoformat(text)
            case "DateSerializer":
                return date.fromisoformat(text)
            case "BigDecimalSerializer":
                return Decimal(text)
    except (ValueError, InvalidOperation):
        raise ArgumentsError(f"{text!r} is not a value that {serializer} writes") from None
    raise ArgumentsError(f"only Ruby can read an argument of {_SERIALIZER}{serializer}")


def _tagged(serializer: str, value: object, **more: object) -> dict[str, object]:
    return {_SERIALIZED: _SERIALIZER + serializer, "value": value, **more}


@lru_cache(maxsize=8)  # jobs that are enqueued together share their times
def format_instant(value: datetime) -> str:
    """Format a time as Active Job does: UTC, nine fraction digits."""
    try:
        utc = value.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise ArgumentsError(f"{value} is before the year 1 or after 9999 in UTC") from None
    return utc.isoformat(timespec="microseconds") + "000Z"
