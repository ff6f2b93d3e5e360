"""The terms of one retry: which failures it takes, what it may move, and where to."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, cast

from solidjq.batching import BATCH
from solidjq.durations import MOST
from solidjq.queue.failed import Filter
from solidjq.rails.error_text import Death

NO_FILTER = Filter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which failed jobs to retry: those that match the filter and, if ``job_ids`` is not None, are among these.

    ``limit``: the most jobs to move, the oldest failures first. ``batch``: failures a transaction.
    """

    chosen: Filter = NO_FILTER
    job_ids: Sequence[int] | None = None
    limit: int | None = None
    batch: int = BATCH


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryTerms:
    """The terms of one retry: what it may move and where to. Times are in seconds.

    With ``safe`` every check is made. Without it only those that protect the queue from a crash loop are made, and with
    ``force`` not even those. ``max_crashes``, ``window``, ``max_age`` and ``queue_as`` override any policy.
    """

    safe: bool = False
    include_errors: bool = False
    force: bool = False
    auto_only: bool = False  # only classes whose policy is "auto"
    max_crashes: int | None = None
    window: float | None = None
    max_age: float | None = None
    queue_as: str | None = None
    isolate: str | None = None  # a quarantine queue: suspects go there, instead of staying failed
    keep_counters: bool = False
    delay: float | None = None  # before the first job is due
    interval: float | None = None  # from one job to the next
    discard: bool = False  # delete the jobs instead
    with_arguments: str | None = None  # a JSON list in Active Job's form that replaces the jobs' arguments

    restart: bool = False  # the jobs' progress is dropped: they begin at their first step
    resume_at: str | None = None  # STEP or STEP:CURSOR: where the one job goes on instead
    skip_record: bool = False  # the one job passes over the record at which it stands

    @property
    def rewrites(self) -> bool:
        """Whether each job's payload is rewritten."""
        moves = self.restart or self.resume_at is not None or self.skip_record
        return moves or self.with_arguments is not None

    @property
    def paced(self) -> bool:
        """Whether each job is scheduled for a time of its own."""
        return self.delay is not None or self.interval is not None

    def to_record(self) -> dict[str, object]:
        """Return the terms that differ from their default, as plan files and ``jq_operations`` store them.

        Without the new arguments, which may be secret.
        """
        written = {**asdict(self), "with_arguments": None}
        return {key: value for key, value in written.items() if value != _DEFAULTS[key]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "RetryTerms":
        """Return the terms that ``to_record`` wrote.

        Raises TypeError for a term that this version does not have, and ValueError for a value that makes no sense.
        """
        for name, value in record.items():
            if not _makes_sense(name, value):
                raise ValueError(f"{name} cannot be {value!r}"[:MOST_WORDS])
        return cls(**record)


_DEFAULTS = {term.name: term.default for term in fields(RetryTerms)}
MOST_WORDS = 200  # characters of a message about a value
MOST_NAME = 255  # characters of a queue's name
MOST_POSITION = 20_000  # characters of a step and its cursor
MOST_SECONDS = MOST.total_seconds()
MOST_CRASHES = 2**31 - 1


def _makes_sense(name: str, value: object) -> bool:
    """Whether a term can have this value. A term of another version passes; the constructor rejects it."""
    match name:
        case "window" | "max_age" | "delay" | "interval":
            return type(value) in {int, float} and 0 <= cast("float", value) <= MOST_SECONDS
        case "max_crashes":
            return type(value) is int and 0 < value <= MOST_CRASHES
        case "with_arguments":
            return False  # no record contains them
        case "resume_at":
            return isinstance(value, str) and len(value) <= MOST_POSITION
        case "queue_as" | "isolate":
            return isinstance(value, str) and 0 < len(value) <= MOST_NAME
        case _:
            return isinstance(value, bool)


DEFAULT_TERMS = RetryTerms()


def filter_for(terms: RetryTerms, chosen: Filter = NO_FILTER) -> Filter:
    """Return the filter of a retry that names no ids: a safe retry takes only jobs that died with their process.

    Unless the terms include jobs that failed with their own error, or the filter chooses among deaths itself.
    """
    if terms.safe and not terms.include_errors and not chosen.deaths:
        return replace(chosen, deaths=frozenset(Death))
    return chosen
