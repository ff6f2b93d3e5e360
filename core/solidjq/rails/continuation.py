"""How far a long job got: the progress that ``ActiveJob::Continuation`` of Rails 8.1 keeps in a job's own payload.

The payload has ``"continuation":{"completed":["fetch"],"current":["import",48213]},"resumptions":1``: the names of the
completed steps, and the step that was begun with its cursor, if one was. Checked against Rails' source. Rails 8.2 adds
keys; whatever key is not known here is kept, byte by byte.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from solidjq.durations import spell_duration
from solidjq.errors import StepError, UsageError
from solidjq.rails.active_job import dumps
from solidjq.rails.error_text import ErrorInfo
from solidjq.rails.json_edits import value_texts, with_values
from solidjq.untrusted import MOST_DEPTH, depth_of

MOST_CURSOR = 16 * 1024  # bytes of a cursor's JSON: it is a position, not the data
LONGEST_SHOWN = 80  # characters of a step or a cursor in a sentence


@dataclass(frozen=True, slots=True)
class Progress:
    """The completed steps of a job, in order; the step that it is in and its cursor; how often it went on."""

    completed: tuple[str, ...] = ()
    current: str | None = None
    cursor: Any = None  # as JSON has it
    resumptions: int = 0

    @property
    def started(self) -> bool:
        """Whether there is anything to go on from."""
        return bool(self.completed) or self.current is not None

    def begin(self, step: str) -> Self:
        """Return the progress of a job that begins a step."""
        return replace(self, current=step, cursor=None)

    def complete(self) -> Self:
        """Return the progress of a job that has completed its current step."""
        completed = self.completed if self.current is None else (*self.completed, self.current)
        return replace(self, completed=completed, current=None, cursor=None)

    def back_to(self, step: str, cursor: Any = None) -> Self:
        """Return the progress that begins again in a step that was begun before, after this cursor.

        Raises UsageError if the step is not among those that the job has begun.
        """
        begun = self.completed if self.current is None else (*self.completed, self.current)
        if step not in begun:
            steps = ", ".join(begun) or "none"
            raise UsageError(
                f"the job has begun no step {step!r} (begun so far: {steps}), so it cannot go on from there"
            )
        return replace(self, completed=begun[: begun.index(step)], current=step, cursor=cursor)

    def to_record(self) -> dict[str, object]:
        """Return the progress as programs get it."""
        return {
            "completed": list(self.completed),
            "step": self.current,
            "cursor": self.cursor,
            "resumptions": self.resumptions,
        }

    def described(self, saved_at: datetime | None, failed_at: datetime | None, error: ErrorInfo) -> str:
        """Return the progress of a failed job in words: ``step import, cursor 48213 (saved 2s before the death)``.

        A pruned process died at some time after its last heartbeat, so that is what the time is compared with.
        """
        point, event = (failed_at, "the death" if error.death else "the failure")
        if error.last_heartbeat_at is not None:
            point, event = error.last_heartbeat_at, "the last heartbeat"
        return self.compared(saved_at, point, event)

    def compared(self, saved_at: datetime | None, point: datetime | None, event: str) -> str:
        """Return the progress in words, with the time from when it was saved to an event, or from that."""
        if not self.started or saved_at is None or point is None:
            return self.words
        order = "before" if saved_at <= point else "after"
        return f"{self.words} (saved {spell_duration(abs(point - saved_at))} {order} {event})"

    @property
    def words(self) -> str:
        """The progress in words: ``step import, cursor 48213``; empty if nothing has begun."""
        if self.current is None:
            return f"after step {_shown(self.completed[-1])}" if self.completed else ""
        if self.cursor is None:
            return f"{self.step_words}, at its beginning"
        return f"{self.step_words}, cursor {_shown(dumps(self.cursor))}"

    @property
    def step_words(self) -> str:
        """The current step in words: ``step import``."""
        return f"step {_shown(self.current or '')}"


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


NO_PROGRESS = Progress()
NOT_STARTED = '"continuation":{"completed":[]}'  # as Rails writes it for every job that may have steps
CONTINUATION_KEY = '"continuation"'  # a payload without it has no progress, and need not be parsed


def progress_of(arguments: str | None) -> Progress:
    """Read the progress in a job's payload. What is no payload, or is damaged, has none; nothing raises."""
    if not isinstance(arguments, str) or CONTINUATION_KEY not in arguments:
        return NO_PROGRESS
    try:
        payload = json.loads(arguments)
        progress = _read(payload)
        # What could not be written again is damaged: numbers that JSON lacks, half characters, endless nesting.
        json.dumps(
            [progress.completed, progress.current, progress.cursor], ensure_ascii=False, allow_nan=False
        ).encode()
    except (ValueError, RecursionError):
        return NO_PROGRESS
    return NO_PROGRESS if depth_of(progress.cursor) > MOST_DEPTH else progress


