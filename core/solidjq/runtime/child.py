"""What every child of the supervisor does: register, work in steps until it is told to stop, deregister."""

import logging
import os
import signal
import sys
from enum import IntEnum
from typing import NoReturn

from solidjq import registry
from solidjq.database.opening import open_database
from solidjq.errors import SolidJQError
from solidjq.runtime.backoff import backoff
from solidjq.runtime.config import ChildConfig
from solidjq.runtime.registration import Registration
from solidjq.runtime.sampler import Sampler
from solidjq.runtime.wakeup import Wakeup

log = logging.getLogger("solidjq")

# Exit statuses, from sysexits.h.
EXIT_UNAVAILABLE = 69  # told to stop while the database was away: whoever prunes it ends its claims
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

    def __init__(self, child_config: ChildConfig, wakeup: Wakeup) -> None:
        self.config = child_config.config
        self.name = child_config.name
        self.wakeup = wakeup
        self.database = open_database(
            self.config.database_url,
            name=f"solidjq {child_config.kind.lower()}",
            table_prefix=self.config.table_prefix,
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

    def stop_requested(self) -> Stop:
        """Return how urgently to stop. Without its supervisor a child drains, as after SIGTERM."""
        signals = [number for number in self.wakeup.signals if number != signal.SIGINT]  # the supervisor answers Ctrl-C
        if signal.SIGQUIT in signals or len(signals) > 1:
            return Stop.NOW
        return Stop.DRAIN if signals or self.wakeup.orphaned else Stop.NO

    def run(self) -> NoReturn:
        """Work until told to stop, then end the process without waiting for its threads."""
        registry.import_modules(self.config.imports)
        self.registration = Registration(
            self.database,
            kind=self._child_config.kind,
            name=self.name,
            metadata=self.metadata,
            interval=self.config.heartbeat_interval,
            on_gone=self.leave_pruned,
            sampler=self.sampler,
            supervisor_id=self._child_config.supervisor_id,
        )
        log.info("%s: started", self.name)
        self.start()
        failures = 0
        while not self.stop_requested():
            try:
                pause = self.step()
                failures = 0
            except SolidJQError as error:
                failures += 1
                pause = backoff(FIRST_DELAY, failures, LONGEST_DELAY)
                log.warning("%s: %s; trying again in %g s", self.name, error, pause)
            self.wakeup.wait(pause)
        self.registration.stopping()
        self.drain()
        released = self.registration.deregister(within=DEREGISTER_TIMEOUT)
        if released is None:
            leave(EXIT_UNAVAILABLE)
        log.info("%s: stopped; released %d unfinished jobs", self.name, len(released))
        leave(0)

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
