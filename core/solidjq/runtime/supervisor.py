"""The supervisor: keeps workers and a dispatcher running, ends the claims of dead children, prunes dead processes."""

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, JobImportError, RowsRefusedError, concerns_all
from solidjq.processes import heartbeat, prune_sequence
from solidjq.processes.prune_guard import NOBODY, Doubts
from solidjq.runtime import child_deaths
from solidjq.runtime.alive_file import AliveFile
from solidjq.runtime.child import EXIT_CANNOT_IMPORT, Stop
from solidjq.runtime.child_deaths import ChildDeath
from solidjq.runtime.children import ChildSlot, reap_orphans
from solidjq.runtime.config import Config
from solidjq.runtime.reachable import when_reachable
from solidjq.runtime.registration import Registration, process_name
from solidjq.runtime.sampler import Sampler
from solidjq.runtime.wakeup import Wakeup
from solidjq.text import count_of, first_of

log = logging.getLogger("solidjq")

KIND = "Supervisor(spawn)"
EXIT_NO_DATABASE = 3  # the exit code of every command whose database is away or refuses
KILL_MARGIN = 3.0  # seconds beyond the shutdown timeout that a child gets to release its jobs
REPORT_RETRY = 1.0  # seconds between attempts to report a death to a database that is away
MOST_NAMED = 20  # job ids that one log line names


