"""The supervisor: starts workers and a dispatcher, fails what a dead one held, replaces it, and prunes the dead."""

import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from sqlalchemy import Connection

from solidjq.database.opening import URL_ENVIRONMENT
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, JobImportError
from solidjq.processes import heartbeat, pruning
from solidjq.processes.prune_guard import NOBODY, PAUSE, Doubts, find_doubts
from solidjq.processes.samples import write_instant
from solidjq.runtime.backoff import backoff
from solidjq.runtime.child import EXIT_CANNOT_IMPORT, Stop
from solidjq.runtime.config import ChildConfig, Config
from solidjq.runtime.hands import not_begun
from solidjq.runtime.registration import Registration, process_name
from solidjq.runtime.sampler import PEAK_UNIT, Sampler
from solidjq.runtime.wakeup import Wakeup

log = logging.getLogger("solidjq")

KIND = "Supervisor(spawn)"
QUICK_DEATH = 5.0  # seconds: a child that lived shorter is replaced with a delay that doubles
FIRST_DELAY = 0.5  # seconds
MOST_DELAY = 30.0
KILL_MARGIN = 3.0  # seconds beyond the shutdown timeout that a child gets to release its jobs
MOST_LAST_WORDS = 16_384  # bytes of a crash's stack that are kept
REPORT_RETRY = 1.0  # seconds between attempts to report a death to a database that is away


@dataclass(slots=True)
class Slot:
    """A place for one child, filled again when the child dies."""

    kind: str
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    generation: int = 0
    quick_deaths: int = 0
    seen: bool = False  # its row in the database was seen
    killed: bool = False  # by us, since it would not stop
    last_words: IO[bytes] | None = None  # where faulthandler writes
    hands: IO[bytes] | None = None  # what it had in hand (see hands.py)

    def put_off(self, lived: float = 0.0) -> float:
        """Set when the next child may start, the later the more of them lived short; return in how many seconds."""
        self.quick_deaths = self.quick_deaths + 1 if lived < QUICK_DEATH else 0
        delay = backoff(FIRST_DELAY, self.quick_deaths, MOST_DELAY) if self.quick_deaths else 0.0
        self.start_at = time.monotonic() + delay
        return delay


@dataclass(frozen=True, slots=True)
class Report:
    """A child's death that the database has not heard of yet."""

    name: str
    pid: int
    returncode: int
    release: bool  # we killed it ourselves: its jobs are innocent
    witness: Mapping[str, object] = field(default_factory=dict)  # what we saw, as evidence
    not_begun: Sequence[int] = ()  # claims whose jobs cannot have killed it


