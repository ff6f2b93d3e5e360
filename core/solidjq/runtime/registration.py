"""A process's row in the database: registered at its start, kept fresh by a thread of its own, removed at its end."""

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError
from solidjq.processes import heartbeat
from solidjq.processes.heartbeat import Process
from solidjq.processes.samples import read_metadata, write_instant
from solidjq.runtime.sampler import Sampler
from solidjq.version import VERSION

log = logging.getLogger("solidjq")

RETRY_INTERVAL = 5.0  # seconds to the next beat after one that failed, where the interval is longer


def process_name(kind: str) -> str:
    """Make a name that no other process has, as Solid Queue does: ``worker-`` and 20 random hex digits."""
    return f"{kind.lower()}-{secrets.token_hex(10)}"


RUNTIME = "solidjq"


def is_ours(process: Process) -> bool:
    """Tell whether this runtime registered the process."""
    return str(read_metadata(process.metadata).get("runtime")).startswith(RUNTIME)


class Registration:
    """The row, and the thread that beats.

    The thread does nothing else, so that neither a busy job nor a slow claim can make the process look dead. If the
    row is gone, ``on_gone`` is called once, in that thread: somebody pruned the process, and it must stop.
    Each beat leaves a sample of the process in its row, for the day when nothing else is left of it.
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
        self._patience = patience  # seconds between two beats that are an outage, though no beat failed: a freeze
        self._database = database
        self._interval = interval
        self._on_gone = on_gone
        self._sampler = sampler
        self._metadata = {"runtime": f"{RUNTIME} {VERSION}", **metadata}
        self._beats: dict[str, Any] = {"interval": interval}
        self._worked_at = time.time()
        self._steady_since = -math.inf  # of the monotonic clock: no beat has failed since
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
            metadata=self._told(),
            supervisor_id=supervisor_id,
        )
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def deregister(self, *, within: float) -> list[int] | None:
        """Release what the process still holds and remove its row; beats go on until that is committed.

        Returns the ids of the released jobs; None if the database was away for all of ``within`` seconds.
        """
        self._leaving = True
        deadline = time.monotonic() + within
        while True:
            try:
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
        """The last time that beats failed: from the last that worked to the next (absent while it lasts), how many."""
        return self._beats.get("outage")

    @property
    def steady_for(self) -> float:
        """How many seconds no beat has failed, or come later than ``patience``; 0 while one is overdue."""
        overdue = time.time() - self._worked_at > self._patience
        return 0.0 if overdue else time.monotonic() - self._steady_since

    def stopping(self) -> None:
        """Write down at once that the process was told to stop: there may be no time for the next regular beat."""
        if self._sampler.stopping_since is None:
            self._sampler.stopping_since = time.time()
            self._due.set()

    def _told(self) -> dict[str, Any]:
        return {**self._metadata, "sample": self._sampler.take(self._beats)}

    def _beat(self) -> None:
        delay = self._interval
        while True:
            self._due.wait(delay)
            self._due.clear()
            if self._ended:
                return
            start = time.time()
            try:
                alive = self._database.transact(heartbeat.heartbeat, self.id, self._told())
            except Exception as error:  # noqa: BLE001  (no memory, say: without this thread a living process looks dead)
                log.warning("%s: heartbeat failed: %s", self.name, str(error) or type(error).__name__)
                delay = min(self._interval, RETRY_INTERVAL)
                self._failed()
                continue
            self._beats["latency"] = round(time.time() - start, 4)
            if start - self._worked_at > self._patience:
                self._steady_since = time.monotonic()
            self._worked_at = start
            if self.outage is not None and "to" not in self.outage:
                log.info("%s: heartbeat works again", self.name)
                self._beats["outage"] = {**self.outage, "to": write_instant(time.time())}
                self._steady_since = time.monotonic()
            delay = self._interval
            if not alive:
                if not self._leaving:
                    self._on_gone()
                return

    def _failed(self) -> None:
        self._steady_since = math.inf
        before = self.outage
        if before is None or "to" in before:
            before = {"from": write_instant(self._worked_at), "beats": 0}
        self._beats["outage"] = {**before, "beats": before["beats"] + 1}
