"""Whether a failed job may go back to work, and if not, why. Pure functions: they read a candidate, no database."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from solidjq.durations import spell_duration
from solidjq.incidents.death_cases import SUSPECT_AT
from solidjq.incidents.suspects import NO_SUSPICION, Suspicion
from solidjq.ledger.crashes import Crash, recent_crashes, subject_of, without_progress_since
from solidjq.ledger.positions import DeathPosition
from solidjq.ledger.stop_requests import EXCEPTION_CLASS
from solidjq.rails.error_text import Death
from solidjq.rails.positions import Position
from solidjq.recovery.terms import RetryTerms
from solidjq.settings.policy import ClassPolicy, Consent, CrashCounting
from solidjq.text import count_of


class Verdict(StrEnum):
    """What a retry does with a job, or why it does nothing; the value is what ``jq`` prints. In the order of checks."""

    RETRY = "retry"
    DISCARD = "discard"
    ISOLATE = "isolate"
    FINISHED = "finished"
    STOPPED = "stopped"
    OWN_ERROR = "own-error"
    ASK = "ask"
    STUCK_RECORD = "stuck-record"
    OVER_LIMIT = "over-limit"
    NEVER = "never"
    SUSPECT = "suspect"
    ALIVE = "alive"
    DUPLICATE = "duplicate"
    TOO_OLD = "too-old"

    __hash__ = str.__hash__  # a retry counts thousands of verdicts a second, and the hash of an enum is slow

    @property
    def moves(self) -> bool:
        """Whether a job with this verdict is moved: retried, isolated or discarded."""
        return self in _MOVES

    @property
    def unrecovered(self) -> bool:
        """Whether ``jq recover`` failed to recover a job that it should have, so that it ends with exit code 6.

        Policy marks such a job "auto", and no other job does its work. Of the others, policy leaves some to a person
        (ask, never, too-old, stopped), and some need no recovery (own-error, duplicate, finished).
        """
        return self in _UNRECOVERED

    @property
    def meaning(self) -> str:
        """The verdict in a few words, to follow "the job"."""
        return _MEANINGS[self]


_MOVES = frozenset({Verdict.RETRY, Verdict.DISCARD, Verdict.ISOLATE})
_UNRECOVERED = frozenset({Verdict.STUCK_RECORD, Verdict.OVER_LIMIT, Verdict.SUSPECT, Verdict.ALIVE})
_MEANINGS = {
    Verdict.RETRY: "goes back to work",
    Verdict.DISCARD: "is deleted",
    Verdict.ISOLATE: "is a suspect, and goes to the quarantine queue",
    Verdict.FINISHED: "is both finished and failed: some program left it so",
    Verdict.STOPPED: "was asked to stop, and did (jq jobs stop)",
    Verdict.OWN_ERROR: "failed with its own error; its process did not die",
    Verdict.STUCK_RECORD: "died at one record, or in one step, again and again",
    Verdict.OVER_LIMIT: "crashed too often within the window",
    Verdict.NEVER: "policy says never",
    Verdict.ASK: 'policy does not say "auto"',
    Verdict.SUSPECT: "may have killed its process",
    Verdict.ALIVE: "its old process may still be running it",
    Verdict.DUPLICATE: "another job of the same Active Job id waits, runs, failed later or finished since",
    Verdict.TOO_OLD: "failed too long ago",
}


class Candidate(NamedTuple):
    """A failed job, with the facts that its verdict rests on. A tuple, since one retry makes thousands of them."""

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
    early: bool = False  # its scheduled_at is in the future
    worn: bool = True  # its Active Job error counters may be above 0, so a retry has to reset them
    counted: bool = True  # its death has a row in jq_crashes
    evidence: str | None = None  # the first crashes.EVIDENCE characters of the error
    counted_crashes: tuple[Crash, ...] = ()  # the job's crashes in jq_crashes, read only if there may be earlier ones
    alive: str | None = None  # the process that may still be running it, in words
    stands: DeathPosition | None = None  # how far a long job is, and since when; None if it has begun no step
    twin: str | None = None  # another job of the same Active Job id that makes this one needless, in words
    death_id: int | None = None  # jq_deaths.id of its death, if that was recorded
    started_at: datetime | None = None  # when it began before its death, if a sample recorded it

    @property
    def subject(self) -> str:
        """The key that its crashes are counted by."""
        return subject_of(self.job_id, self.active_job_id)

    def like_it(
        self, failure_id: int, job_id: int, active_job_id: str | None = None, failed_at: datetime | None = None
    ) -> "Candidate":
        """Return the candidate of another failure of its group: one of which everything else may be taken for equal."""
        names = (active_job_id, self.class_name, self.queue_name)
        return Candidate._make((failure_id, job_id, *names, failed_at, *self[_OF_GROUP:]))

    @property
    def crashes(self) -> tuple[Crash, ...]:
        """The job's crashes: those in ``jq_crashes`` if they were read, else the one that this failure reports."""
        if self.counted_crashes or self.death is None:
            return self.counted_crashes
        own = (self.failure_id, self.job_id, self.failed_at, self.evidence)
        return (Crash(*own, death_id=self.death_id, started_at=self.started_at),)

    @property
    def position(self) -> Position | None:
        """Where a long job stands; None if it has begun no step."""
        return None if self.stands is None else self.stands.position


