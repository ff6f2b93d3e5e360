"""Every error that this package raises on purpose. A message says what happened and what to do next, in one line.

The command line turns each type into an exit code (``solidjq_cli/exits.py``).
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import ClassVar, NamedTuple

from solidjq.text import first_of, plural_of

MOST_NAMED = 20  # jobs in the message of an error


class Scope(Enum):
    """What an error of the database is about, and so what may be tried after it."""

    ROWS = auto()  # perhaps a few rows, by a trigger say: the same move without them may succeed
    MOMENT = auto()  # a lock or a time limit: other rows may be free, but each attempt may wait as long again
    ALL = auto()  # the server, the session or the whole table: each row would meet it


class SolidJQError(Exception):
    """The root of all errors here; its text is one line, written for the operator."""


class UsageError(SolidJQError):
    """The request makes no sense: a malformed URL, time, filter or settings file."""


class DatabaseURLError(UsageError):
    """A database's URL makes no sense. Who knows where it was written adds that to the message."""


class DatabaseError(SolidJQError):
    """The database cannot be used, or refuses something; the root of all errors that come from it."""

    scope: ClassVar[Scope] = Scope.ROWS


class DatabaseUnreachableError(DatabaseError):
    """There is no connection, or it broke. Trying again later may help."""

    scope = Scope.ALL


class MissingDriverError(DatabaseError):
    """The Python driver for this kind of database is not installed."""

    scope = Scope.ALL


class NotAQueueError(DatabaseError):
    """The database answers, but has no Solid Queue tables."""

    scope = Scope.ALL


class AccessDeniedError(DatabaseError):
    """The database user lacks a privilege, or the database is read-only."""

    scope = Scope.ALL


class LedgerMissingError(DatabaseError):
    """The ``jq_`` tables that this operation needs are missing or out of date; ``jq init`` makes them."""

    scope = Scope.ALL


class ConflictError(DatabaseError):
    """A deadlock or a busy database: the transaction was rolled back, and the same move may be tried again."""

    scope = Scope.ALL


class BusyError(ConflictError):
    """Another connection wrote to an SQLite file for as long as a writer waits, so this transaction did not begin."""


class LockedError(ConflictError):
    """A row or a table was locked by another transaction, so this one was rolled back."""

    scope = Scope.MOMENT


class ServerSettingError(DatabaseError):
    """A setting of the server, or of a pooler before it, forbids all that is to be written."""

    scope = Scope.ALL


class OutOfResourcesError(DatabaseError):
    """The server has no room left: its disk, its memory, its table of locks or this user's quota is used up."""

    scope = Scope.ALL


class StorageError(DatabaseError):
    """The server cannot read or write its files."""

    scope = Scope.ALL


class TookTooLongError(DatabaseError):
    """A statement reached its time limit and was cancelled."""

    scope = Scope.MOMENT


class ValueRefusedError(DatabaseError):
    """The database cannot store a value of the statement. Trying the same again cannot help."""


class Stays(NamedTuple):
    """What becomes of rows that are refused, in words: ``noun`` names what they are about."""

    one: str  # stays claimed
    several: str  # stay claimed
    noun: str = "job"


STAYS_CLAIMED = Stays("stays claimed", "stay claimed")


class RowsRefusedError(DatabaseError):
    """The database refuses to change a few rows, by a trigger say. All others were changed; these stay as they were.

    ``names`` are the ids of their jobs, or what else the noun of ``stays`` says.
    """

    def __init__(self, reason: str, names: Sequence[int | str | None] = (), stays: Stays = STAYS_CLAIMED) -> None:
        one = len(names) == 1
        nouns, stay = (stays.noun, stays.one) if one else (plural_of(stays.noun), stays.several)
        super().__init__(f"{nouns} {first_of(names, MOST_NAMED)} {stay}: {reason}" if names else reason)
        self.reason = reason
        self.names = names
        self.stays = stays


class NoSuchJobError(SolidJQError):
    """No job, group of failures, incident or operation has this id."""


class RefusedError(SolidJQError):
    """The operation was refused because it would not be safe."""


class ProcessGoneError(SolidJQError):
    """This process's own row is gone: it was pruned, and its claims no longer belong to it."""


class Stopping(SolidJQError):  # noqa: N818  (not a failure)
    """A job raises it when it stops early because ``current_job().should_stop()``: the job goes back to its queue."""


class Cancelled(SolidJQError):  # noqa: N818  (not a failure)
    """An operator asked the running job to stop (``jq jobs stop``): it ends as failed, and is not retried by itself."""


class ClaimLostError(SolidJQError):
    """The running job's claim is gone: its worker was taken for dead, and the job may run elsewhere. Stop at once."""


class StepError(SolidJQError):
    """A job's steps do not fit the progress that was recorded, or a cursor is no position that can be recorded."""


class ArgumentsError(SolidJQError):
    """A job's arguments cannot be written as Active Job's JSON, or read from it."""


class UnknownJobError(SolidJQError):
    """A row names a job class that is not registered with ``@job`` in this process."""


class DuplicateJobError(SolidJQError):
    """Two functions were registered under one name."""


class JobImportError(SolidJQError):
    """A module named with --import cannot be imported."""


def concerns_all(error: Exception) -> bool:
    """Whether an error would meet every other row as well, so that trying each alone is of no use."""
    return isinstance(error, DatabaseError) and error.scope is Scope.ALL


def concerns_rows(error: DatabaseError) -> bool:
    """Whether an error may be about a few rows of a transaction, so that the same move without them may succeed."""
    return error.scope is Scope.ROWS
