"""The ``jq_`` tables: who changed what, and the failures that a retry took out of Solid Queue's own table."""

import getpass
import json
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    column,
    func,
    insert,
    inspect,
    literal,
    select,
    table,
    update,
)

from solidjq.database.statements import among, inserted_id
from solidjq.database.tables import deaths, failed, failures, jobs, operations
from solidjq.database.times import utcnow
from solidjq.database.unknown_columns import column_types, packed
from solidjq.errors import LedgerMissingError
from solidjq.text import mask_secrets


def actor() -> str:
    """Name who acts: the OS user at this host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


class Operation:
    """One command that changes jobs. Its row is written in the transaction of its first change: a row means a change.

    ``command`` is the command line; passwords in it are masked. ``chosen`` says what was selected, under which terms;
    ``plan`` is the id of the plan that it carries out.
    """

    def __init__(
        self,
        verb: str,
        *,
        command: str | None = None,
        reason: str | None = None,
        chosen: Mapping[str, object] | None = None,
        plan: str | None = None,
    ) -> None:
        self.verb = verb
        self.command = None if command is None else mask_secrets(command)
        self.reason = reason
        self.chosen = chosen
        self.plan = plan
        self._id: int | None = None

    @property
    def id(self) -> int | None:
        """Its row's id, once there is one."""
        return self._id

    def record(self, connection: Connection, jobs_moved: int, verdicts: Mapping[str, int] | None = None) -> int:
        """Count ``jobs_moved`` more jobs, in the transaction that moves them; return the operation's id.

        ``verdicts`` are the counts of all of the operation so far.
        """
        written = None if verdicts is None else json.dumps(verdicts, separators=(",", ":"), sort_keys=True)
        if self._id is not None:
            counted = update(operations).where(operations.c.id == self._id)
            values = {"jobs": operations.c.jobs + jobs_moved, **({} if written is None else {"verdicts": written})}
            if connection.execute(counted.values(values)).rowcount:
                return self._id
        # The first time; or the first transaction was rolled back, and the row with it.
        result = connection.execute(
            insert(operations).values(
                verb=self.verb,
                actor=actor(),
                command=self.command,
                reason=self.reason,
                filter=None if self.chosen is None else json.dumps(self.chosen, separators=(",", ":"), default=str),
                plan=self.plan,
                jobs=jobs_moved,
                verdicts=written,
                created_at=utcnow(),
            )
        )
        operation_id: int = inserted_id(result)
        self._id = operation_id
        return operation_id

    def record_if_kept(self, connection: Connection, jobs_moved: int) -> None:
        """Do the same where the database has a ledger; nothing where ``jq init`` never ran."""
        if exists(connection):
            self.record(connection, jobs_moved)


def exists(connection: Connection) -> bool:
    """Tell whether the ``jq_`` tables are there, the youngest included: an older set lacks what we would write."""
    return inspect(connection).has_table(deaths.name)


def require(connection: Connection) -> None:
    """Raise LedgerMissingError unless the ``jq_`` tables are there."""
    if not exists(connection):
        raise LedgerMissingError(
            "this keeps a record of what it changes, and its tables are missing or out of date; run: jq init"
        )


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


@dataclass(frozen=True, slots=True)
class OperationView:
    """One row of the record: who did what, when, why. ``restored``: how many of its jobs an undo took back."""

    id: int
    verb: str
    actor: str
    command: str | None
    reason: str | None
    chosen: str | None  # JSON
    plan: str | None
    jobs: int
    verdicts: str | None  # JSON
    created_at: datetime | None
    restored: int


def list_operations(
    connection: Connection, *, ids: Collection[int] | None = None, limit: int | None = None, before: int | None = None
) -> list[OperationView]:
    """Return operations, the newest first: those with these ids, or ``limit`` of them below the id ``before``."""
    require(connection)
    restored = (
        select(func.count())
        .where(failures.c.operation_id == operations.c.id, failures.c.restored_by.is_not(None))
        .scalar_subquery()
    )
    query = select(
        operations.c.id,
        operations.c.verb,
        operations.c.actor,
        operations.c.command,
        operations.c.reason,
        operations.c.filter,
        operations.c.plan,
        operations.c.jobs,
        operations.c.verdicts,
        operations.c.created_at,
        restored,
    ).order_by(operations.c.id.desc())
    if ids is not None:
        query = query.where(among(operations.c.id, ids))
    if before is not None:
        query = query.where(operations.c.id < before)
    return [OperationView(*row) for row in connection.execute(query.limit(limit))]