@dataclass
class Supervisor:
    """Runs in the main thread of its process, until a signal ends it; then the handlers of signals are as before.

    Children are started as programs of their own, not forked: this process has threads, and forking a process with
    threads can hang. Each child's standard input stays open as long as this process lives, so a child notices the end
    of its supervisor, however it came, and stops by itself.

    ``check`` is called before the supervisor registers, and may raise. With ``waits``, a database that is away at the
    start is waited for. ``alive_file`` is touched as long as the loop of this process turns.
    """

    config: Config
    database: Database
    check: Callable[[Database], None] | None = None
    waits: bool = True
    alive_file: Path | None = None
    _wakeup: Wakeup = field(default_factory=Wakeup)
    _slots: list[ChildSlot] = field(default_factory=list)
    _unreported: list[ChildDeath] = field(default_factory=list)
    _pruned: bool = False
    _cannot_import: bool = False
    _failed: bool = False  # could not deregister
    _next_maintenance: float = 0.0
    _doubts: Doubts = NOBODY  # from the last check of the processes, while the database could be reached

    def run(self) -> int:
        """Supervise until stopped; return the exit status: 1 if it was pruned, 3 if it could not deregister.

        Raises DatabaseError if it cannot register, unless it waits for a database that is away, and JobImportError if
        the jobs' modules cannot be imported. UsageError or RefusedError if the alive file cannot be its own.
        """
        if self.alive_file is None:
            return self._run()
        with AliveFile(self.alive_file, self._wakeup, self.config.heartbeat_interval):
            return self._run()

    def _run(self) -> int:
        stopping = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]
        self._wakeup.listen(stopping, waking=[signal.SIGCHLD])
        try:
            return self._supervise()
        finally:
            self._wakeup.restore()

    def _supervise(self) -> int:
        self._sampler = Sampler()
        self._oom_kills = self._sampler.cgroup.oom_kills()
        name = process_name("supervisor(spawn)")
        register = partial(self._register, name)
        if self.waits:
            registration = when_reachable(register, name=name, wakeup=self._wakeup, stop=self._stop_requested)
            if registration is None:
                return 0
        else:
            registration = register()
        self._registration = registration
        log.info("%s: started on %s", self._registration.name, self.database)
        self._slots = [ChildSlot("Worker") for _ in range(self.config.processes)] + [ChildSlot("Dispatcher")]
        try:
            while not self._stop_requested():
                self._maintain()
                self._reap()
                self._start()
                self._wakeup.wait_until(self._next_event())
        finally:
            self._registration.stopping()
            self._stop_children()
            self._leave()
        if self._cannot_import:
            raise JobImportError("the jobs cannot be imported (see the log above); check --import")
        if self._pruned:
            return 1
        return EXIT_NO_DATABASE if self._failed else 0

    def _register(self, name: str) -> Registration:
        if self.check is not None:
            self.check(self.database)
        return Registration(
            self.database,
            sampler=self._sampler,
            kind=KIND,
            name=name,
            metadata={"shutdown_timeout": self.config.shutdown_timeout},
            interval=self.config.heartbeat_interval,
            on_gone=self._on_gone,
            patience=self.config.alive_threshold,
        )

    # -- children -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        for slot in self._slots:
            if slot.process is not None or time.monotonic() < slot.start_at:
                continue
            try:
                slot.start(self.config, self._registration.id)
            except OSError as error:  # no memory, process or file left: the supervisor must outlive just that
                log.error("%s: cannot be started: %s; trying again in %g s", slot.name, error, slot.put_off())  # noqa: TRY400

    def _reap(self) -> None:
        """Collect the children that died and what jobs left behind, and report their deaths to the database."""
        killed = 0
        for slot in self._slots:
            death = slot.reap(self._sampler, self._oom_kills)
            if death is None:
                continue
            killed += death.returncode == -signal.SIGKILL
            self._unreported.append(death)
            if death.returncode == EXIT_CANNOT_IMPORT and slot.generation == 1:
                self._cannot_import = True
            delay = slot.put_off(time.monotonic() - slot.started_at)
            if not self._stop_requested():
                log.warning("%s: %s; replacing it%s", death.name, death.describe(), f" in {delay:g} s" if delay else "")
        if killed and (count := self._sampler.cgroup.oom_kills()) is not None:
            # A child uses up one kill: of two that the kernel killed, the one that frees more memory is reaped later.
            self._oom_kills = min(count, (self._oom_kills or 0) + killed)
        reap_orphans({slot.process.pid for slot in self._slots if slot.process is not None})
        self._report()

    def _report(self) -> None:
        """Report the deaths that are not in the database yet; one that is refused alone keeps no other waiting."""
        for death in list(self._unreported):
            try:
                jobs = self.database.transact(child_deaths.report, death, self._registration.id)
            except DatabaseError as error:
                log.warning("%s: its death cannot be reported yet: %s", death.name, error)
                if concerns_all(error):
                    return
                continue
            self._unreported.remove(death)
            if jobs:
                end = "released" if death.killed else "failed with ProcessExitError"
                log.error("%s: %s; %s jobs %s", death.name, death.describe(), end, _named(jobs))

    # -- maintenance --------------------------------------------------------------------------------------------------

    def _maintain(self) -> None:
        """Prune the dead and fail orphaned claims, at the start and once a threshold; sooner where there is doubt."""
        if time.monotonic() < self._next_maintenance:
            return
        self._next_maintenance = time.monotonic() + self.config.alive_threshold
        try:
            gone = self._prune()
            with self.database.read() as connection:
                registered = heartbeat.names_of_children(connection, self._registration.id)
        except DatabaseError as error:
            log.warning("maintenance failed: %s", error)
            return
        # A running child without a row is frozen. If it woke, it would go on with jobs that others may run by then.
        for slot in self._slots:
            if slot.process is None:
                continue
            if slot.name in gone or (slot.seen and slot.name not in registered):
                log.error("%s: its row is gone while it runs; killing it", slot.name)
                slot.process.kill()
            slot.seen = slot.name in registered

    def _prune(self) -> set[str]:
        """Prune the dead and fail orphaned claims; return the names of the processes that were pruned."""
        gone: set[str] = set()
        outage = self._registration.outage
        witness = {} if outage is None else {"outage": outage}
        doubts = self._check_processes()
        try:
            for pruned in prune_sequence.prune_checked(
                self.database, self.config.alive_threshold, doubts, witness=witness
            ):
                if pruned.process_id is None:
                    log.error("jobs claimed by no process, failed: %s", _named(pruned.job_ids))
                    continue
                # The place too: without the ledger, this line alone keeps it.
                self._wakeup.turned_at = time.monotonic()  # many deaths take long, and are no standstill
                place = f"pid {pruned.pid} on {pruned.hostname}"
                log.error("%s: pruned, %s; failed jobs %s", pruned.name, place, _named(pruned.job_ids))
                gone.add(pruned.name)
        except RowsRefusedError as error:
            log.warning("not all jobs of dead processes failed: %s", error)
        return gone

    def _check_processes(self) -> Doubts:
        """Check who is dead: nobody while others may only have been cut off or frozen, as this process may have been.

        A child of ours that runs and is silent is frozen, so running processes of this host are not spared here.
        """
        threshold = self.config.alive_threshold
        if steady := self._registration.steady_for >= threshold:
            self._doubts = prune_sequence.check(self.database, threshold, before=self._doubts)
        else:
            self._doubts = NOBODY
        doubts, pause = self._doubts, prune_sequence.pause_of(threshold)
        if doubts.refusal is not None:
            log.warning("nothing is pruned: %s", doubts.refusal)
        elif doubts.unsure:
            dead = count_of(len(doubts.unsure), "process")
            log.warning(
                "%s %s dead; looking again in %g s", dead, "looks" if len(doubts.unsure) == 1 else "look", pause
            )
        if doubts.refusal is not None or doubts.unsure or not steady:
            self._next_maintenance = time.monotonic() + pause
        return replace(doubts, dead=doubts.dead - {self._registration.id})

    # -- the end ------------------------------------------------------------------------------------------------------

    def _stop_requested(self) -> Stop:
        signals = self._wakeup.signals
        # A shell passes on the SIGHUP that the terminal sent already: two of them are one closed terminal.
        if signal.SIGQUIT in signals or len(signals) - signals.count(signal.SIGHUP) > 1:
            return Stop.NOW
        return Stop.DRAIN if signals or self._pruned or self._cannot_import else Stop.NO

    def _stop_children(self) -> None:
        """Send SIGTERM; after the shutdown timeout or a second signal SIGQUIT; at last SIGKILL to what is left."""
        log.info(
            "%s: stopping; running jobs have %g s to end, a second signal releases them at once",
            self._registration.name,
            self.config.shutdown_timeout,
        )
        self._signal(signal.SIGTERM)
        quit_at = time.monotonic() + self.config.shutdown_timeout + KILL_MARGIN
        kill_at = float("inf")
        while any(slot.process for slot in self._slots):
            now = time.monotonic()
            if kill_at == float("inf") and (now >= quit_at or self._stop_requested() is Stop.NOW):
                self._signal(signal.SIGQUIT)
                kill_at = now + KILL_MARGIN
            elif now >= kill_at:
                for slot in self._slots:
                    slot.killed = slot.process is not None
                self._signal(signal.SIGKILL)
                kill_at = now + KILL_MARGIN
            self._wakeup.wait_until(min(quit_at if kill_at == float("inf") else kill_at, now + 1.0))
            self._reap()

    def _signal(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send_signal(number)

    def _leave(self) -> None:
        """Report the last deaths and deregister; wait a few seconds for a database that is away."""
        deadline = time.monotonic() + KILL_MARGIN
        while self._unreported and time.monotonic() < deadline:
            self._wakeup.wait(REPORT_RETRY)
            self._report()
        if self._registration.deregister(within=KILL_MARGIN) is None:
            self._failed = True
        log.info("%s: stopped", self._registration.name)

    def _next_event(self) -> float:
        starts = [slot.start_at for slot in self._slots if slot.process is None]
        retry = [time.monotonic() + REPORT_RETRY] if self._unreported else []
        return min([self._next_maintenance, *starts, *retry])

    def _on_gone(self) -> None:
        log.error("%s: pruned by another process; stopping", self._registration.name)
        self._pruned = True
        self._wakeup.wake()


def _named(job_ids: list[int]) -> str:
    return first_of(job_ids, MOST_NAMED) or "none"
