"""Whether the process that a row names by its pid still runs on this host.

The kernel reuses pids, and a container that restarts in place gives its new processes the pids of the old ones. A
host's name does not identify a pid namespace either: containers of one name have pids of their own. So an existing pid
proves nothing by itself:

- A process that started after the last heartbeat of the row is another process: the row's own is gone.
- A sample records the boot, the pid namespace and the start of its process. In another boot or namespace this host
  cannot see the process, whoever has its pid here.
- Solid Queue's rows record none of these. The process with the pid may be the row's own if it is old enough and, where
  this user may see its program, that program may execute workers: an init with pid 1 is not a worker. It certainly is
  a worker if it has Solid Queue's title.
"""

import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Row

from solidjq.processes.heartbeat import Process
from solidjq.processes.samples import boot_id, clocks, instant, pid_namespace, sample_of, write_instant

T = TypeVar("T")

SAME_START = timedelta(seconds=2)  # by which two readings of one start may differ: the kernel's is in whole seconds
TITLE = re.compile(r"solid-queue-[a-z-]+\b")  # how Solid Queue titles its processes
# The programs that execute workers, by the names of their files and the titles that Ruby servers take.
INTERPRETER = re.compile(
    r"(?i)(?:j|truffle)?ruby|java|graal|rails|rake|bundle|puma|unicorn|passenger|falcon|python|pypy|(?:solid)?jq"
)
GONE = "gone"
UNKNOWN = "unknown"
ELSEWHERE = "elsewhere"


class LocalProcess(NamedTuple):
    """What this host says of the pid in a row."""

    state: str  # GONE, UNKNOWN, ELSEWHERE, or what the operating system reports: running, sleeping, stopped ...
    started_at: datetime | None = None
    certain: bool = False  # it is the row's own process; else another program may have its pid by now

    @property
    def runs(self) -> bool:
        """Whether the process exists, as far as this host can see."""
        return self.state not in {GONE, UNKNOWN, ELSEWHERE}


def ran_here(process: Row[Any] | Process) -> bool:
    """Whether a process ran under this host's name, or shares this program's pids whatever the host's name was then.

    A laptop that joins another network, or a cloud host whose name is set late, renames itself while its processes run.
    """
    if process.hostname is not None and process.hostname == socket.gethostname():
        return True
    sample = sample_of(process.metadata)
    ours = {"boot_id": boot_id, "pid_ns": pid_namespace}  # read only where the row has one: most rows of a fleet differ
    return all(sample.get(key) is not None and sample[key] == read() for key, read in ours.items())


def find_local(process: Row[Any] | Process) -> LocalProcess:
    """Look for the process of a row of ``solid_queue_processes``; ELSEWHERE if it did not run on this host."""
    if process.pid is None or not ran_here(process):
        return LocalProcess(ELSEWHERE)
    return look_up(
        process.pid,
        sample_of(process.metadata),
        registered_at=process.created_at,
        last_heartbeat_at=process.last_heartbeat_at,
    )


def look_up(
    pid: int, sample: Mapping[str, Any], *, registered_at: datetime | None, last_heartbeat_at: datetime | None
) -> LocalProcess:
    """Look for a process that ran on this host. ``sample`` is its last one, empty if it took none."""
    if _in_other_pids(sample, {"boot_id": boot_id(), "pid_ns": pid_namespace()}):
        return LocalProcess(ELSEWHERE)
    if not is_pid(pid):
        return LocalProcess(GONE)
    state, started, command, program = _observe(pid)
    if started is None:
        return LocalProcess(state)
    recorded = instant(sample.get("pid_started"))
    if recorded is not None:
        same = abs(started - recorded) <= SAME_START
    else:
        same = may_execute_jobs(command, program) and started <= _latest_start(registered_at, last_heartbeat_at)
    titled = TITLE.match("".join((command or [])[:1])) is not None
    return LocalProcess(state, started, certain=recorded is not None or titled) if same else LocalProcess(GONE)


