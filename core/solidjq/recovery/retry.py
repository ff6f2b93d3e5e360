"""Put failed jobs back to work, or discard them: a verdict on each, a limit on crashes, an archive of what leaves.

Everything is asked and done in one transaction a batch, on rows that it has locked: what was true when a plan was made
is asked again when it is carried out. A killed retry can simply be run again.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
from solidjq.queue.failed import Filter, ids_of, newest, page_of_ids
from solidjq.recovery.candidates import find_alike, find_candidates
from solidjq.recovery.put_back import Pace, failure_ids_of, only_moves, put_back
from solidjq.recovery.verdicts import Candidate, Decision, RetryTerms, Verdict, alike, decide, window_of
from solidjq.settings.policy import BUILT_IN, Policy

PLAIN = RetryTerms()
EVERYTHING = Filter()
PREVIEW = 3  # examples in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which failed jobs: those that the filter takes and, if ``job_ids`` are given, that are among them.

    ``limit``: at most so many are moved, the oldest failures first. ``batch``: how many a transaction.
    """

    chosen: Filter = EVERYTHING
    job_ids: Sequence[int] | None = None
    limit: int | None = None
    batch: int = BATCH


@dataclass(frozen=True, slots=True)
class Expected:
    """What a plan found: these failures, and that each may move."""

    failure_id: int
    job_id: int
    active_job_id: str | None


def plan(
    database: Database,
    selection: Selection,
    terms: RetryTerms = PLAIN,
    *,
    policy: Policy = BUILT_IN,
    by_job: bool = True,
) -> Iterator[list[Decision]]:
    """Say of each selected job what a retry under these terms would do now, batch by batch. Changes nothing.

    Each decision is on one job; without ``by_job`` it may be on many that are alike, which takes half the time.
    """
    with database.read() as connection:
        run = _begin(connection, terms, policy, selection.limit, by_job=by_job)

    def look(page: Select[int]) -> _Batch:
        with database.read() as connection:
            failure_ids = connection.scalars(page).all()
            return _Batch(failure_ids, run.look(connection, failure_ids))

    yield from _page_by_page(database, selection, run, look)


def retry(
    database: Database,
    selection: Selection,
    operation: operations.Operation,
    terms: RetryTerms = PLAIN,
    *,
    policy: Policy = BUILT_IN,
    moved_before: int = 0,
    by_job: bool = True,
) -> Iterator[list[Decision]]:
    """Retry, or with ``terms.discard`` delete, what the terms allow of the selection; yield each batch's decisions.

    Jobs that fail while it is at work are not taken. As in Solid Queue's retry of one job, ``executions`` and
    ``exception_executions`` start again from nothing. A job with a concurrency key goes to ``scheduled_executions``:
    only a dispatcher that knows its class's limit may let it run. Each batch is committed before it is yielded.
    ``moved_before``: how many jobs the same operation moved already; they count towards the limit and the pace.
    Without ``by_job`` a decision may be on many jobs that are alike, as in ``plan``.

    Raises LedgerMissingError before it changes anything if there are no ``jq_`` tables, or if a discard would delete
    columns that they have no room for.
    """
    with database.read() as connection:
        operations.require(connection)
        run = _begin(connection, terms, policy, selection.limit, by_job=by_job)
    run.verdicts[Verdict.RETRY] = moved_before
    yield from _page_by_page(database, selection, run, lambda page: database.transact(run.move, page, operation))
    if operation.id is not None:
        database.transact(operation.record, 0, +run.verdicts)


def check_plan(
    database: Database, expected: Iterable[Expected], terms: RetryTerms, *, policy: Policy = BUILT_IN
) -> None:
    """Raise RefusedError unless every one of these failures is still there and may move under these terms."""
    with database.read() as connection:
        run = _begin(connection, terms, policy)
    for batch in in_batches(expected):
        with database.read() as connection:
            failure_ids = connection.scalars(_ids_of(batch)).all()
            _compare(batch, run.look(connection, failure_ids))


def retry_exactly(
    database: Database,
    expected: Iterable[Expected],
    operation: operations.Operation,
    terms: RetryTerms,
    *,
    policy: Policy = BUILT_IN,
) -> Iterator[list[Decision]]:
    """Move exactly these failures, batch by batch; raise RefusedError at the first batch in which one has changed."""
    with database.read() as connection:
        operations.require(connection)
        run = _begin(connection, terms, policy)
    for batch in in_batches(expected):
        moved = database.transact(run.move, _ids_of(batch), operation, batch)
        run.done(moved.decisions)
        yield moved.decisions


def _ids_of(expected: Iterable[Expected]) -> Select[int]:
    ids = [each.failure_id for each in expected]
    return select(failed.c.id).where(among(failed.c.id, ids)).order_by(failed.c.id)


def _compare(expected: Sequence[Expected], found: Sequence[Decision]) -> None:
    by_id = {decision.candidate.failure_id: decision for decision in found}
    changed: list[str] = []
    for each in expected:
        now = by_id.get(each.failure_id)
        if now is None or (now.job_id, now.candidate.active_job_id) != (each.job_id, each.active_job_id):
            changed.append(f"job {each.job_id} is not failed any more, or failed anew")
        elif not now.verdict.moves:
            changed.append(f"job {each.job_id}: {now.reason}")
    if changed:
        more = f"; and {len(changed) - PREVIEW} more" if len(changed) > PREVIEW else ""
        raise RefusedError(f"the plan is stale: {'; '.join(changed[:PREVIEW])}{more}; make a new one")


class _Batch(NamedTuple):
    """The failures of one page, and what was decided on them."""

    failure_ids: Sequence[int]
    decisions: list[Decision]


