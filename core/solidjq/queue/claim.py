"""Claim: a worker gets ready jobs, by queue order, then priority, then age. How a claim ends is in endings.py.

The hot statements are below the functions, with a table of which database executes which.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Delete,
    Exists,
    FromClause,
    Insert,
    Row,
    ScalarSelect,
    Select,
    String,
    Text,
    any_,
    bindparam,
    cast,
    delete,
    exists,
    insert,
    select,
    true,
)
from sqlalchemy.sql.dml import ReturningInsert

from solidjq.database.hot import Execute, HotStatement, array_of, hot, ids_in, limit_of, within
from solidjq.database.statements import WriteStyle, distinct_by_index, distinct_values, write_style, writes_in_with
from solidjq.database.tables import claimed, jobs, pauses, processes, ready
from solidjq.database.times import utcnow
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, ProcessGoneError
from solidjq.queue.endings import finish_ctes
from solidjq.queue.patterns import ALL_QUEUES, Polled, select_queues


class Claim(NamedTuple):
    """A job that a worker has claimed. ``id`` names this claim; a later claim of the same job has another id."""

    id: int
    job_id: int
    active_job_id: str | None
    queue_name: str
    priority: int
    class_name: str
    arguments: str | None
    concurrency_key: str | None


def claim(
    connection: Connection, process_id: int, queues: Sequence[str], limit: int, excepted: Sequence[str] = ()
) -> list[Claim]:
    """Claim up to ``limit`` ready jobs for a process, by queue order, then priority, then age.

    ``queues`` are names and prefixes (``mail*``), polled in this order; ``*`` is every queue. Queues that fit an
    ``excepted`` name or prefix and paused queues are skipped. With an exception, the queues that fit one pattern
    are polled in the order of their first jobs. Raises ProcessGoneError if the process was pruned: it must not claim
    any more.
    """
    polled = Polled(queues, excepted)
    if writes_in_with(connection):
        claims = _claim_at_once(within(connection), process_id, polled, limit)
        if claims is not None:
            return claims
    return _claim_in_steps(connection, process_id, polled, limit)


def exchange(
    database: Database,
    process_id: int,
    claim_ids: Collection[int],
    queues: Sequence[str],
    limit: int,
    excepted: Sequence[str] = (),
) -> list[Claim] | None:
    """Finish claims of jobs that hold no slot, and claim up to ``limit`` other jobs, in one round trip.

    Queues by name take one round trip a queue; prefixes and exceptions take one more. Returns None if the database has
    no such statement, or no queue that fits has a ready job: then call ``finish_claims``, which passes over those that
    this finished already, and ``claim``. Raises ProcessGoneError if the process was pruned.
    """
    if not database.writes_in_with:
        return None
    polled = Polled(queues, excepted)
    return _claim_at_once(database.execute, process_id, polled, limit, claim_ids=list(claim_ids))


def _claim_at_once(
    execute: Execute, process_id: int, polled: Polled, limit: int, **finish: list[int]
) -> list[Claim] | None:
    """Claim in one statement, or in one a queue; the first also finishes the claims in ``finish``."""
    queues, excepted = polled
    if "*" in queues and excepted:
        queues = ALL_QUEUES
    elif "*" in queues:
        statement = (_FINISH_AND_CLAIM if finish else _CLAIM).from_all
        claims = _claims_in(execute(statement, process_id=process_id, most=limit, **finish), process_id)
        if claims is not None:
            return claims
        queues, finish = ALL_QUEUES, {}  # one is paused: its jobs must not hide the others
    wild = any(name.endswith("*") for name in queues)
    if wild or excepted:
        existing = execute(queues_by_first_job if excepted else queues_with_ready_jobs) if wild else []
        queues = select_queues(queues, [row.value for row in existing], excepted)
        if not queues:
            return None
    claims = []
    for name in dict.fromkeys(queues):
        statement = (_FINISH_AND_CLAIM if finish else _CLAIM).from_queue
        most = limit - len(claims)
        try:
            rows = execute(statement, process_id=process_id, queue_name=name, most=most, **finish)
        except DatabaseError:
            if not claims:
                raise
            break  # each statement may be a transaction: jobs that are claimed already must be performed
        claims += _claims_in(rows, process_id) or []
        finish = {}
        if len(claims) >= limit:
            break
    return claims


def _claims_in(rows: Sequence[Row[Any]], process_id: int) -> list[Claim] | None:
    """Return the claims in the rows of a statement that claims at once; None if it found a queue paused."""
    if not rows:
        raise ProcessGoneError(f"process {process_id} was pruned")
    if rows[0].paused:
        return None
    claims = [Claim._make(row[1:]) for row in rows if row.id is not None]
    return sorted(claims, key=lambda claim: (claim.priority, claim.job_id))


def _claim_in_steps(connection: Connection, process_id: int, polled: Polled, limit: int) -> list[Claim]:
    process = lock_process_and_see_pauses(connection, process_id=process_id)
    if not process:
        raise ProcessGoneError(f"process {process_id} was pruned")
    names = _queues_to_poll(connection, polled, paused=bool(process[0].paused))
    job_ids: list[int] = []
    for name in names:
        job_ids += _claim_first(connection, process_id, limit - len(job_ids), name)
        if len(job_ids) >= limit:
            break
    if not job_ids:
        return []
    claims = [Claim._make(row) for row in read_claims(connection, job_ids=job_ids)]
    turn = {name: number for number, name in enumerate(names)}
    return sorted(claims, key=lambda claim: (turn.get(claim.queue_name, 0), claim.priority, claim.job_id))


def _queues_to_poll(connection: Connection, polled: Polled, *, paused: bool) -> Sequence[str | None]:
    """Return the queues to poll, in order; a None is all queues in one statement, if none is paused or excepted."""
    without = set(connection.scalars(select(pauses.c.queue_name))) if paused else set()
    queues, excepted = polled
    if "*" in queues:
        if not without and not excepted:
            return [None]
        queues = ALL_QUEUES
    existing: Sequence[str] = []
    if any(name.endswith("*") for name in queues):
        existing = _queues_in_turn(connection) if excepted else distinct_values(connection, ready.c.queue_name)
    return [name for name in select_queues(queues, existing, excepted) if name not in without]


def _queues_in_turn(connection: Connection) -> Sequence[str]:
    statement = _QUEUES_BY_FIRST_JOB.get(write_style(connection), queues_by_first_job)
    return [row.value for row in statement(connection)]


def _claim_first(connection: Connection, process_id: int, most: int, queue_name: str | None) -> list[int]:
    """Claim the first ready jobs of one queue, or of all queues for None; return the jobs' ids."""
    style = write_style(connection)
    take, insert_claims_of = _TAKE_FIRST[style], _INSERT_CLAIMS.get(style)
    values = {"most": most} if insert_claims_of else {"most": most, "process_id": process_id}
    if queue_name is None:
        rows = take.from_all(connection, **values)
    else:
        rows = take.from_queue(connection, queue_name=queue_name, **values)
    job_ids = [row.job_id for row in rows]
    if job_ids and insert_claims_of:
        insert_claims_of(connection, process_id=process_id, job_ids=job_ids)
    if job_ids:
        delete_ready(connection, job_ids=job_ids)
    return job_ids


