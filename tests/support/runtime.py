"""Real supervisors and workers: start them, freeze them, kill them."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from solidjq import Database, NewJob
from solidjq.database.tables import failed
from solidjq.database.tables import processes as process_table
from solidjq.errors import ConflictError
from solidjq.processes import heartbeat as processes_heartbeat
from solidjq.processes.heartbeat import Process
from solidjq.queue.states import State
from solidjq.rails.error_text import ErrorInfo, parse_error
from support.paths import PROGRAMS
from support.program import JQ, Shell
from support.queue import rows, state_of_each
from support.waiting import PATIENCE, until
from support.zygote import Running


@dataclass
class Runtime:
    """Starts ``jq work`` in the test's own folder, and sees what becomes of it."""

    database: Database
    shell: Shell
    supervisor: subprocess.Popen[str] | Running | None = None

    def start(
        self,
        *arguments: str,
        heartbeat: float = 0.1,
        threshold: float = 300,
        module: str = "sample_jobs",
        program: Sequence[str] = JQ,
    ) -> None:
        self.supervisor = self.shell.start(
            *("work", "--import", module, "--heartbeat", str(heartbeat), "--alive-threshold", str(threshold)),
            *arguments,
            program=program,
        )

    def processes(self, kind: str) -> list[Process]:
        with self.database.read() as connection:
            return [process for process in processes_heartbeat.list_processes(connection) if process.kind == kind]

    def worker(self) -> Process:
        """Wait for a registered worker."""
        found: Process = until(lambda: self.processes("Worker"), "a worker is registered")[0]
        return found

    def journal(self) -> list[str]:
        journal = self.shell.folder / "journal"
        return journal.read_text().splitlines() if journal.exists() else []

    def running(self, name: str) -> int:
        """Wait until a held job runs; return the pid of its worker."""
        line = until(
            lambda: next((x for x in self.journal() if x.startswith(f"{name} runs in ")), None), f"{name} runs"
        )
        return int(line.rsplit(" ", 1)[1])

    def running_async(self, name: str) -> None:
        until(lambda: any(x.startswith(f"{name} runs in ") for x in self.journal()), f"{name} runs")

    def let_end(self, name: str) -> None:
        (self.shell.folder / f"{name}.may-end").touch()

    def state(self, job_id: int) -> State:
        return state_of_each(self.database)[job_id]

    def wait_for(self, job_id: int, state: State) -> None:
        until(
            lambda: self.state(job_id) is state,
            f"job {job_id} is {state.value}",
            instead=lambda: f"; it is {self.state(job_id).value}, {self.describe()}",
        )

    def describe(self) -> str:
        """Say which processes live, and which are registered."""
        status = None if self.supervisor is None else self.supervisor.poll()
        supervisor = "the supervisor runs" if status is None else f"the supervisor ended with {status}"
        with self.database.read() as connection:
            registered = processes_heartbeat.list_processes(connection)
        each = [
            f"{process.kind} {process.pid} {'runs' if is_running(process.pid) else 'is gone'}, "
            f"holds {process.claimed} jobs, beat {process.heartbeat_age} s ago"
            for process in registered
        ]
        return "; ".join([supervisor, *each])

    def error(self, job_id: int) -> ErrorInfo:
        (row,) = [row for row in rows(self.database, failed) if row["job_id"] == job_id]
        return parse_error(row["error"])

    def signal(self, number: signal.Signals) -> None:
        assert self.supervisor is not None
        self.supervisor.send_signal(number)

    def log_lines(self) -> Iterator[str]:
        """Yield the log as it is written; it ends early if the test waits too long for the next line."""
        supervisor = self.supervisor
        assert supervisor is not None
        assert supervisor.stderr is not None
        while True:
            limit = threading.Timer(PATIENCE, supervisor.kill)  # its children stop by themselves, and the log ends
            limit.start()
            try:
                line = supervisor.stderr.readline()
            finally:
                limit.cancel()
            if not line:
                return
            yield line

    def wait_for_log(self, words: str) -> None:
        assert any(words in line for line in self.log_lines()), f"it ended without saying {words!r}"

    def ended(self) -> tuple[int, str]:
        """Wait for the supervisor's end; return its exit code and its log."""
        assert self.supervisor is not None
        _, log = self.supervisor.communicate(timeout=PATIENCE)
        return self.supervisor.returncode, log

    def stop(self) -> tuple[int, str]:
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill_all(self) -> None:
        supervisor = self.supervisor
        running = supervisor is not None and supervisor.stderr is not None and not supervisor.stderr.closed
        if supervisor is not None and running:
            for pid in (supervisor.pid, *children_of(supervisor.pid)):
                kill(pid, signal.SIGKILL)
        for kind in ("Worker", "Dispatcher"):
            for process in self.processes(kind):
                if process.hostname == socket.gethostname():  # a row that a test made up may have the pid of anybody
                    kill(process.pid, signal.SIGKILL)
        if supervisor is not None and running:  # whoever is left of its children holds the pipe too
            print(*supervisor.communicate(timeout=PATIENCE), sep="\n")  # noqa: T201  (pytest shows it where a test failed)


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children, and of theirs; a worker may not be registered yet, or not any more."""
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def freeze(database: Database, *pids: int) -> None:
    """Stop these processes, none of them in a transaction whose locks would keep the others from beating or pruning."""
    while True:
        for pid in pids:
            kill(pid, signal.SIGSTOP)
        # A thread that is within a system call ends it first, and may take a lock by it.
        until(lambda: all(is_stopped(pid) for pid in pids), "every thread of them has stopped")
        try:
            with database.write() as connection:
                connection.execute(select(process_table.c.id).with_for_update(nowait=True)).all()
                return
        except ConflictError:
            for pid in pids:
                kill(pid, signal.SIGCONT)
            with database.write():  # stopped again before they had run at all, they would hold the lock for ever
                pass


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it ended between opening the file and reading it
        return False


def is_stopped(pid: int) -> bool:
    """Tell whether every thread of a process is stopped, or there is no such process."""
    try:
        states = [stat.read_text().rsplit(")", 1)[1].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # a thread that has just ended, perhaps the last one
        return not is_running(pid)
    return set(states) <= {"T", "t", "Z", "X"}


def held(name: str, **settings: Any) -> NewJob:
    return NewJob(class_name="hold", args=[name], **settings)


@pytest.fixture
def runtime(database: Database, shell: Shell) -> Iterator[Runtime]:
    """Start ``jq work`` on this test's database, with the jobs of sample_jobs."""
    shell.environment["PYTHONPATH"] = str(PROGRAMS)
    started = Runtime(database, shell)
    yield started
    started.kill_all()
