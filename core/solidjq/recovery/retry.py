"""Retry or discard failed jobs, batch by batch: page through a selection, decide on each failure, move what may move.

Each batch is one transaction, with rests between them while workers claim jobs. A killed retry can simply be run again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy import Select

from solidjq.batching import BATCH, in_batches
from solidjq.database.among import among
from solidjq.database.tables import failed
from solidjq.database.transactions import Database
from solidjq.ledger import operations
from solidjq.queue.failed import ids_of, newest, page_of_ids, parts
from solidjq.recovery.details import Detail
from solidjq.recovery.refusals import Halving, Moves, Part, Refusals
from solidjq.recovery.rests import Rests
from solidjq.recovery.run import Batch, Run, begin
from solidjq.recovery.terms import DEFAULT_TERMS, RetryTerms, Selection, filter_for
from solidjq.recovery.verdicts import Decision, Verdict
from solidjq.settings.policy import BUILT_IN, Policy


def plan(
    database: Database,
    selection: Selection,
    terms: RetryTerms = DEFAULT_TERMS,
    *,
    policy: Policy = BUILT_IN,
    detail: Detail = Detail.JOBS,
) -> Iterator[list[Decision]]:
    """Yield, batch by batch, the decisions that a retry under these terms would make now. Changes nothing."""
    with database.read() as connection:
        run = begin(connection, terms, policy, selection, detail=detail)

    def judge(page: Select[int]) -> Iterator[Batch]:
        with database.read() as connection:
            failure_ids = connection.scalars(page).all()
            batch = Batch(failure_ids, run.judge(connection, failure_ids))
        yield batch

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
        for batch in plan(database, deaths, safe, policy=policy, detail=Detail.COUNTS)
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
    detail: Detail = Detail.JOBS,
    rests: Rests | None = None,
    refusals: Refusals | None = None,
) -> Iterator[list[Decision]]:
    """Retry the selected jobs that the terms allow, or discard them if the terms say so; yield each batch's decisions.

    Each batch is committed before it is yielded. Jobs that fail after the start are not moved. As in Solid Queue's
    retry of one job, the counters ``executions`` and ``exception_executions`` start again at 0, unless the terms keep
    them. A job with a concurrency key goes to ``scheduled_executions``: the dispatcher, which has the limit of its
    class, lets it run. ``moved_before``: jobs that the same operation moved already; they count towards the limit and
    the pace. While workers claim jobs it rests between batches, unless ``rests`` are fast. Jobs that the database
    refuses to move stay failed and are added to ``refusals``; without it, the first of them stops the retry.

    Raises LedgerMissingError, before it changes anything, if the ``jq_`` tables are missing, or if a discard would
    delete columns that they cannot store.
    """
    with database.read() as connection:
        operations.require(connection)
        run = begin(connection, terms, policy, selection, detail=detail)
    run.verdicts[Verdict.RETRY] = moved_before
    moves = rests or Rests(database)

    halving = Halving(refusals, operation, _has_moved)

    def rows_of(page: Select[int]) -> list[tuple[int, int]]:
        with database.read() as connection:
            return [(row.id, row.job_id) for row in connection.execute(page.add_columns(failed.c.job_id))]

    def move(page: Select[int]) -> Iterator[Batch]:
        def all_of(chosen: Select[int]) -> Batch:
            return moves.transact(run.move, chosen, operation)

        def some(failure_ids: Sequence[int]) -> Batch:
            return all_of(page.where(among(failed.c.id, failure_ids)))

        yield from map(_batch_of, halving.move(Moves(partial(all_of, page), some, partial(rows_of, page))))

    yield from _page_by_page(database, selection, run, move)
    if run.left != 0:
        yield from (batch.decisions for batch in _counted(run, map(_batch_of, halving.rest())))
    if operation.id is not None:
        database.transact(operation.record, 0, +run.verdicts)


def _has_moved(batch: Batch) -> bool:
    return any(decision.verdict.moves for decision in batch.decisions)


def _batch_of(part: Part[Batch]) -> Batch:
    """Return the failures of a part of a page, and what was decided on those that were not refused."""
    decisions = [] if part.moved is None else part.moved.decisions
    return Batch(part.ids or (() if part.moved is None else part.moved.failure_ids), decisions)


def _page_by_page(
    database: Database, selection: Selection, run: Run, process: Callable[[Select[int]], Iterator[Batch]]
) -> Iterator[list[Decision]]:
    """Process each page of a selection, the oldest failures first, until the run's limit is reached.

    A page is a statement that selects failure ids. No failure that was written after the start is on one. ``process``
    yields what it decided on a page, in one batch or several.
    """
    if selection.job_ids is not None:
        for batch in in_batches(sorted(set(selection.job_ids)), selection.batch):
            if run.left == 0:
                return
            for page in _counted(run, process(ids_of(batch, selection.chosen))):
                yield page.decisions
        return
    with database.read() as connection:
        top = newest(connection)
    above = 0
    for part in parts(selection.chosen):
        while run.left != 0 and above < top:
            size = 0
            for page in _counted(run, process(page_of_ids(part, above=above, top=top, limit=selection.batch))):
                if page.failure_ids:
                    yield page.decisions
                    above = max(above, page.failure_ids[-1])
                    size += len(page.failure_ids)
            if size < selection.batch:
                break


def _counted(run: Run, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Count the verdicts of each batch before it is yielded, until the run's limit is reached."""
    for batch in batches:
        run.count(batch.decisions)
        yield batch
        if run.left == 0:
            return
