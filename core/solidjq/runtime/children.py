"""One child as its parent sees it: start it, reap it, and collect the evidence that is lost once it is reaped."""

import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from solidjq.database.opening import URL_ENVIRONMENT
from solidjq.processes.samples import write_instant
from solidjq.runtime.backoff import backoff
from solidjq.runtime.child_deaths import ChildDeath
from solidjq.runtime.config import ChildConfig, Config
from solidjq.runtime.hands import LastHands, read_hands
from solidjq.runtime.last_words import crashed_thread
from solidjq.runtime.registration import process_name
from solidjq.runtime.sampler import PEAK_UNIT, Cgroup, Sampler, resident

QUICK_DEATH = 5.0  # seconds: the replacement of a child that lived shorter is delayed, twice as long each time
FIRST_DELAY = 0.5  # seconds
LONGEST_DELAY = 30.0
LEAST_OOM_SCORE = 20  # thousandths of the memory
MOST_OOM_SCORE = 1000
MOST_LAST_WORDS = 16_384  # bytes of a crash's stack that are kept


@dataclass(slots=True)
class ChildSlot:
    """A place for one child; filled again when the child dies."""

    kind: str
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0  # by the monotonic clock, as start_at
    start_at: float = 0.0
    generation: int = 0  # how many children this slot has had
    quick_deaths: int = 0  # in a row
    seen: bool = False  # its row was in the database at the last maintenance
    leave_children: bool = False  # whether programs that its jobs started may outlive the child
    killed: bool = False  # by its supervisor, because it did not stop
    last_words: IO[bytes] | None = None  # the child's faulthandler writes here
    hands: IO[bytes] | None = None  # the claims that the child holds (see hands.py)

    def put_off(self, lived: float = 0.0) -> float:
        """Set when the next child may start, later after each quick death; return in how many seconds."""
        self.quick_deaths = self.quick_deaths + 1 if lived < QUICK_DEATH else 0
        delay = backoff(FIRST_DELAY, self.quick_deaths, LONGEST_DELAY) if self.quick_deaths else 0.0
        self.start_at = time.monotonic() + delay
        return delay

    def start(self, config: Config, supervisor_id: int) -> None:
        """Start a child as a program of its own. Raises OSError if there is no memory, process or file left."""
        self.name = process_name(self.kind)
        self.leave_children = config.leave_children
        self.seen = self.killed = False
        self.started_at = time.monotonic()
        # Both files are closed when the child is reaped.
        self.last_words = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self.hands = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self.process = subprocess.Popen(  # noqa: S603  (our own program)
            [sys.executable, "-P", "-m", "solidjq.runtime", self.name],
            stdin=subprocess.PIPE,
            bufsize=0,
            process_group=0,  # its own, with all that its jobs start: when it dies, these end too
            pass_fds=[self.last_words.fileno(), self.hands.fileno()],
            env={**os.environ, URL_ENVIRONMENT: config.database_url},
        )
        _blame(self.process.pid)
        self.generation += 1
        line = ChildConfig(
            kind=self.kind,
            name=self.name,
            supervisor_id=supervisor_id,
            config=config,
            last_words=self.last_words.fileno(),
            hands=self.hands.fileno(),
        ).to_json()
        with suppress(BrokenPipeError):  # the child is dead already, and will be reaped
            _lifeline(self.process).write(line.encode() + b"\n")

    def reap(self, sampler: Sampler, oom_kills: int | None) -> ChildDeath | None:
        """Return the child's death and empty the slot; None while the child lives, or if the slot is empty.

        ``oom_kills`` is the cgroup's count of OOM kills before the death, ``sampler`` reads the count after it.
        """
        process = self.process
        if process is None:
            return None
        if not self.leave_children:
            _end_group_of_dead(process)
        usage = _wait(process)
        if process.returncode is None:
            return None
        _lifeline(process).close()
        self.process = None
        witness: dict[str, object] = {"oom_kill": [oom_kills, sampler.cgroup.oom_kills()]}
        if usage is not None:
            witness["rusage"] = {"peak": usage.ru_maxrss * PEAK_UNIT, "user": usage.ru_utime, "system": usage.ru_stime}
        if self.killed:
            witness["killed_by_supervisor"] = True
        if sampler.stopping_since is not None:
            witness["term_at"] = write_instant(sampler.stopping_since)
        words = self._read_last_words()
        if words:
            witness["last_words"] = words
        held = self._read_hands()
        return ChildDeath(
            self.name,
            process.pid,
            process.returncode,
            self.killed,
            witness,
            held.not_begun,
            held.succeeded,
            None if (thread := crashed_thread(words)) is None else held.by_thread.get(thread),
        )

    def _read_last_words(self) -> str:
        if self.last_words is None:
            return ""
        with self.last_words as words:
            self.last_words = None
            words.seek(0)
            return words.read(MOST_LAST_WORDS).decode("utf-8", "replace")

    def _read_hands(self) -> LastHands:
        if self.hands is None:
            return LastHands()
        with self.hands as file:
            self.hands = None
            return read_hands(file)


def _blame(pid: int) -> None:
    """Make the kernel, when memory runs out, kill this child rather than its supervisor, which is this process.

    All have about the same size where files in /dev/shm, say, and no process took the memory; and only a living
    supervisor can record which child died and why. See proc(5), oom_score_adj; raising it needs no privileges.
    """
    size = resident()
    memory = Cgroup().limit() or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # not Linux, or the child has ended already
        score = int(Path("/proc/self/oom_score_adj").read_text()) + oom_score(size or 0, memory)
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(min(score, MOST_OOM_SCORE)))


def oom_score(size: int, memory: int) -> int:
    """Return how much higher a child's OOM score must be than that of its supervisor, which has this size in bytes.

    The kernel counts a score in thousandths of the ``memory`` that ran out, the limit of a control group or all of it,
    and adds it to what a process uses. It must be worth more than the supervisor's own size, because a child that has
    just begun uses next to nothing. Twice the size leaves room for growth.
    """
    return min(max(math.ceil(2 * size * 1000 / memory), LEAST_OOM_SCORE), MOST_OOM_SCORE)


def _end_group_of_dead(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a dead child's process group: its jobs may run again at once, beside what they started.

    Before the child is reaped, for only until then no other group can have its number.
    """
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return
    if process.returncode is None and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        with suppress(ProcessLookupError, PermissionError):  # macOS: nobody is left; a program of another user
            os.killpg(process.pid, signal.SIGKILL)


def reap_orphans(own: Collection[int]) -> None:
    """Collect the ended processes that jobs left behind: they are children of this process if it is process 1.

    ``own`` are the pids of its children. Whatever else it started itself is in its own process group, and is left to
    whoever started it. A child of its own that ends meanwhile hides those behind it until it is reaped, at the next
    SIGCHLD.
    """
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return
    with suppress(ChildProcessError):  # it has no child at all
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in own or os.getpgid(ended.si_pid) == os.getpgrp():
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def _wait(process: subprocess.Popen[bytes]) -> resource.struct_rusage | None:
    """Set the return code of a child that has ended and return the resources it used.

    None while it runs, or if Popen itself has already collected the status.
    """
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
