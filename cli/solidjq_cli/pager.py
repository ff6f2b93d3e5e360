"""Where text for people goes: to the terminal, and through a pager if it is longer than the screen."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from solidjq_cli import view

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

LESS = "FRX"  # ends by itself where all fits, shows colours, leaves the text on the terminal
NONE = {"", "cat"}


class Page:
    """What a command prints for people, held back until it is longer than the terminal, or complete."""

    def __init__(self) -> None:
        self._lines: list[str] | None = []  # None once they were printed
        self._pager: subprocess.Popen[str] | None = None
        self._after: list[str] = []

    def write(self, line: str) -> None:
        """Print a line. Raises BrokenPipeError if the pager was left."""
        if self._lines is not None:
            self._lines.append(line)
            if len(self._lines) < view.height():
                return
            self._pager = _start()
            lines, self._lines = self._lines, None
            for kept_line in lines:
                self.write(kept_line)
            return
        out = sys.stdout if self._pager is None else self._pager.stdin
        if out is not None:
            out.write(f"{line}\n")

    def note(self, text: str) -> None:
        """Say this on stderr when the page is complete: beside a pager, it would be lost."""
        self._after.append(text)

    def close(self) -> None:
        """Print what is held back, or wait until the pager is left; then say what was to be said."""
        from solidjq_cli.exits import say  # noqa: PLC0415

        if self._lines:
            sys.stdout.writelines(f"{line}\n" for line in self._lines)
        sys.stdout.flush()
        if self._pager is not None:
            _wait(self._pager)
        for text in self._after:
            say(text)


class Row(NamedTuple):
    """The lines of a table's row, and its key."""

    key: str
    lines: tuple[str, ...]


class Captured(Page):
    """What a command prints for people, kept in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []  # all
        self.rows: dict[int, Row] = {}  # the rows of its tables, each by the place of its first line
        self.hints: set[int] = set()  # the places of the lines that name the next commands

    def write(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)

    def row(self, row: Row) -> None:
        """Keep a row of a table."""
        self.rows[len(self.lines)] = row
        self.lines.extend(row.lines)

    def hint(self, line: str) -> None:
        """Keep a line that names the next commands."""
        self.hints.add(len(self.lines))
        self.lines.append(line)

    def note(self, text: str) -> None:
        """Keep a note for stderr, below the other lines."""
        from solidjq_cli.exits import line_of  # noqa: PLC0415

        self.lines.append(line_of(text))


@contextmanager
def captured() -> Iterator[Captured]:
    """Keep what is printed for people within the block, instead of printing it."""
    capture = Captured()
    token = _page.set(capture)
    try:
        yield capture
    finally:
        _page.reset(token)


def _start() -> subprocess.Popen[str] | None:
    command = os.environ.get("PAGER", "less").strip()
    if command in NONE:
        return None
    import subprocess  # noqa: PLC0415  (only where there is a page)

    environment = {"LESS": LESS, **os.environ}
    with suppress(OSError, ValueError):  # no such pager: print without one
        return subprocess.Popen(  # noqa: S603  (the user's own choice)
            shlex.split(command), stdin=subprocess.PIPE, text=True, env=environment
        )
    return None


def _wait(pager: subprocess.Popen[str]) -> None:
    """Let the pager go on until its user leaves it; Ctrl-C is the pager's."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with suppress(BrokenPipeError):
            if pager.stdin is not None:
                pager.stdin.close()
        pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)


_page: ContextVar[Page | None] = ContextVar("page", default=None)


@contextmanager
def page() -> Iterator[None]:
    """Let all that is printed within be one page; within another page it is part of that one.

    Only on a terminal; ``--no-pager``, ``PAGER=cat`` and ``--watch`` print without one. Leaving the pager ends what
    still prints, without a word.
    """
    pages = sys.stdout.isatty() and view.current().paged and not view.current().watch
    if _page.get() is not None or not pages or os.environ.get("PAGER", "less").strip() in NONE:
        yield
        return
    opened = Page()
    token = _page.set(opened)
    try:
        yield
    except BrokenPipeError:
        pass
    finally:
        _page.reset(token)
        opened.close()


def write(line: str) -> None:
    """Print a line for people."""
    opened = _page.get()
    if opened is None:
        sys.stdout.write(f"{line}\n")
    else:
        opened.write(line)


def write_row(row: Row) -> None:
    """Print a row of a table."""
    opened = _page.get()
    if isinstance(opened, Captured):
        opened.row(row)
    else:
        for line in row.lines:
            write(line)


def write_hint(line: str) -> None:
    """Print a line that names the next commands."""
    opened = _page.get()
    if isinstance(opened, Captured):
        opened.hint(line)
    else:
        write(line)


def note(text: str) -> None:
    """Say this on stderr, at the end of the page if there is one."""
    from solidjq_cli.exits import say  # noqa: PLC0415

    opened = _page.get()
    if opened is None:
        say(text)
    else:
        opened.note(text)