def are_two(sample: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two samples are certainly of two processes, though their hosts have one name and they have one pid.

    Containers may have one host name, and their processes the same low pids. Samples that record nothing prove nothing.
    """
    started, other_started = instant(sample.get("pid_started")), instant(other.get("pid_started"))
    if started is not None and other_started is not None and abs(started - other_started) > SAME_START:
        return True
    return _in_other_pids(sample, other)


def may_execute_jobs(command: Sequence[str] | None, program: str | None) -> bool:
    """Whether a process may be a worker, by its command line and the file of its program; None: this user may not see.

    A process without a command line is a thread of the kernel.
    """
    if command == []:
        return False
    names = [name for name in (program, *(command or ())[:1]) if name]
    short = [Path(name).name for name in names]  # of a file; a title may contain a / too
    return not names or any(TITLE.match(name) or INTERPRETER.match(name) for name in (*names, *short))


def is_pid(value: object) -> bool:
    """Whether a row's pid can be one at all: SQLite stores text and blobs in any column, and 0 and less are no pids."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _observe(pid: int) -> tuple[str, datetime | None, list[str] | None, str | None]:
    """Return the state of the process that has this pid now, its start, its command line and its program's file.

    The last two are None if this user may not read them. Without a start there is no such process, or this user may
    not see it.
    """
    import psutil  # noqa: PLC0415  (only needed if a process of this very host looks dead)

    try:
        process = psutil.Process(pid)
        state, started = str(process.status()), datetime.fromtimestamp(process.create_time(), UTC)
        if state in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
            return GONE, None, None, None
        return state, started, _read(process.cmdline), _read(process.exe)
    except psutil.ZombieProcess:
        return GONE, None, None, None
    except psutil.NoSuchProcess:
        return UNKNOWN if _is_hidden(pid) else GONE, None, None, None
    except psutil.Error:
        return UNKNOWN, None, None, None


def ran_then(row: Row[Any], then: datetime) -> bool:
    """Whether the process of a row, on whatever host, already ran ``then``: it registered or started before."""
    started = instant(sample_of(row.metadata).get("pid_started"))
    registered = row.created_at is not None and row.created_at <= then
    return registered or (started is not None and started <= then)


def host_evidence(process: Row[Any] | Process) -> dict[str, Any]:
    """Return what this host reports of a process that looks dead; empty if the process ran on another host.

    ``process`` is ``gone``, or the state that the operating system reports: ``running``, ``sleeping``, ``stopped`` ...
    ``certain``: the pid is still its own. ``elsewhere``: this host has the row's host name, but cannot see its pids.
    """
    if not ran_here(process):
        return {}
    found = find_local(process)
    evidence: dict[str, Any] = {"boot_id": boot_id(), **clocks()}
    if found.state == ELSEWHERE:
        evidence["elsewhere"] = True
    else:
        evidence["process"] = found.state
    if found.started_at is not None:
        evidence |= {"started_at": write_instant(found.started_at.timestamp()), "certain": found.certain}
    return {key: value for key, value in evidence.items() if value is not None}


def _in_other_pids(sample: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two samples are of two boots or two pid namespaces, in which one pid names two processes."""
    pairs = ((sample.get(key), other.get(key)) for key in ("boot_id", "pid_ns"))
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _latest_start(registered_at: datetime | None, last_heartbeat_at: datetime | None) -> datetime:
    """Return the latest time at which the process of a row can have started, allowing for inexact clocks.

    Halfway, if there is room: a process of its own started before it registered, any other after the last heartbeat.
    """
    beat = last_heartbeat_at or registered_at
    if beat is None:
        return datetime.max.replace(tzinfo=UTC)
    return max(min(registered_at or beat, beat) + SAME_START, beat - SAME_START)


def _read(attribute: Callable[[], T]) -> T | None:
    """Return what the operating system says of a process; None if this user may not read it."""
    import psutil  # noqa: PLC0415

    try:
        return attribute()
    except psutil.AccessDenied:
        return None


def _is_hidden(pid: int) -> bool:
    """Whether a process has this pid although /proc does not show it, as with the mount option ``hidepid``."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
