"""What the pages of a long list say: in which order they are, how many more there are, and how to see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from solidjq_cli import view
from solidjq_cli.arguments import typed_with
from solidjq_cli.render import next_commands, note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


class Remembering(Generic[T]):
    """Yields items once, and has the ``last`` that was yielded; None before the first."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self.last: T | None = None

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            self.last = item
            yield item


def order() -> str:
    """Return in which order a page is: a typed ``--sort`` sorts the page, not all that there is."""
    wanted = view.current().sort
    return "newest first" if wanted is None else f"the newest, sorted by {wanted.removeprefix('-')}"


def show_next(last: int, older: int | None, *commands: str) -> None:
    """Print the last line of a table: how many are older than the item ``last``, and the commands that come next.

    ``older`` is None if that takes too long to count.
    """
    if older == 0:
        next_commands(*commands)
    else:
        lead = "more" if older is None else f"{older:,} older"
        next_commands(typed_with("--page-after", str(last)), *commands, lead=lead)


def note_next(last: int, older: int | None) -> None:
    """Say beside the answer for a script that there are more, if there are."""
    if older != 0:
        left = "there may be more" if older is None else f"{older:,} more"
        note(f"{left}; the next page: --page-after {last}")
