"""``jq demo``: the whole story, with real processes and a real kill -9."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from solidjq_cli import options, session
from solidjq_cli.arguments import by_own_name, program_name
from solidjq_cli.demo_queue import demo_queue
from solidjq_cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psutil

    from solidjq import Database
    from solidjq.processes.heartbeat import Process

MODULE = "solidjq_cli.demo_jobs"
JOBS = {"send_receipt": 4, "resize_image": 4, "build_report": 8}
THRESHOLD = 2  # seconds; nobody watches a demo for five minutes
PATIENCE = 20.0  # seconds before the demo gives up on something that should happen


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(database: options.DatabaseOption = None) -> None:
    """Watch jobs survive the death of their workers, for real.

    Starts workers on a temporary queue, kills one with kill -9 and later the whole process tree, prunes, shows what
    failed, retries it, and counts every job. Prints each command that it runs. Takes less than half a minute, leaves
    nothing behind, and exits with 1 if a job was lost.

    With --database it uses that database, if no process is registered and no job is claimed there: its alive threshold
    of 2 seconds would prune healthy workers. JQ_DATABASE_URL is ignored.

    \b
    Examples:
      jq demo
      jq demo --database postgres://user@host/scratch
    """
    command = session.current(database)
    folder = Path(tempfile.mkdtemp(prefix="jq-demo-"))
    try:
        with demo_queue(command.named_url(), command.named.table_prefix, folder) as opened:
            code = _Demo(opened, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(code)


class _StuckError(Exception):
    """Something that should have happened did not."""


class _Demo:
    def __init__(self, database: Database, folder: Path) -> None:
        from solidjq.database import tables
        from solidjq.database.urls import url_text
        from solidjq_cli.demo_jobs import JOURNAL, QUEUE

        self._database = database
        self._journal = folder / "journal"
        self._journal.touch()
        self._log = folder / "work.log"
        self._queue_name = QUEUE
        self._died = ("failed", "list", "--died", "--queue", QUEUE)
        self._environment = {
            **os.environ,
            "JQ_DATABASE_URL": url_text(database.url),
            "JQ_TABLE_PREFIX": tables.prefix(),
            JOURNAL: str(self._journal),
        }
        self._work: subprocess.Popen[bytes] | None = None
        self.job_ids: list[str] = []

    def run(self) -> Exit:
        """Tell the story; return 0 if every job finished."""
        try:
            self._story()
        except _StuckError as error:
            _say(f"The demo is stuck: {error}. What the workers said:")
            _say(self._log.read_text() if self._log.exists() else "nothing")
            return Exit.UNEXPECTED
        finally:
            self._kill_everything()
        return self._verdict()

    def _story(self) -> None:
        _say(f"Each $ is a command that really runs, on the queue {self._database}")
        _head("Jobs of three classes")
        for name in JOBS:
            self._enqueue(name, range(1, 5))

        _head("Two workers start. One is killed with jobs in its hands")
        started = self._start_work()
        victim = self._wait(lambda: self._busy(started), "a worker with a running report")
        self._kill([victim])
        self._wait(self._count_failed, "its supervisor to fail its jobs")
        _say("Its supervisor failed the jobs it held with ProcessExitError, and started another worker.")
        self._show(*self._died)

        _head("Then, with more to do, the whole tree dies: supervisor, workers, dispatcher. Nobody is left to notice")
        started = self._started()
        self._enqueue("build_report", range(5, 9))
        self._wait(lambda: self._busy(started), "another running report")
        self._kill(self._own())
        _say(f"{sum(process.claimed for process in self._processes())} jobs are claimed by dead processes.")

        _head(f"A line for cron: prune what was silent for {THRESHOLD} seconds (on a real queue: 300)")
        self._wait(self._all_silent, f"their heartbeats to be {THRESHOLD} seconds old")
        self._show("prune", "--alive-threshold", str(THRESHOLD))
        self._show(*self._died)
        self._show("incidents", "list", "--since", "10m")
        _say("The prune failed their jobs with ProcessPrunedError.")
        _say("Nothing retries them by itself: one of them may be what killed its process.")

        _head("A person looked at them, and puts the safe ones back to work: all, as each died but once")
        self._show("retry", "--safe", "--queue", self._queue_name, "--yes", "--reason", "killed by the demo")
        self._start_work()
        self._wait(self._all_finished, "every job to finish")
        self._stop_work()
        self._show("queues", "list")

    # -- what it does -------------------------------------------------------------------------------------------------

    def _enqueue(self, name: str, numbers: range) -> None:
        lines = "".join(f"[{number}]\\n" for number in numbers)
        _say(f"$ printf '{lines}' | jq enqueue {name} --stdin --import {MODULE} -o ids")
        enqueued = self._jq(
            "enqueue", name, "--stdin", "--import", MODULE, "-o", "ids", stdin=lines.replace("\\n", "\n")
        )
        _say(" ".join(enqueued.split()))
        self.job_ids += enqueued.split()

    def _show(self, *arguments: str) -> None:
        _say(f"$ jq {shlex.join(arguments)}")
        self._jq(*arguments, shown=True)

    def _jq(self, *arguments: str, stdin: str = "", shown: bool = False) -> str:
        done = subprocess.run(  # noqa: S603  (our own program)
            _program(arguments),
            env=self._environment,
            input=stdin,
            stdout=None if shown else subprocess.PIPE,
            check=False,
            text=True,
        )
        if done.returncode != Exit.DONE:
            raise _StuckError(f"jq {arguments[0]} ended with exit code {done.returncode}")
        return done.stdout or ""

    def _start_work(self) -> int:
        """Start workers; return how many reports had been started before."""
        arguments = (
            *("work", "--import", MODULE, "--queues", self._queue_name, "--processes", "2", "--threads", "2"),
            *("--heartbeat", "0.5", "--alive-threshold", str(THRESHOLD)),
        )
        _say(f"$ jq {shlex.join(arguments)} &")
        started = self._started()
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for the demo, which then ends the workers itself.
            self._work = subprocess.Popen(  # noqa: S603  (our own program)
                _program(arguments), env=self._environment, stderr=log, stdout=log, start_new_session=True
            )
        return started

    def _stop_work(self) -> None:
        if self._work is None:
            return
        _say(f"$ kill -TERM {self._work.pid}")
        self._work.terminate()
        try:
            self._work.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise _StuckError("the supervisor does not stop") from None
        self._work = None  # its pid may be another's from now on

    def _kill(self, dead: Sequence[Process]) -> None:
        import psutil

        from solidjq.text import count_of

        _say(f"$ kill -9 {' '.join(str(process.pid) for process in dead)}")
        running = self._running()
        for process in dead:
            with suppress(KeyError, psutil.NoSuchProcess):  # it ended meanwhile
                running[process.pid].kill()
        for process in dead:
            _say(
                f"  {process.name} held {count_of(process.claimed, 'job')}" if process.claimed else f"  {process.name}"
            )

    def _kill_everything(self) -> None:
        """Leave no process behind, however the demo ends."""
        import psutil

        if self._work is None:
            return
        self._work.kill()  # first, so that it starts no others
        for process in self._running().values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._work.wait()

    # -- what it looks at ---------------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.05)
        raise _StuckError(f"waited {PATIENCE:g} seconds for {what}")

    def _running(self) -> dict[int, psutil.Process]:
        """Return, by pid, the processes that this demo started: those of its supervisor's session.

        Whom it kills is looked up here. A row is written by whoever may write to the database, and may name any pid.
        """
        import psutil

        session = None if self._work is None else self._work.pid
        found = {}
        for pid in psutil.pids() if session else ():
            with suppress(OSError, psutil.NoSuchProcess):  # it ended meanwhile, or is another user's
                if os.getsid(pid) == session:
                    found[pid] = psutil.Process(pid)
        return found

    def _own(self) -> list[Process]:
        """Return the registered processes that this demo started."""
        running = self._running()
        return [each for each in self._processes() if each.hostname == socket.gethostname() and each.pid in running]

    def _processes(self) -> list[Process]:
        from solidjq.processes.heartbeat import list_processes

        with self._database.read() as connection:
            return list_processes(connection)

    def _busy(self, started: int) -> Process | None:
        """Return the worker with the most claims, once more than ``started`` reports have started."""
        if self._started() <= started:
            return None
        return max((p for p in self._own() if p.claimed), key=lambda p: p.claimed, default=None)

    def _started(self) -> int:
        return sum(line.startswith("started build_report") for line in self._lines())

    def _lines(self) -> list[str]:
        return self._journal.read_text().splitlines()

    def _all_silent(self) -> bool:
        return not any(process.is_alive(THRESHOLD) for process in self._processes())

    def _count(self, state: str) -> int:
        from solidjq.queue.jobs import find_jobs

        with self._database.read() as connection:
            found = find_jobs(connection, self.job_ids)
        return sum([each.value for each in view.states] == [state] for views in found.values() for view in views)

    def _count_failed(self) -> int:
        return self._count("failed")

    def _all_finished(self) -> bool:
        return self._count("finished") == len(self.job_ids)

    def _verdict(self) -> Exit:
        ended = {line.removeprefix("ended ") for line in self._lines() if line.startswith("ended ")}
        expected = {f"{name} {number}" for name, count in JOBS.items() for number in range(1, count + 1)}
        finished = self._count("finished")
        if lost := sorted(expected - ended):
            _say(f"\nLOST: never ended: {', '.join(lost)}")
        if lost or finished != len(expected):
            _say(f"\nOnly {finished} of {len(expected)} jobs are finished.")
            return Exit.UNEXPECTED
        _say(f"\nAll {len(expected)} jobs are finished; none was lost.")
        _say(by_own_name("Now your own queue, without changing it: jq --read-only --database URL failed list --died"))
        return Exit.DONE


def _program(arguments: Sequence[str]) -> list[str]:
    """Return the command line of our own program, under the name that it was called by: its hints name that too."""
    call = (
        f"import sys; sys.argv[0] = {program_name()!r}; from solidjq_cli.__main__ import program; sys.exit(program())"
    )
    return [sys.executable, "-P", "-c", call, *arguments]


def _head(text: str) -> None:
    _say(f"\n# {text}")


def _say(text: str) -> None:
    typer.echo(by_own_name(text))
    sys.stdout.flush()
