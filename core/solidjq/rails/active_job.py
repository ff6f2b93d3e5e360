"""Active Job's JSON: the payload in ``jobs.arguments``. ``argument_values`` has the form of one argument in it.

The format is that of ``ActiveJob::Arguments`` in Rails 7 and 8, checked against rows that Rails wrote.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from solidjq.errors import ArgumentsError
from solidjq.rails.argument_values import KEYWORDS, check_keys, deserialize, deserialize_hash, format_instant, serialize
from solidjq.rails.json_edits import with_values
from solidjq.untrusted import MOST_DEPTH, depth_of

if TYPE_CHECKING:
    from solidjq.rails.masking import Mask


ON_DEATH = "jq_on_death"  # a key of ours in the payload: Active Job reads only its own keys
_LONGEST_NAME = 255  # characters of the columns class_name and queue_name
_MOST_PRIORITY = 2**31


class Call(NamedTuple):
    """The arguments that a job is called with."""

    args: list[Any]
    kwargs: dict[str, Any]


class OnDeath(NamedTuple):
    """The job that is enqueued if another died with its process."""

    class_name: str
    queue_name: str = "default"
    priority: int | None = None


def payload(
    *,
    class_name: str,
    active_job_id: str,
    queue_name: str,
    priority: int | None,
    call: Call,
    now: datetime,
    scheduled_at: datetime,
    on_death: OnDeath | None = None,
) -> str:
    """Return the value of a new job's ``arguments`` column.

    Raises ArgumentsError for a value that Active Job cannot serialize.
    """
    arguments = [serialize(value) for value in call.args]
    if call.kwargs:
        check_keys(call.kwargs)
        keywords = {key: serialize(value) for key, value in call.kwargs.items()}
        arguments.append({**keywords, KEYWORDS: list(call.kwargs)})
    return dumps(
        {
            "job_class": class_name,
            "job_id": active_job_id,
            "provider_job_id": None,
            "queue_name": queue_name,
            "priority": priority,
            "arguments": arguments,
            "executions": 0,
            "exception_executions": {},
            "locale": "en",
            "timezone": "UTC",
            "enqueued_at": format_instant(now),
            "scheduled_at": format_instant(scheduled_at),
            **({} if on_death is None else {ON_DEATH: on_death._asdict()}),
        }
    )


def on_death_of(arguments: str | None) -> OnDeath | None:
    """Return the job that a payload asks for at the death of its own; None if it asks for none, or in another form."""
    try:
        wanted = _load(arguments).get(ON_DEATH)
    except ArgumentsError:
        return None
    match wanted:
        case {"class_name": str(class_name), "queue_name": str(queue_name), "priority": int() | None as priority}:
            names = all(name.isprintable() and 0 < len(name) <= _LONGEST_NAME for name in (class_name, queue_name))
            fits = priority is None or (not isinstance(priority, bool) and abs(priority) < _MOST_PRIORITY)
            return OnDeath(class_name, queue_name, priority) if names and fits else None
    return None


def call_of(arguments: str | None) -> Call:
    """Parse the call in a job's ``arguments`` column.

    Raises ArgumentsError if that is not Active Job's JSON, or if it contains a value that only Ruby can read.
    """
    data = _load(arguments)
    serialized = data.get("arguments")
    if not isinstance(serialized, list):
        raise ArgumentsError("the job's payload has no list of arguments; it must be Active Job's JSON")
    values = list(serialized)
    kwargs: dict[str, Any] = {}
    if values and isinstance(values[-1], dict) and KEYWORDS in values[-1]:
        kwargs = deserialize_hash(values.pop())
    return Call([deserialize(value) for value in values], kwargs)


def shown_arguments(arguments: str | None, mask: "Mask | None" = None) -> Any:
    """Return the stored arguments for display; the raw text if it is not strict JSON or is nested too deep.

    With a ``mask``, secrets in the arguments are masked. In a text that cannot be read as arguments nobody can tell
    what is secret: then its length is all that is shown.
    """
    try:
        usual = _usual(arguments)
        return usual if mask is None else mask.applied_to_document(usual, arguments or "")
    except (ValueError, RecursionError):
        pass
    try:
        shown = _load(arguments).get("arguments")
        _ENCODER.encode(shown)
        readable = depth_of(shown) <= MOST_DEPTH
    except (ArgumentsError, ValueError, RecursionError):
        readable = False
    if not readable:
        return arguments if mask is None or not arguments else hidden_text(arguments)
    return _applied(shown, mask)


def _applied(shown: Any, mask: "Mask | None") -> Any:
    return shown if mask is None else mask.applied(shown)


def _usual(arguments: str | None) -> Any:
    """Return the arguments of a payload that is strict JSON as a whole; raise ValueError for others, and deep ones."""
    # No deeper than it has brackets.
    if arguments is None or arguments.count("[") + arguments.count("{") > MOST_DEPTH:
        raise ValueError("deep")
    data, end = _STRICT.raw_decode(arguments)
    if end < len(arguments) or type(data) is not dict:
        raise ValueError("no payload")
    return data.get("arguments")


def hidden_text(arguments: str) -> str:
    """Return what is shown of arguments that cannot be read, so that nobody can tell what is secret in them."""
    return f"({len(arguments):,} characters that are no readable JSON: see --show-arguments)"


def replace_arguments(payload: str | None, arguments: str) -> str:
    """Return a payload with other arguments, a list in Active Job's JSON; the rest of it is not rewritten.

    Raises ArgumentsError if the payload is not Active Job's JSON, or has no arguments.
    """
    try:
        if "arguments" in _load(payload):
            return with_values(payload or "", {"arguments": arguments})
    except RecursionError:
        pass
    raise ArgumentsError("the job's payload has no list of arguments; it must be Active Job's JSON")


def parse_arguments(text: str) -> list[Any]:
    """Parse new arguments that a person wrote: a JSON list, in which other values stand in Active Job's form.

    Raises ArgumentsError for anything else.
    """
    try:
        values = json.loads(text, parse_constant=_reject_constant)
        too_deep = depth_of(values) > MOST_DEPTH
    except (ValueError, RecursionError):
        raise ArgumentsError("the arguments must be a JSON list, such as '[42, \"a text\"]'") from None
    if too_deep or not isinstance(values, list):
        raise ArgumentsError("the arguments must be a JSON list, such as '[42, \"a text\"]'")
    return values


def keywords_of(values: Sequence[Any]) -> list[str]:
    """Return the names of the keyword arguments in a list in Active Job's form."""
    last = values[-1] if values else None
    names = last.get(KEYWORDS) if isinstance(last, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _reject_constant(name: str) -> Any:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(digits)
    return number


_STRICT = json.JSONDecoder(parse_float=_finite, parse_constant=_reject_constant)
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def dumps(value: Any) -> str:
    """Write JSON as Active Support does: compact, UTF-8. Raises ArgumentsError for a value that JSON lacks."""
    try:
        written = _ENCODER.encode(value)
    except ValueError as error:
        raise ArgumentsError(f"an argument has no form in JSON: {error}; pass plain data or an id") from None
    # A lone surrogate has no UTF-8 form, and no database stores it.
    return written.encode("utf-8", "replace").decode("utf-8")


# How Rails writes counters that were never raised. If COUNTER_KEY is not in the rest of a payload, there is nothing to
# reset. If it is, the payload must be parsed: the words may only be JSON in the job's own arguments.
CLEAN_COUNTERS = '"executions":0,"exception_executions":{}'
COUNTER_KEY = 'executions"'
_FRESH_COUNTERS = {"executions": "0", "exception_executions": "{}"}


def reset_counters(arguments: str | None) -> str | None:
    """Set ``executions`` to 0 and ``exception_executions`` to {} in a payload, as Solid Queue's retry of one job does.

    The rest is not rewritten: a round trip through Python's numbers and escapes could change a job's own arguments.
    Text that is not a payload is returned unchanged.
    """
    if arguments is None:
        return None
    try:
        data = _load(arguments)
        return with_values(arguments, {key: new for key, new in _FRESH_COUNTERS.items() if key in data})
    except (ArgumentsError, RecursionError):
        return arguments


def _load(arguments: str | None) -> dict[str, Any]:
    try:
        data = json.loads(arguments or "")
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ArgumentsError("the job's arguments are not Active Job's JSON")
    return data
