"""The record of commands, table ``jq_operations``: who changed how many jobs, when and why."""

import getpass
import json
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, insert, inspect, select, update

from solidjq.database import owners
from solidjq.database.statements import among, inserted_id
from solidjq.database.tables import LEDGER, deaths, failures, operations
from solidjq.database.times import utcnow
from solidjq.errors import LedgerMissingError
from solidjq.text import mask_secrets


def actor() -> str:
    """Return who acts: the operating system's user at this host, as ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


class Operation:
    """One command that changes jobs. Its row is written in the transaction of its first change: a row means a change.

    ``command`` is the command line; passwords in it are masked. ``chosen`` is the selection and its terms; ``plan`` is
    the id of the plan that the command carries out.
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
        """The id of its row; None until ``record`` has written it."""
        return self._id

    def record(self, connection: Connection, jobs_moved: int, verdicts: Mapping[str, int] | None = None) -> int:
        """Count ``jobs_moved`` more jobs, in the transaction that moves them; return the operation's id.

        ``verdicts`` are the counts of the whole operation so far.
        """
        written = None if verdicts is None else json.dumps(verdicts, separators=(",", ":"), sort_keys=True)
        if self._id is not None:
            counted = update(operations).where(operations.c.id == self._id)
            values = {"jobs": operations.c.jobs + jobs_moved, **({} if written is None else {"verdicts": written})}
            if connection.execute(counted.values(values)).rowcount:
                return self._id
        # This is the first change, or the transaction that wrote the row was rolled back.
        owners.require_safe_for_superuser(connection)
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

    def record_if_possible(self, connection: Connection, jobs_moved: int) -> None:
        """Count ``jobs_moved`` more jobs if the database has a ledger; do nothing if it has none."""
        if exists(connection):
            self.record(connection, jobs_moved)


def exists(connection: Connection) -> bool:
    """Whether the ``jq_`` tables are there, the newest included: an older set lacks columns that we write."""
    return inspect(connection).has_table(deaths.name)


def require(connection: Connection) -> None:
    """Raise LedgerMissingError unless all ``jq_`` tables are there, the newest included.

    Raises RefusedError if a superuser would write to tables that an untrusted role owns.
    """
    _require_tables(connection)
    owners.require_safe_for_superuser(connection)


def _require_tables(connection: Connection) -> None:
    if not exists(connection):
        raise LedgerMissingError("the jq_ tables, which record every change, are missing or out of date; run: jq init")
    inspector = inspect(connection)
    for table in LEDGER:
        if not inspector.has_table(table.name):
            raise LedgerMissingError(f"the table {table.name}, a part of jq's record, is missing; run: jq init")


def jobs_moved(connection: Connection, operation_id: int) -> int:
    """Return how many jobs an operation has moved so far; 0 if its first transaction was rolled back."""
    return connection.scalar(select(operations.c.jobs).where(operations.c.id == operation_id)) or 0


@dataclass(frozen=True, slots=True)
class OperationView:
    """One operation: who did what, when, why. ``restored`` is how many of its jobs an undo took back."""

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
    """Return operations, the newest first: those with these ids, or ``limit`` of them below the id ``before``.

    Raises LedgerMissingError.
    """
    _require_tables(connection)
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
