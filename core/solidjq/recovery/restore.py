"""Restore jobs from the archive, in the caller's transaction: what an undo does with the jobs of one batch.

First ``withdraw_moved`` or ``insert_deleted``, which leave some jobs alone and say why; then ``fail_as_before`` or
``wait_as_before`` for the others.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
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

from solidjq.database.among import among, read_among
from solidjq.database.faults import OF_ROWS, fault_of
from solidjq.database.grouping import exactly
from solidjq.database.poolers import schema_of
from solidjq.database.tables import claimed, failed, failures, jobs
from solidjq.database.times import utcnow
from solidjq.database.unknown_columns import unpacked
from solidjq.ledger import archive
from solidjq.queue.discard import withdraw
from solidjq.queue.states import State
from solidjq.queue.waiting import wait_again
from solidjq.untrusted import read_object

# Why a job is left alone.
RUNS = "it runs now"
FAILED = "it failed again"
FINISHED = "it has finished"
GONE = "it is gone: cleared after it finished, or discarded"
TAKEN = "there is a job with that id already"
_CHANGED = ("queue_name", "arguments", "scheduled_at")  # what a retry may change of a job


def withdraw_moved(connection: Connection, archived: Mapping[int, int]) -> dict[int, str]:
    """Withdraw the jobs that wait and restore their columns; return the others, each with the reason.

    ``archived``: each job's id by its id in the archive.
    """
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


def insert_deleted(connection: Connection, archived: Mapping[int, int]) -> dict[int, str]:
    """Insert deleted jobs again under their old ids; return those whose id is taken, each with that reason.

    ``archived``: each job's id by its id in the archive. Raises DBAPIError if the database refuses one of the rows.
    """
    taken = set(connection.scalars(select(jobs.c.id).where(among(jobs.c.id, archived.values()))))
    archive_ids = [archive_id for archive_id, job_id in archived.items() if job_id not in taken]
    types = archive.more_columns(connection)
    for names, alike in _by_columns(connection, archive_ids, types).items():
        more = {name: types[name] for name in names}
        if _inserts(connection, alike, more):
            continue
        # One by one. If the row that a foreign key of the application refers to is gone, the column stays empty.
        keys = inspect(connection).get_foreign_keys(jobs.name, schema_of(connection))
        referring = {name for key in keys for name in key["constrained_columns"]}
        unbound = {name: kind for name, kind in more.items() if name not in referring}
        for archive_id in alike:
            if not _inserts(connection, [archive_id], more):
                _insert_jobs(connection, [archive_id], unbound)
    return dict.fromkeys(taken, TAKEN)


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


def _inserts(connection: Connection, archive_ids: Collection[int], types: Mapping[str, str]) -> bool:
    """Insert archived jobs as ``_insert_jobs`` does; return False, with none inserted, if the database refuses one."""
    try:
        with connection.begin_nested():
            _insert_jobs(connection, archive_ids, types)
    except DBAPIError as error:
        if fault_of(error) not in OF_ROWS:
            raise
        return False
    return True


def _insert_jobs(connection: Connection, archive_ids: Collection[int], types: Mapping[str, str]) -> None:
    """Insert archived jobs, with these columns beside the columns that every version has."""
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
    connection.execute(
        insert(table(jobs.name, *map(column, values), schema=schema_of(connection))).from_select(
            list(values),
            select(*values.values()).where(read_among(failures.c.id, archive_ids)).order_by(failures.c.job_id),
        )
    )


def wait_as_before(connection: Connection, archive_ids: Collection[int]) -> None:
    """Give jobs that are in no state the one in which they waited when they were archived."""
    waited = select(failures.c.job_id, failures.c.error, failures.c.failed_at)
    before = {
        row.job_id: (archive.state_of(row.error) or State.READY, row.failed_at)
        for row in connection.execute(waited.where(read_among(failures.c.id, archive_ids)).order_by(failures.c.id))
    }
    wait_again(connection, before)


def fail_as_before(connection: Connection, archive_ids: Collection[int]) -> None:
    """Insert the archived failures into ``failed_executions`` under their old ids."""
    connection.execute(
        insert(failed).from_select(
            ["id", "job_id", "error", "created_at"],
            select(failures.c.failure_id, failures.c.job_id, failures.c.error, failures.c.failed_at)
            .where(read_among(failures.c.id, archive_ids))
            .order_by(failures.c.failure_id),
        )
    )
