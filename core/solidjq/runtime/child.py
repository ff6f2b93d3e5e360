"""What every child of the supervisor does: register, work in steps until it is told to stop, deregister."""

import logging
import os
import signal
import sys
import time
from collections.abc import Collection
from enum import IntEnum
from typing import ClassVar, NoReturn

from solidjq import registry
from solidjq.database.answers import RUNTIME_TIMEOUT
from solidjq.database.opening import open_database
from solidjq.errors import SolidJQError
from solidjq.runtime.backoff import jittered
from solidjq.runtime.config import ChildConfig
from solidjq.runtime.logs import Repeats
from solidjq.runtime.reachable import when_reachable
from solidjq.runtime.registration import Registration
from solidjq.runtime.sampler import Sampler
from solidjq.runtime.wakeup import Wakeup
from solidjq.text import count_of

log = logging.getLogger("solidjq")

# Exit statuses, from sysexits.h.
EXIT_UNAVAILABLE = 69  # told to stop while the database was away: whoever prunes it ends its claims
EXIT_LOST = 74  # a job still ran long after the last heartbeat, when others may have taken this process for dead
EXIT_PRUNED = 75  # another process pruned this one; a replacement may start
EXIT_CANNOT_IMPORT = 78  # a module named with --import is broken: starting again at once would not help
DEREGISTER_TIMEOUT = 2.0  # seconds
FIRST_DELAY = 1.0  # seconds between the first two attempts to work while the database is away
LONGEST_DELAY = 8.0


class Stop(IntEnum):
    """How urgently to stop."""

    NO = 0
    DRAIN = 1  # let running jobs finish
    NOW = 2  # release them


class Child:
    """A worker or dispatcher: registers, repeats ``step`` until it is told to stop, then deregisters."""

    LOCK_TIMEOUT: ClassVar[float | None] = None  # seconds that a statement waits for a lock; None: as the server says

    def __init__(self, child_config: ChildConfig, wakeup: Wakeup) -> None:
        self.config = child_config.config
        self.name = child_config.name
        self.wakeup = wakeup
        self.database = open_database(
            self.config.database_url,
            name=f"solidjq {child_config.kind.lower()}",
            table_prefix=self.config.table_prefix,
            answer_timeout=RUNTIME_TIMEOUT,
            lock_timeout=self.LOCK_TIMEOUT,
        )
        self.sampler = Sampler()
        self._child_config = child_config

    @property
    def metadata(self) -> dict[str, object]:
        """The settings that its row in ``processes`` stores, under Solid Queue's names."""
        raise NotImplementedError

    def start(self) -> None:
        """Prepare for the first ``step``; called once, after the registration."""

    def step(self) -> float:
        """Do a piece of work; return how many seconds to sleep before the next, unless something wakes this child."""
        raise NotImplementedError

    def drain(self) -> None:
        """Wait for the running jobs, as long as ``stop_requested`` and the shutdown timeout allow."""

    def unrecorded_claims(self) -> Collection[int]:
        """Return the claims that must not be released when this child stops, since their jobs are done."""
        return ()

    def stop_requested(self) -> Stop:
        """Return how urgently to stop. Without its supervisor a child drains, as after SIGTERM."""
        signals = [number for number in self.wakeup.signals if number != signal.SIGINT]  # the supervisor answers Ctrl-C
        if signal.SIGQUIT in signals or len(signals) > 1:
            return Stop.NOW
        return Stop.DRAIN if signals or self.wakeup.orphaned else Stop.NO

    def run(self) -> NoReturn:
        """Work until told to stop, then end the process without waiting for its threads."""
        registry.import_modules(self.config.imports)
        registration = when_reachable(self._register, name=self.name, wakeup=self.wakeup, stop=self.stop_requested)
        if registration is None:
            leave(0)
        self.registration = registration
        log.info("%s: started", self.name)
        self.start()
        failures, warnings = 0, Repeats()
        while not self.stop_requested():
            try:
                pause = self.step()
                failures = 0
            except SolidJQError as error:
                failures += 1
                pause = jittered(FIRST_DELAY, failures, LONGEST_DELAY)
                if warnings.is_due(str(error), time.monotonic()):
                    log.warning("%s: %s; trying again in %.1f s", self.name, error, pause)
            except Exception:
                # A job that is done would run again if this process ended; so whatever it is must not end it.
                failures += 1
                pause = jittered(FIRST_DELAY, failures, LONGEST_DELAY)
                log.exception("%s: unexpected error; trying again in %.1f s", self.name, pause)
            self.wakeup.wait(pause)
        self.registration.stopping()
        self.drain()
        done = self.unrecorded_claims()
        released = self.registration.deregister(within=DEREGISTER_TIMEOUT, keeping=done)
        if released is None or done:
            self._end(EXIT_UNAVAILABLE)
        log.info("%s: stopped; released %s", self.name, count_of(len(released), "unfinished job"))
        self._end(0)

    def _end(self, status: int) -> NoReturn:
        """End the process; without a supervisor, which else does it, end the programs that its jobs started too."""
        if self.wakeup.orphaned and not self.config.leave_children and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        leave(status)

    def _register(self) -> Registration:
        return Registration(
            self.database,
            kind=self._child_config.kind,
            name=self.name,
            metadata=self.metadata,
            interval=self.config.heartbeat_interval,
            on_gone=self.leave_pruned,
            sampler=self.sampler,
            supervisor_id=self._child_config.supervisor_id,
        )

    def leave_pruned(self) -> NoReturn:
        """End at once: whoever pruned this process failed the jobs it holds, and they may run elsewhere by now."""
        log.error("%s: pruned by another process; its jobs were failed, stopping at once", self.name)
        leave(EXIT_PRUNED)


def leave(status: int) -> NoReturn:
    """End the process without waiting for its threads: one may be in a job that never returns."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
