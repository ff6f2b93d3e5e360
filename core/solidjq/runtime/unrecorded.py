"""Endings that are not committed yet. None is ever given up: each stays here until the database has recorded it."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from solidjq.errors import LockedError, concerns_all
from solidjq.queue.claim import Claim
from solidjq.runtime.backoff import jittered

FIRST_DELAY = 0.5  # seconds until an ending that was refused alone is tried again
LONGEST_DELAY = 30.0
MOST_REFUSED = 2  # endings refused alone in one attempt; then the database refuses them all


class Ending(NamedTuple):
    """A claim whose job is done, and how it went."""

    claim: Claim
    error: str | None = None  # Solid Queue's JSON; None if the job raised no error
    stopped: bool = False  # the job was told to stop and did, so it goes back to its queue
    arguments: str | None = None  # of a long job that has finished: its payload without the marks of its runs


# Commits endings in one transaction; returns those that it left because another transaction has locked their rows.
Record = Callable[[Sequence[Ending]], Sequence[Ending]]


class Unrecorded:
    """Job threads ``add`` endings, one thread alone does the rest."""

    def __init__(self) -> None:
        self._new: deque[Ending] = deque()
        self._refused: deque[Ending] = deque()  # each was refused alone, or another transaction had locked its rows
        self._refusals = 0  # attempts in a row that were refused
        self._due = 0.0  # by the monotonic clock: when the refused ones are tried again

    def __len__(self) -> int:
        return len(self._new) + len(self._refused)

    @property
    def new(self) -> int:
        """How many endings wait for their first attempt, or for another one together."""
        return len(self._new)

    @property
    def all(self) -> list[Ending]:
        """Every ending that is not recorded."""
        return [*self._new, *self._refused]

    def add(self, ending: Ending) -> None:
        """Add an ending. Any thread may call it."""
        self._new.append(ending)

    def take(self, count: int) -> list[Ending]:
        """Remove the oldest of the new endings; ``put_back`` what could not be recorded."""
        return [self._new.popleft() for _ in range(count)]

    def put_back(self, endings: Iterable[Ending]) -> None:
        """Put endings back where they were taken."""
        self._new.extendleft(reversed(list(endings)))

    def record_in_parts(self, batch: Sequence[Ending], record: Record) -> None:
        """Record the endings of a refused batch, if need be in halves of halves; set aside what is refused alone.

        Raises the database's error if it concerns every ending; those that are not recorded have been put back.
        """
        parts = [batch]
        refused = 0
        while parts:
            part = parts.pop()
            try:
                self._set_aside(record(part))
            except Exception as error:
                alone = len(part) == 1
                if concerns_all(error) or (alone and refused >= MOST_REFUSED):
                    self.put_back([ending for rest in (part, *reversed(parts)) for ending in rest])
                    raise
                if alone:
                    self._set_aside(part)
                    refused += 1
                else:
                    parts += _halves(part)

    def retry_refused(self, record: Record, *, at_once: bool = False) -> Exception | None:
        """Try the endings that were set aside, if their time has come, until one is refused again; return why.

        One whose rows are still locked keeps no other.

        Raises the database's error if it concerns every ending.
        """
        if not at_once and time.monotonic() < self._due:
            return None
        locked: list[Ending] = []
        try:
            for _ in range(len(self._refused)):
                ending = self._refused.popleft()
                try:
                    left = record([ending])
                except Exception as error:
                    self._set_aside([ending])  # behind the others: next time it is another one's turn
                    if concerns_all(error):
                        raise
                    return error
                locked += left
                if not left:
                    self._refusals = 0
        finally:
            self._set_aside(locked)
        return LockedError(f"{len(locked)} are locked by other transactions") if locked else None

    def pause(self, longest: float) -> float:
        """Return how many seconds may pass until an ending must be tried again, at most ``longest``."""
        if self._new:
            return 0.0
        return min(longest, max(0.0, self._due - time.monotonic())) if self._refused else longest

    def _set_aside(self, endings: Sequence[Ending]) -> None:
        if not endings:
            return
        self._refused += endings
        self._refusals += 1
        self._due = time.monotonic() + jittered(FIRST_DELAY, self._refusals, LONGEST_DELAY)


def _halves(batch: Sequence[Ending]) -> list[Sequence[Ending]]:
    """Return both halves of a batch that are not empty, the later one first."""
    middle = (len(batch) + 1) // 2
    return [half for half in (batch[middle:], batch[:middle]) if half]
