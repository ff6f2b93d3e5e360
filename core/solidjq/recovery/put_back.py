"""Put back: the effect of a retry. Archives failures, and makes their jobs ready or scheduled, or deletes them."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, Insert, bindparam, delete, exists, insert, select, update

from solidjq.database.among import among, read_among
from solidjq.database.deletions import delete_by_id
from solidjq.database.grouping import read_numbers
from solidjq.database.hot import hot, ids_in
from solidjq.database.statements import WriteStyle, writes_in_with
from solidjq.database.tables import failed, failures, jobs, ready, scheduled
from solidjq.database.times import utcnow
from solidjq.ledger import archive
from solidjq.queue.executions import make_ready, ready_insertion, schedule
from solidjq.rails.active_job import replace_arguments, reset_counters
from solidjq.rails.continuation import parse_position, progress_of, with_progress, without_progress
from solidjq.rails.positions import skipping, without_marks
from solidjq.recovery.terms import RetryTerms
from solidjq.recovery.verdicts import Decision


class Pace(NamedTuple):
    """When paced jobs are due: ``start``, then one every ``step``; ``moved`` jobs have their times already."""

    start: datetime
    step: timedelta
    moved: int


def failure_ids_of(decisions: Iterable[Decision]) -> list[int]:
    """Return the failure_ids of these decisions."""
    return [failure_id for decision in decisions for failure_id in decision.failure_ids]


def put_back(
    connection: Connection, moving: Sequence[Decision], operation_id: int, terms: RetryTerms, pace: Pace
) -> None:
    """Carry out decisions: archive the failures, delete them, and put their jobs back to work, or delete the jobs.

    Call it in the transaction that made the decisions and has locked their failures.
    """
    simple: list[Decision] = []
    others: list[Decision] = []
    for decision in moving:
        (simple if only_moves(decision, terms) else others).append(decision)
    if simple:
        _make_ready(connection, failure_ids_of(simple), operation_id)
    if not others:
        return
    failure_ids = failure_ids_of(others)
    archive.archive(connection, failure_ids, operation_id, with_jobs=terms.discard)
    if terms.discard:
        _delete(connection, failure_ids)
    else:
        _put_back(connection, others, terms, pace)
    connection.execute(delete_by_id(failed, failure_ids))


def _make_ready(connection: Connection, failure_ids: Sequence[int], operation_id: int) -> None:
    """Put back jobs that change in nothing; their own ids are never read."""
    if writes_in_with(connection):
        archive_and_make_ready(connection, failure_ids=failure_ids, operation_id=operation_id)
        return
    archive.archive(connection, failure_ids, operation_id)
    leaving = select().join_from(failed, jobs, jobs.c.id == failed.c.job_id).where(read_among(failed.c.id, failure_ids))
    connection.execute(ready_insertion(leaving.order_by(failed.c.id)))
    connection.execute(delete_by_id(failed, failure_ids))


def fits_groups(decision: Decision, terms: RetryTerms) -> bool:
    """Whether a decision that moves jobs can be on a group: none of them changes in a way of its own."""
    return terms.discard or only_moves(decision, terms)


def only_moves(decision: Decision, terms: RetryTerms) -> bool:
    """Whether a retry only makes the job ready, and does not change its own row."""
    worn = decision.candidate.worn and not terms.keep_counters
    return not (terms.discard or terms.rewrites or decision.scheduled or decision.queue_as or worn)


def _put_back(connection: Connection, moving: Sequence[Decision], terms: RetryTerms, pace: Pace) -> None:
    _rewrite(connection, moving, terms)
    requeued: dict[str, list[int]] = defaultdict(list)
    for decision in moving:
        if decision.queue_as is not None:
            requeued[decision.queue_as].append(decision.job_id)
    for name, ids in requeued.items():
        connection.execute(update(jobs).where(among(jobs.c.id, ids)).values(queue_name=name, updated_at=utcnow()))
    if terms.paced:
        _schedule_paced(connection, [decision.job_id for decision in moving], pace)
        return
    if early := [decision.job_id for decision in moving if decision.candidate.early]:
        schedule(connection, early)
    if limited := [d.job_id for d in moving if d.candidate.limited and not d.candidate.early]:
        schedule(connection, limited, at=utcnow())
    if to_ready := [decision.job_id for decision in moving if not decision.scheduled]:
        make_ready(connection, to_ready)


def _schedule_paced(connection: Connection, job_ids: Sequence[int], pace: Pace) -> None:
    """Insert scheduled rows, each with its own time, so that any dispatcher keeps the pace. A later due time stays."""
    due = {job_id: pace.start + pace.step * number for number, job_id in enumerate(job_ids, start=pace.moved)}
    waiting = connection.execute(
        select(jobs.c.id, jobs.c.queue_name, jobs.c.priority, jobs.c.scheduled_at).where(
            among(jobs.c.id, job_ids), ~exists().where(scheduled.c.job_id == jobs.c.id)
        )
    )
    rows = [
        {
            "job_id": row.id,
            "queue_name": row.queue_name,
            "priority": row.priority,
            "scheduled_at": max(due[row.id], row.scheduled_at or due[row.id]),
        }
        for row in waiting
    ]
    if rows:
        connection.execute(insert(scheduled).values(created_at=utcnow()), rows)


@hot(WriteStyle.CHAINED)
def archive_and_make_ready() -> Insert:
    """Archive failures, delete them and insert their jobs' ready rows, reading each row once.

    Guard: the caller has locked the failures; only those that this statement itself deletes are archived and put back.
    """
    gone = delete(failed).where(ids_in(failed.c.id, "failure_ids")).returning(*failed.c).cte("gone")
    archived = (
        archive.archive_statement(gone, bindparam("operation_id", type_=BigInteger()))
        .returning(failures.c.job_id, failures.c.queue_name, failures.c.priority)
        .cte("archived")
    )
    # A job that is ready although it failed, because rows were damaged, is left as it is.
    rows = select(archived, utcnow()).where(~exists().where(ready.c.job_id == archived.c.job_id))
    return insert(ready).from_select(["job_id", "queue_name", "priority", "created_at"], rows)


def _delete(connection: Connection, failure_ids: Sequence[int]) -> None:
    # The failed rows are deleted with their jobs. A failed job holds no slot of a concurrency limit.
    of_failures = read_numbers(connection, select(failed.c.job_id).where(read_among(failed.c.id, failure_ids)))
    connection.execute(delete_by_id(jobs, sorted(job_id for (job_id,) in of_failures)))


def _rewrite(connection: Connection, moving: Sequence[Decision], terms: RetryTerms) -> None:
    """Rewrite the payloads of the jobs as the terms say."""
    job_ids = [decision.job_id for decision in moving]
    if not terms.keep_counters and (worn := [one.job_id for one in moving if one.candidate.worn]):
        _rewrite_payloads(connection, worn, reset_counters)
    if (arguments := terms.with_arguments) is not None:
        _rewrite_payloads(connection, job_ids, lambda payload: replace_arguments(payload, arguments))
    if terms.restart:
        _rewrite_payloads(connection, job_ids, lambda payload: without_marks(without_progress(payload)))
    if terms.resume_at is not None:
        _rewrite_payloads(connection, job_ids, _resumed_at(terms.resume_at))
    if terms.skip_record:
        _rewrite_payloads(connection, job_ids, skipping)


def _resumed_at(position: str) -> Callable[[str | None], str | None]:
    step, cursor = parse_position(position)
    return lambda payload: without_marks(with_progress(payload or "", progress_of(payload).back_to(step, cursor)))


def _rewrite_payloads(
    connection: Connection, job_ids: Sequence[int], rewrite: Callable[[str | None], str | None]
) -> None:
    payloads = connection.execute(select(jobs.c.id, jobs.c.arguments).where(among(jobs.c.id, job_ids)))
    changes = [
        {"rewritten_id": row.id, "payload": changed}
        for row in payloads
        if (changed := rewrite(row.arguments)) != row.arguments
    ]
    if changes:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == bindparam("rewritten_id"))
            .values(arguments=bindparam("payload"), updated_at=utcnow()),
            changes,
        )
