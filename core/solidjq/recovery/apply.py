"""Apply: a plan carried out exactly as written, or not at all."""

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, Select, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.tables import failed, failures, operations
from solidjq.database.transactions import Database
from solidjq.errors import RefusedError
from solidjq.ledger import operations as ledger_operations
from solidjq.recovery.planned import PlannedFailure, check_unchanged
from solidjq.recovery.plans import MAKE_ANEW, Plan
from solidjq.recovery.rests import Rests
from solidjq.recovery.retry import count_suspects
from solidjq.recovery.run import begin
from solidjq.recovery.terms import Selection
from solidjq.recovery.verdicts import Decision
from solidjq.recovery.waiting import PlannedJob, WaitingDecision, WaitingTerms, check_planned, judge, move_batch
from solidjq.settings.policy import BUILT_IN, Policy


def require_own(database: Database, plan: Plan) -> None:
    """Raise RefusedError if the plan was made for another database: ids there mean other jobs."""
    here = database.identity()
    if plan.place != here:
        raise RefusedError(f"the plan was made for {plan.place}; this is {here}; {MAKE_ANEW} on this database")


def apply_plan(
    database: Database,
    plan: Plan,
    operation: ledger_operations.Operation,
    *,
    policy: Policy = BUILT_IN,
    rests: Rests | None = None,
) -> Iterator[list[Decision]]:
    """Move exactly the failures of the plan; yield each committed batch's decisions.

    Idempotent: failures that this plan moved before are skipped, so an apply that was killed can be run again. While
    workers claim jobs it rests between batches, unless ``rests`` are fast. Raises LedgerMissingError without ``jq_``
    tables. Raises RefusedError before it moves anything if the plan was made for another database, or a failure of it
    is gone, is not what the plan says, or may not move any more; and between two batches if one changes meanwhile;
    committed batches stay.
    """
    require_own(database, plan)
    with database.read() as connection:
        ledger_operations.require(connection)
    _check(database, plan, policy)
    yield from _move(database, plan, operation, policy, rests or Rests(database))


def apply_waiting(
    database: Database,
    plan: Plan,
    terms: WaitingTerms,
    operation: ledger_operations.Operation,
    *,
    rests: Rests | None = None,
) -> Iterator[list[WaitingDecision]]:
    """Move exactly the waiting jobs of the plan; yield each committed batch's decisions. Else as ``apply_plan``."""
    require_own(database, plan)
    with database.read() as connection:
        ledger_operations.require(connection)
    for batch in in_batches(_waiting_left(database, plan)):
        with database.read() as connection:
            check_planned(batch, judge(connection, [job.job_id for job in batch], terms))
    rests = rests or Rests(database)
    for batch in in_batches(_waiting_left(database, plan)):
        job_ids = sorted(job.job_id for job in batch)
        yield rests.transact(move_batch, job_ids, terms, operation, expected=batch)


def _waiting_left(database: Database, plan: Plan) -> Iterator[PlannedJob]:
    """Yield the waiting jobs that the plan has not moved yet."""
    for batch in in_batches(plan.waiting_jobs()):
        moved = _moved(database, plan, failures.c.job_id, [job.job_id for job in batch])
        yield from (job for job in batch if job.job_id not in moved)


def count_suspects_in(database: Database, plan: Plan, *, policy: Policy = BUILT_IN) -> int:
    """Return how many suspects a plan sends to the queue ``terms.queue_as``; 0 for a plan of a safe retry."""
    if plan.terms.safe or plan.terms.queue_as is None:
        return 0
    return sum(
        count_suspects(database, Selection(job_ids=[failure.job_id for failure in batch]), plan.terms, policy=policy)
        for batch in in_batches(plan.jobs())
    )


def _check(database: Database, plan: Plan, policy: Policy) -> None:
    """Raise RefusedError unless each failure that is left of the plan still exists and may move as planned."""
    with database.read() as connection:
        run = begin(connection, plan.terms, policy)
    for batch in in_batches(_left(database, plan)):
        with database.read() as connection:
            failure_ids = connection.scalars(_ids_of(batch)).all()
            check_unchanged(batch, run.judge(connection, failure_ids))


def _move(
    database: Database, plan: Plan, operation: ledger_operations.Operation, policy: Policy, rests: Rests
) -> Iterator[list[Decision]]:
    """Move what is left of the plan, and yield each committed batch's decisions.

    Raises RefusedError at the first batch in which a failure is gone or may not move any more.
    """
    with database.read() as connection:
        run = begin(connection, plan.terms, policy)
    for batch in in_batches(_left(database, plan)):
        moved = rests.transact(run.move, _ids_of(batch), operation, batch)
        run.count(moved.decisions)
        yield moved.decisions


def _left(database: Database, plan: Plan) -> Iterator[PlannedFailure]:
    """Yield the failures that the plan has not moved yet."""
    for batch in in_batches(plan.jobs()):
        moved = _moved(database, plan, failures.c.failure_id, [failure.failure_id for failure in batch])
        yield from (failure for failure in batch if failure.failure_id not in moved)


def _moved(database: Database, plan: Plan, column: ColumnElement[int], ids: Sequence[int]) -> set[int]:
    """Return those of these ids that the plan has moved and no undo has taken back."""
    moved = (
        select(column)
        .join_from(failures, operations, operations.c.id == failures.c.operation_id)
        .where(operations.c.plan == plan.id, among(column, ids), failures.c.restored_by.is_(None))
    )
    with database.read() as connection:
        return set(connection.scalars(moved))


def _ids_of(batch: Iterable[PlannedFailure]) -> Select[int]:
    ids = [failure.failure_id for failure in batch]
    return select(failed.c.id).where(among(failed.c.id, ids)).order_by(failed.c.id).limit(len(ids))
