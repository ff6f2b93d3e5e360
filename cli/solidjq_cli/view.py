"""How the output of this command line is shown: its options, the terminal's width, and colours."""

from __future__ import annotations

import os
import shutil
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

HEIGHT = 24  # lines of a terminal that reports no size


class Output(StrEnum):
    """The formats of ``-o``."""

    TABLE = "table"
    WIDE = "wide"  # a command gets TABLE for it, and ``View.wide`` is set
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    MARKDOWN = "markdown"  # a table for a ticket, with the columns of a table
    IDS = "ids"


class Host(NamedTuple):
    """What stands in for the terminal of a command line that ``jq top`` runs within itself.

    Its functions are called in the thread that runs the command. ``moved`` may raise KeyboardInterrupt, which ends the
    command between two batches, as Ctrl-C does on a terminal.
    """

    words: tuple[str, ...]  # the command line without the program's name, as it is recorded and offered again
    width: int
    height: int
    ask: Callable[
        [str, str | None], bool
    ]  # a question, and the name that must be typed for a yes; None for a plain yes
    say: Callable[[str], None]  # a line that is for stderr on a terminal
    moved: Callable[[int, int | None], None]  # how many jobs were decided on, of how many; None if that is not known
    headed: bool = False  # the database is named on its screen already
    key: str = ""  # the field that is the key of each row of its table


@dataclass(slots=True, eq=False, repr=False)
class View:
    """The output options of one command line."""

    typed: bool = False  # the table was asked for, so it is drawn in a pipe, too
    wide: bool = False  # with every field, and nothing cut
    fields: tuple[str, ...] = ()  # only these, in this order
    sort: str | None = None  # the field to sort by; descending with a minus before it
    local: bool = False  # clock times of this zone instead of ages
    paged: bool = True  # what is longer than the terminal goes through a pager
    show_arguments: bool = False  # also the values that are masked
    watch: bool = False  # the screen is drawn again and again
    csv_raw: bool = False  # cells of CSV stay as they are, also those that a spreadsheet would run as a formula
    host: Host | None = None  # the program within which the command runs; None on a terminal or in a pipe


_view: ContextVar[View] = ContextVar("view")


def begin(*, csv_raw: bool = False, paged: bool = True, host: Host | None = None) -> None:
    """Begin the view of a command line; the root of the command tree calls it before the command."""
    _view.set(View(csv_raw=csv_raw, paged=paged, host=host))


def current() -> View:
    """Return the view of the command that runs."""
    view = _view.get(None)
    if view is None:
        _view.set(view := View())
    return view


def drawn(output: Output) -> bool:
    """Whether a screen for people is drawn: on a terminal, and wherever ``-o table`` or ``-o wide`` was typed.

    False for the formats of scripts, for the default in a pipe, which is lines of tab-separated values, and where
    ``--fields`` chooses what is shown: ``records`` and ``details`` serve them all.
    """
    return output is Output.TABLE and not current().fields and for_people()


def ids_suffice(output: Output) -> bool:
    """Whether nothing but the ids of a list is needed: ``-o ids``, unless another field sorts it."""
    return output is Output.IDS and current().sort is None and not current().fields


def host() -> Host | None:
    """Return the program within which the command runs; None on a terminal or in a pipe."""
    return current().host


def on_terminal() -> bool:
    """Whether the answer is drawn on a terminal, the command's own or that of the program within which it runs."""
    return current().host is not None or sys.stdout.isatty()


def for_people() -> bool:
    """Whether what is printed is for people, so that it has headings, ages and last lines."""
    return on_terminal() or current().typed


def masked(text: str) -> str:
    """Mask the passwords in a text that is printed; with ``--show-arguments`` they are shown."""
    from solidjq.text import mask_secrets  # noqa: PLC0415

    return text if current().show_arguments else mask_secrets(text)


def width() -> int | None:
    """Return the columns of the terminal; None off a terminal, where nothing is cut or broken."""
    if (within := current().host) is not None:
        return within.width
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def height() -> int:
    """Return the lines of the terminal."""
    if (within := current().host) is not None:
        return within.height
    return shutil.get_terminal_size((80, HEIGHT)).lines


_CODES = {"bold": "1", "faint": "2", "error": "31", "warning": "33", "good": "32"}


def styled(text: str, style: str) -> str:
    """Colour a text on a terminal that shows colours: ``error``, ``warning``, ``good``, ``faint`` or ``bold``.

    A colour never says what no word says: NO_COLOR and dumb terminals have none.
    """
    if not text.strip() or style not in _CODES or not on_terminal():
        return text
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"