@dataclass
class Supervisor:
    """Runs in the main thread of its process, until a signal ends it.

    Children are started as programs of their own, not forked: this process has threads, and a fork of a process with
    threads can hang. Each child's standard input stays open as long as this process lives; so a child knows of our end,
    however we go, and stops by itself.
    """

    config: Config
    database: Database
    _wakeup: Wakeup = field(default_factory=Wakeup)
    _slots: list[Slot] = field(default_factory=list)
    _reports: list[Report] = field(default_factory=list)
    _pruned: bool = False
    _cannot_import: bool = False
    _failed: bool = False  # could not deregister
    _next_maintenance: float = 0.0
    _doubts: Doubts = NOBODY  # of the last look at the processes, while the database could be reached

    def run(self) -> int:
        """Supervise until stopped; return the exit status: 1 if this supervisor was pruned or could not deregister.

        Raises DatabaseError if it cannot even register, JobImportError if the jobs' modules cannot be imported.
        """
        self._wakeup.listen([signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], waking=[signal.SIGCHLD])
        self._sampler = Sampler()
        self._oom_kills = self._sampler.cgroup.oom_kills()
        self._registration = Registration(
            self.database,
            sampler=self._sampler,
            kind=KIND,
            name=process_name("supervisor(spawn)"),
            metadata={},
            interval=self.config.heartbeat_interval,
            on_gone=self._on_gone,
            patience=self.config.alive_threshold,
        )
        log.info("%s: started on %s", self._registration.name, self.database)
        self._slots = [Slot("Worker") for _ in range(self.config.processes)] + [Slot("Dispatcher")]
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
        return 1 if self._pruned or self._failed else 0

    # -- children -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        for slot in self._slots:
            if slot.process is not None or time.monotonic() < slot.start_at:
                continue
            try:
                self._start_child(slot)
            except OSError as error:  # no memory, process or file to be had: just when there must be a supervisor
                log.error("%s: cannot be started: %s; trying again in %g s", slot.name, error, slot.put_off())  # noqa: TRY400

    def _start_child(self, slot: Slot) -> None:
        slot.name = process_name(slot.kind)
        slot.seen = slot.killed = False
        slot.started = time.monotonic()
        # Both are closed when the child is reaped.
        slot.last_words = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        slot.hands = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        slot.process = subprocess.Popen(  # noqa: S603  (our own program)
            [sys.executable, "-P", "-m", "solidjq.runtime.child", slot.name],
            stdin=subprocess.PIPE,
            bufsize=0,
            pass_fds=[slot.last_words.fileno(), slot.hands.fileno()],
            env={**os.environ, URL_ENVIRONMENT: self.config.database_url},
        )
        slot.generation += 1
        told = ChildConfig(
            kind=slot.kind,
            name=slot.name,
            supervisor_id=self._registration.id,
            config=self.config,
            last_words=slot.last_words.fileno(),
            hands=slot.hands.fileno(),
        ).to_json()
        with suppress(BrokenPipeError):  # it is dead already, and will be reaped
            _lifeline(slot.process).write(told.encode() + b"\n")

    def _reap(self) -> None:
        """Note the children that died, and tell the database."""
        died = False
        for slot in self._slots:
            if slot.process is None:
                continue
            usage = _reap(slot.process)
            returncode, pid, lived = slot.process.returncode, slot.process.pid, time.monotonic() - slot.started
            if returncode is None:
                continue
            died = True
            _lifeline(slot.process).close()
            slot.process = None
            witness = self._witness(slot, usage)
            self._reports.append(Report(slot.name, pid, returncode, slot.killed, witness, _not_begun(slot)))
            if returncode == EXIT_CANNOT_IMPORT and slot.generation == 1:
                self._cannot_import = True
            delay = slot.put_off(lived)
            if not self._stop_requested():
                log.warning(
                    "%s: %s; replacing it%s", slot.name, _how(pid, returncode), f" in {delay:g} s" if delay else ""
                )
        if died:
            self._oom_kills = self._sampler.cgroup.oom_kills()
        self._report()

    def _witness(self, slot: Slot, usage: resource.struct_rusage | None) -> dict[str, object]:
        """Write down what only we can know of a child's end, now or never."""
        seen: dict[str, object] = {"oom_kill": [self._oom_kills, self._sampler.cgroup.oom_kills()]}
        if usage is not None:
            seen["rusage"] = {"peak": usage.ru_maxrss * PEAK_UNIT, "user": usage.ru_utime, "system": usage.ru_stime}
        if slot.killed:
            seen["killed_by_supervisor"] = True
        if self._sampler.stopping_since is not None:
            seen["term_at"] = write_instant(self._sampler.stopping_since)
        if slot.last_words is not None:
            with slot.last_words as words:
                words.seek(0)
                if text := words.read(MOST_LAST_WORDS).decode("utf-8", "replace"):
                    seen["last_words"] = text
            slot.last_words = None
        return seen

    def _report(self) -> None:
        while self._reports:
            report = self._reports[0]
            try:
                jobs = self.database.transact(_settle, report, self._registration.id)
            except DatabaseError as error:
                log.warning("%s: its death cannot be reported yet: %s", report.name, error)
                return
            del self._reports[0]
            if jobs:
                end = "released" if report.release else "failed with ProcessExitError"
                log.error("%s: %s; %s jobs %s", report.name, _how(report.pid, report.returncode), end, _shown(jobs))

    # -- maintenance --------------------------------------------------------------------------------------------------

    def _maintain(self) -> None:
        """Prune the dead and fail orphaned claims, at the start and once a threshold; sooner where there is doubt."""
        if time.monotonic() < self._next_maintenance:
            return
        self._next_maintenance = time.monotonic() + self.config.alive_threshold
        gone: set[str] = set()
        try:
            outage = self._registration.outage
            for pruned in pruning.prune(
                self.database,
                self.config.alive_threshold,
                only=self._find_dead(),
                witness={} if outage is None else {"outage": outage},
            ):
                log.error("%s: pruned; failed jobs %s", pruned.name, _shown(pruned.job_ids))
                gone.add(pruned.name)
            if orphans := pruning.fail_orphans(self.database):
                log.error("jobs claimed by no process, failed: %s", _shown(orphans))
            with self.database.read() as connection:
                registered = heartbeat.names_of_children(connection, self._registration.id)
        except DatabaseError as error:
            log.warning("maintenance failed: %s", error)
            return
        # A child without its row is frozen: when it woke it would run on, beside whoever has its jobs by then.
        for slot in self._slots:
            if slot.process is None:
                continue
            if slot.name in gone or (slot.seen and slot.name not in registered):
                log.error("%s: its row is gone while it runs; killing it", slot.name)
                slot.process.kill()
            slot.seen = slot.name in registered

    def _find_dead(self) -> list[int]:
        """Tell who is dead: nobody while others may only have been cut off or frozen, as we may have been.

        A child of ours that runs and is silent is frozen, so running processes of this host are not spared here.
        """
        threshold = self.config.alive_threshold
        if steady := self._registration.steady_for >= threshold:
            with self.database.read() as connection:
                self._doubts = find_doubts(connection, threshold, before=self._doubts)
        else:
            self._doubts = NOBODY
        found = self._doubts
        if found.refusal is not None:
            log.warning("nothing is pruned: %s", found.refusal)
        elif found.unsure:
            log.warning("%d processes look dead; looking again in %g s", len(found.unsure), threshold * PAUSE)
        if found.refusal is not None or found.unsure or not steady:
            self._next_maintenance = time.monotonic() + threshold * PAUSE
        return [process for process in found.dead if process != self._registration.id]

    # -- the end ------------------------------------------------------------------------------------------------------

    def _stop_requested(self) -> Stop:
        signals = self._wakeup.signals
        if signal.SIGQUIT in signals or len(signals) > 1:
            return Stop.NOW
        return Stop.DRAIN if signals or self._pruned or self._cannot_import else Stop.NO

    def _stop_children(self) -> None:
        """SIGTERM; SIGQUIT when the shutdown timeout is over or a second signal came; SIGKILL for what will not go."""
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
        """Report the last deaths and deregister; a database that is away gets a few seconds."""
        deadline = time.monotonic() + KILL_MARGIN
        while self._reports and time.monotonic() < deadline:
            self._wakeup.wait(REPORT_RETRY)
            self._report()
        if self._registration.deregister(within=KILL_MARGIN) is None:
            self._failed = True
        log.info("%s: stopped", self._registration.name)

    def _next_event(self) -> float:
        starts = [slot.start_at for slot in self._slots if slot.process is None]
        retry = [time.monotonic() + REPORT_RETRY] if self._reports else []
        return min([self._next_maintenance, *starts, *retry])

    def _on_gone(self) -> None:
        log.error("%s: pruned by another process; stopping", self._registration.name)
        self._pruned = True
        self._wakeup.wake()


