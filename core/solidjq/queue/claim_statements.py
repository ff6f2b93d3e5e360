"""The hot statements of a claim, with a table of which database executes which. claim.py sends them."""

from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Delete,
    Exists,
    FromClause,
    Insert,
    ScalarSelect,
    Select,
    String,
    Text,
    any_,
    bindparam,
    cast,
    delete,
    exists,
    select,
    true,
)
from sqlalchemy.sql.dml import ReturningInsert

from solidjq.database.deletions import delete_by_id
from solidjq.database.hot import HotStatement, array_of, hot, ids_in
from solidjq.database.statements import WriteStyle, distinct_by_index
from solidjq.database.tables import claimed, jobs, pauses, ready
from solidjq.queue.endings import finish_ctes
from solidjq.queue.ready_rows import behind, claim_insertion, first_ready, first_ready_of_queue, process_lock

# -- all of a claim at once --------------------------------------------------------------------------------------------


@hot(WriteStyle.CHAINED)
def claim_from_all() -> Select[Any]:
    """Claim the first ready jobs of all queues, unless one is paused.

    Guard: the process's row is share-locked, so a prune of it waits for this claim or leaves nothing to claim with;
    ready rows that another worker has locked are skipped. Returns at least one row if the process lives: whether a
    queue is paused, and a claim or NULLs.
    """
    return _whole_claim(first_ready(), exists().select_from(pauses))


@hot(WriteStyle.CHAINED)
def claim_from_queue() -> Select[Any]:
    """Claim the first ready jobs of one queue, unless it is paused.

    Guard: as in claim_from_all, the process's row is share-locked and locked ready rows are skipped.
    """
    return _whole_claim(first_ready_of_queue(), _queue_is_paused())


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
def finish_and_claim_from_all_behind() -> Select[Any]:
    """Finish and claim as finish_and_claim_from_all does, but pass over ready rows before a bound.

    Guard: as in finish_and_claim_from_all; a row before the bound is claimed later (see scan_start.py).
    """
    return _whole_claim(behind(first_ready(), WriteStyle.CHAINED), exists().select_from(pauses)).add_cte(*finish_ctes())


@hot(WriteStyle.CHAINED)
def finish_and_claim_from_queue_behind() -> Select[Any]:
    """Finish and claim as finish_and_claim_from_queue does, but pass over ready rows before a bound.

    Guard: as in finish_and_claim_from_queue; a row before the bound is claimed later (see scan_start.py).
    """
    candidates = behind(first_ready_of_queue(), WriteStyle.CHAINED)
    return _whole_claim(candidates, _queue_is_paused()).add_cte(*finish_ctes())


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
    but some, which are excepted or paused: one statement over all rows would read the rows of those, however many wait
    there, at every turn.
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
    alive = process_lock().cte("alive")
    picked = candidates.where(exists().select_from(alive), ~paused).cte("picked")
    gone = delete(ready).where(ready.c.job_id == any_(array_of(picked.c.job_id))).returning(ready.c.job_id).cte("gone")
    taken = claim_insertion(select(gone.c.job_id)).returning(claimed.c.id, claimed.c.job_id).cte("taken")
    claims = _claims_of(taken).subquery("claims")
    return select(paused.label("paused"), claims).select_from(alive.outerjoin(claims, true()))


def _queue_is_paused() -> Exists:
    return exists().where(pauses.c.queue_name == bindparam("queue_name", type_=String()))


# -- a claim in steps --------------------------------------------------------------------------------------------------


@hot
def lock_process_and_see_pauses() -> Select[Any]:
    """Lock the process's row until the claim commits, and read whether any queue is paused.

    Guard: the lock is shared, so claims of one process do not wait for each other; a prune of the process waits for
    this claim and sees it, or came first, and this returns no row.
    """
    return process_lock().add_columns(exists().select_from(pauses).label("paused"))


@hot(WriteStyle.CHAINED, WriteStyle.RETURNING)
def insert_first_claims() -> ReturningInsert[Any]:
    """Insert claims of the first ready jobs of all queues.

    Guard: on SQLite, the transaction that began with BEGIN IMMEDIATE is the only writer; on PostgreSQL, ready rows that
    another worker has locked are skipped.
    """
    return claim_insertion(first_ready()).returning(claimed.c.job_id)


