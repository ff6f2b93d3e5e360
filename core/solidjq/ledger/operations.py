"""The record of commands, table ``jq_operations``: who changed how many jobs, when and why."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, null, select, update

from solidjq.database import owners
from solidjq.database.among import among
from solidjq.database.functions import current_role
from solidjq.database.inserts import inserted_id
from solidjq.database.presence import missing_tables
from solidjq.database.tables import LEDGER, chain, deaths, failures, operations
from solidjq.database.times import utcnow
from solidjq.errors import DatabaseError, LedgerMissingError, concerns_rows
from solidjq.ledger.actors import actor, ci_job
from solidjq.text import mask_secrets


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
        self._ends = False  # whether its row has the columns of the chain

    @property
    def id(self) -> int | None:
        """The id of its row; None until ``record`` has written it."""
        return self._id

    def revert(self, operation_id: int | None) -> None:
        """Set the id back to what it was before a transaction that was rolled back: another command may get it now."""
        self._id = operation_id

    def record(self, connection: Connection, jobs_moved: int, verdicts: Mapping[str, int] | None = None) -> int:
        """Count ``jobs_moved`` more jobs, in the transaction that moves them; return the operation's id.

        ``verdicts`` are the counts of the whole operation so far.
        """
        written = None if verdicts is None else json.dumps(verdicts, separators=(",", ":"), sort_keys=True)
        if self._id is not None:
            counted = update(operations).where(operations.c.id == self._id)
            if self._ends:
                counted = counted.where(operations.c.ended_at.is_(None))
            values = {"jobs": operations.c.jobs + jobs_moved, **({} if written is None else {"verdicts": written})}
            if connection.execute(counted.values(values)).rowcount:
                return self._id
        # This is the first change, or the transaction that wrote the row was rolled back, or another command has ended
        # and sealed the operation, as it does with those that began a day ago.
        owners.require_safe_for_superuser(connection)
        self._ends = has_chain(connection)
        more = {"database_role": current_role(), "ci_job": ci_job()} if self._ends else {}
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
                **more,
            )
        )
        operation_id: int = inserted_id(result)
        self._id = operation_id
        return operation_id

    def record_if_possible(self, connection: Connection, jobs_moved: int) -> None:
        """Count ``jobs_moved`` more jobs if the database has a ledger; do nothing if it has none."""
        if exists(connection):
            self.record(connection, jobs_moved)


@contextmanager
def reverting(operation: Operation) -> Iterator[None]:
    """Around a transaction: if the database refuses its rows, the operation gets the id back that it had before."""
    before = operation.id
    try:
        yield
    except DatabaseError as error:
        if concerns_rows(error):
            operation.revert(before)
        raise


def exists(connection: Connection) -> bool:
    """Whether the ``jq_`` tables are there, ``jq_deaths`` included: an older set lacks columns that we need."""
    return not missing_tables(connection, [deaths.name])


def has_chain(connection: Connection) -> bool:
    """Whether operations are sealed, and have the columns for it; ``jq init`` upgrades an older ledger."""
    return not missing_tables(connection, [chain.name])


def require(connection: Connection) -> None:
    """Raise LedgerMissingError unless the ``jq_`` tables are there; a ledger without a chain will do.

    Raises RefusedError if a superuser would write to tables that an untrusted role owns.
    """
    _require_tables(connection)
    owners.require_safe_for_superuser(connection)


def _require_tables(connection: Connection) -> None:
    if not exists(connection):
        raise LedgerMissingError("the jq_ tables, which record every change, are missing or out of date; run: jq init")
    if missing := missing_tables(connection, [table.name for table in LEDGER if table is not chain]):
        raise LedgerMissingError(f"the table {missing[0]}, a part of jq's record, is missing; run: jq init")


def jobs_moved(connection: Connection, operation_id: int) -> int:
    """Return how many jobs an operation has moved so far; 0 if its first transaction was rolled back."""
    return connection.scalar(select(operations.c.jobs).where(operations.c.id == operation_id)) or 0


@dataclass(frozen=True, slots=True)
class OperationView:
    """One operation: who did what, when, why. ``restored`` is how many of its jobs an undo took back.

    ``database_role``, ``ci_job`` and ``ended_at`` are None in a ledger without a chain.
    """

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
    database_role: str | None = None
    ci_job: str | None = None
    ended_at: datetime | None = None


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
        *_later_columns(connection),
    ).order_by(operations.c.id.desc())
    if ids is not None:
        query = query.where(among(operations.c.id, ids))
    if before is not None:
        query = query.where(operations.c.id < before)
    return [OperationView(*row) for row in connection.execute(query.limit(limit))]


def _later_columns(connection: Connection) -> list[ColumnElement[Any]]:
    """Return the columns that a ledger without a chain lacks, or NULL for each."""
    columns = [operations.c.database_role, operations.c.ci_job, operations.c.ended_at]
    return [*columns] if has_chain(connection) else [null()] * len(columns)
