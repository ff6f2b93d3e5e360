"""Every command at a million failures, as a whole program: seconds, CPU seconds, peak memory, CPU of the server.

make bench-million                                              PostgreSQL and SQLite, from throw-away databases
.venv/bin/python bench/million.py mysql://root@127.0.0.1/empty  an empty database on a server of one's own
.venv/bin/python bench/million.py URL --keep --only incidents   once more, on the queue that --keep left there

Memory is the peak of resident pages of the program (ru_maxrss). The server's CPU is that of all processes of a server
on this machine: have it to yourself. A command that writes is measured last, since it changes the queue.
"""

import argparse
import json
import multiprocessing
import os
import platform
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from sqlalchemy import delete, func, insert, inspect, select, text

import crowd
import stage as stages
from solidjq import Database, open_database
from solidjq.database import tables
from solidjq.database.poolers import schema_of
from solidjq.database.times import ago, utcnow

ENOUGH = 900.0  # seconds after which a command is stopped
SQLITE_PART = 5  # a file has a fifth of the failures of a server
PODS = 3_000  # silent processes of one host and one moment
CLAIMS = 10_000  # of one silent process
ON_A_TERMINAL = "tty"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a program took."""

    command: str
    seconds: float
    cpu: float
    megabytes: float
    server_cpu: float | None  # None: no server, or none on this machine
    lines: int
    code: int


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, whether on a terminal, and what is prepared before it; None leaves the queue as it is."""

    line: str
    where: str = ""
    prepare: Callable[[Database], object] | None = None

    @property
    def title(self) -> str:
        """The command line with its place."""
        return f"{self.line}{f'   ({self.where})' if self.where else ''}"


def commands(database: Database) -> Iterator[Command]:
    """Yield the commands, those that only read first."""
    names = _names(database)
    yield Command("--version")
    for line in ("status", "failed list", "failed diff", "incidents list", "suspects", "jobs list --limit 50"):
        yield Command(line, ON_A_TERMINAL)
    yield Command("failed list -o json --limit 100")
    yield Command("failed list -o ids")
    yield Command("failed list -o ndjson")
    yield Command("failed diff -o json")
    yield Command("failed diff --since 1d --against 1d -o json")
    yield Command("jobs list --state failed -o ids")
    yield Command("jobs list --state finished -o ndjson")
    yield Command("incidents list -o json")
    yield Command("incidents list --since 30d")
    yield Command(f"incidents show {names['incident']} -o json")
    yield Command(f"failed list {names['incident']} -o ids")
    yield Command(f"incidents report {names['incident']}")
    yield Command("suspects -o json")
    yield Command("doctor -o json")
    yield Command("check all")
    yield Command("metrics")
    yield Command(f"history {names['job']} -o json")
    yield Command(f"history {names['incident']} -o json")
    yield Command("prune --dry-run -o json")
    yield Command("retry --safe --dry-run", ON_A_TERMINAL)
    yield Command("retry --safe --dry-run -o ids")
    yield Command("prune --quiet")
    yield Command("prune --force -o ids", f"{PODS:,} silent processes", lambda opened: pods(opened, PODS, 1))
    yield Command("prune --force -o ids", f"{CLAIMS:,} claims of one process", lambda opened: pods(opened, 1, CLAIMS))
    yield Command("retry --safe --yes -o json")
    yield Command("operations list -o json")
    yield Command("operations show LAST -o json")
    yield Command("operations verify -o json")
    yield Command("undo LAST --yes -o ids")
    yield Command("discard --class MailJob --yes --reason bench -o json")
    yield Command("undo LAST --yes -o json")


def _names(database: Database) -> dict[str, str]:
    """Return the name of an incident and of a job that died at it."""
    died = tables.crashes.c
    with database.read() as connection:
        death, job = connection.execute(
            select(died.death_id, died.job_id).where(died.death_id.is_not(None)).order_by(died.death_id.desc()).limit(1)
        ).one()
    return {"incident": f"d{death}", "job": str(job)}


