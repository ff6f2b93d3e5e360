"""Says on stderr that a command waits for a lock, and whose, so that nobody sits before a silent terminal."""

from __future__ import annotations

from contextvars import copy_context
from threading import Event, Thread
from typing import TYPE_CHECKING

from solidjq_cli.exits import say

if TYPE_CHECKING:
    from solidjq import Database

FIRST = 2.0  # seconds until the first look; each further one comes after twice as long


class LockWatch:
    """Looks from a thread of its own whether a database's statements wait for a lock, until ``end`` is called."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ended = Event()
        self._thread = Thread(target=copy_context().run, args=(self._watch,), name="lock watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the watch; a look that is under way takes a second at most."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        from solidjq.database.blockers import find_blocker  # noqa: PLC0415

        pause = FIRST
        while not self._ended.wait(pause):
            blocker = self._database.glance(find_blocker)
            if blocker is not None and not self._ended.is_set():
                say(f"waiting for a lock: {blocker}")
                return
            pause *= 2
