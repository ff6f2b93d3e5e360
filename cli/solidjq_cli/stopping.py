"""A bulk command that ends half-way: by a signal, a closed pipe, a lost connection or a full disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

import typer

from solidjq_cli.exits import Exit, Stopped, drop_output
from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from solidjq import Database
    from solidjq.ledger.operations import Operation

AGAIN = "to go on with the rest, run the same command again"


Words = Callable[[], "str | None"]  # what was done until now, in words; None if nothing was


@dataclass(frozen=True, slots=True)
class Account:
    """How many jobs a command has moved. ``done`` writes a number of jobs in words: ``retried 7 jobs``.

    If the command records an operation, its row is read: each batch was committed with it. Else, or if the database
    cannot be reached any more, ``counted`` returns how many the command itself has counted.
    """

    database: Database
    operation: Operation | None
    done: Callable[[int], str]
    counted: Callable[[], int]

    def __call__(self) -> str | None:
        """Return what was done until now, in words; None if nothing was."""
        from solidjq.errors import DatabaseError  # noqa: PLC0415
        from solidjq.ledger import operations  # noqa: PLC0415

        number = None if self.operation is None else self.operation.id
        if number is None:
            return self.done(self.counted()) if self.counted() else None
        self.database.close()  # its connection may be broken
        try:
            with self.database.read() as connection:
                moved = operations.jobs_moved(connection, number)
        except DatabaseError:
            return f"{self.done(self.counted())} or more under operation {number}"
        return f"{self.done(moved)} under operation {number}" if moved else None


@contextmanager
def accounted(words: Words) -> Iterator[None]:
    """If the block ends early, say what was done, such as an ``Account`` does, and how to go on.

    Ctrl-C and other signals end with INTERRUPTED, a closed standard output with PARTLY; an error stays what it is, and
    its message says it. A command that ends early may simply be run again: each batch was committed or rolled back.
    """
    from solidjq.errors import DatabaseError, SolidJQError  # noqa: PLC0415

    try:
        yield
    except Stopped as stopped:
        _leave(f"stopped by {stopped}", words, Exit.INTERRUPTED)
    except KeyboardInterrupt:
        _leave("interrupted", words, Exit.INTERRUPTED)
    except BrokenPipeError:
        drop_output()
        _leave("standard output was closed", words, Exit.PARTLY)
    except SolidJQError as error:
        if (done := words()) is None:
            raise
        again = f"; {AGAIN}" if isinstance(error, DatabaseError) else ""
        raise type(error)(f"{error}; before that, it {done}{again}") from error
    except (typer.Exit, typer.Abort):
        raise
    except Exception:
        if (done := words()) is not None:
            note(f"it {done}; {AGAIN}")
        raise


@contextmanager
def printed_after(done: str) -> Iterator[None]:
    """Print what was ``done`` before; if nobody reads it, go on, and if it cannot be printed, say it on stderr."""
    try:
        yield
    except BrokenPipeError:
        drop_output()
    except BaseException:
        note(f"it {done}")
        raise


def _leave(why: str, words: Words, code: Exit) -> Never:
    done = words()
    note(f"{why}; nothing was changed" if done is None else f"{why}; {done}; {AGAIN}")
    raise typer.Exit(code) from None
