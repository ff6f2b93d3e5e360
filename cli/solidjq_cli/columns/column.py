"""What a column is, and the columns that print one kind of row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


T = TypeVar("T")
Inner = TypeVar("Inner")


class Column(NamedTuple, Generic[T]):
    """One field. ``title`` is its heading in a table; a field without one is left to the other outputs.

    How a table treats it where the terminal is narrow is described in ``grid``.
    """

    name: str
    value: Callable[[T], Any]
    title: str | None = None
    wide: bool = False  # gives: may be cut short on a terminal
    words: Callable[[T], Any] | None = None  # what a table shows instead of the value
    leaves: int = 0  # the order in which columns leave a narrow terminal, 1 first; 0 stays
    flows: bool = False  # sentences: never cut, broken between words
    style: Callable[[T], str | None] | None = None  # the colour of its cell; see view.styled
    extra: bool = False  # shown by -o wide alone
    least: int = 0  # cells that it keeps where it is cut; 0 for what all columns keep
    optional: bool = False  # leaves a table in which no row has it
    hosts: bool = False  # names of hosts, shown without the domain that all of them share
    counts: bool = False  # a number of jobs or the like, not an id: 4,966 for people

    @property
    def heading(self) -> str:
        """Its title, or one made of its name."""
        return self.name.replace("_", " ").upper() if self.title is None else self.title

    def displayed(self, item: T) -> Any:
        """Return what a person is shown of an item."""
        if self.words is not None:
            return self.words(item)
        value = self.value(item)
        return f"{value:,}" if self.counts and isinstance(value, int) else value


class Fields(NamedTuple, Generic[T]):
    """All fields of one kind of thing, and which ids ``-o ids`` prints for one."""

    columns: tuple[Column[T], ...]
    ids: Callable[[T], list[int]]

    def of(self, columns: Iterable[Column[T]]) -> Fields[T]:
        """Return the fields of the same kind with these columns alone."""
        return self._replace(columns=tuple(columns))

    def shown(self, *, wide: bool) -> Fields[T]:
        """Return the columns of a table; ``wide``: with those that are shown where there is room for all."""
        return self.of(column for column in self.columns if column.title is not None or (wide and column.extra))


HOW_LEAST = 24  # cells: "SIGKILL, crash 12 of 12" is never cut


def with_fields(people: Sequence[Column[T]], fields: Fields[Inner], inner: Callable[[T], Inner]) -> Fields[T]:
    """Return columns for people, and behind them the other fields of the inner item, without titles."""
    names = {column.name for column in people}

    def outer(column: Column[Inner]) -> Column[T]:
        return Column(column.name, lambda item: column.value(inner(item)), extra=column.extra)

    rest = (outer(column) for column in fields.columns if column.name not in names)
    return Fields((*people, *rest), lambda item: fields.ids(inner(item)))


def json_or_text(text: str | None) -> Any:
    """Return stored JSON as data, and any other text as it is."""
    from solidjq.untrusted import read_json

    value = read_json(text)
    return text if value is None else value