_OF_GROUP = Candidate._fields.index("exception_class")


class Decision(NamedTuple):
    """The verdict on one job, or on a group of failures with one verdict key, and the reason."""

    candidate: Candidate
    verdict: Verdict
    reason: str | None = None
    queue_as: str | None = None  # the queue that the job goes to, None if it stays in its own
    scheduled: bool = False  # the job goes to scheduled_executions, not to ready_executions
    group: Sequence[int] = ()  # the failure ids of the group, the candidate's included; empty for one job

    @property
    def warning(self) -> str | None:
        """The reason against a retry that is made all the same, because it is not a safe one."""
        return self.reason if self.verdict is Verdict.RETRY else None

    @property
    def failure_ids(self) -> Sequence[int]:
        """The failures that the decision is on."""
        return self.group or (self.candidate.failure_id,)

    @property
    def jobs(self) -> int:
        """How many jobs the decision is on."""
        return len(self.group) or 1

    @property
    def destination(self) -> str | None:
        """The queue that the job goes to; None if it stays failed or is deleted."""
        if not self.verdict.moves or self.verdict is Verdict.DISCARD:
            return None
        return self.queue_as or self.candidate.queue_name

    @property
    def job_id(self) -> int:
        """The candidate's job: an example, if the decision is on a group."""
        return self.candidate.job_id


VerdictRule = Callable[[Candidate, RetryTerms, ClassPolicy, datetime], Decision | None]


def decide(
    candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime, suspicion: Suspicion = NO_SUSPICION
) -> Decision:
    """Return the verdict on a failed job: that of the first check that refuses it, else RETRY, ISOLATE or DISCARD.

    A retry that is not safe moves suspects too, since a person chose them; the reason then is the suspicion. ``rule``
    is the policy of the candidate's class, ``now`` the database's time.
    """
    if candidate.finished:
        return Decision(candidate, Verdict.FINISHED, "it is both finished and failed; to look at it: jq jobs show")
    if terms.discard:
        return _too_old(candidate, terms, rule, now) or Decision(candidate, Verdict.DISCARD)
    stuck = _stuck(candidate, terms, rule, now, suspicion)
    suspected = stuck or _suspected(candidate, terms, rule, now, suspicion)

    def stuck_record(candidate: Candidate, terms: RetryTerms, _rule: ClassPolicy, _now: datetime) -> Decision | None:
        return None if stuck is None or terms.isolate else Decision(candidate, Verdict.STUCK_RECORD, stuck)

    def suspect(candidate: Candidate, terms: RetryTerms, _rule: ClassPolicy, _now: datetime) -> Decision | None:
        return None if suspected is None or terms.isolate else Decision(candidate, Verdict.SUSPECT, suspected)

    protected: tuple[VerdictRule, ...] = () if terms.force else (_over_limit, _never)
    # Where only "auto" classes may move, policy decides first: for other classes no other verdict matters.
    checks = (
        (_stopped, _own_error, _ask, stuck_record, *protected, suspect, _alive, _duplicate) if terms.safe else protected
    )
    for check in (*checks, _too_old):
        if (refusal := check(candidate, terms, rule, now)) is not None:
            return refusal
    isolated = terms.safe and suspected is not None
    warning = None if terms.skip_record else suspected or _crashed_again(candidate, terms, rule, now)
    queue_as = (terms.isolate if isolated else None) or terms.queue_as or rule.queue_as
    return Decision(
        candidate,
        Verdict.ISOLATE if isolated else Verdict.RETRY,
        warning,
        queue_as=None if queue_as == candidate.queue_name else queue_as,
        scheduled=terms.paced or candidate.limited or candidate.early,
    )


def verdict_key(
    candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime, suspicion: Suspicion
) -> tuple[object, ...] | None:
    """Return a cache key: candidates with equal keys get the same verdict, so it is computed once.

    None if this candidate must be judged by itself: it crashed before, its process may live, another job does the same
    work, it is a long job, or its death may not charge it. Most jobs have a key, and thousands of an outage share one.
    """
    if candidate.counted_crashes or candidate.alive or candidate.twin or candidate.stands:
        return None
    if candidate.subject in suspicion.jobs or candidate.failure_id in suspicion.failures:
        return None
    death: object = None  # what decides whether the job is suspected
    for crash in candidate.crashes:
        if crash.key in suspicion.partial:
            return None
        if crash.key in suspicion.inside:
            death = (crash.key,)
        elif candidate.class_name in suspicion.classes:
            death = crash.key in suspicion.outside
    at, oldest = candidate.failed_at, _oldest(terms, rule, now)
    return (
        candidate.class_name,
        candidate.queue_name,
        candidate.exception_class,
        candidate.death,
        death,
        candidate.finished,
        candidate.limited,
        candidate.early,
        at is None or at >= now - window_of(terms, rule),
        at is None or oldest is None or at >= oldest,
    )


