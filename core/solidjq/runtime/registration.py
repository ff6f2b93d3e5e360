"""A process's row: registered at the start, kept fresh by a heartbeat thread, removed at the end."""

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError
from solidjq.processes import heartbeat
from solidjq.processes.heartbeat import RUNTIME
from solidjq.processes.samples import write_instant
from solidjq.queue import endings
from solidjq.runtime import contact
from solidjq.runtime.logs import Repeats
from solidjq.runtime.sampler import Sampler
from solidjq.version import VERSION

log = logging.getLogger("solidjq")

RETRY_INTERVAL = 5.0  # seconds from a failed heartbeat to the next attempt, unless the interval is shorter


def process_name(kind: str) -> str:
    """Return a unique name in Solid Queue's format: ``worker-`` and 20 random hex digits."""
    return f"{kind.lower()}-{secrets.token_hex(10)}"


class Registration:
    """A process's row, and the thread that sends its heartbeats.

    The thread does nothing else, so that neither a busy job nor a slow claim can make the process look dead. If the
    row is gone, it calls ``on_gone`` once and ends: the process was pruned and must stop. Each heartbeat stores a
    sample of the process in its row, as evidence should the process die.
    """

    def __init__(
        self,
        database: Database,
        *,
        kind: str,
        name: str,
        metadata: Mapping[str, Any],
        interval: float,
        on_gone: Callable[[], None],
        sampler: Sampler,
        supervisor_id: int | None = None,
        patience: float = math.inf,
    ) -> None:
        self._patience = patience  # seconds without a beat that count as an outage, although none failed: a freeze
        self._database = database
        self._interval = interval
        self._on_gone = on_gone
        self._sampler = sampler
        self._metadata = {"runtime": f"{RUNTIME} {VERSION}", **metadata}
        self._beats: dict[str, Any] = {"interval": interval}
        self._last_beat_at = time.time()
        self._heard_at = contact.now()  # when the last heartbeat that succeeded was begun
        self._steady_since = -math.inf  # on the monotonic clock: no beat has failed since then
        self._failures = Repeats()
        self._due = threading.Event()
        self._ended = False
        self._leaving = False
        self.name = name
        self.id = database.transact(
            heartbeat.register,
            kind=kind,
            name=name,
            pid=os.getpid(),
            hostname=socket.gethostname(),
            metadata=self._row_metadata(),
            supervisor_id=supervisor_id,
        )
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def deregister(self, *, within: float, keeping: Collection[int] = ()) -> list[int] | None:
        """Release the claims that the process still holds and remove its row; heartbeats go on until the commit.

        With claims to be ``keeping``, release the others and leave the row. Returns the ids of the released jobs; None
        if the database was away for ``within`` seconds.
        """
        self._leaving = True
        deadline = time.monotonic() + within
        while True:
            try:
                if keeping:
                    released = self._database.transact(endings.release_others, self.id, keeping)
                else:
                    released = self._database.transact(heartbeat.deregister, self.id)
            except DatabaseError as error:
                if time.monotonic() > deadline:
                    log.error("%s: cannot deregister: %s", self.name, error)  # noqa: TRY400
                    return None
                time.sleep(0.2)
            else:
                self._ended = True
                self._due.set()
                return released

    @property
    def outage(self) -> dict[str, Any] | None:
        """The last outage of the heartbeats: ``from`` one good beat ``to`` the next, and how many ``beats`` failed.

        None if no beat has failed; without ``to`` while the outage lasts.
        """
        return self._beats.get("outage")

    @property
    def steady_for(self) -> float:
        """How many seconds all heartbeats have succeeded, none later than ``patience``; 0 while one is overdue."""
        overdue = time.time() - self._last_beat_at > self._patience
        return 0.0 if overdue else time.monotonic() - self._steady_since

    @property
    def silence(self) -> float:
        """How many seconds ago the last heartbeat that succeeded was begun, those of a suspended machine included."""
        return contact.now() - self._heard_at

    def beat_soon(self) -> None:
        """Send a heartbeat at once instead of at its time."""
        self._due.set()

    def stopping(self) -> None:
        """Send a heartbeat with the time of the stop signal at once: the next regular one may come too late."""
        if self._sampler.stopping_since is None:
            self._sampler.stopping_since = time.time()
            self.beat_soon()

    def _row_metadata(self) -> dict[str, Any]:
        return {**self._metadata, "sample": self._sampler.take(self._beats)}

    def _beat(self) -> None:
        delay = self._interval
        while True:
            self._due.wait(delay)
            self._due.clear()
            if self._ended:
                return
            start, heard_at = time.time(), contact.now()
            try:
                alive = self._database.transact(heartbeat.heartbeat, self.id, self._row_metadata())
            except Exception as error:  # noqa: BLE001  (MemoryError too: without this thread a living process looks dead)
                words = str(error) or type(error).__name__
                if self._failures.is_due(words, time.monotonic()):
                    log.warning("%s: heartbeat failed: %s", self.name, words)
                delay = min(self._interval, RETRY_INTERVAL)
                self._note_failure()
                continue
            self._beats["latency"] = round(time.time() - start, 4)
            if start - self._last_beat_at > self._patience:
                self._steady_since = time.monotonic()
            self._last_beat_at = start
            if alive:
                self._heard_at = heard_at
            if self.outage is not None and "to" not in self.outage:
                log.info("%s: heartbeat works again", self.name)
                self._failures.end()
                self._beats["outage"] = {**self.outage, "to": write_instant(time.time())}
                self._steady_since = time.monotonic()
            delay = self._interval
            if not alive:
                if not self._leaving:
                    self._on_gone()
                return

    def _note_failure(self) -> None:
        self._steady_since = math.inf
        before = self.outage
        if before is None or "to" in before:
            before = {"from": write_instant(self._last_beat_at), "beats": 0}
        self._beats["outage"] = {**before, "beats": before["beats"] + 1}
