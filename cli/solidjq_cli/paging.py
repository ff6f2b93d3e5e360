"""What the pages of a long list say: in which order they are, how many more there are, and how to see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from solidjq_cli import view
from solidjq_cli.arguments import typed_with
from solidjq_cli.render import next_commands, note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


class Page(Generic[T]):
    """The items of a page, at most ``limit``; then how many are older than its last one.

    It yields the items once. ``last`` is the last that was yielded, None before the first. ``count_older`` returns how
    many are older than an item, None if that takes too long to count.
    """

    def __init__(self, items: Iterable[T], limit: int | None, count_older: Callable[[T], int | None]) -> None:
        self.last: T | None = None
        self._items = items
        self._limit = limit
        self._count_older = count_older
        self._older: dict[int, int | None] = {}  # by how many items had been shown when it was counted

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            self.last = item
            yield item

    def end(self, shown: int) -> T | None:
        """Return the last of ``shown`` items if the page is full, so that others may be older; else None."""
        return self.last if shown == self._limit else None

    def count_with_heading(self, shown: int, older: int | None) -> None:
        """Note how many are older than the last of ``shown`` items, which the counts of the heading included."""
        self._older[shown] = older

    def older(self, shown: int) -> int | None:
        """Return how many are older than the last of ``shown`` items; None if that takes too long to count."""
        if (last := self.end(shown)) is None:
            return 0
        if shown not in self._older:  # no heading, or it was printed before the last item was read
            self._older[shown] = self._count_older(last)
        return self._older[shown]


def order() -> str:
    """Return in which order a page is: a typed ``--sort`` sorts the page, not all that there is."""
    field = view.current().sort
    return "newest first" if field is None else f"the newest, sorted by {field.removeprefix('-')}"


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
