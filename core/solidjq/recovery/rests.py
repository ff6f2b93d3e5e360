"""Rests: between its batches, what moves many jobs leaves the database to the workers that claim jobs."""

import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, func, select

from solidjq.database.tables import claimed
from solidjq.database.transactions import Database

P = ParamSpec("P")
T = TypeVar("T")

# Seconds of rest for each second of a move. With 1.0, a worker on two busy cores finished 16 to 29 % fewer jobs.
SHARE = 2.0
LONGEST = 5.0  # seconds; a move that took longer has waited for a lock


class Rests:
    """Makes the moves of one command, a transaction each, with rests between them while jobs are claimed.

    A rest lasts SHARE times as long as the move before it took, LONGEST at most. So the moves take no more than a third
    of the time, and from the workers a third of what they would take without rests. There is none before the third
    move: only two can show that a job was claimed in between. ``fast``: no rests. ``begins`` is called before the first
    rest.
    """

    def __init__(
        self,
        database: Database,
        *,
        fast: bool = False,
        begins: Callable[[], object] = lambda: None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._fast = fast
        self._begins: Callable[[], object] | None = begins
        self._sleep = sleep
        self._clock = clock
        self._newest: int | None = None  # the newest claim when the last move was made
        self._looked = False
        self._is_claiming = False
        self._took = 0.0  # seconds of the last move
        self._ended = 0.0  # when it ended

    def transact(self, move: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Rest if it is due, then run a move in a transaction as ``Database.transact`` does."""
        if self._fast:
            return self._database.transact(move, *args, **kwargs)
        rest = rest_after(self._took, self._clock() - self._ended)
        if self._is_claiming and rest:
            if self._begins is not None:
                self._begins()
                self._begins = None
            self._sleep(rest)

        def move_and_look(connection: Connection) -> tuple[T, int | None]:
            moved = move(connection, *args, **kwargs)
            return moved, connection.scalar(select(func.max(claimed.c.id)))

        start = self._clock()
        moved, newest = self._database.transact(move_and_look)
        self._ended = self._clock()
        self._took = self._ended - start
        # Ids of claims only grow: if the newest is another one, it was claimed since, whether or not others have ended.
        self._is_claiming = self._looked and newest is not None and newest != self._newest
        self._newest, self._looked = newest, True
        return moved


def rest_after(took: float, since: float) -> float:
    """Return how many seconds to rest after a move that took so long and ended ``since`` seconds ago."""
    return max(0.0, min(SHARE * took, LONGEST) - since)
