"""What workers without a job cost the server: statements, connections, CPU."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg

import ours
import watch
from contenders import Plan, each_peer, jq
from figures import Row
from rivals import Peer

WINDOW = 30.0  # seconds
STILL = 10.0  # seconds in which no connection was opened: all workers are up
FOR_EACH = 10.0  # seconds for a worker to start
THREADS = 10  # of a worker
CONNECTIONS = 6  # of a worker at most, whoever's it is
MEGABYTES = 50  # of a worker at most, with the server's part of it
COUNT = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
STATEMENT = ("LOG:  statement: ", "LOG:  execute ")
Command = tuple[Sequence[str], Mapping[str, str]]


def rows(plan: Plan) -> Iterator[Row]:
    """Start so many workers; jq as one supervisor's, each peer as so many programs."""
    if plan.stage.name != "PostgreSQL":
        return
    for count in plan.idle:
        empty, triggered = partial(ours.empty, plan.stage), partial(ours.with_trigger, plan.stage)
        setting = _options(count)
        contenders = [
            jq(setting, 1, empty, partial(_ours, count)),
            jq(f"{setting}, with the trigger", 1, triggered, partial(_ours, count)),
        ]
        contenders += each_peer(plan, "idle", partial(_theirs, count))
        title = f"{count} idle workers, {count * THREADS} job threads, {WINDOW:.0f} seconds"
        yield Row("idle", title, contenders, 1, count, "")


def _options(count: int) -> str:
    return f"--processes {count} --threads {THREADS}"


def _ours(count: int, url: str) -> dict[str, float]:
    command = ours.command(_options(count))
    return at_rest([(command, ours.environment(url))], url, count)


def _theirs(count: int, peer: Peer, given: dict[str, Any], url: str) -> dict[str, float]:
    return at_rest([(peer.command("work", **given), peer.environment(url))] * count, url, count)


def at_rest(commands: Sequence[Command], url: str, workers: int) -> dict[str, float]:
    """Run the commands until all of their workers are up; return what they cost in a window of time.

    Statements are counted in a second window by the server's log, which would cost CPU in the first one. Raises
    CrashedError before it starts any if there is not enough memory: the machine would end programs of others.
    """
    free = psutil.virtual_memory().available / 2**20
    if workers * MEGABYTES > free:
        raise watch.CrashedError(f"{workers} workers need up to {workers * MEGABYTES:,} MB; {free:,.0f} MB are free")
    with ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(url, autocommit=True))
        started = [stack.enter_context(watch.running(*command, Path(os.devnull))) for command in commands]
        connections = _wait_for_all(admin, started, workers)
        before = _cpu_seconds(admin)
        time.sleep(WINDOW)
        cpu = _cpu_seconds(admin) - before
        statements = _count_statements(admin)
        memory = sum(_unshared(process) for process in psutil.Process().children(recursive=True))
    return {
        "connections": connections,
        "statements/s": statements / WINDOW,
        "server's CPU s/min": cpu * 60 / WINDOW,
        "workers' MB": memory,
    }


def _wait_for_all(admin: "psycopg.Connection[Any]", started: Sequence[Callable[[], None]], workers: int) -> int:
    give_up = time.monotonic() + watch.START + workers * FOR_EACH
    count, since = 0, time.monotonic()
    while count < workers or time.monotonic() - since < STILL:
        for alive in started:
            watch.pause(alive, give_up, 0)
        time.sleep(0.5)
        if (now := _number(admin, COUNT)) > count:
            count, since = now, time.monotonic()
    return count


def _number(admin: "psycopg.Connection[Any]", query: str) -> int:
    ((number,),) = admin.execute(query).fetchall()
    return int(number)


def _cpu_seconds(admin: "psycopg.Connection[Any]") -> float:
    """Return the CPU seconds of the server: of the postmaster, of its processes, and of those that have ended."""
    postmaster = psutil.Process(_number(admin, "SELECT pg_backend_pid()")).parent()
    if postmaster is None:
        raise watch.CrashedError("the server has no postmaster")
    total = sum(postmaster.cpu_times()[:4])  # the last two are those of ended processes
    for process in postmaster.children():
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return float(total)


def _count_statements(admin: "psycopg.Connection[Any]") -> int:
    ((folder,),) = admin.execute("SHOW data_directory").fetchall()
    log = Path(folder) / "log"
    _log_statements(admin, "all")
    start = log.stat().st_size
    time.sleep(WINDOW)
    end = log.stat().st_size
    _log_statements(admin, "none")
    with log.open("rb") as lines:
        lines.seek(start)
        written = lines.read(end - start).decode(errors="replace")
    return sum(written.count(kind) for kind in STATEMENT)


def _log_statements(admin: "psycopg.Connection[Any]", which: str) -> None:
    admin.execute(f"ALTER SYSTEM SET log_statement = '{which}'")
    admin.execute("SELECT pg_reload_conf()")
    time.sleep(2.0)  # until every session has read it


def _unshared(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().pss / 2**20
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
