"""A command on a terminal of any width, in the test's own process."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from support.commands import run

PAGER = "cat"  # no pager


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Terminal:
    """A terminal of so many columns and lines; what is printed on it is plain text."""

    monkeypatch: pytest.MonkeyPatch
    width: int = 80
    height: int = 24
    code: int = 0

    def show(self, arguments: Sequence[str], *, width: int | None = None, colours: bool = False) -> str:
        """Run a command and return what the terminal shows; stderr is left alone."""
        out = _Terminal()
        with self.monkeypatch.context() as patch:
            patch.setattr("sys.stdout", out)
            patch.setenv("COLUMNS", str(width or self.width))
            patch.setenv("LINES", str(self.height))
            patch.setenv("TERM", "xterm-256color")
            patch.setenv("PAGER", PAGER)
            self.code = run(list(arguments))
        shown = out.getvalue()
        return shown if colours else re.sub(r"\x1b\[[0-9;]*m", "", shown)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Show commands as a terminal of 80 by 24 does."""
    return Terminal(monkeypatch)
