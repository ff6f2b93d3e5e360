"""Retry or discard failed jobs, batch by batch: page through a selection, decide on each failure, move what may move.

Each batch is one transaction that locks its failures, decides and moves: a verdict of an earlier dry run or plan is
never trusted. A killed retry can simply be run again.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Select, select

from solidjq.batching import BATCH, in_batches
from solidjq.database.statements import among
from solidjq.database.tables import failed
from solidjq.database.times import clock
from solidjq.database.transactions import Database
from solidjq.errors import RefusedError
from solidjq.incidents.charges import find_suspicion
from solidjq.incidents.suspects import NO_SUSPICION, Suspicion
from solidjq.ledger import crashes, operations
from solidjq.queue.failed import Filter, ids_of, is_death, newest, page_of_ids, parts
from solidjq.rails.error_text import Death
from solidjq.recovery.candidates import find_candidates, find_groups
from solidjq.recovery.put_back import Pace, failure_ids_of, only_moves, put_back
from solidjq.recovery.terms import RetryTerms
from solidjq.recovery.verdicts import Candidate, Decision, Verdict, decide, verdict_key, window_of
from solidjq.settings.policy import BUILT_IN, Policy
from solidjq.text import first_of

DEFAULT_TERMS = RetryTerms()
NO_FILTER = Filter()
PREVIEW = 3  # changed jobs that a message names


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


def filter_for(terms: RetryTerms, chosen: Filter = NO_FILTER) -> Filter:
    """Return the filter of a retry that names no ids: a safe retry takes only jobs that died with their process.

    Unless the terms include jobs that failed with their own error, or the filter chooses among deaths itself.
    """
    if terms.safe and not terms.include_errors and not chosen.deaths:
        return replace(chosen, deaths=frozenset(Death))
    return chosen


@dataclass(frozen=True, slots=True)
class Expected:
    """A failure that a plan would move, and what the plan says of its job and where that goes (``queue_as``).

    If the failure is gone, its job has another Active Job id, or would go elsewhere by now, the plan is stale. If the
    job has another class or queue, the plan is not about this job.
    """

    failure_id: int
    job_id: int
    active_job_id: str | None
    class_name: str
    queue_name: str
    queue_as: str | None = None


def plan(
    database: Database,
    selection: Selection,
    terms: RetryTerms = DEFAULT_TERMS,
    *,
    policy: Policy = BUILT_IN,
    by_job: bool = True,
) -> Iterator[list[Decision]]:
    """Yield, batch by batch, the decisions that a retry under these terms would make now. Changes nothing.

    With ``by_job`` each decision is on one job. Without it, a decision may be on a group of failures with one verdict
    key, which halves the time.
    """
    with database.read() as connection:
        run = _begin(connection, terms, policy, selection, by_job=by_job)

    def judge(page: Select[int]) -> _Batch:
        with database.read() as connection:
            failure_ids = connection.scalars(page).all()
            return _Batch(failure_ids, run.judge(connection, failure_ids))

    yield from _page_by_page(database, selection, run, judge)


def count_suspects(database: Database, selection: Selection, terms: RetryTerms, *, policy: Policy = BUILT_IN) -> int:
    """Return how many suspects such a retry would send to the queue ``terms.queue_as``; 0 for a safe retry.

    Only jobs that died with their process are read: others are no suspects.
    """
    if terms.safe or terms.queue_as is None:
        return 0
    safe = replace(terms, safe=True, queue_as=None, isolate=terms.queue_as)
    deaths = replace(selection, chosen=filter_for(safe, selection.chosen), batch=BATCH)
    return sum(
        decision.jobs
        for batch in plan(database, deaths, safe, policy=policy, by_job=False)
        for decision in batch
        if decision.verdict is Verdict.ISOLATE
    )


def retry(
    database: Database,
    selection: Selection,
    operation: operations.Operation,
    terms: RetryTerms = DEFAULT_TERMS,
    *,
    policy: Policy = BUILT_IN,
    moved_before: int = 0,
    by_job: bool = True,
) -> Iterator[list[Decision]]:
    """Retry the selected jobs that the terms allow, or discard them if the terms say so; yield each batch's decisions.

    Each batch is committed before it is yielded. Jobs that fail after the start are not moved. As in Solid Queue's
    retry of one job, the counters ``executions`` and ``exception_executions`` start again at 0, unless the terms keep
    them. A job with a concurrency key goes to ``scheduled_executions``: the dispatcher, which has the limit of its
    class, lets it run. ``moved_before``: jobs that the same operation moved already; they count towards the limit and
    the pace. With ``by_job`` each decision is on one job, without it perhaps on a group, as in ``plan``.

    Raises LedgerMissingError, before it changes anything, if the ``jq_`` tables are missing, or if a discard would
    delete columns that they cannot store.
    """
    with database.read() as connection:
        operations.require(connection)
        run = _begin(connection, terms, policy, selection, by_job=by_job)
    run.verdicts[Verdict.RETRY] = moved_before
    yield from _page_by_page(database, selection, run, lambda page: database.transact(run.move, page, operation))
    if operation.id is not None:
        database.transact(operation.record, 0, +run.verdicts)


def check_plan(
    database: Database, expected: Iterable[Expected], terms: RetryTerms, *, policy: Policy = BUILT_IN
) -> None:
    """Raise RefusedError unless each of these failures still exists and may move under these terms."""
    with database.read() as connection:
        run = _begin(connection, terms, policy)
    for batch in in_batches(expected):
        with database.read() as connection:
            failure_ids = connection.scalars(_ids_of(batch)).all()
            _check_unchanged(batch, run.judge(connection, failure_ids))


def retry_exactly(
    database: Database,
    expected: Iterable[Expected],
    operation: operations.Operation,
    terms: RetryTerms,
    *,
    policy: Policy = BUILT_IN,
) -> Iterator[list[Decision]]:
    """Move exactly these failures, and yield each committed batch's decisions.

    Raises LedgerMissingError if the ``jq_`` tables are missing, and RefusedError at the first batch in which a failure
    is gone or may not move any more; the batches before it stay committed.
    """
    with database.read() as connection:
        operations.require(connection)
        run = _begin(connection, terms, policy)
    for batch in in_batches(expected):
        moved = database.transact(run.move, _ids_of(batch), operation, batch)
        run.done(moved.decisions)
        yield moved.decisions


def _ids_of(expected: Iterable[Expected]) -> Select[int]:
    ids = [failure.failure_id for failure in expected]
    return select(failed.c.id).where(among(failed.c.id, ids)).order_by(failed.c.id)


def _check_unchanged(expected: Sequence[Expected], decisions: Sequence[Decision]) -> None:
    by_id = {decision.candidate.failure_id: decision for decision in decisions}
    changed = [words for failure in expected if (words := _difference(failure, by_id.get(failure.failure_id)))]
    if changed:
        raise RefusedError(f"the plan is stale: {first_of(changed, PREVIEW, separator='; ')}; make a new one")


def _difference(planned: Expected, now: Decision | None) -> str | None:
    """Return in words why a failure of a plan may not be moved as planned; None if it may."""
    job = f"job {planned.job_id}"
    if now is None or (now.job_id, now.candidate.active_job_id) != (planned.job_id, planned.active_job_id):
        return f"{job} is not failed any more, or failed anew"
    if now.candidate.class_name != planned.class_name:
        return f"{job} is {now.candidate.class_name} in the database and {planned.class_name} in the plan"
    if now.candidate.queue_name != planned.queue_name:
        return f"{job} is of queue {now.candidate.queue_name} in the database and of {planned.queue_name} in the plan"
    if not now.verdict.moves:
        return f"{job}: {now.reason}"
    if now.queue_as != planned.queue_as:
        going, was = now.queue_as or "its own queue", planned.queue_as or "its own queue"
        return f"{job} would go to {going} now, and to {was} by the plan"
    return None


class _Batch(NamedTuple):
    """The failures of one page, and the decisions on them."""

    failure_ids: Sequence[int]
    decisions: list[Decision]


def _page_by_page(
    database: Database, selection: Selection, run: "_Run", process: Callable[[Select[int]], _Batch]
) -> Iterator[list[Decision]]:
    """Process each page of a selection, the oldest failures first, until the run's limit is reached.

    A page is a statement that selects failure ids. No failure that was written after the start is on one.
    """
    if selection.job_ids is not None:
        for batch in in_batches(sorted(set(selection.job_ids)), selection.batch):
            if run.left == 0:
                return
            page = process(ids_of(batch, selection.chosen))
            run.done(page.decisions)
            yield page.decisions
        return
    with database.read() as connection:
        top = newest(connection)
    above = 0
    for part in parts(selection.chosen):
        while run.left != 0:
            page = process(page_of_ids(part, above=above, top=top, limit=selection.batch))
            if not page.failure_ids:
                break
            run.done(page.decisions)
            yield page.decisions
            above = page.failure_ids[-1]


def _begin(
    connection: Connection, terms: RetryTerms, policy: Policy, selection: Selection = EVERYTHING, *, by_job: bool = True
) -> "_Run":
    now = clock(connection)
    suspicion = NO_SUSPICION
    if terms.safe or not (terms.discard or _none_died(connection, selection.job_ids)):
        suspicion = find_suspicion(connection, now - window_of(terms, policy.rule("")))
    # These terms change each job on its own, so grouping the jobs first would save nothing.
    by_job = by_job or terms.discard or terms.paced or terms.queue_as is not None
    return _Run(terms, policy, now, selection.limit, suspicion, operations.exists(connection), by_job)


def _none_died(connection: Connection, job_ids: Sequence[int] | None) -> bool:
    """Whether these jobs were named, and none failed by a death: then all deaths need not be read."""
    return job_ids is not None and not any(
        connection.scalar(select(failed.c.id).where(among(failed.c.job_id, batch), is_death()).limit(1))
        for batch in in_batches(job_ids)
    )


@dataclass(slots=True)
class _Run:
    """The state of one retry. Only a committed batch changes the counts, so one that was rolled back can run again."""

    terms: RetryTerms
    policy: Policy
    now: datetime
    limit: int | None
    suspicion: Suspicion
    has_ledger: bool
    by_job: bool  # each decision is on one job
    verdicts: Counter[str] = field(default_factory=Counter)
    moving: dict[tuple[object, ...], Decision] = field(default_factory=dict)  # a cache of decisions, by verdict key

    @property
    def moved(self) -> int:
        return sum(count for verdict, count in self.verdicts.items() if Verdict(verdict).moves)

    @property
    def pace(self) -> Pace:
        """The times of the jobs that are moved next; used if the terms are paced."""
        start = self.now + timedelta(seconds=self.terms.delay or 0)
        return Pace(start, timedelta(seconds=self.terms.interval or 0), self.moved)

    @property
    def left(self) -> int | None:
        return None if self.limit is None else self.limit - self.moved

    def done(self, decisions: Iterable[Decision]) -> None:
        """Count the verdicts of a committed batch."""
        self.verdicts.update(_count(decisions))

    def judge(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        """Decide on these failures; leave out those beyond the limit."""
        left = self.left
        if self.by_job or not failure_ids or (left is not None and left < len(failure_ids)):
            return self._judge_one_by_one(connection, failure_ids)
        decisions = self._judge_groups(connection, failure_ids)
        rest = set(failure_ids).difference(*(decision.group for decision in decisions))
        return decisions + (self._judge_one_by_one(connection, rest) if rest else [])

    def _judge_one_by_one(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        decisions: list[Decision] = []
        left = self.left
        for candidate in find_candidates(
            connection, failure_ids, self.suspicion, has_ledger=self.has_ledger, twins=self.terms.safe
        ):
            if left == 0:
                break
            decision = self._decide(candidate)
            decisions.append(decision)
            if left is not None and decision.verdict.moves:
                left -= 1
        return decisions

    def _judge_groups(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        """Decide on groups of these failures; leave out a group whose oldest and newest may get different verdicts."""
        decisions: list[Decision] = []
        groups = find_groups(connection, failure_ids, self.suspicion, has_ledger=self.has_ledger, twins=self.terms.safe)
        for group in groups:
            rule = self.policy.rule(group.newest.class_name)
            keys = {
                verdict_key(candidate, self.terms, rule, self.now, self.suspicion)
                for candidate in (group.oldest, group.newest)
            }
            if len(keys) == 1 and None not in keys:
                decision = self._decide(group.newest)
                if not decision.verdict.moves or only_moves(decision, self.terms):
                    decisions.append(decision._replace(group=group.failure_ids))
        return decisions

    def _decide(self, candidate: Candidate) -> Decision:
        rule = self.policy.rule(candidate.class_name)
        key = verdict_key(candidate, self.terms, rule, self.now, self.suspicion)
        if key is not None and (before := self.moving.get(key)) is not None:
            return Decision(candidate, before.verdict, before.reason, before.queue_as, before.scheduled)
        decision = decide(candidate, self.terms, rule, self.now, self.suspicion)
        if key is not None and decision.verdict.moves:
            self.moving[key] = decision
        return decision

    def move(
        self,
        connection: Connection,
        page: Select[int],
        operation: operations.Operation,
        expected: Sequence[Expected] | None = None,
    ) -> _Batch:
        """Lock the failures of the page, decide on them, and carry the decisions out.

        Raises RefusedError if the decisions are not to move exactly the ``expected`` failures.
        """
        locked = connection.scalars(page.with_for_update()).all()
        decisions = self.judge(connection, locked)
        uncounted = failure_ids_of(one for one in decisions if one.candidate.death and not one.candidate.counted)
        if uncounted:
            crashes.count(connection, among(failed.c.id, uncounted))
            if _may_share(decisions):
                decisions = self.judge(connection, locked)  # the crash of one job may be an earlier one of its twin
        if expected is not None:
            _check_unchanged(expected, decisions)
        if moving := [decision for decision in decisions if decision.verdict.moves]:
            verdicts = self.verdicts + _count(decisions)
            count = sum(decision.jobs for decision in moving)
            put_back(connection, moving, operation.record(connection, count, verdicts), self.terms, self.pace)
        return _Batch(locked, decisions)


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