@hot(WriteStyle.CHAINED, WriteStyle.RETURNING)
def insert_first_claims_of_queue() -> ReturningInsert[Any]:
    """Insert claims of the first ready jobs of one queue.

    Guard: as in insert_first_claims, one writer on SQLite, and no locked rows on PostgreSQL.
    """
    return claim_insertion(first_ready_of_queue()).returning(claimed.c.job_id)


@hot(WriteStyle.SILENT)
def lock_first_ready() -> Select[Any]:
    """Lock the first ready rows of all queues.

    Guard: rows that another worker has locked are skipped.
    """
    return first_ready().add_columns(ready.c.id)


@hot(WriteStyle.SILENT)
def lock_first_ready_of_queue() -> Select[Any]:
    """Lock the first ready rows of one queue.

    Guard: rows that another worker has locked are skipped.
    """
    return first_ready_of_queue().add_columns(ready.c.id)


@hot(WriteStyle.SILENT)
def insert_claims() -> Insert:
    """Insert the claims of jobs whose ready rows lock_first_ready has locked.

    Guard: those locks; and a job can have one claim only (a unique index).
    """
    return claim_insertion(select(ready.c.job_id).where(ids_in(ready.c.job_id, "job_ids")).order_by(ready.c.job_id))


@hot(WriteStyle.CHAINED, WriteStyle.RETURNING)
def delete_ready() -> Delete:
    """Delete the ready rows of jobs that are claimed in the same transaction.

    Guard: the rows are locked, or this transaction is the only writer.
    """
    return delete(ready).where(ids_in(ready.c.job_id, "job_ids"))


@hot(WriteStyle.SILENT)
def delete_ready_rows() -> Delete:
    """Delete the ready rows of jobs that are claimed in the same transaction.

    Guard: this transaction has locked the rows.
    """
    return delete_by_id(ready, "ready_ids")


@hot
def read_claims() -> Select[Any]:
    """Read the claims that this transaction made, with their jobs.

    No guard: nobody else sees them before it commits.
    """
    return _claims_of(claimed).where(ids_in(claimed.c.job_id, "job_ids"))


class FromQueues(NamedTuple):
    """A hot statement for all queues, and the same one for the queue ``queue_name``."""

    from_all: HotStatement[Any]
    from_queue: HotStatement[Any]


# Which database executes what:
#
# step                            PostgreSQL               SQLite                        MySQL, MariaDB
# lock process, see pauses        claim_from_all, or       lock_process_and_see_pauses   lock_process_and_see_pauses
# lock the first ready rows       finish_and_claim_...     insert_first_claims           lock_first_ready
# insert their claims             (all steps in one)       (same)                        insert_claims
# delete their ready rows                                  delete_ready                  delete_ready_rows
# read the claims                                          read_claims                   read_claims
#
# On MySQL, a worker's turn of all queues or one by its name locks by lock_turn: see claim.exchange. Where scans
# are dear, the statements whose names end in _behind are sent instead: see scan_start.py.
CLAIM = FromQueues(claim_from_all, claim_from_queue)
FINISH_AND_CLAIM = FromQueues(finish_and_claim_from_all, finish_and_claim_from_queue)
FINISH_AND_CLAIM_BEHIND = FromQueues(finish_and_claim_from_all_behind, finish_and_claim_from_queue_behind)
TAKE_FIRST = {
    WriteStyle.CHAINED: FromQueues(insert_first_claims, insert_first_claims_of_queue),  # if no queue fits a prefix
    WriteStyle.RETURNING: FromQueues(insert_first_claims, insert_first_claims_of_queue),
    WriteStyle.SILENT: FromQueues(lock_first_ready, lock_first_ready_of_queue),
}
INSERT_CLAIMS = {WriteStyle.SILENT: insert_claims}
QUEUES_BY_FIRST_JOB = {WriteStyle.SILENT: distinct_queues_by_first_job}


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
