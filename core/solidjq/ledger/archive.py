"""The table ``jq_failures``: each failure that left Solid Queue's own table, with its job as it was."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, FromClause, Insert, column, insert, literal, select, table

from solidjq.database.statements import among
from solidjq.database.tables import failed, failures, jobs
from solidjq.database.times import utcnow
from solidjq.database.unknown_columns import column_types, packed
from solidjq.errors import LedgerMissingError

# What the archive of every version has. Older ones have no room for more, and only a discard needs it.
ARCHIVED = [column for column in failures.c if column is not failures.c.more]


def more_columns(connection: Connection) -> dict[str, str]:
    """Return the columns that the jobs table has beyond Solid Queue 1.0's, with their types."""
    return {name: kind for name, kind in column_types(connection, jobs).items() if name not in jobs.c}


def keeps_more(connection: Connection) -> bool:
    """Tell whether the archive has room for them: an older one gets it by ``jq init``."""
    return failures.c.more.name in column_types(connection, failures)


def archive(
    connection: Connection, failure_ids: Collection[int], operation_id: int, *, with_jobs: bool = False
) -> None:
    """Copy failures that are about to leave ``failed_executions``, with their jobs as they are now.

    Call it in the transaction that removes them, before it changes the jobs. ``with_jobs``: the jobs leave too, so all
    columns are kept. Raises LedgerMissingError where there is no room for them: what is deleted must be complete here.
    """
    leaving = select(failed).where(among(failed.c.id, failure_ids)).subquery()
    types = more_columns(connection) if with_jobs else {}
    more = None
    if types:
        if not keeps_more(connection):
            raise LedgerMissingError(
                f"the record has no room for {', '.join(types)} of {jobs.name}, which an undo would miss; run: jq init"
            )
        whole = table(jobs.name, column("id"), *map(column, types))
        more = select(packed(connection, whole, types)).where(whole.c.id == leaving.c.job_id).scalar_subquery()
    connection.execute(archiving(leaving, literal(operation_id), more))


def archiving(leaving: FromClause, operation_id: ColumnElement[int], more: ColumnElement[str] | None = None) -> Insert:
    """Describe the copying of these rows of ``failed_executions``; ``more`` is of their jobs."""
    copied: dict[Column[Any], ColumnElement[Any]] = {
        failures.c.failure_id: leaving.c.id,
        failures.c.job_id: leaving.c.job_id,
        failures.c.active_job_id: jobs.c.active_job_id,
        failures.c.queue_name: jobs.c.queue_name,
        failures.c.class_name: jobs.c.class_name,
        failures.c.error: leaving.c.error,
        failures.c.failed_at: leaving.c.created_at,
        failures.c.archived_at: utcnow(),
        failures.c.operation_id: operation_id,
        failures.c.arguments: jobs.c.arguments,
        failures.c.priority: jobs.c.priority,
        failures.c.concurrency_key: jobs.c.concurrency_key,
        failures.c.scheduled_at: jobs.c.scheduled_at,
        failures.c.enqueued_at: jobs.c.created_at,
        failures.c.updated_at: jobs.c.updated_at,
    }
    if more is not None:
        copied[failures.c.more] = more
    return insert(failures).from_select(
        [column.name for column in copied],
        select(*copied.values()).join_from(leaving, jobs, jobs.c.id == leaving.c.job_id).order_by(leaving.c.id),
    )
