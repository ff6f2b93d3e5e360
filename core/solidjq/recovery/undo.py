"""Undo a retry or a discard: each job that no process has claimed since is failed again, exactly as it was."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, func, select, update

from solidjq.batching import BATCH
from solidjq.database.among import among, read_among
from solidjq.database.functions import without_index
from solidjq.database.grouping import lock_rows
from solidjq.database.tables import failures
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, NoSuchJobError, UsageError
from solidjq.ledger import archive, operations
from solidjq.recovery.refusals import Halving, Moves, Part, Refusals
from solidjq.recovery.restore import (
    FAILED,
    FINISHED,
    GONE,
    RUNS,
    TAKEN,
    fail_as_before,
    insert_deleted,
    wait_as_before,
    withdraw_moved,
)
from solidjq.recovery.rests import Rests
from solidjq.recovery.waiting import WAITING_VERBS, WaitingVerb
from solidjq.text import with_article

DISCARD = "discard"
# How many ids of the archive one batch looks through. MySQL leaves gaps between the ids of two inserts.
NARROWEST, WIDEST = 2 * BATCH, 100 * BATCH
REFUSED = "the database refuses to move it, too"
OF_SEVERAL = {  # why jobs are left alone, by the words for one of them
    RUNS: "they run now",
    FAILED: "they failed again",
    FINISHED: "they have finished",
    GONE: "they are gone: cleared after they finished, or discarded",
    TAKEN: "there are jobs with these ids already",
    REFUSED: "the database refuses to move them, too",
}
UNDOABLE = frozenset({"retry", "recover", "bisect", DISCARD, *WAITING_VERBS})


@dataclass(frozen=True, slots=True)
class UndoneJob:
    """What an undo did with one job. ``reason``: why the job is not failed again, None if it is."""

    job_id: int
    class_name: str
    queue_name: str
    reason: str | None = None

    @property
    def restored(self) -> bool:
        """Whether the job is failed again."""
        return self.reason is None


def reason_of(count: int, reason: str) -> str:
    """Return the reason why so many jobs were left alone: ``it runs now`` of one, ``they run now`` of several."""
    return reason if count == 1 else OF_SEVERAL.get(reason, reason.replace(" moved it again", " moved them again"))


@dataclass(frozen=True, slots=True)
class UndoneBatch:
    """What an undo did in one transaction: to how many jobs, and why it left some of them alone."""

    last: int = 0  # the last id in the archive; 0 if there was no job
    rows: int = 0  # how many rows of the archive it was about: others may have moved some of them meanwhile
    reasons: Mapping[str | None, int] = field(default_factory=dict)  # counts; None: the jobs that are failed again
    jobs: Sequence[UndoneJob] = ()  # empty unless they are wanted

    @property
    def size(self) -> int:
        """How many jobs it had."""
        return sum(self.reasons.values())


def undo(
    database: Database, operation_id: int, operation: operations.Operation, *, rests: Rests | None = None
) -> Iterator[list[UndoneJob]]:
    """Undo an operation as ``undo_batches`` does; yield what happened to each of its jobs, batch by batch."""
    for batch in undo_batches(database, operation_id, operation, rests=rests):
        yield [*batch.jobs]


def undo_batches(
    database: Database,
    operation_id: int,
    operation: operations.Operation,
    *,
    rests: Rests | None = None,
    by_job: bool = True,
) -> Iterator[UndoneBatch]:
    """Undo an operation; yield each batch, committed, ``by_job`` with each of its jobs.

    A job that still waits leaves its queue and gets its old queue name, due time and arguments back; its failure is
    inserted into ``failed_executions`` under its old id. If it had not failed but waited, it waits again as before. A
    deleted job is inserted again. A job that was claimed, finished or failed since is left as it is, as is one that the
    database refuses to move. Crash counts stay. Idempotent: a killed undo can be run again. While workers claim jobs it
    rests between batches, unless ``rests`` are fast.

    Raises NoSuchJobError if there is no such operation, UsageError if its verb is not in ``UNDOABLE``.
    """
    verb = _verb_of(database, operation_id)
    above = 0
    rests = rests or Rests(database)
    refusals = Refusals()
    halving: Halving[UndoneBatch] = Halving(refusals, operation, has_moved=lambda batch: None in batch.reasons)

    def move(between: tuple[int, int]) -> UndoneBatch:
        return rests.transact(_undo, operation_id, between, operation, verb, by_job=by_job)

    def rows_between(between: tuple[int, int]) -> list[tuple[int, int]]:
        with database.read() as connection:
            return [(row.id, row.job_id) for row in connection.execute(_batch(operation_id, between))]

    def batch_of(part: Part[UndoneBatch]) -> UndoneBatch:
        if part.error is not None:
            with database.read() as connection:
                return _refused(connection, part.ids[0], part.error, refusals, by_job=by_job)
        batch = part.moved or UndoneBatch()
        return replace(batch, last=part.ids[-1], rows=len(part.ids)) if part.ids else batch

    while span := _span(database, operation_id, above):
        first, last = span
        above, width = max(above, first - 1), NARROWEST
        while above < last:
            between = (above, min(above + width, last))
            of_batch = Moves(
                partial(move, between), lambda ids: move((ids[0] - 1, ids[-1])), partial(rows_between, between)
            )
            rows_read = last_read = 0
            for batch in map(batch_of, halving.move(of_batch)):
                rows_read, last_read = rows_read + batch.rows, max(last_read, batch.last)
                if batch.size:
                    yield batch
            above = last_read if rows_read >= BATCH else between[1]
            width = next_width(width, rows_read)
    yield from (batch for batch in map(batch_of, halving.rest()) if batch.size)


def _verb_of(database: Database, operation_id: int) -> str:
    with database.read() as connection:
        rows = operations.list_operations(connection, ids=[operation_id])
    if not rows:
        raise NoSuchJobError(f"no operation {operation_id}; to see them: jq operations list")
    verb = rows[0].verb
    if verb not in UNDOABLE:
        raise UsageError(
            f"operation {operation_id} was {with_article(verb)}; only what moves jobs can be undone: retry, recover, "
            "bisect, discard, and jobs discard, run-now, postpone and move"
        )
    return verb


def _refused(
    connection: Connection, archive_id: int, error: DatabaseError, refusals: Refusals, *, by_job: bool
) -> UndoneBatch:
    """Return what is said of a job that the database refuses to move; the first ones are named."""
    job_id = connection.scalars(select(failures.c.job_id).where(failures.c.id == archive_id)).one()
    reason = f"the database refuses to move job {job_id}: {error}" if refusals.names_last else REFUSED
    undone = _undone_jobs(connection, [archive_id], {job_id: reason}) if by_job else ()
    return UndoneBatch(archive_id, 1, {reason: 1}, undone)


def next_width(width: int, found: int) -> int:
    """Return how many ids of the archive the next batch looks through, after ``found`` failures in so many.

    PostgreSQL takes a range in a table without statistics for scattered rows, and reads all of it before it sorts: with
    a range up to the operation's last id, each batch would read what is left. The narrowest range holds a batch if
    nothing else was archived meanwhile; where others were, it grows.
    """
    return NARROWEST if found * 2 >= BATCH else min(width * 2, WIDEST)


def _span(database: Database, operation_id: int, above: int) -> tuple[int, int] | None:
    """Return the first and the last id, above ``above``, that an operation has in the archive; None if it has none."""
    number = failures.c.id + 0  # by the operation's index: the archive itself may be long, and all of it would be read
    left = (failures.c.operation_id == operation_id, failures.c.restored_by.is_(None), number > above)
    with database.read() as connection:
        first, last = connection.execute(select(func.min(number), func.max(number)).where(*left)).one()
    return None if first is None else (first, last)


def _undo(
    connection: Connection,
    operation_id: int,
    between: tuple[int, int],
    operation: operations.Operation,
    verb: str,
    *,
    by_job: bool,
) -> UndoneBatch:
    archived = lock_rows(connection, _batch(operation_id, between))
    if not archived:
        return UndoneBatch()
    archive_ids = [archive_id for archive_id, _ in archived]
    reasons = _moved_again(connection, archive_ids)
    free = {archive_id: job_id for archive_id, job_id in archived if job_id not in reasons}
    deleted = verb in {DISCARD, WaitingVerb.DISCARD.recorded}
    reasons |= (insert_deleted if deleted else withdraw_moved)(connection, free)
    if restored := [archive_id for archive_id, job_id in free.items() if job_id not in reasons]:
        (wait_as_before if verb in WAITING_VERBS else fail_as_before)(connection, restored)
        undo_id = operation.record(connection, len(restored))
        connection.execute(update(failures).where(among(failures.c.id, restored)).values(restored_by=undo_id))
    counts = Counter(map(reasons.get, (job_id for _, job_id in archived)))
    undone = _undone_jobs(connection, archive_ids, reasons) if by_job else ()
    return UndoneBatch(archive_ids[-1], len(archived), counts, undone)


def _batch(operation_id: int, between: tuple[int, int]) -> Select[Any]:
    """Select the first jobs of an operation between two ids of the archive."""
    above, end = between
    # What was just archived is not in the server's statistics. PostgreSQL takes an operation for small then, and would
    # read all of it for each batch.
    of_operation = without_index(failures.c.operation_id) == operation_id
    return (
        select(failures.c.id, failures.c.job_id)
        .where(of_operation, failures.c.restored_by.is_(None), failures.c.id > above, failures.c.id <= end)
        .order_by(failures.c.id)
        .limit(BATCH)
    )


def _undone_jobs(connection: Connection, archive_ids: Sequence[int], reasons: Mapping[int, str]) -> list[UndoneJob]:
    of_jobs = select(failures.c.job_id, failures.c.class_name, failures.c.queue_name)
    found = connection.execute(of_jobs.where(read_among(failures.c.id, archive_ids)).order_by(failures.c.id))
    return [UndoneJob(*row, reasons.get(row.job_id)) for row in found]


def _moved_again(connection: Connection, archive_ids: Sequence[int]) -> dict[int, str]:
    """Return the jobs that a later operation moved, each with the reason: this operation's job is not in the queue."""
    later = failures.alias()
    # Read for each row: a join might read the whole archive. So would, for each row, PostgreSQL's search for the
    # maximum from the end of that column's index. Without statistics MySQL reads the whole archive for each row.
    moved_by = (
        select(func.max(without_index(later.c.operation_id)))
        .where(
            later.c.job_id == failures.c.job_id,
            without_index(later.c.id) > failures.c.id,
            later.c.restored_by.is_(None),
            later.c.failure_id != archive.STOP_REQUEST,
        )
        .with_hint(later, "FORCE INDEX (index_jq_failures_on_job_id)", "mysql")
        .scalar_subquery()
    )
    each = select(failures.c.job_id, moved_by.label("moved_by")).where(read_among(failures.c.id, archive_ids))
    moved = each.subquery("each_job")
    again = connection.execute(select(moved).where(moved.c.moved_by.is_not(None)))
    return {row.job_id: f"operation {row.moved_by} moved it again" for row in again}
