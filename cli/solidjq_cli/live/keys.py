"""The keys of ``jq top``: what each does, where it counts, and the line that names them."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from solidjq_cli.flow import GAP, cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Place(Enum):
    """Where a key counts."""

    EVERYWHERE = auto()
    LIST = auto()
    TEXT = auto()  # in a detail, too


class Key(NamedTuple):
    """A key: its names in Textual, as it is written, its action, a word for the last line, and what it does."""

    names: str
    shown: str
    action: str
    word: str
    meaning: str
    place: Place = Place.LIST
    changes: bool = False  # the queue; not with --read-only


KEYS = (
    Key("enter", "enter", "", "show", "show the row: the job, incident, operation, or the jobs of the queue"),
    Key("r", "r", "retry", "retry", "retry --safe: shows the plan, and asks", Place.TEXT, changes=True),
    Key("slash", "/", "filter", "filter", "choose rows: words that they contain, then options such as --class 'A*'"),
    Key("u", "u", "undo", "undo", "take the operation back, or the last one made here; asks", Place.TEXT, changes=True),
    Key("escape,backspace", "esc", "go_back", "back", "go back; end a filter", Place.TEXT),
    Key("s", "s", "sort", "sort", "sort by the next field"),
    Key("space", "space", "mark", "mark", "mark the row, or no longer: r and x are for all that are marked"),
    Key("a", "a", "mark_all", "mark all", "mark every row that is shown, or none"),
    Key("x", "x", "switch('pause')", "pause queue", "pause the queues; asks", changes=True),
    Key("X", "X", "switch('resume')", "resume", "resume the queues; asks", changes=True),
    Key("f", "f", "failed", "failed jobs", "list the failed jobs of the incident, problem or queue"),
    Key("tab", "tab", "next_list(1)", "next list", "go to the next list"),
    Key("shift+tab", "shift+tab", "next_list(-1)", "", "go to the list before"),
    Key("", "1-6", "", "lists", "go to a list"),
    Key("0", "0", "status", "status", "show the whole status"),
    Key("plus,equals_sign", "+", "more", "more", "read 100 rows more"),
    Key("p", "p", "freeze", "freeze", "freeze the screen; once more: go on", Place.TEXT),
    Key("g", "g", "again", "read again", "read again at once", Place.TEXT),
    Key("question_mark", "?", "keys", "keys", "show these keys", Place.TEXT),
    Key("q", "q", "leave", "quit", "end; a move that is under way first ends its batch", Place.EVERYWHERE),
    Key("ctrl+c", "ctrl+c", "interrupt", "", "end, with exit code 130", Place.EVERYWHERE),
)
# On the last line: the first ones, as far as there is room; and always these.
_ALWAYS = ("?", "q")


def in_force(*, read_only: bool) -> list[Key]:
    """Return the keys that do something; with ``read_only`` none that changes the queue."""
    return [key for key in KEYS if not (read_only and key.changes)]


def line(keys: Iterable[Key], width: int) -> str:
    """Return the last line: as many keys as it has room for, always those for help and to leave."""
    hints = [(key.shown in _ALWAYS, f"{key.shown} {key.word}") for key in keys if key.word]
    always_shown = [text for always, text in hints if always]
    room = width - sum(cells(text) + GAP for text in always_shown) + GAP
    shown: list[str] = []
    for always, text in hints:
        if always:
            shown.append(text)
        elif cells(text) + GAP <= room:
            shown.append(text)
            room -= cells(text) + GAP
        else:
            room = 0
    return (" " * GAP).join(shown)


def table(keys: Sequence[Key]) -> list[tuple[str, str]]:
    """Return every key with what it does, for the list of keys."""
    return [(key.shown, key.meaning) for key in keys]
