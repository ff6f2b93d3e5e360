"""Processes that exist only as rows: register them, move their heartbeats into the past. And real ones that idle."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import psutil
from sqlalchemy import update

from solidjq import Database
from solidjq.database.tables import processes as process_table
from solidjq.database.times import ago
from solidjq.processes import heartbeat, pruning
from solidjq.processes.heartbeat import list_processes
from support.waiting import until


def add_process(
    database: Database,
    name: str = "worker-1",
    *,
    kind: str = "Worker",
    pid: int = 4242,
    metadata: Mapping[str, object] | None = None,
) -> int:
    """Register a process that does not exist."""
    return database.transact(
        heartbeat.register, kind=kind, name=name, pid=pid, hostname="testhost", metadata=metadata or {}
    )


def add_attendants(database: Database) -> None:
    """Register a worker of all queues and a dispatcher: with them no job that is put back waits for want of one."""
    add_process(database, "worker-that-lives", pid=4300)
    add_process(database, "dispatcher-that-lives", kind="Dispatcher", pid=4301)


def add_worker_of(database: Database, queues: str, name: str = "worker-1", *, pid: int = 4242, **more: str) -> int:
    """Register a worker that polls these queues, as Solid Queue writes them into its metadata."""
    metadata = {"queues": queues, **more}
    return database.transact(heartbeat.register, kind="Worker", name=name, pid=pid, hostname="h", metadata=metadata)


def silence(database: Database, process: int, seconds: float) -> None:
    """Move a process's last heartbeat into the past."""
    with database.write() as connection:
        beat = update(process_table).where(process_table.c.id == process)
        connection.execute(beat.values(last_heartbeat_at=ago(seconds)))


def all_silent(database: Database, threshold: float) -> bool:
    with database.read() as connection:
        return len(pruning.find_dead(connection, threshold)) == len(list_processes(connection))


@contextmanager
def idle_process(title: str = sys.executable) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real process that does nothing until it is killed; ``title`` begins its command line."""
    with subprocess.Popen([title, "-c", "input()"], executable=sys.executable, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def stopped_process(title: str = sys.executable) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real process that is frozen by SIGSTOP."""
    with idle_process(title) as process:
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "the process is stopped")
        yield process


def start_of(pid: int) -> datetime:
    return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)


def fail_orphans(database: Database) -> list[int]:
    """Fail the claims of processes without a row; return their jobs."""
    return [job_id for job_ids in pruning.fail_orphans(database) for job_id in job_ids]
