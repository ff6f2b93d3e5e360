"""A process's row in the database: registered at its start, kept fresh by a thread of its own, removed at its end."""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from solidjq import __version__, processes
from solidjq.database import Database
from solidjq.errors import DatabaseError
from solidjq.processes import Process

log = logging.getLogger("solidjq")

RETRY_INTERVAL = 5.0  # seconds to the next beat after one that failed, where the interval is longer


def process_name(kind: str) -> str:
    """Make a name that no other process has, as Solid Queue does: ``worker-`` and 20 random hex digits."""
    return f"{kind.lower()}-{secrets.token_hex(10)}"


RUNTIME = "solidjq"


def is_ours(process: Process) -> bool:
    """Tell whether this runtime registered the process."""
    try:
        metadata = json.loads(process.metadata or "{}")
    except ValueError:
        return False
    return isinstance(metadata, dict) and str(metadata.get("runtime")).startswith(RUNTIME)


class Registration:
    """The row, and the thread that beats.

    The thread does nothing else, so that neither a busy job nor a slow claim can make the process look dead. If the
    row is gone, ``on_gone`` is called once, in that thread: somebody pruned the process, and it must stop.
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
        supervisor_id: int | None = None,
    ) -> None:
        self._database = database
        self._interval = interval
        self._on_gone = on_gone
        self._ended = threading.Event()
        self._leaving = False
        self.name = name
        self.id = database.transact(
            processes.register,
            kind=kind,
            name=name,
            pid=os.getpid(),
            hostname=socket.gethostname(),
            metadata={"runtime": f"{RUNTIME} {__version__}", **metadata},
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
                released = self._database.transact(processes.deregister, self.id)
            except DatabaseError as error:
                if time.monotonic() > deadline:
                    log.error("%s: cannot deregister: %s", self.name, error)  # noqa: TRY400
                    return None
                time.sleep(0.2)
            else:
                self._ended.set()
                return released

    def _beat(self) -> None:
        delay, failing = self._interval, False
        while not self._ended.wait(delay):
            try:
                alive = self._database.transact(processes.heartbeat, self.id)
            except DatabaseError as error:
                log.warning("%s: heartbeat failed: %s", self.name, error)
                delay = min(self._interval, RETRY_INTERVAL)
                failing = True
                continue
            if failing:
                log.info("%s: heartbeat works again", self.name)
                failing = False
            delay = self._interval
            if not alive:
                if not self._leaving:
                    self._on_gone()
                return
