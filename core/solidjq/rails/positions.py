"""Where a long job stood: two deaths at one position had no progress between them.

Beside Rails' own keys a payload may have one of ours, ``"solidjq"``, see ``Marks``. Rails reads past it. Text that is
damaged has no position.
"""

import json
from hashlib import sha256
from typing import Any, NamedTuple

from solidjq.errors import UsageError
from solidjq.rails.active_job import dumps
from solidjq.rails.continuation import CONTINUATION_KEY, NO_PROGRESS, NOT_STARTED, Progress, progress_of
from solidjq.rails.json_edits import value_texts, with_values, without_value
from solidjq.text import times_of
from solidjq.untrusted import part, read_object

OURS = "solidjq"  # our key in a payload
LONGEST_KEY = 120  # characters of a position that are compared as they are


class Marks(NamedTuple):
    """What a run writes about itself beside its progress.

    ``running``: it goes on; only an orderly end removes it, so a run that finds it follows a death. ``exact``: each
    record's end is saved, so the cursor is that of the last one that was done. ``rows``: the step is an ``iterate``,
    which can pass over a row. ``since``: the key of the position where the run began; it is there until the run has
    lasted for a checkpoint interval: until then it made no progress that counts. ``skip``: the key of the position
    after which one row is to be passed over.
    """

    running: bool = False
    exact: bool = False
    rows: bool = False
    since: str | None = None
    skip: str | None = None


NO_MARKS = Marks()


class Position(NamedTuple):
    """Where a job stood. Deaths with equal keys are at one position."""

    progress: Progress
    marks: Marks = NO_MARKS

    @property
    def key(self) -> str:
        """What is compared: the step and its cursor, those where the run began if it has not got on since."""
        return self.marks.since or key_of(self.progress)

    @property
    def follows_unsaved_death(self) -> bool:
        """Whether the run followed a death before which nothing was saved: that death has no position, but was here."""
        return self.marks.since == NOWHERE

    @property
    def in_step(self) -> bool:
        """Whether a step had begun and was not complete: then one of its rows, or the step, may be the killer."""
        return self.progress.current is not None

    @property
    def skips(self) -> bool:
        """Whether the record after the cursor is known, and the step can pass over it."""
        return self.in_step and self.marks.exact and self.marks.rows

    @property
    def where(self) -> str:
        """The position in words: ``at import, cursor 48213``, ``after step fetch``, ``before its first step``."""
        if self.in_step and self.progress.cursor is None:
            return f"in {self.progress.step_words}, before its first checkpoint"
        words = self.progress.words
        return f"at {words.removeprefix('step ')}" if self.in_step else words or "before its first step"

    def to_record(self) -> dict[str, object]:
        """Return the position as programs get it."""
        return {"step": self.progress.current, "cursor": self.progress.cursor, "exact": self.marks.exact}

    def died(self, count: int) -> str:
        """Return how often a process died there, in words: ``died twice at import, cursor 48213``."""
        return f"died {times_of(count)} {self.where}"


def key_of(progress: Progress) -> str:
    """Return the key of the position that a progress is at."""
    if progress.current is not None:
        place: list[Any] = [progress.current, progress.cursor]
    else:
        place = list(progress.completed[-1:])
    text = dumps(place)
    return text if len(text) <= LONGEST_KEY else sha256(text.encode()).hexdigest()


NOWHERE = key_of(NO_PROGRESS)


def position_of(text: str | None) -> Position | None:
    """Return where a job stood, from its payload or from what ``progress_part`` took of it; None without a progress."""
    if not isinstance(text, str) or CONTINUATION_KEY not in text:
        return None
    progress = progress_of(text)
    return Position(progress, NO_MARKS if progress == NO_PROGRESS else marks_of(text))


def progress_part(arguments: str | None) -> str | None:
    """Return the progress in a payload as a JSON object of its own; None if the payload has none."""
    position = position_of(arguments)
    if position is None or arguments is None:
        return None
    if position.progress == NO_PROGRESS:
        return f"{{{NOT_STARTED}}}"
    texts = value_texts(arguments)
    parts = (f"{dumps(key)}:{texts[key]}" for key in ("continuation", "resumptions", OURS) if key in texts)
    return f"{{{','.join(parts)}}}"


def marks_of(text: str | None) -> Marks:
    """Return our marks in a payload."""
    if not isinstance(text, str) or f'"{OURS}"' not in text:
        return NO_MARKS
    marks = part(read_object(text), OURS)
    since, skip = marks.get("since"), marks.get("skip")
    return Marks(
        running=marks.get("running") is True,
        exact=marks.get("exact") is True,
        rows=marks.get("rows") is True,
        since=since if isinstance(since, str) else None,
        skip=skip if isinstance(skip, str) else None,
    )


def with_marks(arguments: str, marks: Marks) -> str:
    """Write our marks into a payload, or take them out of it. Raises ValueError if the text is no payload."""
    if not isinstance(json.loads(arguments), dict):
        raise ValueError("the job's arguments are not Active Job's JSON")  # noqa: TRY004  (of a text, not a type)
    if marks == NO_MARKS:
        return without_value(arguments, OURS)
    written = {name: value for name, value in marks._asdict().items() if value not in (None, False)}
    return with_values(arguments, {OURS: dumps(written)})


def without_marks(arguments: str | None) -> str | None:
    """Return a payload without our marks; text that is no payload is unchanged."""
    if arguments is None or marks_of(arguments) == NO_MARKS:
        return arguments
    return with_marks(arguments, NO_MARKS)


def skipping(arguments: str | None) -> str:
    """Return a payload whose job passes over the record at which it stands.

    Raises UsageError if the job is in no step that can, or if its cursor may be that of an earlier record.
    """
    position = position_of(arguments)
    if position is None or arguments is None or not position.in_step:
        raise UsageError("the job is in no step, so there is no record to pass over")
    step = position.progress.current
    if not position.marks.rows:
        raise UsageError(
            f"step {step!r} does not iterate(...), so nobody knows which record comes after its cursor; --from "
            f"{step}:CURSOR names the last record that counts as done"
        )
    if not position.marks.exact:
        raise UsageError(
            f"the cursor of step {step!r} was saved some records before the death; retry the job once more: it then "
            "saves each record, so that its next death names the one"
        )
    return with_marks(arguments, position.marks._replace(skip=key_of(position.progress)))
