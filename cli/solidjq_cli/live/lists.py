"""The command lines that ``jq top`` runs: for its lists, for an opened row, and for an action on the marked rows.

Pure: the keys of rows go in, words of a command line come out. A name is the value of an option (``--queue=NAME``) or
stands behind ``--``, so that one that begins with a minus is no option.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Words = tuple[str, ...]

STEP = 100  # rows that are read at first, and that one key adds
MOST = 1000  # rows that are read at most
SEARCHED = 500  # rows that are read where words choose among them
# Options that would change what is printed, or where it comes from, instead of choosing rows.
_FOREIGN = (
    *("-o", "--output", "--watch", "--fields", "--sort", "--limit", "--local", "--no-pager", "--show-arguments"),
    *("-h", "--help", "-d", "--database", "--config", "--import", "-i"),
)


@dataclass(frozen=True, slots=True)
class Opened:
    """What Enter shows: the text of a command line, or another list."""

    words: Words
    rows: str | None = None  # the name of the list whose rows it shows
    lives: bool = False  # a text that is read again and again


@dataclass(frozen=True, slots=True)
class List:
    """One list: the command line that prints it, and the command lines for its rows.

    ``key`` is the field that names a row. ``sorts`` are the values of ``--sort``, the first is the command's own order.
    """

    name: str
    words: Words
    key: str
    opens: Callable[[str], Opened]
    failed: Callable[[Sequence[str]], Words] | None = None  # what chooses the failed jobs of rows
    sorts: tuple[str, ...] = ("",)
    takes_limit: bool = False
    lives: bool = True  # bounded, so it may be read again and again


def _names(keys: Sequence[str]) -> Words:
    return tuple(keys)


def _queues(keys: Sequence[str]) -> Words:
    return tuple(f"--queue={key}" for key in keys)


LISTS = (
    List(
        "failed",
        ("failed", "list"),
        "job_id",
        lambda key: Opened(("failed", "show", key)),
        _names,
        ("", "class_name", "queue_name", "incident", "failed_at"),
        takes_limit=True,
    ),
    List("incidents", ("incidents", "list"), "incident", lambda key: Opened(("incidents", "show", key)), _names),
    # Groups are counted over all failures, which may take long: they are read when they are looked at.
    List("problems", ("failed", "diff"), "group", lambda key: Opened(("failed", "diff", key)), _names, lives=False),
    List(
        "queues",
        ("queues", "list"),
        "queue_name",
        lambda key: Opened(("jobs", "list", f"--queue={key}"), rows="jobs"),
        _queues,
        ("", "queue_name", "-ready", "oldest_ready_at", "-claimed"),
    ),
    List(
        "processes",
        ("processes", "list"),
        "process_id",
        lambda key: Opened(("jobs", "list", f"--process={key}"), rows="jobs"),
        None,
        ("", "last_heartbeat_at", "-claimed", "hostname"),
    ),
    List(
        "operations",
        ("operations", "list"),
        "operation_id",
        lambda key: Opened(("operations", "show", key), lives=True),
        None,
        ("", "-jobs", "actor", "verb"),
        takes_limit=True,
    ),
)
JOBS = List(
    "jobs",
    ("jobs", "list"),
    "job_id",
    lambda key: Opened(("jobs", "show", key)),
    None,
    ("", "class_name", "state", "enqueued_at"),
    takes_limit=True,
)
FAILED = LISTS[0]
QUEUES = LISTS[3]
OPERATIONS = LISTS[5]
BY_NAME = {each.name: each for each in (*LISTS, JOBS)}


@dataclass(frozen=True, slots=True)
class Filter:
    """What was typed after ``/``: words that rows contain, and options of the command, from the first minus on."""

    words: tuple[str, ...] = ()
    options: Words = ()

    def __str__(self) -> str:
        return shlex.join([*self.words, *self.options])

    def takes(self, text: str) -> bool:
        """Whether a row with this text contains every word, in upper or lower case."""
        folded = text.casefold()
        return all(word.casefold() in folded for word in self.words)


def parse_filter(text: str) -> Filter:
    """Return the filter that a text means. Raises ValueError with a sentence about what cannot be used."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise ValueError("a quotation mark has no second one") from None
    start = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    for word in words[start:]:
        name = word.partition("=")[0]
        if name in {*_FOREIGN, "-"} or word[:2] in _FOREIGN:
            raise ValueError(f"{name} chooses no rows; a filter takes options such as --class or --since")
    return Filter(tuple(words[:start]), tuple(words[start:]))


@dataclass(frozen=True, slots=True)
class Shown:
    """A list as it is shown now."""

    of: List
    names: Words = ()  # that choose its rows, such as d17 for its failed jobs
    filter: Filter = field(default_factory=Filter)
    sort: int = 0  # of ``List.sorts``
    limit: int = STEP

    @property
    def words(self) -> Words:
        """The command line that reads it."""
        limit = max(self.limit, SEARCHED) if self.filter.words else self.limit
        limited = self.of.takes_limit and limit != STEP
        sort = self.of.sorts[self.sort]
        return (
            *self.of.words,
            *self.names,
            *self.filter.options,
            *((f"--sort={sort}",) if sort else ()),
            *((f"--limit={limit}",) if limited else ()),
        )

    def sorted_next(self) -> Shown:
        """Return it in the next order."""
        return replace(self, sort=(self.sort + 1) % len(self.of.sorts))

    def with_more(self) -> Shown:
        """Return it with more rows."""
        return replace(self, limit=min(self.limit + STEP, MOST)) if self.of.takes_limit else self

    def opened(self, key: str) -> Opened:
        """Return what a row opens."""
        return self.of.opens(key)

    def failed_jobs(self, key: str) -> Shown | None:
        """Return the list of the failed jobs of a row; None if its rows have none."""
        if self.of.failed is None or self.of is FAILED:
            return None
        return Shown(FAILED, self.of.failed([key]))


def show_list(opened: Opened) -> Shown:
    """Return the list that a row opens."""
    of = BY_NAME[opened.rows or ""]
    return Shown(of, opened.words[len(of.words) :])


# -- what is done -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Action:
    """A command line that changes the queue. ``question``: what is asked before, where the command asks nothing."""

    words: Words
    takes_reason: bool = True
    question: str | None = None

    def because(self, reason: str) -> Action:
        """Return it with a reason for the record."""
        return replace(self, words=(*self.words, f"--reason={reason}")) if reason else self


def retry(of: List, keys: Sequence[str]) -> Action | None:
    """Return the retry of the failed jobs of these rows; None if rows of this list have none."""
    return None if of.failed is None or not keys else Action(("retry", "--safe", *of.failed(keys)))


def undo(operation: str | int) -> Action:
    """Return what takes an operation back."""
    return Action(("undo", str(operation)))


def switch(verb: str, queues: Sequence[str]) -> Action | None:
    """Return what lets workers claim jobs of these queues no longer, ``pause``, or again, ``resume``."""
    if not queues:
        return None
    return Action(("queues", verb, "--", *queues), takes_reason=False, question=f"{verb} {', '.join(queues)}?")
