"""The listener: wakes a worker when the database notifies that jobs are ready, and decides how often it polls."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from solidjq.database import notices
from solidjq.errors import DatabaseError

if TYPE_CHECKING:
    from solidjq.database.transactions import Database
    from solidjq.runtime.wakeup import Wakeup

log = logging.getLogger("solidjq")

LEAST_INTERVAL = 0.01  # seconds between two claims because of notifications, however many arrive
LISTEN_AGAIN = 5.0  # seconds from a broken connection to the next attempt to listen
# Seconds between two polls while every ready row is announced. What no notification announces waits so long: jobs of a
# queue that Rails resumes, and ready rows whose claim another worker's broken transaction gave up.
ANNOUNCED_POLLING = 1.0
CHECK_INTERVAL = 60.0  # seconds between two looks whether every ready row is announced


class Listener:
    """Wakes the main thread of a worker when jobs are ready, on PostgreSQL; elsewhere it does nothing."""

    def __init__(self, database: Database, wakeup: Wakeup, name: str, polling_interval: float) -> None:
        self._database = database
        self._wakeup = wakeup
        self._name = name
        self._polling_interval = polling_interval
        self._listening = False
        self._all_announced = False
        self._check_at = 0.0
        self._notified = False
        self._claimed_at = -math.inf  # when the last claim because of a notification began

    def start(self) -> None:
        """Listen in a thread of its own."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    @property
    def polling_interval(self) -> float:
        """Seconds between two polls: longer while every ready row, whoever inserts it, is announced to this worker."""
        announced = self._listening and self._all_announced
        return max(self._polling_interval, ANNOUNCED_POLLING) if announced else self._polling_interval

    def check_if_due(self) -> None:
        """Look whether the trigger of ``jq init --notify`` is there, once it listens and then each minute.

        Only the worker's main thread calls it: another thread would hold a connection more. Raises DatabaseError.
        """
        if self._listening and time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + CHECK_INTERVAL
            self._all_announced = self._database.transact(notices.announces_all)

    def seconds_too_early(self) -> float:
        """Return how many seconds a claim because of a notification must wait; 0 if there is none to wait for."""
        return max(0.0, self._claimed_at + LEAST_INTERVAL - time.monotonic()) if self._notified else 0.0

    def begin_claim(self) -> None:
        """Take note that what was notified so far is about to be claimed."""
        if self._notified:
            self._notified, self._claimed_at = False, time.monotonic()

    def _listen(self) -> None:
        while True:
            try:
                for _ in notices.listen(self._database):
                    self._listening = self._notified = True
                    self._wakeup.wake()
            except DatabaseError as error:
                log.info("%s: no notifications of jobs, listening again in %g s: %s", self._name, LISTEN_AGAIN, error)
            else:
                return
            finally:
                self._listening, self._check_at = False, 0.0
            time.sleep(LISTEN_AGAIN)