def pods(database: Database, count: int, claims: int) -> None:
    """Add processes that fell silent an hour ago, each with jobs that it has claimed."""
    process, ready = tables.processes.c, tables.ready.c
    beat = ago(3600)
    with database.write() as connection:
        silent = insert(tables.processes).values(
            kind="Worker", pid=1, metadata="{}", created_at=ago(7200), last_heartbeat_at=beat
        )
        names = [{"name": f"pod-{number}-{time.time()}", "hostname": f"pod-{number}"} for number in range(count)]
        connection.execute(silent, names)
        ids = connection.scalars(select(process.id).order_by(process.id.desc()).limit(count)).all()
        job_ids = connection.scalars(select(ready.job_id).order_by(ready.job_id).limit(count * claims)).all()
        rows = [{"job_id": job_id, "process_id": ids[at % count]} for at, job_id in enumerate(job_ids)]
        connection.execute(insert(tables.claimed).values(created_at=utcnow()), rows)
        connection.execute(delete(tables.ready).where(ready.job_id.in_(select(tables.claimed.c.job_id))))


# -- one program ------------------------------------------------------------------------------------------------------


def measure(url: str, command: Command, server: "Server") -> Measured:
    """Run a command to its end, and return what it took. It is interrupted after ``ENOUGH`` seconds."""
    with opened(url) as database:
        if command.prepare is not None:
            command.prepare(database)
        line = command.line.replace("LAST", _last_operation(database))
    before = server.cpu()
    start = time.perf_counter()
    program, output = _started(url, line, terminal=command.where == ON_A_TERMINAL)
    counted = _Counting(output)
    stopping = threading.Timer(ENOUGH, lambda: program.send_signal(signal.SIGINT))
    stopping.start()
    _, status, usage = os.wait4(program.pid, 0)
    stopping.cancel()
    seconds = time.perf_counter() - start
    program.returncode = os.waitstatus_to_exitcode(status)
    lines = counted.finish()
    after = server.cpu()
    return Measured(
        command.title,
        seconds,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        None if before is None or after is None else after - before,
        lines,
        program.returncode,
    )


def _last_operation(database: Database) -> str:
    with database.read() as connection:
        return str(connection.scalar(select(func.max(tables.operations.c.id))) or 0)


def _started(url: str, line: str, *, terminal: bool) -> tuple[subprocess.Popen[bytes], int]:
    """Start the program with its output on a pipe, or on a terminal of 120 columns without a pager."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    environment = {
        **os.environ,
        "JQ_DATABASE_URL": url,
        "PAGER": "cat",
        "COLUMNS": "120",
        "LINES": "50",
        "TERM": "xterm",
    }
    program = subprocess.Popen(  # noqa: S603  (the bench's own commands)
        [sys.executable, "-m", "solidjq_cli", *shlex.split(line)],
        env=environment,
        stdin=writer if terminal else subprocess.DEVNULL,
        stdout=writer,
        stderr=writer if terminal else subprocess.DEVNULL,
    )
    os.close(writer)
    return program, reader


class _Counting:
    """Reads what a program prints, so that it never waits for its reader, and counts the lines."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._lines = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError):  # a terminal whose last writer has left
            while part := os.read(self._output, 1 << 16):
                self._lines += part.count(b"\n")

    def finish(self) -> int:
        """Wait for the end of the output, and return its lines."""
        self._thread.join()
        os.close(self._output)
        return self._lines


class Server:
    """The processes of a database's server, if they are on this machine."""

    def __init__(self, database: Database) -> None:
        self._root: psutil.Process | None = None
        backend = database.url.get_backend_name()
        with suppress(psutil.Error), database.read() as connection:
            if backend == "postgresql":
                own = psutil.Process(connection.scalar(text("SELECT pg_backend_pid()")))
                self._root = own.parent()
            elif backend == "mysql":
                file = str(connection.scalar(text("SELECT @@pid_file")))
                folder = str(connection.scalar(text("SELECT @@datadir")))
                self._root = psutil.Process(int(Path(folder, file).read_text().strip()))

    def cpu(self) -> float | None:
        """Return the CPU seconds of the server so far."""
        if self._root is None:
            return None
        time.sleep(0.3)  # a backend that has just ended is counted once its parent has seen that
        total = 0.0
        for process in (self._root, *self._root.children()):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
                total += times.children_user + times.children_system if process == self._root else 0
        return total


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """Open a queue for a block."""
    database = open_database(url)
    try:
        yield database
    finally:
        database.close()


