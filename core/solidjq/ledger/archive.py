"""The archive, table ``jq_failures``: each failure that left ``failed_executions``, with its job as it was."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, FromClause, Insert, column, insert, literal, select, table

from solidjq.database.poolers import schema_of
from solidjq.database.statements import among
from solidjq.database.tables import failed, failures, jobs
from solidjq.database.text_columns import require_room
from solidjq.database.times import utcnow
from solidjq.database.unknown_columns import column_types, packed
from solidjq.errors import LedgerMissingError

# The columns of every version's archive. Only later versions have ``more``, and only a discard fills it.
ARCHIVED = [column for column in failures.c if column is not failures.c.more]
# The texts that are copied. An Active Job id is not among them: longer ones than its column MySQL refuses by itself.
_TEXTS = {failures.c.error: failed.c.error} | {
    failures.c[name]: jobs.c[name] for name in ("queue_name", "class_name", "arguments", "concurrency_key")
}


def more_columns(connection: Connection) -> dict[str, str]:
    """Return the columns, with their types, that this database's jobs table has beyond those of Solid Queue 1.0."""
    return {name: kind for name, kind in column_types(connection, jobs).items() if name not in jobs.c}


def has_more_column(connection: Connection) -> bool:
    """Whether the archive can store job columns that Solid Queue 1.0 lacks; ``jq init`` upgrades an older archive."""
    return failures.c.more.name in column_types(connection, failures)


def archive(
    connection: Connection, failure_ids: Collection[int], operation_id: int, *, with_jobs: bool = False
) -> None:
    """Copy failures, with their jobs as they are now, into the archive before they leave ``failed_executions``.

    Call it in the transaction that removes the failures, before that changes the jobs. With ``with_jobs`` the jobs are
    deleted too, so the archive stores every column of them.

    Raises LedgerMissingError if an older archive cannot store all of it.
    """
    require_room(connection, _TEXTS)
    leaving = select(failed).where(among(failed.c.id, failure_ids)).subquery()
    types = more_columns(connection) if with_jobs else {}
    more = None
    if types:
        if not has_more_column(connection):
            raise LedgerMissingError(
                f"the archive cannot store {', '.join(types)} of {jobs.name}, so an undo would lose them; run: jq init"
            )
        whole = table(jobs.name, column("id"), *map(column, types), schema=schema_of(connection))
        more = select(packed(connection, whole, types)).where(whole.c.id == leaving.c.job_id).scalar_subquery()
    connection.execute(archive_statement(leaving, literal(operation_id), more))


def archive_statement(
    leaving: FromClause, operation_id: ColumnElement[int], more: ColumnElement[str] | None = None
) -> Insert:
    """Return the INSERT that copies ``leaving``, rows of ``failed_executions``, and their jobs into the archive.

    ``more`` is the JSON of the jobs' columns that Solid Queue 1.0 lacks.
    """
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
