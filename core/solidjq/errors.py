"""Every error that this package raises on purpose. The message says what happened and what to do next."""


class SolidJQError(Exception):
    """The root: its text is one line, made for the operator."""


class UsageError(SolidJQError):
    """What was asked for cannot be meant: a malformed URL, time or filter."""


class DatabaseError(SolidJQError):
    """The database cannot be used."""


class DatabaseUnreachableError(DatabaseError):
    """No connection, or it broke. Trying again later may help."""


class MissingDriverError(DatabaseError):
    """The Python package that speaks to this kind of database is not installed."""


class NotAQueueError(DatabaseError):
    """The database answers but holds no Solid Queue tables."""


class AccessDeniedError(DatabaseError):
    """The database user lacks a right, or the database is read-only."""


class LedgerMissingError(DatabaseError):
    """The jq_ tables that this needs are not there yet."""


class ConflictError(DatabaseError):
    """A deadlock or a busy database; nothing was changed, and the same move may be tried again."""


class TookTooLongError(DatabaseError):
    """A statement ran into its time limit."""


class NoSuchJobError(SolidJQError):
    """No job has this id."""


class RefusedError(SolidJQError):
    """It would not be safe."""


class ProcessGoneError(SolidJQError):
    """This process's own row is gone: somebody pruned it, and its claims are no longer its own."""


class ArgumentsError(SolidJQError):
    """A job's arguments cannot be written as, or read from, Active Job's JSON."""


class UnknownJobError(SolidJQError):
    """A row names a job class that nobody registered here."""


class DuplicateJobError(SolidJQError):
    """Two functions were registered under one name."""


class JobImportError(SolidJQError):
    """A module named with --import cannot be imported."""