def _page_by_page(
    database: Database, selection: Selection, run: "_Run", work: Callable[[Select[int]], _Batch]
) -> Iterator[list[Decision]]:
    """Do the work on each page of a selection, the oldest failures first, until the run's limit is reached.

    Nothing that fails after the first page was asked for is taken.
    """
    if selection.job_ids is not None:
        for batch in in_batches(sorted(set(selection.job_ids)), selection.batch):
            if run.left == 0:
                return
            done = work(ids_of(batch, selection.chosen))
            run.done(done.decisions)
            yield done.decisions
        return
    with database.read() as connection:
        top = newest(connection)
    above = 0
    while run.left != 0:
        done = work(page_of_ids(selection.chosen, above=above, top=top, limit=selection.batch))
        if not done.failure_ids:
            return
        run.done(done.decisions)
        yield done.decisions
        above = done.failure_ids[-1]


def _begin(
    connection: Connection, terms: RetryTerms, policy: Policy, limit: int | None = None, *, by_job: bool = True
) -> "_Run":
    now = clock(connection)
    suspicion = find_suspicion(connection, now - window_of(terms, policy.rule(""))) if terms.safe else NO_SUSPICION
    # None of what these do to a job can be done to many at once: to group them first would be work for nothing.
    by_job = by_job or terms.discard or terms.paced or terms.queue_as is not None
    return _Run(terms, policy, now, limit, suspicion, operations.exists(connection), by_job)


@dataclass(slots=True)
class _Run:
    """One retry, from batch to batch. A batch that is rolled back and tried again finds it unchanged."""

    terms: RetryTerms
    policy: Policy
    now: datetime
    limit: int | None
    suspicion: Suspicion
    kept: bool  # the database has a ledger
    by_job: bool  # each decision is on one job
    verdicts: Counter[str] = field(default_factory=Counter)
    moving: dict[tuple[object, ...], Decision] = field(default_factory=dict)  # what was decided on jobs alike

    @property
    def moved(self) -> int:
        return sum(count for verdict, count in self.verdicts.items() if Verdict(verdict).moves)

    @property
    def pace(self) -> Pace:
        """The times of the jobs that are moved next, where the terms ask for such."""
        start = self.now + timedelta(seconds=self.terms.delay or 0)
        return Pace(start, timedelta(seconds=self.terms.interval or 0), self.moved)

    @property
    def left(self) -> int | None:
        return None if self.limit is None else self.limit - self.moved

    def done(self, decisions: Iterable[Decision]) -> None:
        """Count a batch that was committed."""
        self.verdicts.update(_count(decisions))

    def look(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        """Decide on these failures; leave out what would come after the limit is reached."""
        left = self.left
        if self.by_job or not failure_ids or (left is not None and left < len(failure_ids)):
            return self._look_at_each(connection, failure_ids)
        together = self._look_at_alike(connection, failure_ids)
        rest = set(failure_ids).difference(*(decision.together for decision in together))
        return together + (self._look_at_each(connection, rest) if rest else [])

    def _look_at_each(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        decisions: list[Decision] = []
        left = self.left
        for candidate in find_candidates(
            connection, failure_ids, self.suspicion, kept=self.kept, twins=self.terms.safe
        ):
            if left == 0:
                break
            decision = self._decide(candidate)
            decisions.append(decision)
            if left is not None and decision.verdict.moves:
                left -= 1
        return decisions

    def _look_at_alike(self, connection: Connection, failure_ids: Collection[int]) -> list[Decision]:
        """Decide on groups of these failures; leave out those on which a verdict is not that of all."""
        decisions: list[Decision] = []
        for group in find_alike(connection, failure_ids, self.suspicion, kept=self.kept, twins=self.terms.safe):
            rule = self.policy.rule(group.newest.class_name)
            ends = {alike(end, self.terms, rule, self.now, self.suspicion) for end in (group.oldest, group.newest)}
            if len(ends) == 1 and None not in ends:
                decision = self._decide(group.newest)
                if not decision.verdict.moves or only_moves(decision, self.terms):
                    decisions.append(decision._replace(together=group.failure_ids))
        return decisions

    def _decide(self, candidate: Candidate) -> Decision:
        rule = self.policy.rule(candidate.class_name)
        name = alike(candidate, self.terms, rule, self.now, self.suspicion)
        if name is not None and (before := self.moving.get(name)) is not None:
            return Decision(candidate, before.verdict, before.reason, before.queue_as, before.scheduled)
        decision = decide(candidate, self.terms, rule, self.now, self.suspicion)
        if name is not None and decision.verdict.moves:
            self.moving[name] = decision
        return decision

    def move(
        self,
        connection: Connection,
        page: Select[int],
        operation: operations.Operation,
        expected: Sequence[Expected] | None = None,
    ) -> _Batch:
        """Decide on the failures that the page chooses, and carry it out."""
        locked = connection.scalars(page.with_for_update()).all()
        decisions = self.look(connection, locked)
        uncounted = failure_ids_of(each for each in decisions if each.candidate.death and not each.candidate.counted)
        if uncounted:
            crashes.count(connection, among(failed.c.id, uncounted))
            if _may_share(decisions):
                decisions = self.look(connection, locked)  # one job's crash may be another's earlier one
        if expected is not None:
            _compare(expected, decisions)
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
    """Tell whether a crash that was just counted may be an earlier one of another of these failures' jobs.

    Where some were decided on together, those whose crash was not counted and who share their job are not among these.
    """
    alone = [decision.candidate for decision in decisions if not decision.together]
    if len(alone) < len(decisions):
        return any(each.death and not each.counted for each in alone)
    return len({crashes.subject_of(each.job_id, each.active_job_id) for each in alone}) < len(alone)
