"""A child of the supervisor: what worker and dispatcher have in common, and the program that either is started as."""

import faulthandler
import logging
import os
import signal
import sys
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

from solidjq import registry
from solidjq.database.opening import open_database
from solidjq.errors import JobImportError, SolidJQError
from solidjq.runtime import logs
from solidjq.runtime.backoff import backoff
from solidjq.runtime.config import ChildConfig
from solidjq.runtime.registration import Registration
from solidjq.runtime.sampler import Sampler
from solidjq.runtime.wakeup import Wakeup

log = logging.getLogger("solidjq")

# Exit statuses, from sysexits.h.
EXIT_CANNOT_IMPORT = 78  # a module named with --import is broken: starting again at once would not help
DEREGISTER_TIMEOUT = 2.0  # seconds
FIRST_PATIENCE = 1.0  # seconds from a first attempt to work while the database is away to the second
MOST_PATIENCE = 8.0
EXIT_PRUNED = 75  # somebody pruned this process; a new one may start
MORE_TO_BLAME = 20  # thousandths of the memory that there may be, which the kernel adds to what a child uses


class Stop(IntEnum):
    """How urgently to stop."""

    NO = 0
    DRAIN = 1  # let running jobs finish
    NOW = 2  # release them


class Child:
    """Registers, works in ``step`` until it is told to stop, then deregisters."""

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
        """What its row in ``processes`` tells about it."""
        raise NotImplementedError

    def start(self) -> None:
        """Do what has to be done once, after the registration."""

    def step(self) -> float:
        """Do some work; return how many seconds to sleep, unless something happens."""
        raise NotImplementedError

    def drain(self) -> None:
        """Wait for what is running."""

    def stop_requested(self) -> Stop:
        """Tell how urgently to stop. Without its supervisor a child drains, as after SIGTERM."""
        signals = [number for number in self.wakeup.signals if number != signal.SIGINT]  # the supervisor's to answer
        if signal.SIGQUIT in signals or len(signals) > 1:
            return Stop.NOW
        return Stop.DRAIN if signals or self.wakeup.orphaned else Stop.NO

    def run(self) -> NoReturn:
        """Work until told to stop. Ends the process, whatever its threads still do."""
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
                pause = backoff(FIRST_PATIENCE, failures, MOST_PATIENCE)
                log.warning("%s: %s; trying again in %g s", self.name, error, pause)
            self.wakeup.wait(pause)
        self.registration.stopping()
        self.drain()
        released = self.registration.deregister(within=DEREGISTER_TIMEOUT)
        if released is None:
            leave(1)
        log.info("%s: stopped; released %d unfinished jobs", self.name, len(released))
        leave(0)

    def leave_pruned(self) -> NoReturn:
        """End at once: the jobs in hand were failed by whoever pruned this process, and may run elsewhere by now."""
        log.error("%s: pruned by another process; its jobs were failed, stopping at once", self.name)
        leave(EXIT_PRUNED)


def leave(status: int) -> NoReturn:
    """End the process without waiting for its threads: one may be in a job that never returns."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _spare_the_supervisor() -> None:
    """Have the kernel, when it kills for want of memory, rather take this process than its supervisor.

    They are of about one size where it is no process that took the memory, but files in /dev/shm, say; and only a
    supervisor that lives can tell what died and why. See proc(5), oom_score_adj; more may be set without privileges.
    """
    setting = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):  # not Linux, or the highest already
        setting.write_text(str(min(1000, int(setting.read_text()) + MORE_TO_BLAME)))


def main() -> NoReturn:
    """Run as the child that standard input describes; its end of file says that the supervisor is gone."""
    from solidjq.runtime.dispatcher import Dispatcher  # noqa: PLC0415  (they need this module)
    from solidjq.runtime.worker import Worker  # noqa: PLC0415

    _spare_the_supervisor()
    lifeline = os.dup(0)  # not inherited by what jobs start
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    wakeup = Wakeup(lifeline)
    wakeup.listen([signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    logs.set_up()
    child_config = ChildConfig.from_json(_read_line(lifeline))
    if child_config.last_words is not None:
        # A crash in C code leaves its stack to the supervisor. Of that thread only: the others run on while they are
        # written, and to walk a running thread's frames can crash in turn, which would hide the true signal.
        faulthandler.enable(child_config.last_words, all_threads=False)
    roles: dict[str, type[Child]] = {"Worker": Worker, "Dispatcher": Dispatcher}
    try:
        roles[child_config.kind](child_config, wakeup).run()
    except JobImportError as error:
        log.error("%s: %s", child_config.name, error)  # noqa: TRY400  (the operator needs the line, not the stack)
        leave(EXIT_CANNOT_IMPORT)
    except SolidJQError as error:
        log.error("%s: %s", child_config.name, error)  # noqa: TRY400
        leave(1)


def _read_line(descriptor: int) -> str:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(descriptor, 65536)
        if not part:  # the supervisor died before it could say what this child should be
            leave(1)
        line += part
    return line.decode()


if __name__ == "__main__":
    main()