def _stopped(candidate: Candidate, _terms: RetryTerms, _rule: ClassPolicy, _now: datetime) -> Decision | None:
    if candidate.exception_class != EXCEPTION_CLASS:
        return None
    return Decision(candidate, Verdict.STOPPED, "somebody asked it to stop; by its id it is retried, and goes on there")


def _own_error(candidate: Candidate, terms: RetryTerms, _rule: ClassPolicy, _now: datetime) -> Decision | None:
    if candidate.death is not None or terms.include_errors:
        return None
    name = candidate.exception_class or "an error that is not a Ruby or Python exception"
    return Decision(candidate, Verdict.OWN_ERROR, f"it failed with {name}; --include-errors retries such jobs too")


def _over_limit(candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime) -> Decision | None:
    most = rule.max_crashes if terms.max_crashes is None else terms.max_crashes
    if candidate.death is None or len(counting_crashes(candidate, terms, rule, now)) < most:
        return None
    if terms.skip_record and rule.count is CrashCounting.POSITION:
        return None  # behind the record it has not crashed yet
    reason = f"{_crashes_in_words(candidate, terms, rule, now)}; the limit is {most}"
    return Decision(candidate, Verdict.OVER_LIMIT, reason)


def _crashed_again(candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime) -> str | None:
    """Return a warning for a job that goes back to work after more than one crash."""
    if candidate.death is None or len(counting_crashes(candidate, terms, rule, now)) < SUSPECT_AT:
        return None
    return _crashes_in_words(candidate, terms, rule, now)


def counting_crashes(candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime) -> list[Crash]:
    """Return the crashes that count against a job: the recent ones, of a long job those without progress since."""
    counting: Iterable[Crash] = candidate.crashes
    if rule.count is CrashCounting.POSITION:
        counting = without_progress_since(counting, candidate.position)
    return recent_crashes(counting, window_of(terms, rule), now)


def _crashes_in_words(candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime) -> str:
    counted = len(counting_crashes(candidate, terms, rule, now))
    position = candidate.position if rule.count is CrashCounting.POSITION else None
    where = "" if position is None else f" {position.where}"
    return f"{count_of(counted, 'crash')}{where} within {spell_duration(window_of(terms, rule))}"


def window_of(terms: RetryTerms, rule: ClassPolicy) -> timedelta:
    """Return how far back crashes count towards the limit of crashes."""
    return rule.window if terms.window is None else timedelta(seconds=terms.window)


def _never(candidate: Candidate, _terms: RetryTerms, rule: ClassPolicy, _now: datetime) -> Decision | None:
    if rule.retry is not Consent.NEVER:
        return None
    return Decision(candidate, Verdict.NEVER, f"policy says never, in {rule.sources.get('retry', 'built in')}")


def _ask(candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime) -> Decision | None:
    if not terms.auto_only or rule.retry is Consent.AUTO:
        return None
    if rule.retry is Consent.NEVER:
        return _never(candidate, terms, rule, now)
    return Decision(candidate, Verdict.ASK, f'policy says "{rule.retry}", in {rule.sources.get("retry", "built in")}')


def _stuck(
    candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime, suspicion: Suspicion
) -> str | None:
    """Return how often different processes died at the record where a long job stands; None if fewer than two did."""
    position = candidate.position
    if candidate.death is None or position is None or not position.in_step:
        return None
    here = without_progress_since(candidate.crashes, position)
    counted = [crash for crash in here if crash.position is not None or position.follows_unsaved_death]
    count = _count_processes(_charging(counted, terms, rule, now, suspicion))
    return f"it {position.died(count)}" if count >= SUSPECT_AT else None


def _suspected(
    candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, now: datetime, suspicion: Suspicion
) -> str | None:
    """Return the reason why the job may be the killer, None if it is not suspected.

    Deaths with a cause from outside charge no job; those of a worker that claims ahead charge only jobs that had begun.
    Deaths that a proven killer explains do not count towards the two that make a job a suspect.
    A long job that made progress between its deaths is not suspected because of its class.
    """
    if candidate.death is None:
        return None
    if (held := suspicion.held(candidate.subject, candidate.class_name, candidate.crashes)) is not None:
        return f"it was {held}" if held.startswith("in flight") else held
    charging = _charging(counting_crashes(candidate, terms, rule, now), terms, rule, now, suspicion)
    class_name = candidate.class_name
    unexplained = [crash for crash in charging if not suspicion.clears(crash, candidate.subject, class_name)]
    if (count := _count_processes(unexplained)) >= SUSPECT_AT:
        return f"it was in flight when {count} different processes died"
    progressed = len(charging) < len(_charging(candidate.crashes, terms, rule, now, suspicion))
    if charging and class_name in suspicion.classes and not progressed:
        return f"{class_name} may kill its process: {suspicion.classes[class_name]}"
    return None


def _charging(
    crashes: Iterable[Crash], terms: RetryTerms, rule: ClassPolicy, now: datetime, suspicion: Suspicion
) -> list[Crash]:
    return [crash for crash in recent_crashes(crashes, window_of(terms, rule), now) if suspicion.charges(crash)]


def _count_processes(crashes: Iterable[Crash]) -> int:
    return len({crash.process for crash in crashes} - {None})


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