# -- statements: all of a claim at once -------------------------------------------------------------------------------


@hot(WriteStyle.CHAINED)
def claim_from_all() -> Select[Any]:
    """Claim the first ready jobs of all queues, unless one is paused.

    Guard: the process's row is share-locked, so a prune of it waits for this claim or leaves nothing to claim with;
    ready rows that another worker has locked are skipped. Returns at least one row if the process lives: whether a
    queue is paused, and a claim or NULLs.
    """
    return _whole_claim(_first_ready(), exists().select_from(pauses))


@hot(WriteStyle.CHAINED)
def claim_from_queue() -> Select[Any]:
    """Claim the first ready jobs of one queue, unless it is paused.

    Guard: as in claim_from_all, the process's row is share-locked and locked ready rows are skipped.
    """
    return _whole_claim(_first_ready_of_queue(), _queue_is_paused())


@hot(WriteStyle.CHAINED)
def finish_and_claim_from_all() -> Select[Any]:
    """Finish claims as finish_claims_at_once does, and claim as claim_from_all does.

    Guard: a claim whose row is gone has ended before, and its job is not touched; the claims that are finished and
    those that are made are different rows.
    """
    return claim_from_all.statement().add_cte(*finish_ctes())


@hot(WriteStyle.CHAINED)
def finish_and_claim_from_queue() -> Select[Any]:
    """Finish claims as finish_claims_at_once does, and claim as claim_from_queue does.

    Guard: a claim whose row is gone has ended before, and its job is not touched.
    """
    return claim_from_queue.statement().add_cte(*finish_ctes())


