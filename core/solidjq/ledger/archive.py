"""The archive, table ``jq_failures``: each failure that left ``failed_executions``, with its job as it was."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    Text,
    column,
    insert,
    literal,
    literal_column,
    select,
    table,
)

from solidjq.database.among import among, read_among
from solidjq.database.poolers import schema_of
from solidjq.database.tables import failed, failures, jobs
from solidjq.database.text_columns import require_room
from solidjq.database.times import utcnow
from solidjq.database.unknown_columns import column_types, packed
from solidjq.errors import LedgerMissingError
from solidjq.queue.executions import EXECUTIONS
from solidjq.queue.states import State
from solidjq.untrusted import read_object

NO_FAILURE = 0  # the failure_id of a job that was moved while it waited: it had not failed
STOP_REQUEST = -1  # of a running job that was asked to stop: it had neither failed nor moved (stop_requests)
_ROOM = "solidjq_room"  # key of a pooled connection's ``info``: the operation for which its columns were measured
# The columns of every version's archive. Only later versions have ``more``, and only a discard fills it.
ARCHIVED = [column for column in failures.c if column is not failures.c.more]
# The texts that are copied. An Active Job id is not among them: longer ones than its column MySQL refuses by itself.
ARCHIVED_TEXTS = {failures.c.error: failed.c.error} | {
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
    _require_room(connection, operation_id)
    leaving = select(failed).where(read_among(failed.c.id, failure_ids)).subquery()
    more = _more(connection, leaving) if with_jobs else None
    connection.execute(archive_statement(leaving, literal(operation_id), more))


def archive_waiting(
    connection: Connection, waiting: Mapping[State, Collection[int]], operation_id: int, *, with_jobs: bool = False
) -> None:
    """Copy waiting jobs, by their states, into the archive before they are moved.

    Their rows have ``NO_FAILURE`` for a failure and the state in ``error``; ``failed_at`` is when a scheduled job was
    due. Raises as ``archive`` does.
    """
    _require_room(connection, operation_id)
    for state, job_ids in waiting.items():
        execution = EXECUTIONS[state].c
        due = execution.scheduled_at if state is State.SCHEDULED else execution.created_at
        leaving = (
            select(
                literal_column(str(NO_FAILURE)).label("id"),
                execution.job_id,
                literal(json.dumps({"state": state.value}), Text()).label("error"),
                due.label("created_at"),
            )
            .where(among(execution.job_id, job_ids))
            .subquery()
        )
        connection.execute(
            archive_statement(leaving, literal(operation_id), _more(connection, leaving) if with_jobs else None)
        )


def _require_room(connection: Connection, operation_id: int) -> None:
    """Raise as ``require_room`` does; an operation asks the catalogue once a connection, not in every batch."""
    if connection.info.get(_ROOM) != operation_id:
        require_room(connection, ARCHIVED_TEXTS)
        connection.info[_ROOM] = operation_id


def state_of(error: str | None) -> State | None:
    """Return the state of an archived job that waited, from its ``error``."""
    value = read_object(error).get("state")
    return next((state for state in State if state.value == value), None)


def _more(connection: Connection, leaving: FromClause) -> ColumnElement[str] | None:
    """Return the columns that Solid Queue 1.0 lacks, packed; None if there are none. Raises LedgerMissingError."""
    types = more_columns(connection)
    if not types:
        return None
    if not has_more_column(connection):
        raise LedgerMissingError(
            f"the archive cannot store {', '.join(types)} of {jobs.name}, so an undo would lose them; run: jq init"
        )
    whole = table(jobs.name, column("id"), *map(column, types), schema=schema_of(connection))
    return select(packed(connection, whole, types)).where(whole.c.id == leaving.c.job_id).scalar_subquery()


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
