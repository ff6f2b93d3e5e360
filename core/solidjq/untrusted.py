"""What rows contain, read without trust. Nothing here raises: what makes no sense is None, or empty.

Whoever may write to the database may have written it: another program, another version, a person by hand. SQLite stores
any value in any column. One row must not stop a command that reads others.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

N = TypeVar("N", int, float)

# No process ran before, and arithmetic near the ends of the calendar would overflow.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
MOST_DEPTH = 100  # nesting of JSON that is read; to write deeper data again could exhaust the stack
MOST_NUMBER = 2**63  # of JSON; larger ones are neither ids nor counts, and no column takes them


def utc_of(value: object) -> datetime | None:
    """Return a time in UTC, which is the zone of one without a zone; None for what is no time, or none in UTC."""
    if not isinstance(value, datetime):
        return None
    try:
        # combine takes a quarter of the time of replace, and lists have millions of times.
        return value.astimezone(UTC) if value.tzinfo else datetime.combine(value, value.time(), UTC)
    except OverflowError:  # at the ends of the calendar
        return None


def moment_of(value: object) -> datetime | None:
    """Return when something happened, in UTC; None for what is no time, and for times before 1970 or after 9000."""
    if type(value) is datetime and value.tzinfo is None and EARLIEST.year <= value.year < LATEST.year:
        return datetime.combine(value, value.time(), UTC)  # most times: lists have millions of them
    time = utc_of(value)
    return time if time is not None and EARLIEST <= time < LATEST else None


def parse_time(text: object) -> datetime | None:
    """Parse a time in ISO 8601; None for what is no text, or text of no time."""
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def read_json(text: str | None) -> Any:
    """Parse JSON; None if the text is none, or is nested deeper than ``MOST_DEPTH``. A number out of range is null."""
    try:
        value = json.loads(text or "null", parse_int=_integer, parse_float=_float, parse_constant=_nothing)
    except (ValueError, RecursionError, TypeError):
        return None
    return None if depth_of(value) > MOST_DEPTH else value


def read_object(text: str | None) -> dict[str, Any]:
    """Parse a JSON object, as ``read_json`` does; empty if the text is not one."""
    value = read_json(text)
    return value if isinstance(value, dict) else {}


def part(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the mapping under a key; empty if there is none."""
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def number(data: Mapping[str, Any], *keys: str) -> float | None:
    """Return the number at a path of keys in nested mappings; None if there is none, or it is out of range."""
    *above, last = keys
    for key in above:
        data = part(data, key)
    value = data.get(last)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return in_range(value)


def depth_of(value: Any) -> int:
    """Return how deep lists and dictionaries are nested, without recursion."""
    depth, level = 0, [value]
    while level := [
        item
        for container in level
        if isinstance(container, list | dict)
        for item in (container.values() if isinstance(container, dict) else container)
    ]:
        depth += 1
    return depth


def in_range(value: N) -> N | None:
    """Return a number that any column and any sum takes; None for a larger one, infinity and NaN."""
    return value if abs(value) < MOST_NUMBER else None


def _integer(digits: str) -> int | None:
    return in_range(int(digits)) if len(digits) <= len(str(-MOST_NUMBER)) else None


def _float(text: str) -> float | None:
    return in_range(float(text))


def _nothing(_name: str) -> None:
    """Read NaN and Infinity, which Python writes and JSON does not have."""
