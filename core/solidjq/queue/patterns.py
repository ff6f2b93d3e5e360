"""Patterns of names: ``mail*`` is every name that begins with ``mail``; without a star, a name fits only itself."""

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement

from solidjq.errors import UsageError

ALL_QUEUES = ("*",)


def fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def fits_in_sql(pattern: str, column: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that the name in a column fits a pattern."""
    return column.startswith(pattern[:-1], autoescape=True) if pattern.endswith("*") else column == pattern


def select_queues(patterns: Sequence[str], existing: Iterable[str]) -> list[str]:
    """Return queue names in the order of the patterns; a name that fits two patterns stands where the first does.

    A pattern without a star is a name, whether or not it is among those that exist.
    """
    names: dict[str, None] = {}
    for pattern in patterns:
        wild = pattern.endswith("*")
        names.update(dict.fromkeys([name for name in existing if fits(pattern, name)] if wild else [pattern]))
    return list(names)


def parse_queues(text: str) -> tuple[str, ...]:
    """Read ``mailers,report*`` as an operator writes it; nothing is all queues.

    Raises UsageError for a star that is not at the end.
    """
    patterns = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for pattern in patterns:
        if "*" in pattern[:-1]:
            raise UsageError(f"a star can only end a queue's name, as in 'mail*'; got {pattern!r}")
    return patterns or ALL_QUEUES
