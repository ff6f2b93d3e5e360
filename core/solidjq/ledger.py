"""The ``jq_`` tables: who changed what, and the failures that a retry took out of Solid Queue's own table."""

import getpass
import socket
from collections.abc import Collection

from sqlalchemy import Connection, insert, inspect, literal, select, update

from solidjq.dialects import inserted_id, utcnow
from solidjq.errors import LedgerMissingError
from solidjq.schema import failed, failures, jobs, operations
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

    ``command`` is the command line; passwords in it are masked.
    """

    def __init__(self, verb: str, *, command: str | None = None, reason: str | None = None) -> None:
        self.verb = verb
        self.command = None if command is None else mask_secrets(command)
        self.reason = reason
        self._id: int | None = None

    def record(self, connection: Connection, jobs_moved: int) -> int:
        """Count ``jobs_moved`` more jobs, in the transaction that moves them; return the operation's id."""
        if self._id is not None:
            counted = update(operations).where(operations.c.id == self._id)
            if connection.execute(counted.values(jobs=operations.c.jobs + jobs_moved)).rowcount:
                return self._id
        # The first time; or the first transaction was rolled back, and the row with it.
        result = connection.execute(
            insert(operations).values(
                verb=self.verb,
                actor=actor(),
                command=self.command,
                reason=self.reason,
                jobs=jobs_moved,
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
    """Tell whether the ``jq_`` tables are there."""
    return inspect(connection).has_table(operations.name)


def require(connection: Connection) -> None:
    """Raise LedgerMissingError unless the ``jq_`` tables are there."""
    if not exists(connection):
        raise LedgerMissingError("this keeps a record of what it changes, and its tables are missing; run: jq init")


def archive(connection: Connection, failure_ids: Collection[int], operation_id: int) -> None:
    """Copy failures that are about to leave ``failed_executions``; call it in the transaction that removes them."""
    connection.execute(
        insert(failures).from_select(
            [
                "failure_id",
                "job_id",
                "active_job_id",
                "queue_name",
                "class_name",
                "error",
                "failed_at",
                "archived_at",
                "operation_id",
            ],
            select(
                failed.c.id,
                failed.c.job_id,
                jobs.c.active_job_id,
                jobs.c.queue_name,
                jobs.c.class_name,
                failed.c.error,
                failed.c.created_at,
                utcnow(),
                literal(operation_id),
            )
            .join(jobs, jobs.c.id == failed.c.job_id)
            .where(failed.c.id.in_(failure_ids))
            .order_by(failed.c.id),
        )
    )
