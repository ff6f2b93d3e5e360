"""Discard, run now, postpone or move jobs that wait: ready, scheduled or blocked ones.

Each batch is one transaction: it locks the jobs, decides, archives those that move, and moves them. A job that a worker
has claimed is left alone. A killed command can simply be run again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from solidjq.batching import BATCH, in_batches
from solidjq.database.among import among
from solidjq.database.deletions import delete_by_id
from solidjq.database.tables import jobs
from solidjq.database.transactions import Database
from solidjq.errors import RefusedError
from solidjq.ledger import archive, operations
from solidjq.queue import waiting
from solidjq.queue.discard import withdraw
from solidjq.queue.jobs import JobView, views_of
from solidjq.queue.listing import JobFilter, conditions_of, id_column, ids_in
from solidjq.queue.states import State
from solidjq.recovery.planned import PREVIEW
from solidjq.recovery.refusals import Halving, Moves, Refusals
from solidjq.recovery.rests import Rests
from solidjq.text import first_of

REFUSED = "the database refuses to move it"


class WaitingVerb(Enum):
    """What is done with jobs that wait; the value is the command's name below ``jq jobs``."""

    DISCARD = "discard"
    RUN_NOW = "run-now"
    POSTPONE = "postpone"
    MOVE = "move"

    @property
    def recorded(self) -> str:
        """The verb of the operation in the record."""
        return f"jobs {self.value}"


