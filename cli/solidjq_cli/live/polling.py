"""The thread that reads the queue, so that the screen never waits for the database."""

from __future__ import annotations

import math
import time
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST = 2.0  # seconds between the beginnings of two reads
SHARE = 4  # reads that take long are made less often: reading takes a fifth of the time


class Poller:
    """Calls ``read`` again and again in a thread of its own, until ``stop`` is called.

    It is a daemon: a read that waits for a lost server keeps nobody from leaving.
    """

    def __init__(self, read: Callable[[], None], interval: float) -> None:
        self._read = read
        self._interval = max(interval, LEAST)
        self._requested = Event()
        self._ended = False
        self._frozen = False
        self._took = math.inf  # the last read, in seconds
        self._thread = Thread(target=self._work, name="jq top reads", daemon=True)

    def start(self) -> None:
        """Begin with a read."""
        self._thread.start()

    def again(self) -> None:
        """Read at once, or as soon as the read that is under way has ended."""
        self._requested.set()

    def freeze(self, *, frozen: bool) -> None:
        """Read only on request, or go on."""
        self._frozen = frozen
        if not frozen:
            self.again()

    def stop(self) -> None:
        """End the thread; a read that is under way is not waited for."""
        self._ended = True
        self._requested.set()

    def pause(self, took: float) -> float:
        """Return how long to wait after a read that took so long, in seconds.

        A read that took longer than the one before may have met a busy moment of the server: the next read shows it.
        """
        usual, self._took = min(took, self._took), took
        return max(self._interval, SHARE * usual)

    def _work(self) -> None:
        while not self._ended:
            began = time.monotonic()
            self._read()
            pause = self.pause(time.monotonic() - began)
            while not self._requested.wait(pause) and self._frozen and not self._ended:
                pass
            self._requested.clear()
