"""Undo a retry or a discard: each job that no process has claimed since is failed again, exactly as it was."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Text,
    cast,
    column,
    exists,
    func,
    insert,
    inspect,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.exc import DBAPIError

from solidjq.batching import BATCH
from solidjq.database.among import among, read_among
from solidjq.database.faults import Fault, fault_of, words_of
from solidjq.database.functions import without_index
from solidjq.database.grouping import exactly, lock_rows
from solidjq.database.poolers import schema_of
from solidjq.database.tables import claimed, failed, failures, jobs
from solidjq.database.times import utcnow
from solidjq.database.transactions import Database
from solidjq.database.unknown_columns import unpacked
from solidjq.errors import DatabaseError, NoSuchJobError, UsageError
from solidjq.ledger import archive, operations
from solidjq.queue.discard import withdraw
from solidjq.queue.states import State
from solidjq.queue.waiting import wait_again
from solidjq.recovery.refusals import MOST_NAMED, Refusals, reverting
from solidjq.recovery.rests import Rests
from solidjq.recovery.waiting import WAITING_VERBS, WaitingVerb
from solidjq.text import with_article
from solidjq.untrusted import read_object

DISCARD = "discard"
# How many ids of the archive one batch looks through. MySQL leaves gaps between the ids of two inserts.
NARROWEST, WIDEST = 2 * BATCH, 100 * BATCH
# Why a job is left alone, of one job and of several.
RUNS = "it runs now"
FAILED = "it failed again"
FINISHED = "it has finished"
GONE = "it is gone: cleared after it finished, or discarded"
TAKEN = "there is a job with that id already"
REFUSED = "the database refuses to move it, too"
OF_SEVERAL = {
    RUNS: "they run now",
    FAILED: "they failed again",
    FINISHED: "they have finished",
    GONE: "they are gone: cleared after they finished, or discarded",
    TAKEN: "there are jobs with these ids already",
    REFUSED: "the database refuses to move them, too",
}
_CHANGED = ("queue_name", "arguments", "scheduled_at")  # what a retry may change of a job
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

    last: int  # the last id in the archive; 0 if there was no job
    reasons: Mapping[str | None, int]  # counts; None: the jobs that are failed again
    jobs: Sequence[UndoneJob]  # empty unless they are wanted

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
    above = 0
    moves = rests or Rests(database)
    refusals = Refusals()

    def transact(between: tuple[int, int]) -> UndoneBatch:
        with reverting(operation):
            batch = moves.transact(_undo, operation_id, between, operation, verb, by_job=by_job)
        refusals.note(batch.reasons.get(None, 0) > 0)
        return batch

    while span := _span(database, operation_id, above):
        first, last = span
        above, width = max(above, first - 1), NARROWEST
        while above < last:
            end = min(above + width, last)
            size = last_of_batch = 0
            for rows_read, batch in _passing_over(
                database, operation_id, (above, end), transact, refusals, by_job=by_job
            ):
                size, last_of_batch = size + rows_read, batch.last
                if batch.size:
                    yield batch
            above = last_of_batch if size >= BATCH else end
            width = next_width(width, size)


def _passing_over(
    database: Database,
    operation_id: int,
    between: tuple[int, int],
    transact: Callable[[tuple[int, int]], UndoneBatch],
    refusals: Refusals,
    *,
    by_job: bool,
) -> Iterator[tuple[int, UndoneBatch]]:
    """Undo a batch in one transaction, or in several if the database refuses to move some of its jobs.

    Yields with each transaction's batch how many rows of the archive it was about: some may have been moved meanwhile.
    """
    try:
        batch = transact(between)
    except DatabaseError as error:
        refusal = error
    else:
        yield batch.size, batch
        return
    with database.read() as connection:
        rows = [(row.id, row.job_id) for row in connection.execute(_batch(operation_id, between))]
    job_ids = dict(rows)
    for archive_ids, moved in refusals.by_halves(rows, refusal, lambda ids: transact((ids[0] - 1, ids[-1]))):
        last = archive_ids[-1]
        if moved is not None:
            yield len(archive_ids), replace(moved, last=last)  # 0 if the jobs were moved meanwhile
            continue
        job_id = job_ids[last]
        is_named = len(refusals.errors) <= MOST_NAMED
        reason = f"the database refuses to move job {job_id}: {refusals.errors[job_id]}" if is_named else REFUSED
        with database.read() as connection:
            undone = _undone_jobs(connection, archive_ids, {job_id: reason}) if by_job else ()
        yield 1, UndoneBatch(last, {reason: 1}, undone)


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
        return UndoneBatch(0, {}, ())
    archive_ids = [archive_id for archive_id, _ in archived]
    reasons = _moved_again(connection, archive_ids)
    free = {archive_id: job_id for archive_id, job_id in archived if job_id not in reasons}
    deleted = verb in {DISCARD, WaitingVerb.DISCARD.recorded}
    reasons |= (_undo_discard if deleted else _undo_move)(connection, free)
    if restored := [archive_id for archive_id, job_id in free.items() if job_id not in reasons]:
        (_wait_again if verb in WAITING_VERBS else _fail_again)(connection, restored)
        undo_id = operation.record(connection, len(restored))
        connection.execute(update(failures).where(among(failures.c.id, restored)).values(restored_by=undo_id))
    counts = Counter(map(reasons.get, (job_id for _, job_id in archived)))
    return UndoneBatch(archive_ids[-1], counts, _undone_jobs(connection, archive_ids, reasons) if by_job else ())


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


def _undo_move(connection: Connection, archived: Mapping[int, int]) -> dict[int, str]:
    """Withdraw the jobs that wait and restore their columns; return the others, each with the reason."""
    archive_ids = {job_id: archive_id for archive_id, job_id in archived.items()}
    withdrawn = withdraw(connection, sorted(archive_ids))
    if changed := _changed(connection, [archive_ids[job_id] for job_id in withdrawn]):
        connection.execute(
            update(jobs)
            .where(jobs.c.id == failures.c.job_id, among(failures.c.id, changed))
            .values({name: failures.c[name] for name in (*_CHANGED, "updated_at")})
        )
    left = archive_ids.keys() - set(withdrawn)
    if not left:
        return {}
    reasons = dict.fromkeys(left, GONE)
    runs = exists().where(claimed.c.job_id == jobs.c.id)
    fails = exists().where(failed.c.job_id == jobs.c.id)
    for row in connection.execute(
        select(jobs.c.id, jobs.c.finished_at, runs.label("runs"), fails.label("fails")).where(among(jobs.c.id, left))
    ):
        reasons[row.id] = RUNS if row.runs else FAILED if row.fails else FINISHED
    return reasons


def _changed(connection: Connection, archive_ids: Sequence[int]) -> Sequence[int]:
    """Return those of these archive ids whose job has another queue, due time or arguments by now."""
    differ = or_(
        *(exactly(cast(jobs.c[name], Text())).is_distinct_from(exactly(failures.c[name])) for name in _CHANGED[:2]),
        jobs.c.scheduled_at.is_distinct_from(failures.c.scheduled_at),
    )
    both = select(failures.c.id).join(jobs, jobs.c.id == failures.c.job_id)
    return connection.scalars(both.where(read_among(failures.c.id, sorted(archive_ids)), differ)).all()


def _undo_discard(connection: Connection, archived: Mapping[int, int]) -> dict[int, str]:
    """Insert the jobs again under their old ids; return those that could not be inserted, each with the reason."""
    taken = set(connection.scalars(select(jobs.c.id).where(among(jobs.c.id, archived.values()))))
    reasons = dict.fromkeys(taken, TAKEN)
    job_ids = {archive_id: job_id for archive_id, job_id in archived.items() if job_id not in taken}
    types = archive.more_columns(connection)
    for names, archive_ids in _by_columns(connection, list(job_ids), types).items():
        more = {name: types[name] for name in names}
        if _insert_jobs(connection, archive_ids, more) is None:
            continue
        # One by one. If the row that a foreign key of the application refers to is gone, the column stays empty.
        keys = inspect(connection).get_foreign_keys(jobs.name, schema_of(connection))
        referring = {name for key in keys for name in key["constrained_columns"]}
        unbound = {name: kind for name, kind in more.items() if name not in referring}
        for archive_id in archive_ids:
            one = [archive_id]
            if _insert_jobs(connection, one, more) and (error := _insert_jobs(connection, one, unbound)):
                reasons[job_ids[archive_id]] = f"the database refuses the row: {error}"
    return reasons


def _by_columns(
    connection: Connection, archive_ids: Sequence[int], types: Collection[str]
) -> dict[tuple[str, ...], list[int]]:
    """Group archive ids by which of these columns the archive has: a column that was added since gets its default."""
    if not types or not archive.has_more_column(connection):
        return {(): list(archive_ids)}
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    query = select(failures.c.id, failures.c.more).where(among(failures.c.id, archive_ids))
    for archive_id, more in connection.execute(query.order_by(failures.c.id)):
        archived = read_object(more)
        groups[tuple(name for name in types if isinstance(archived.get(name, 0), str | None))].append(archive_id)
    return groups


def _insert_jobs(connection: Connection, archive_ids: Collection[int], types: Mapping[str, str]) -> str | None:
    """Insert archived jobs, with these columns beside the columns that every version has.

    Returns the database's error, without secrets, if it refuses the rows; then nothing is inserted.
    """
    restored: dict[Column[Any], ColumnElement[Any]] = {
        jobs.c.id: failures.c.job_id,
        jobs.c.queue_name: failures.c.queue_name,
        jobs.c.class_name: failures.c.class_name,
        jobs.c.arguments: failures.c.arguments,
        jobs.c.priority: failures.c.priority,
        jobs.c.active_job_id: failures.c.active_job_id,
        jobs.c.scheduled_at: failures.c.scheduled_at,
        jobs.c.concurrency_key: failures.c.concurrency_key,
        jobs.c.created_at: func.coalesce(failures.c.enqueued_at, utcnow()),
        jobs.c.updated_at: func.coalesce(failures.c.updated_at, utcnow()),
    }
    values = {key.name: value for key, value in restored.items()}
    values |= {name: unpacked(connection, failures.c.more, name, kind) for name, kind in types.items()}
    try:
        with connection.begin_nested():
            connection.execute(
                insert(table(jobs.name, *map(column, values), schema=schema_of(connection))).from_select(
                    list(values),
                    select(*values.values()).where(read_among(failures.c.id, archive_ids)).order_by(failures.c.job_id),
                )
            )
    except DBAPIError as error:
        if fault_of(error) not in {Fault.VALUE, Fault.OTHER}:
            raise
        return words_of(error)
    return None


def _wait_again(connection: Connection, archive_ids: Collection[int]) -> None:
    waited = select(failures.c.job_id, failures.c.error, failures.c.failed_at)
    before = {
        row.job_id: (archive.state_of(row.error) or State.READY, row.failed_at)
        for row in connection.execute(waited.where(read_among(failures.c.id, archive_ids)).order_by(failures.c.id))
    }
    wait_again(connection, before)


def _fail_again(connection: Connection, archive_ids: Collection[int]) -> None:
    connection.execute(
        insert(failed).from_select(
            ["id", "job_id", "error", "created_at"],
            select(failures.c.failure_id, failures.c.job_id, failures.c.error, failures.c.failed_at)
            .where(read_among(failures.c.id, archive_ids))
            .order_by(failures.c.failure_id),
        )
    )