WAITING_VERBS = frozenset(verb.recorded for verb in WaitingVerb)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTerms:
    """What to do with jobs that wait: ``until`` of a postponement, ``queue_name`` of a move."""

    verb: WaitingVerb
    until: datetime | None = None
    queue_name: str | None = None

    def to_record(self) -> dict[str, object]:
        """Return the terms as plan files and ``jq_operations`` store them."""
        fields = {"until": self.until and self.until.isoformat(), "queue_name": self.queue_name}
        return {"verb": self.verb.value, **{key: value for key, value in fields.items() if value is not None}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "WaitingTerms":
        """Return the terms that ``to_record`` wrote. Raises TypeError or ValueError for anything else."""
        values = dict(record)
        values["verb"] = verb = WaitingVerb(values.pop("verb", None))
        if "until" in values:
            values["until"] = datetime.fromisoformat(values["until"])
        terms = cls(**values)
        complete = (terms.until is not None) == (verb is WaitingVerb.POSTPONE)
        if not complete or isinstance(terms.queue_name, str) != (verb is WaitingVerb.MOVE):
            raise ValueError("a postponement has a time and nothing else, a move a queue")
        if terms.until is not None and terms.until.tzinfo is None:
            raise ValueError("the time of a postponement has no zone")
        return terms


class WaitingDecision(NamedTuple):
    """What is done with one job; ``reason``: why it is left alone, None if it moves."""

    job: JobView
    state: State | None  # in which it waited; None if it does not wait
    reason: str | None = None

    @property
    def moves(self) -> bool:
        """Whether the job moves."""
        return self.reason is None


class PlannedJob(NamedTuple):
    """A waiting job that a plan would move, and what the plan says of it."""

    job_id: int
    active_job_id: str | None
    class_name: str
    queue_name: str
    state: str


def check_planned(expected: Sequence[PlannedJob], decisions: Sequence[WaitingDecision]) -> None:
    """Raise RefusedError unless the decisions of now move exactly these jobs, each the job that the plan means.

    A blocked job may have become ready, and a scheduled one due: it waits all the same.
    """
    by_id = {decision.job.job_id: decision for decision in decisions}
    changed = [words for planned in expected if (words := _difference(planned, by_id.get(planned.job_id)))]
    if changed:
        raise RefusedError(f"the plan is stale: {first_of(changed, PREVIEW, separator='; ')}; make a new one")


def _difference(planned: PlannedJob, now: WaitingDecision | None) -> str | None:
    job = f"job {planned.job_id}"
    if now is None or now.job.active_job_id != planned.active_job_id:
        return f"{job} is gone"
    for what, value, before in (
        ("class", now.job.class_name, planned.class_name),
        ("queue", now.job.queue_name, planned.queue_name),
    ):
        if value != before:
            return f"{job} is of {what} {value} in the database and of {before} in the plan"
    return None if now.reason is None else f"{job}: {now.reason}"


def decide(job: JobView, state: State | None, terms: WaitingTerms) -> str | None:
    """Return why a job must be left alone; None if it may move. ``state``: in which it waits, None if it does not."""
    if state is None:
        return _why_not(job)
    match terms.verb:
        case WaitingVerb.RUN_NOW if state is State.READY:
            return "it is ready already"
        case WaitingVerb.RUN_NOW if state is State.BLOCKED:
            return f"it waits for a slot of {job.concurrency_key}, and runs when one is free"
        case WaitingVerb.MOVE if job.queue_name == terms.queue_name:
            return "it is in that queue already"
    return None


def _why_not(job: JobView) -> str:
    if State.CLAIMED in job.states:
        return "a worker has it: only that can end it"
    if State.FAILED in job.states:
        return "it has failed: jq retry or jq discard"
    return "it has finished" if State.FINISHED in job.states else "it is in no state"


def plan_waiting(
    database: Database, chosen: JobFilter, terms: WaitingTerms, *, limit: int | None = None, batch: int = BATCH
) -> Iterator[list[WaitingDecision]]:
    """Yield, batch by batch, what ``move_waiting`` would do now. Changes nothing."""

    def decide(job_ids: Sequence[int], left: int | None) -> list[WaitingDecision]:
        with database.read() as connection:
            return within_limit(judge(connection, job_ids, terms, chosen.states), left)

    yield from until_limit(_pages(database, chosen, terms, batch), decide, limit)


Decide = Callable[[Sequence[int], int | None], list[WaitingDecision]]  # on some jobs, of which so many may still move


def until_limit(pages: Iterable[Sequence[int]], decide: Decide, limit: int | None) -> Iterator[list[WaitingDecision]]:
    """Yield what is decided on each page of jobs, until ``limit`` jobs move."""
    for job_ids in pages:
        decisions = decide(job_ids, limit)
        limit = None if limit is None else limit - sum(decision.moves for decision in decisions)
        yield decisions
        if limit == 0:
            return


def move_pages(
    pages: Iterable[Sequence[int]],
    move: Decide,
    look: Callable[[Sequence[int]], list[WaitingDecision]],
    operation: operations.Operation,
    refusals: Refusals | None,
    limit: int | None,
) -> Iterator[list[WaitingDecision]]:
    """Move each page of jobs, until ``limit`` jobs have moved; yield each transaction's decisions, committed.

    A job that the database refuses to move is left alone for that reason and added to ``refusals``; without it, the
    first of them stops the command. ``look`` decides on jobs without moving them.
    """

    def has_moved(decisions: list[WaitingDecision]) -> bool:
        return any(decision.moves for decision in decisions)

    halving = Halving(refusals, operation, has_moved)
    left = limit

    def moves_of(job_ids: Sequence[int]) -> Moves[list[WaitingDecision]]:
        def some(ids: Sequence[int]) -> list[WaitingDecision]:
            return move(ids, left)

        return Moves(partial(some, job_ids), some, lambda: [(job_id, job_id) for job_id in sorted(job_ids)])

    batches = chain.from_iterable(halving.move(moves_of(job_ids)) for job_ids in pages)
    for part in chain(batches, halving.rest()):
        if part.error is None:
            decisions = part.moved or []
        else:
            reason = f"{REFUSED}: {part.error}" if refusals is not None and refusals.names_last else REFUSED
            decisions = [one._replace(reason=reason) if one.moves else one for one in look(part.ids)]
        left = None if left is None else left - sum(decision.moves for decision in decisions)
        yield decisions
        if left == 0:
            return


def judge(
    connection: Connection, job_ids: Sequence[int], terms: WaitingTerms, states: Sequence[State] = waiting.WAITING
) -> list[WaitingDecision]:
    """Decide on these jobs as they are now, without a lock; ``states``: those that may move."""
    views = views_of(connection, job_ids)
    found = {view.job_id: next((each for each in waiting.WAITING if each in view.states), None) for view in views}
    return _decided(views, {job_id: state for job_id, state in found.items() if state in states}, terms)


def move_waiting(
    database: Database,
    chosen: JobFilter,
    terms: WaitingTerms,
    operation: operations.Operation,
    *,
    limit: int | None = None,
    batch: int = BATCH,
    rests: Rests | None = None,
    refusals: Refusals | None = None,
) -> Iterator[list[WaitingDecision]]:
    """Move the waiting jobs that the filter selects; yield each batch's decisions, committed.

    Jobs that are named by ids in other states get a decision that leaves them alone. Jobs that are enqueued after the
    start are not moved. ``limit``: the most jobs to move. While workers claim jobs it rests between batches, unless
    ``rests`` are fast. Jobs that the database refuses to move wait as before and are added to ``refusals``; without it,
    the first of them stops the command. Raises LedgerMissingError, before it changes anything, if the ``jq_`` tables
    are missing, or if a discard would delete columns that they cannot store.
    """
    with database.read() as connection:
        operations.require(connection)
    moves = rests or Rests(database)

    def look(job_ids: Sequence[int]) -> list[WaitingDecision]:
        with database.read() as connection:
            return judge(connection, job_ids, terms, chosen.states)

    yield from move_pages(
        _pages(database, chosen, terms, batch),
        lambda job_ids, left: moves.transact(move_batch, job_ids, terms, operation, chosen.states, left),
        look,
        operation,
        refusals,
        limit,
    )


def move_batch(
    connection: Connection,
    job_ids: Sequence[int],
    terms: WaitingTerms,
    operation: operations.Operation,
    states: Sequence[State] = waiting.WAITING,
    limit: int | None = None,
    expected: Sequence[PlannedJob] | None = None,
) -> list[WaitingDecision]:
    """Lock these jobs, decide, archive those that move, and move them, in the caller's transaction.

    Raises RefusedError if the decisions are not to move exactly the ``expected`` jobs.
    """
    locked = waiting.lock_waiting(connection, job_ids)
    found = {job_id: state for job_id, state in locked.items() if state in states}
    decisions = within_limit(_decided(views_of(connection, job_ids), found, terms), limit)
    if expected is not None:
        check_planned(expected, decisions)
    moving: dict[State, list[int]] = defaultdict(list)
    for decision in decisions:
        if decision.moves and decision.state is not None:
            moving[decision.state].append(decision.job.job_id)
    if moving:
        ids = sorted(job_id for each in moving.values() for job_id in each)
        number = operation.record(connection, len(ids))
        archive.archive_waiting(connection, moving, number, with_jobs=terms.verb is WaitingVerb.DISCARD)
        _act(connection, ids, terms)
    return decisions


def _decided(
    views: Sequence[JobView], states: Mapping[int, State | None], terms: WaitingTerms
) -> list[WaitingDecision]:
    decisions = []
    for view in views:
        state = states.get(view.job_id)
        decisions.append(WaitingDecision(view, state, decide(view, state, terms)))
    return decisions


def within_limit(decisions: list[WaitingDecision], limit: int | None) -> list[WaitingDecision]:
    """Leave out the jobs beyond the limit."""
    if limit is None:
        return decisions
    kept: list[WaitingDecision] = []
    for decision in decisions:
        if limit == 0:
            break
        kept.append(decision)
        limit -= decision.moves
    return kept


def _act(connection: Connection, job_ids: Sequence[int], terms: WaitingTerms) -> None:
    match terms.verb:
        case WaitingVerb.DISCARD:
            withdraw(connection, job_ids)
            connection.execute(delete_by_id(jobs, job_ids))
        case WaitingVerb.RUN_NOW:
            waiting.run_now(connection, job_ids)
        case WaitingVerb.POSTPONE if terms.until is not None:
            waiting.postpone(connection, job_ids, terms.until)
        case WaitingVerb.MOVE if terms.queue_name is not None:
            waiting.move_to(connection, job_ids, terms.queue_name)
        case _:
            raise AssertionError(terms)


def _pages(database: Database, chosen: JobFilter, terms: WaitingTerms, size: int) -> Iterator[Sequence[int]]:
    """Yield the ids of the jobs, page by page.

    The states come in an order in which no job gets into a state that is still to come: a ready job that goes gives its
    slot to a blocked one, and a postponed one is scheduled.
    """
    order = (State.SCHEDULED, State.BLOCKED, State.READY)
    return pages_of(database, chosen, order[::-1] if terms.verb is WaitingVerb.RUN_NOW else order, size)


def pages_of(database: Database, chosen: JobFilter, order: Sequence[State], size: int) -> Iterator[Sequence[int]]:
    """Yield the ids of the jobs, page by page: those that are named, or the oldest first in each state of the order.

    Jobs that are named come in whatever state they are; of others, those that are enqueued after the start do not.
    """
    if chosen.job_ids is not None:
        for batch in in_batches(sorted(set(chosen.job_ids)), size):
            with database.read() as connection:
                matching = _matching(connection, chosen, batch)
            yield matching
        return
    with database.read() as connection:
        top = connection.scalar(select(func.max(jobs.c.id))) or 0
    for state in order:
        if state not in chosen.states:
            continue
        column = id_column(state)
        above = 0
        while True:
            page = ids_in(state, chosen).where(column > above, column <= top).order_by(column).limit(size)
            with database.read() as connection:
                ids = connection.scalars(page).all()
            if ids:
                yield ids
                above = ids[-1]
            if len(ids) < size:
                break


def _matching(connection: Connection, chosen: JobFilter, job_ids: Sequence[int]) -> Sequence[int]:
    """Return those of these jobs that match the rest of the filter, in whatever state they are."""
    query = select(jobs.c.id).where(among(jobs.c.id, job_ids), *conditions_of(chosen))
    return connection.scalars(query.order_by(jobs.c.id)).all()
