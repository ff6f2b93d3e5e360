"""The processes of a run: supervisors of ``jq work`` with their children, and commands; each with its log."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from history import VARIABLE, History
from sqlalchemy.engine import URL

from solidjq.database.urls import url_text
from support.paths import ROOT
from support.program import JQ, zygote
from support.waiting import PATIENCE
from support.zygote import Running

HEARTBEAT, THRESHOLD, SHUTDOWN = 0.5, 4.0, 2.0  # seconds
PREFETCH = 20  # jobs, of every second supervisor: what it holds and has not begun must not be lost or run twice, either
HERE = Path(__file__).parent


@dataclass
class Supervisor:
    """One ``jq work``; ``remote`` if its way to the database leads through the proxy."""

    name: str
    process: subprocess.Popen[bytes] | Running
    remote: bool

    def children(self) -> list[int]:
        """Return the pids of its workers and its dispatcher."""
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            started = [child.pid for child in psutil.Process(self.process.pid).children()]
            return [pid for pid in started if os.getpgid(pid) == pid]  # not the helper of programs/nursery.py
        return []

    def tree(self) -> list[int]:
        return [self.process.pid, *self.children()]


@dataclass
class Fleet:
    """Starts and ends the processes of a run on one database."""

    url: URL  # the direct way
    remote_url: URL
    folder: Path
    history: History
    workers: int = 2
    threads: int = 3
    supervisors: list[Supervisor] = field(default_factory=list)
    _started: int = 0

    def environment(self, url: URL) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JQ_")}
        return {
            **kept,
            "JQ_DATABASE_URL": url_text(url),
            "JQ_CONFIG": str(self.folder / "jq.toml"),
            "PYTHONPATH": f"{HERE}:{ROOT / 'tests'}",
            VARIABLE: str(self.history.path),
        }

    def start(self, *, remote: bool, environment: dict[str, str] | None = None) -> Supervisor:
        """Start a supervisor."""
        self._started += 1
        name = f"supervisor-{self._started}"
        arguments = {
            "--import": "chaos_jobs",
            "--processes": self.workers,
            "--threads": self.threads,
            "--heartbeat": HEARTBEAT,
            "--alive-threshold": THRESHOLD,
            "--shutdown-timeout": SHUTDOWN,
            "--prefetch": 0 if self._started % 2 else PREFETCH,
        }
        flat = [str(word) for pair in arguments.items() for word in pair]
        url = self.remote_url if remote else self.url
        env = {**self.environment(url), **(environment or {})}
        with (self.folder / f"{name}.log").open("wb") as log, Path(os.devnull).open("rb") as nothing:
            streams = {"stdin": nothing, "stdout": log, "stderr": log}
            process = (
                zygote().start(["work", *flat], [each.fileno() for each in streams.values()], env, self.folder)
                if environment is None
                else subprocess.Popen([sys.executable, *JQ, "work", *flat], **streams, env=env, cwd=self.folder)
            )
        started = Supervisor(name, process, remote)
        self.supervisors.append(started)
        return started

    def replace(self, lost: Supervisor) -> Supervisor:
        """Start another supervisor in place of one that is no more."""
        lost.process.wait(PATIENCE)
        self.supervisors.remove(lost)
        return self.start(remote=lost.remote)

    def restart_ended(self) -> int:
        """Replace supervisors that have ended by themselves, as systemd would; return how many."""
        ended = [one for one in self.supervisors if one.process.poll() is not None]
        for one in ended:
            self.replace(one)
        return len(ended)

    def everybody(self, *, remote_only: bool = False) -> list[int]:
        """Return the pids of all processes, or of those that are behind the proxy."""
        return [pid for one in self.supervisors if one.remote or not remote_only for pid in one.tree()]

    def send(self, number: int, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def run(self, *arguments: str, kill_after: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command, and kill it after some seconds."""
        env = self.environment(self.url)
        return zygote().run(list(arguments), "", env, self.folder, 5 * PATIENCE, kill_after=kill_after)

    def logs(self) -> dict[str, str]:
        return {path.stem: path.read_text(errors="replace") for path in sorted(self.folder.glob("supervisor-*.log"))}

    def end(self, number: int) -> None:
        """Send every supervisor a signal, and wait until all processes have ended."""
        pids = self.everybody()
        self.send(number, [one.process.pid for one in self.supervisors])
        for one in self.supervisors:
            one.process.wait(PATIENCE)
        deadline = time.monotonic() + SHUTDOWN + 8
        while time.monotonic() < deadline and any(psutil.pid_exists(pid) for pid in pids):
            time.sleep(0.02)
        self.send(9, pids)
        self.supervisors.clear()