def _read(payload: Any) -> Progress:
    match payload:
        case {"continuation": {"completed": list(completed), **others}} if all(
            isinstance(one, str) for one in completed
        ):
            count = payload.get("resumptions")
            resumptions = count if type(count) is int and count > 0 else 0
            match others:
                case {"current": [str(step), cursor]}:
                    return Progress(tuple(completed), step, cursor, resumptions)
                case {"current": _}:
                    return NO_PROGRESS
            return Progress(tuple(completed), resumptions=resumptions)
    return NO_PROGRESS


def with_progress(arguments: str, progress: Progress) -> str:
    """Write a progress into a job's payload, as Rails would; every other key is kept as it is.

    Raises ValueError if the text is no payload.
    """
    if not isinstance(payload := json.loads(arguments), dict):
        raise ValueError("the job's arguments are not Active Job's JSON")  # noqa: TRY004  (of a text, not a type)
    others: dict[str, str] = {}
    if isinstance(payload.get("continuation"), dict):
        others = value_texts(value_texts(arguments)["continuation"])
    texts = {"completed": dumps(progress.completed)}
    if progress.current is not None:
        texts["current"] = dumps([progress.current, progress.cursor])
    texts |= {key: text for key, text in others.items() if key not in {"completed", "current"}}
    continuation = ",".join(f"{dumps(key)}:{text}" for key, text in texts.items())
    return with_values(arguments, {"continuation": f"{{{continuation}}}", "resumptions": str(progress.resumptions)})


def without_progress(arguments: str | None) -> str | None:
    """Return a payload whose job begins anew; one without progress, or text that is no payload, is unchanged."""
    if arguments is None or CONTINUATION_KEY not in arguments:
        return arguments
    try:
        has_progress = "continuation" in json.loads(arguments)
        return with_progress(arguments, NO_PROGRESS) if has_progress else arguments
    except (ValueError, TypeError, RecursionError):
        return arguments


def parse_position(text: str) -> tuple[str, Any]:
    """Parse ``STEP`` or ``STEP:CURSOR``. The cursor is JSON, or else a text: ``import:48213``, ``import:abc``.

    Raises UsageError for a cursor that no step can have.
    """
    step, colon, written = text.partition(":")
    try:
        cursor = json.loads(written) if colon else None
    except (ValueError, RecursionError):
        cursor = written
    try:
        check_cursor(step, cursor)
    except StepError as error:
        raise UsageError(str(error)) from None
    return step, cursor


def check_cursor(step: str, cursor: Any) -> None:
    """Raise StepError if a cursor is too large, or not of the kinds that Rails writes byte by byte as Python does."""
    if reason := _refusal(cursor):
        raise StepError(f"the cursor of step {step!r} {reason}")


def _refusal(cursor: Any) -> str | None:
    level = [cursor]
    for _ in range(MOST_DEPTH):
        for value in level:
            if type(value) not in {int, str, bool, type(None), list}:
                return (
                    f"cannot be of type {type(value).__name__}: a cursor is an integer, a string, a boolean, None, or "
                    "a list of these; for a time, pass its text"
                )
        level = [item for value in level if isinstance(value, list) for item in value]
        if not level:
            break
    else:
        return f"is nested deeper than {MOST_DEPTH} lists: a cursor is a position, not the data"
    try:
        size = len(json.dumps(cursor, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        return "contains half a character (a lone surrogate), which no database stores"
    except ValueError:  # an integer of more digits than Python writes
        size = MOST_CURSOR + 1
    if size > MOST_CURSOR:
        return f"is more than {MOST_CURSOR} bytes of JSON: a cursor is a position, not the data"
    return None