@hot(WriteStyle.CHAINED)
def queues_with_ready_jobs() -> Select[Any]:
    """Read the names of the queues that have ready jobs, a few index entries a queue.

    No guard: a queue that gets its first job a moment later is polled next time.
    """
    return distinct_by_index(ready.c.queue_name)


@hot(WriteStyle.CHAINED, WriteStyle.RETURNING)
def queues_by_first_job() -> Select[Any]:
    """Read the names of the queues that have ready jobs, that of the first job first, a few index entries a queue.

    No guard: a queue that gets its first job a moment later is polled next time. For a worker that polls all queues
    but some: one statement over all rows would read the rows of those, however many wait there, at every turn.
    """
    return _by_first_job(distinct_by_index(ready.c.queue_name).subquery("queues"))


@hot(WriteStyle.SILENT)
def distinct_queues_by_first_job() -> Select[Any]:
    """Read the same as queues_by_first_job; DISTINCT reads a few index entries a queue here.

    No guard: a queue that gets its first job a moment later is polled next time.
    """
    return _by_first_job(select(ready.c.queue_name.label("value")).distinct().subquery("queues"))


def _by_first_job(queues: FromClause) -> Select[Any]:
    # Two subqueries, not a join with the first rows: for that, PostgreSQL may read the whole table.
    def first(column: Column[Any]) -> ScalarSelect[Any]:
        rows = select(column).where(ready.c.queue_name == queues.c.value)
        return rows.order_by(ready.c.priority, ready.c.job_id).limit(1).scalar_subquery()

    return select(queues.c.value).order_by(first(ready.c.priority), first(ready.c.job_id))


def _whole_claim(candidates: Select[Any], paused: Exists) -> Select[Any]:
    alive = _process_lock().cte("alive")
    picked = candidates.where(exists().select_from(alive), ~paused).cte("picked")
    gone = delete(ready).where(ready.c.job_id == any_(array_of(picked.c.job_id))).returning(ready.c.job_id).cte("gone")
    taken = _claim_insertion(select(gone.c.job_id)).returning(claimed.c.id, claimed.c.job_id).cte("taken")
    claims = _claims_of(taken).subquery("claims")
    return select(paused.label("paused"), claims).select_from(alive.outerjoin(claims, true()))


def _queue_is_paused() -> Exists:
    return exists().where(pauses.c.queue_name == bindparam("queue_name", type_=String()))


# -- statements: a claim in steps -------------------------------------------------------------------------------------


@hot
def lock_process_and_see_pauses() -> Select[Any]:
    """Lock the process's row until the claim commits, and read whether any queue is paused.

    Guard: the lock is shared, so claims of one process do not wait for each other; a prune of the process waits for
    this claim and sees it, or came first, and this returns no row.
    """
    return _process_lock().add_columns(exists().select_from(pauses).label("paused"))


@hot(WriteStyle.CHAINED, WriteStyle.RETURNING)
def insert_first_claims() -> ReturningInsert[Any]:
    """Insert claims of the first ready jobs of all queues.

    Guard: on SQLite, the transaction that began with BEGIN IMMEDIATE is the only writer; on PostgreSQL, ready rows that
    another worker has locked are skipped.
    """
    return _claim_insertion(_first_ready()).returning(claimed.c.job_id)


@hot(WriteStyle.CHAINED, WriteStyle.RETURNING)
def insert_first_claims_of_queue() -> ReturningInsert[Any]:
    """Insert claims of the first ready jobs of one queue.

    Guard: as in insert_first_claims, one writer on SQLite, and no locked rows on PostgreSQL.
    """
    return _claim_insertion(_first_ready_of_queue()).returning(claimed.c.job_id)


