"""One run of a retry: decides on a batch of failures and moves what may move, in the caller's transaction.

Each batch locks its failures, decides and moves: a verdict of an earlier dry run or plan is never trusted.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Select, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.grouping import lock_ids
from solidjq.database.tables import failed
from solidjq.database.times import clock
from solidjq.incidents.charges import find_suspicion
from solidjq.incidents.suspects import NO_SUSPICION, Suspicion
from solidjq.ledger import crashes, operations
from solidjq.queue.failed import is_death
from solidjq.recovery.candidates import find_candidates, find_groups
from solidjq.recovery.details import Detail, decisions_by_job
from solidjq.recovery.planned import PlannedFailure, check_unchanged
from solidjq.recovery.put_back import Pace, failure_ids_of, fits_groups, put_back
from solidjq.recovery.terms import EVERYTHING, RetryTerms, Selection
from solidjq.recovery.verdicts import Candidate, Decision, Verdict, decide, verdict_key, window_of
from solidjq.settings.policy import Policy

MOST_DECIDED = 1000  # decisions that are kept


class Batch(NamedTuple):
    """The failures of one page, and the decisions on them."""

    failure_ids: Sequence[int]
    decisions: list[Decision]


@dataclass(slots=True)
class Run:
    """The state of one retry. Only a committed batch changes the counts, so one that was rolled back can run again."""

    terms: RetryTerms
    policy: Policy
    now: datetime
    limit: int | None
    suspicion: Suspicion
    has_ledger: bool
    detail: Detail
    verdicts: Counter[str] = field(default_factory=Counter)
    decided: dict[tuple[object, ...], Decision] = field(default_factory=dict)  # a cache of decisions, by verdict key

    @property
    def moved(self) -> int:
        """How many jobs were moved."""
        return sum(count for verdict, count in self.verdicts.items() if Verdict(verdict).moves)

    @property
    def pace(self) -> Pace:
        """The times of the jobs that are moved next; used if the terms are paced."""
        start = self.now + timedelta(seconds=self.terms.delay or 0)
        return Pace(start, timedelta(seconds=self.terms.interval or 0), self.moved)

    @property
    def left(self) -> int | None:
        """How many jobs may still be moved; None if there is no limit."""
        return None if self.limit is None else self.limit - self.moved

    def count(self, decisions: Iterable[Decision]) -> None:
        """Count the verdicts of a committed batch."""
        self.verdicts.update(_count(decisions))

    def judge(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        """Decide on these failures, in the detail that is wanted; leave out those beyond the limit."""
        return self._detailed(connection, self._judge(connection, failure_ids))

    def _detailed(self, connection: Connection, decisions: list[Decision]) -> list[Decision]:
        return decisions if self.detail is Detail.COUNTS else decisions_by_job(connection, decisions, self.detail)

    def _judge(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        """Decide on these failures; leave out those beyond the limit."""
        left = self.left
        if self.detail is Detail.FACTS or not failure_ids or (left is not None and left < len(failure_ids)):
            return self._judge_one_by_one(connection, failure_ids)
        decisions = self._judge_groups(connection, failure_ids)
        rest = set(failure_ids).difference(*(decision.group for decision in decisions))
        return decisions + (self._judge_one_by_one(connection, rest) if rest else [])

    def _judge_one_by_one(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        decisions: list[Decision] = []
        left = self.left
        for candidate in find_candidates(connection, failure_ids, has_ledger=self.has_ledger, twins=self.terms.safe):
            if left == 0:
                break
            decision = self._decide(candidate, self._key(candidate))
            decisions.append(decision)
            if left is not None and decision.verdict.moves:
                left -= 1
        return decisions

    def _judge_groups(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        """Decide on groups of these failures; leave out groups whose oldest and newest may get different verdicts."""
        decisions: list[Decision] = []
        groups = find_groups(connection, failure_ids, has_ledger=self.has_ledger, twins=self.terms.safe)
        for group in groups:
            if not self.suspicion.failures.isdisjoint(group.failure_ids):
                continue
            key = self._key(group.newest)
            if key is not None and (group.oldest is group.newest or key == self._key(group.oldest)):
                decision = self._decide(group.newest, key)
                if decision.verdict is Verdict.TOO_OLD and self.detail.divides(decision):
                    continue  # the reason has the age of each job
                if not decision.verdict.moves or fits_groups(decision, self.terms):
                    decisions.append(decision._replace(group=group.failure_ids))
        return decisions

    def _key(self, candidate: Candidate) -> tuple[object, ...] | None:
        return verdict_key(candidate, self.terms, self.policy.rule(candidate.class_name), self.now, self.suspicion)

    def _decide(self, candidate: Candidate, key: tuple[object, ...] | None) -> Decision:
        if key is not None and (before := self.decided.get(key)) is not None:
            return Decision(candidate, before.verdict, before.reason, before.queue_as, before.scheduled)
        rule = self.policy.rule(candidate.class_name)
        decision = decide(candidate, self.terms, rule, self.now, self.suspicion)
        if key is not None and decision.verdict is not Verdict.TOO_OLD:  # whose reason has the age of the job
            if len(self.decided) >= MOST_DECIDED:
                self.decided.clear()
            self.decided[key] = decision
        return decision

    def move(
        self,
        connection: Connection,
        page: Select[int],
        operation: operations.Operation,
        expected: Sequence[PlannedFailure] | None = None,
    ) -> Batch:
        """Lock the failures of the page, decide on them, and carry the decisions out.

        Raises RefusedError if the decisions are not to move exactly the ``expected`` failures.
        """
        locked = lock_ids(connection, page)
        decisions = self._judge(connection, locked)
        uncounted = failure_ids_of(one for one in decisions if one.candidate.death and not one.candidate.counted)
        if uncounted:
            crashes.count(connection, among(failed.c.id, uncounted))
            if _may_share(decisions):
                decisions = self._judge(connection, locked)  # the crash of one job may be an earlier one of its twin
        detailed = self._detailed(connection, decisions)
        if expected is not None:
            check_unchanged(expected, detailed, moved=self.moved > 0)
        if moving := [decision for decision in decisions if decision.verdict.moves]:
            verdicts = self.verdicts + _count(decisions)
            count = sum(decision.jobs for decision in moving)
            put_back(connection, moving, operation.record(connection, count, verdicts), self.terms, self.pace)
        return Batch(locked, detailed)


def begin(
    connection: Connection,
    terms: RetryTerms,
    policy: Policy,
    selection: Selection = EVERYTHING,
    *,
    detail: Detail = Detail.JOBS,
) -> Run:
    """Read what all decisions of a run share: the time, the suspicion and whether there is a ledger."""
    now = clock(connection)
    suspicion = NO_SUSPICION
    if terms.safe or not (terms.discard or _none_died(connection, selection.job_ids)):
        suspicion = find_suspicion(connection, now - window_of(terms, policy.rule("")))
    if terms.paced or terms.rewrites or terms.queue_as is not None:
        detail = Detail.FACTS  # these terms change each job in its own way: groups would save nothing
    return Run(terms, policy, now, selection.limit, suspicion, operations.exists(connection), detail)


def _none_died(connection: Connection, job_ids: Sequence[int] | None) -> bool:
    """Whether these jobs were named, and none failed by a death: then all deaths need not be read."""
    return job_ids is not None and not any(
        connection.scalar(select(failed.c.id).where(among(failed.c.job_id, batch), is_death()).limit(1))
        for batch in in_batches(job_ids)
    )


def _count(decisions: Iterable[Decision]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for decision in decisions:
        counts[decision.verdict] += decision.jobs
    return counts


def _may_share(decisions: Collection[Decision]) -> bool:
    """Whether a crash that was just counted may be an earlier crash of another of these candidates.

    ``find_groups`` leaves uncounted crashes of jobs with a twin out of its groups, so only candidates that were judged
    by themselves are checked.
    """
    single = [decision.candidate for decision in decisions if not decision.group]
    if len(single) < len(decisions):
        return any(candidate.death and not candidate.counted for candidate in single)
    return len({crashes.subject_of(one.job_id, one.active_job_id) for one in single}) < len(single)