def _settle(connection: Connection, report: Report, supervisor_id: int) -> list[int]:
    process_id = heartbeat.find_child(connection, name=report.name, supervisor_id=supervisor_id)
    if process_id is None:  # it deregistered, or was pruned
        return []
    if report.release:
        pruning.record_exit(connection, process_id, returncode=report.returncode, witness=report.witness)
        return heartbeat.deregister(connection, process_id)
    return pruning.fail_exited(
        connection,
        process_id,
        pid=report.pid,
        returncode=report.returncode,
        witness=report.witness,
        not_begun=report.not_begun,
    )


def _not_begun(slot: Slot) -> list[int]:
    if slot.hands is None:
        return []
    with slot.hands as hands:
        slot.hands = None
        return not_begun(hands)


def _reap(process: subprocess.Popen[bytes]) -> resource.struct_rusage | None:
    """Set the return code of a child that has ended; return what it used, unless Popen itself was there first."""
    if process.returncode is not None:
        return None
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid == 0:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _lifeline(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdin is None:
        raise AssertionError("children are started with a pipe")
    return process.stdin


def _how(pid: int, returncode: int) -> str:
    if returncode >= 0:
        return f"pid {pid} exited with status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"pid {pid} was killed by {name}"


def _shown(job_ids: list[int]) -> str:
    shown = ", ".join(str(job_id) for job_id in job_ids[:20])
    return f"{shown} and {len(job_ids) - 20} more" if len(job_ids) > 20 else shown or "none"  # noqa: PLR2004