# -- a run ------------------------------------------------------------------------------------------------------------


def _fill(url: str, count: int, deaths: int | None, finished: int | None) -> None:
    with opened(url) as database:
        crowd.fill(database, count, deaths, finished)
        crowd.analyze(database)


def run(console: Console, url: str, chosen: argparse.Namespace) -> list[Measured]:
    """Fill the database if it is empty, measure, and print each command as soon as it is done."""
    with opened(url) as database:
        count = chosen.failures // (SQLITE_PART if database.url.get_backend_name() == "sqlite" else 1)
        with database.read() as connection:
            filled = inspect(connection).has_table(tables.jobs.name, schema_of(connection))
        if filled and not chosen.keep:
            raise SystemExit(f"million: {database} has a queue already; name an empty database, or add --keep")
        if not filled:
            # A program that this one starts has at least its peak of memory for ru_maxrss, and a fill takes 280 MB.
            filling = multiprocessing.get_context("spawn").Process(
                target=_fill, args=(url, count, chosen.deaths, chosen.finished)
            )
            filling.start()
            filling.join()
            if filling.exitcode:
                raise SystemExit(f"million: {database} was not filled")
        with database.read() as connection:
            failures = connection.scalar(select(func.count()).select_from(tables.failed))
            jobs = connection.scalar(select(func.count()).select_from(tables.jobs))
        server = Server(database)
        lines = [one for one in commands(database) if not chosen.only or any(word in one.title for word in chosen.only)]
    console.print(f"{database}: {failures:,} failures, {jobs:,} jobs", highlight=False, soft_wrap=True)
    measured = []
    for command in lines:
        measured.append(measure(url, command, server))
        one = measured[-1]
        server_cpu = "" if one.server_cpu is None else f"{one.server_cpu:8.2f} s server"
        console.print(
            f"{one.seconds:8.2f} s {one.cpu:8.2f} s CPU {one.megabytes:6.0f} MB {server_cpu} {one.lines:9,} lines "
            f"exit {one.code}  {one.command}",
            highlight=False,
            soft_wrap=True,
        )
    return measured


def show(console: Console, results: dict[str, Sequence[Measured]]) -> None:
    """Print a table for each database, as docs/ has it."""
    for place, measured in results.items():
        table = Table(title=place, title_justify="left", box=None)
        table.add_column("command")
        for heading in ("seconds", "CPU s", "MB", "server CPU s"):
            table.add_column(heading, justify="right")
        for one in measured:
            server = "" if one.server_cpu is None else f"{one.server_cpu:.2f}"
            table.add_row(one.command, f"{one.seconds:.2f}", f"{one.cpu:.2f}", f"{one.megabytes:.0f}", server)
        console.print(table)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="*", metavar="URL", help="empty databases; none: throw-away ones")
    parser.add_argument(
        "--failures", type=int, default=1_000_000, help="on SQLite a fifth of them (default %(default)s)"
    )
    parser.add_argument(
        "--deaths", type=int, help="processes that died in a tenth as many incidents; else a few thousand"
    )
    parser.add_argument("--finished", type=int, help="finished jobs; else as many as failures")
    parser.add_argument("--only", action="append", metavar="TEXT", help="commands that contain it; may be repeated")
    parser.add_argument("--keep", action="store_true", help="measure a queue that exists as it is; commands change it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    chosen = options()
    console = Console(width=None if sys.stdout.isatty() else 150)
    results: dict[str, Sequence[Measured]] = {}
    if chosen.urls:
        for url in chosen.urls:
            results[url] = run(console, url, chosen)
    else:
        with stages.postgresql() as server:
            results["PostgreSQL"] = run(console, server.url(server.prepared("empty", lambda _url: None)), chosen)
        with stages.sqlite() as folder:
            file = folder.prepared("million", lambda _url: None)
            results["SQLite"] = run(console, f"sqlite:{file}", chosen)
    show(console, results)
    if chosen.json:
        facts: dict[str, Any] = {"python": platform.python_version(), "failures": chosen.failures}
        facts["figures"] = {place: [asdict(one) for one in measured] for place, measured in results.items()}
        chosen.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
