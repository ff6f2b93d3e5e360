"""Whether a failed job may go back to work, and if not, why: pure decisions over what is known of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from solidjq.durations import spell_duration
from solidjq.incidents.suspects import NO_SUSPICION, SUSPECT_AT, Suspicion
from solidjq.ledger.crashes import Crash, recent_crashes
from solidjq.rails.error_text import Death
from solidjq.settings.policy import ClassPolicy, Consent


class Verdict(StrEnum):
    """What becomes of a job; the value is what ``jq`` calls it. The order is that of the questions asked."""

    RETRY = "retry"
    DISCARD = "discard"
    ISOLATE = "isolate"
    FINISHED = "finished"
    OWN_ERROR = "own-error"
    OVER_LIMIT = "over-limit"
    NEVER = "never"
    ASK = "ask"
    SUSPECT = "suspect"
    ALIVE = "alive"
    DUPLICATE = "duplicate"
    TOO_OLD = "too-old"

    __hash__ = str.__hash__  # thousands are counted a second, and an enum's own is slow

    @property
    def moves(self) -> bool:
        """Tell whether the job is moved."""
        return self in _MOVES

    @property
    def meaning(self) -> str:
        """Say it in a few words."""
        return _MEANINGS[self]


_MOVES = frozenset({Verdict.RETRY, Verdict.DISCARD, Verdict.ISOLATE})
_MEANINGS = {
    Verdict.RETRY: "goes back to work",
    Verdict.DISCARD: "is deleted",
    Verdict.ISOLATE: "is suspected, and goes to the quarantine queue",
    Verdict.FINISHED: "is finished as well as failed: damage that some program left",
    Verdict.OWN_ERROR: "failed with its own error; its process did not die",
    Verdict.OVER_LIMIT: "crashed too often within the window",
    Verdict.NEVER: "policy says never",
    Verdict.ASK: 'policy does not say "auto"',
    Verdict.SUSPECT: "was in flight when different processes died, or alone and of a class that kills",
    Verdict.ALIVE: "its old process may still be running it",
    Verdict.DUPLICATE: "another job of the same Active Job id waits, runs, failed later or finished since",
    Verdict.TOO_OLD: "failed too long ago",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryTerms:
    """Under which terms jobs are moved. Times in seconds.

    ``safe`` asks every question; without it only those are asked whose answer protects the queue from a crash loop, and
    ``force`` silences these too. ``max_crashes``, ``window``, ``max_age`` and ``queue_as`` come before any policy.
    """

    safe: bool = False
    include_errors: bool = False
    force: bool = False
    auto_only: bool = False  # only what policy marks "auto"
    max_crashes: int | None = None
    window: float | None = None
    max_age: float | None = None
    queue_as: str | None = None
    isolate: str | None = None  # the queue that suspects go to, instead of being held back
    keep_counters: bool = False
    delay: float | None = None  # before the first
    interval: float | None = None  # between one and the next
    discard: bool = False  # delete them instead

    @property
    def paced(self) -> bool:
        """Tell whether each job gets a time of its own."""
        return self.delay is not None or self.interval is not None

    def given(self) -> dict[str, Any]:
        """Return those that differ from the default, for the record."""
        return {key: value for key, value in asdict(self).items() if value != _DEFAULTS[key]}

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "RetryTerms":
        """Return what ``given`` wrote. Raises TypeError for what it did not write."""
        return cls(**given)


_DEFAULTS = {each.name: each.default for each in fields(RetryTerms)}


class Candidate(NamedTuple):
    """A failed job and what is known of it. A tuple, as there are thousands of them."""

    failure_id: int
    job_id: int
    active_job_id: str | None
    class_name: str
    queue_name: str
    failed_at: datetime | None
    exception_class: str | None
    death: Death | None
    finished: bool = False
    limited: bool = False  # it has a concurrency key
    early: bool = False  # its own time is still to come
    worn: bool = True  # its counters may not be those of a job that never ran into an error of its own
    counted: bool = True  # its death is among the crashes counted so far
    evidence: str | None = None  # the error's beginning
    counted_crashes: tuple[Crash, ...] = ()  # where more is known than the failure itself tells: all, this one included
    alive: str | None = None  # which process may still be running it
    twin: str | None = None  # which other job stands for the same work

    @property
    def crashes(self) -> tuple[Crash, ...]:
        """All that are known, this one included."""
        if self.counted_crashes or self.death is None:
            return self.counted_crashes
        return (Crash(self.failure_id, self.job_id, self.failed_at, self.evidence),)


class Decision(NamedTuple):
    """The verdict on one job, or on many that are alike, with the reason where they are held back."""

    candidate: Candidate
    verdict: Verdict
    reason: str | None = None
    queue_as: str | None = None  # the queue it goes to, where that is another one
    scheduled: bool = False  # it goes to scheduled_executions, not to ready_executions
    together: Sequence[int] = ()  # the failures that it is on, where there may be more than the candidate's

    @property
    def failure_ids(self) -> Sequence[int]:
        """All failures that it is on."""
        return self.together or (self.candidate.failure_id,)

    @property
    def jobs(self) -> int:
        """On how many jobs it is."""
        return len(self.together) or 1

    @property
    def job_id(self) -> int:
        """Its job; one of many where it is on more."""
        return self.candidate.job_id


VerdictRule = Callable[[Candidate, RetryTerms, ClassPolicy, datetime], Decision | None]


def decide(
    candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime, suspicion: Suspicion = NO_SUSPICION
) -> Decision:
    """Ask the questions in turn; the first that says no is the verdict."""
    if candidate.finished:
        return Decision(candidate, Verdict.FINISHED, "it is finished as well as failed; look at it with: jq jobs show")
    if terms.discard:
        return _too_old(candidate, terms, rule, now) or Decision(candidate, Verdict.DISCARD)
    suspected = _suspected(candidate, terms, rule, now, suspicion) if terms.safe else None

    def suspect(candidate: Candidate, terms: RetryTerms, _rule: ClassPolicy, _now: datetime) -> Decision | None:
        return None if suspected is None or terms.isolate else Decision(candidate, Verdict.SUSPECT, suspected)

    protected: tuple[VerdictRule, ...] = () if terms.force else (_over_limit, _never)
    checks = (_own_error, *protected, _ask, suspect, _alive, _duplicate) if terms.safe else protected
    for check in (*checks, _too_old):
        if (held := check(candidate, terms, rule, now)) is not None:
            return held
    queue_as = (terms.isolate if suspected is not None else None) or terms.queue_as or rule.queue_as
    return Decision(
        candidate,
        Verdict.RETRY if suspected is None else Verdict.ISOLATE,
        suspected,
        queue_as=None if queue_as == candidate.queue_name else queue_as,
        scheduled=terms.paced or candidate.limited or candidate.early,
    )


def alike(
    candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime, suspicion: Suspicion
) -> tuple[object, ...] | None:
    """Name all that a verdict rests on, for jobs that died at most once and stand alone: most do, and thousands alike.

    If one of a name may move, so may all. None for a job that is to be looked at by itself.
    """
    if candidate.counted_crashes or candidate.alive or candidate.twin or candidate.class_name in suspicion.classes:
        return None
    at, oldest = candidate.failed_at, _oldest(terms, rule, now)
    return (
        candidate.class_name,
        candidate.queue_name,
        candidate.exception_class,
        candidate.death,
        candidate.finished,
        candidate.limited,
        candidate.early,
        at is None or at >= now - window_of(terms, rule),
        at is None or oldest is None or at >= oldest,
    )


def _own_error(candidate: Candidate, terms: RetryTerms, _rule: ClassPolicy, _now: datetime) -> Decision | None:
    if candidate.death is not None or terms.include_errors:
        return None
    name = candidate.exception_class or "an error that is no Ruby or Python exception"
    return Decision(candidate, Verdict.OWN_ERROR, f"it failed with {name}; --include-errors retries such jobs too")


def _over_limit(candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime) -> Decision | None:
    most = rule.max_crashes if terms.max_crashes is None else terms.max_crashes
    window = window_of(terms, rule)
    counted = len(recent_crashes(candidate.crashes, window, now))
    if candidate.death is None or counted < most:
        return None
    reason = f"{counted} crashes within {spell_duration(window)}; the limit is {most}"
    return Decision(candidate, Verdict.OVER_LIMIT, reason)


def window_of(terms: RetryTerms, rule: ClassPolicy) -> timedelta:
    """Return how far back crashes count."""
    return rule.window if terms.window is None else timedelta(seconds=terms.window)


def _never(candidate: Candidate, _terms: RetryTerms, rule: ClassPolicy, _now: datetime) -> Decision | None:
    if rule.retry is not Consent.NEVER:
        return None
    return Decision(candidate, Verdict.NEVER, f"policy says never, in {rule.sources.get('retry', 'built in')}")


def _ask(candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, _now: datetime) -> Decision | None:
    if not terms.auto_only or rule.retry is Consent.AUTO:
        return None
    return Decision(candidate, Verdict.ASK, f'policy says "{rule.retry}", in {rule.sources.get("retry", "built in")}')


def _suspected(
    candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime, suspicion: Suspicion
) -> str | None:
    """Say why the job may be the killer. Deaths with a cause from outside charge nobody."""
    if candidate.death is None:
        return None
    counted = recent_crashes(candidate.crashes, window_of(terms, rule), now)
    charging = [
        crash
        for crash in counted
        if crash.key not in suspicion.outside and (crash.started_at is not None or crash.key not in suspicion.ahead)
    ]
    processes = {crash.process for crash in charging} - {None}
    if len(processes) >= SUSPECT_AT:
        return f"it was in flight when {len(processes)} different processes died"
    class_name = candidate.class_name
    if class_name in suspicion.classes and any(crash.key in suspicion.alone for crash in charging):
        return f"it was alone when its process died, and {class_name} is a suspect: {suspicion.classes[class_name]}"
    return None


def _alive(candidate: Candidate, _terms: RetryTerms, _rule: ClassPolicy, _now: datetime) -> Decision | None:
    return None if candidate.alive is None else Decision(candidate, Verdict.ALIVE, candidate.alive)


def _duplicate(candidate: Candidate, _terms: RetryTerms, _rule: ClassPolicy, _now: datetime) -> Decision | None:
    return None if candidate.twin is None else Decision(candidate, Verdict.DUPLICATE, candidate.twin)


def _too_old(candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime) -> Decision | None:
    oldest = _oldest(terms, rule, now)
    if oldest is None or candidate.failed_at is None or candidate.failed_at >= oldest:
        return None
    age, most = spell_duration(now - candidate.failed_at), spell_duration(now - oldest)
    return Decision(candidate, Verdict.TOO_OLD, f"it failed {age} ago; the limit is {most}")


def _oldest(terms: RetryTerms, rule: ClassPolicy, now: datetime) -> datetime | None:
    ruled = rule.max_age if terms.safe else None
    most = timedelta(seconds=terms.max_age) if terms.max_age is not None else ruled
    return None if most is None else now - most
