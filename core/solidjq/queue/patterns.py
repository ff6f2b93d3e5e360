"""Patterns of names: ``mail*`` is every name that begins with ``mail``; without a star, a name fits only itself."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement

from solidjq.database.functions import begins, equals
from solidjq.errors import UsageError

ALL_QUEUES = ("*",)


def fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def fits_in_sql(pattern: str, column: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that the name in a column fits a pattern: to the letter on every database, as ``fits``."""
    return begins(column, pattern[:-1]) if pattern.endswith("*") else equals(column, pattern)


class PolledQueues(NamedTuple):
    """The queues that a worker polls: those that fit a pattern, without those that fit an excepted one."""

    patterns: Sequence[str] = ALL_QUEUES
    excepted: Sequence[str] = ()

    def takes(self, queue: str) -> bool:
        """Whether the worker claims jobs of this queue."""
        return fits_any(self.patterns, queue) and not fits_any(self.excepted, queue)

    @property
    def by_first_job(self) -> bool:
        """Whether the queues that fit one pattern take turns by their first jobs; else they come by name.

        A worker of all queues polls them one by one only while one is excepted or paused: no other may starve for it.
        """
        return "*" in self.patterns or bool(self.excepted)

    def describe(self) -> str:
        """Return the queues in words: ``mail*,low except mailers``."""
        polled = ",".join(self.patterns)
        return f"{polled} except {','.join(self.excepted)}" if self.excepted else polled


def fits_any(patterns: Iterable[str], name: str) -> bool:
    """Whether a name fits one of the patterns."""
    return any(fits(pattern, name) for pattern in patterns)


def select_queues(patterns: Sequence[str], existing: Collection[str], excepted: Sequence[str] = ()) -> list[str]:
    """Return queue names in the order of the patterns; a name that fits two patterns stands where the first does.

    A pattern without a star is a name, whether or not it is among those that exist. Names that fit an ``excepted``
    pattern are left out.
    """
    names: dict[str, None] = {}
    for pattern in patterns:
        wild = pattern.endswith("*")
        names.update(dict.fromkeys([name for name in existing if fits(pattern, name)] if wild else [pattern]))
    return [name for name in names if not fits_any(excepted, name)]


def parse_queues(text: str) -> tuple[str, ...]:
    """Read ``mailers,report*`` as an operator writes it; nothing is all queues.

    Raises UsageError for a star that is not at the end.
    """
    return parse_patterns(text) or ALL_QUEUES


def parse_patterns(text: str) -> tuple[str, ...]:
    """Read ``mailers,report*`` as an operator writes it; nothing is no pattern.

    Raises UsageError for a star that is not at the end.
    """
    patterns = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for pattern in patterns:
        if "*" in pattern[:-1]:
            raise UsageError(f"a star can only end a queue's name, as in 'mail*'; got {pattern!r}")
    return patterns
