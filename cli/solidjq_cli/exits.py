"""The one ladder from what went wrong to an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from enum import IntEnum

from solidjq_cli import view
from solidjq_cli.arguments import by_own_name, program_name
from solidjq_cli.flow import wrap

MOST_CHARACTERS = 10_000  # of a line on stderr
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # what a full or broken disk says to a write


class Exit(IntEnum):
    """Every exit code of ``jq``; ``MEANINGS`` says what each means, in ``--help``, the README and the docs."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    DATABASE = 3
    NO_SUCH_JOB = 4
    REFUSED = 5
    PARTLY = 6
    INTERRUPTED = 130
    UNREAD = 141


MEANINGS = {
    Exit.DONE: "done, or nothing to do",
    Exit.UNEXPECTED: "unexpected error",
    Exit.USAGE: "wrong usage",
    Exit.DATABASE: "the database cannot be reached, is not a queue, or refuses",
    Exit.NO_SUCH_JOB: "no such job, incident, group, operation or queue",
    Exit.REFUSED: "refused for safety, a stale plan, or a broken record",
    Exit.PARTLY: "done in part: some jobs were held back, left alone, or died again; doctor: something was found",
    Exit.INTERRUPTED: "interrupted: by Ctrl-C, SIGTERM, or a terminal that was closed",
    Exit.UNREAD: "the reader of the output has left, as head does; what SIGPIPE gives in other programs",
}


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived; the text names it. Like Ctrl-C, it ends a statement that is under way."""


def raise_when_stopped() -> None:
    """Let SIGTERM, and the end of the terminal, end this program as Ctrl-C does; a second SIGTERM ends it at once.

    So files that are half written are removed, and a bulk command can say how far it came. What nohup started goes on.
    """

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, stop)


def report(error: Exception, url_source: str | None = None) -> Exit:
    """Print in one line what went wrong; return the exit code for it.

    ``url_source`` is where the database's URL was written, for an error about the URL.
    """
    from solidjq import errors  # noqa: PLC0415  (not before something went wrong: --help stays fast)

    if os.environ.get("JQ_DEBUG"):
        raise error
    if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE:
        say(f"the output cannot be written: {error.strerror}")
        return Exit.UNEXPECTED
    if not isinstance(error, errors.SolidJQError):
        say(f"unexpected error: {type(error).__name__}: {error}; set JQ_DEBUG=1 to see where")
        return Exit.UNEXPECTED
    place = f"{url_source}: " if url_source and isinstance(error, errors.DatabaseURLError) else ""
    say(f"{place}{error}")
    ladder: tuple[tuple[type[errors.SolidJQError], Exit], ...] = (
        (errors.RowsRefusedError, Exit.PARTLY),
        (errors.DatabaseError, Exit.DATABASE),
        (errors.NoSuchJobError, Exit.NO_SUCH_JOB),
        (errors.RefusedError, Exit.REFUSED),
        (errors.UsageError, Exit.USAGE),
        (errors.ArgumentsError, Exit.USAGE),
        (errors.JobImportError, Exit.USAGE),
        (errors.UnknownJobError, Exit.USAGE),
        (errors.DuplicateJobError, Exit.USAGE),
    )
    return next((code for kind, code in ladder if isinstance(error, kind)), Exit.UNEXPECTED)


def drop_output() -> None:
    """Discard all further output to standard output: it has no reader any more, or cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != 1:  # as it is where 1 was closed
        os.dup2(nowhere, 1)
        os.close(nowhere)


def say(text: str) -> None:
    """Print a line on stderr, with secrets masked and control characters escaped; a terminal gets it between words."""
    line = line_of(text)
    if (host := view.host()) is not None:
        host.say(line)
        return
    with suppress(OSError):  # not a terminal
        line = "\n".join(wrap(line, os.get_terminal_size(sys.stderr.fileno()).columns, rest="    "))
    with suppress(OSError):  # nobody reads it any more: a closed pipe or terminal
        print(line, file=sys.stderr)  # noqa: T201  (the one writer to stderr)


def line_of(text: str) -> str:
    """Return the line that ``say`` prints."""
    from solidjq.text import cut_words, mask_secrets, one_line  # noqa: PLC0415

    line = cut_words(mask_secrets(one_line(text)))
    if len(line) > MOST_CHARACTERS:
        line = f"{line[:MOST_CHARACTERS]}... ({len(line):,} characters)"
    return f"{program_name()}: {by_own_name(line)}"