@hot(WriteStyle.SILENT)
def lock_first_ready() -> Select[Any]:
    """Lock the first ready rows of all queues.

    Guard: rows that another worker has locked are skipped.
    """
    return _first_ready()


@hot(WriteStyle.SILENT)
def lock_first_ready_of_queue() -> Select[Any]:
    """Lock the first ready rows of one queue.

    Guard: rows that another worker has locked are skipped.
    """
    return _first_ready_of_queue()


@hot(WriteStyle.SILENT)
def insert_claims() -> Insert:
    """Insert the claims of jobs whose ready rows lock_first_ready has locked.

    Guard: those locks; and a job can have one claim only (a unique index).
    """
    return _claim_insertion(select(ready.c.job_id).where(ids_in(ready.c.job_id, "job_ids")).order_by(ready.c.job_id))


@hot
def delete_ready() -> Delete:
    """Delete the ready rows of jobs that are claimed in the same transaction.

    Guard: the rows are locked, or this transaction is the only writer.
    """
    return delete(ready).where(ids_in(ready.c.job_id, "job_ids"))


@hot
def read_claims() -> Select[Any]:
    """Read the claims that this transaction made, with their jobs.

    No guard: nobody else sees them before it commits.
    """
    return _claims_of(claimed).where(ids_in(claimed.c.job_id, "job_ids"))


class _FromQueues(NamedTuple):
    """A hot statement for all queues, and the same one for the queue ``queue_name``."""

    from_all: HotStatement[Any]
    from_queue: HotStatement[Any]


# Which database executes what:
#
# step                            PostgreSQL               SQLite                        MySQL, MariaDB
# lock process, see pauses        claim_from_all, or       lock_process_and_see_pauses   lock_process_and_see_pauses
# lock the first ready rows       finish_and_claim_...     insert_first_claims           lock_first_ready
# insert their claims             (all steps in one)       (same)                        insert_claims
# delete their ready rows                                  delete_ready                  delete_ready
# read the claims                                          read_claims                   read_claims
_CLAIM = _FromQueues(claim_from_all, claim_from_queue)
_FINISH_AND_CLAIM = _FromQueues(finish_and_claim_from_all, finish_and_claim_from_queue)
_TAKE_FIRST = {
    WriteStyle.CHAINED: _FromQueues(insert_first_claims, insert_first_claims_of_queue),  # if no queue fits a prefix
    WriteStyle.RETURNING: _FromQueues(insert_first_claims, insert_first_claims_of_queue),
    WriteStyle.SILENT: _FromQueues(lock_first_ready, lock_first_ready_of_queue),
}
_INSERT_CLAIMS = {WriteStyle.SILENT: insert_claims}
_QUEUES_BY_FIRST_JOB = {WriteStyle.SILENT: distinct_queues_by_first_job}


# -- parts of these statements ----------------------------------------------------------------------------------------


def _process_lock() -> Select[Any]:
    process_id = bindparam("process_id", type_=BigInteger())
    return select(processes.c.id).where(processes.c.id == process_id).with_for_update(read=True, key_share=True)


def _first_ready() -> Select[Any]:
    return (
        select(ready.c.job_id)
        .order_by(ready.c.priority, ready.c.job_id)
        .limit(limit_of("most"))
        .with_for_update(skip_locked=True)
    )


def _first_ready_of_queue() -> Select[Any]:
    return _first_ready().where(ready.c.queue_name == bindparam("queue_name", type_=String()))


def _claim_insertion(job_ids: Select[Any]) -> Insert:
    rows = job_ids.add_columns(bindparam("process_id", type_=BigInteger()), utcnow())
    return insert(claimed).from_select(["job_id", "process_id", "created_at"], rows)


def _claims_of(taken: FromClause) -> Select[Any]:
    """Select the fields of a ``Claim``."""
    return select(
        taken.c.id,
        jobs.c.id.label("job_id"),
        jobs.c.active_job_id,
        jobs.c.queue_name,
        jobs.c.priority,
        jobs.c.class_name,
        cast(jobs.c.arguments, Text()).label("arguments"),
        jobs.c.concurrency_key,
    ).join(jobs, jobs.c.id == taken.c.job_id)
