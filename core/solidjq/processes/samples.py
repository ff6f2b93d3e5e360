"""What is left of a process: the last sample it wrote into its row, read back; and what this machine says of it now."""

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from solidjq.ledger.crashes import Run

SAME_START = 2.0  # seconds; a process's start time is not told to the digit
_CLOCK_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def told_by(metadata: str | None) -> dict[str, Any]:
    """Return what a process tells in its metadata; empty if that is not JSON."""
    try:
        found = json.loads(metadata or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sample_of(metadata: str | None) -> dict[str, Any]:
    """Return the sample in a process's metadata; empty if it wrote none."""
    sample = told_by(metadata).get("sample")
    return sample if isinstance(sample, dict) else {}


def instant(value: object) -> datetime | None:
    """Read a time that a sample holds; None where it is none."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def write_instant(seconds: float) -> str:
    """Write a time, in seconds since 1970, as samples hold it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def number(found: Mapping[str, Any], *keys: str) -> float | None:
    """Read a number out of nested mappings; None where there is none."""
    value: Any = found
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def runs_of(sample: Mapping[str, Any]) -> list[Run]:
    """Return the jobs that a sample says were running; what is no such job is left out."""
    jobs, rss = sample.get("jobs"), number(sample, "rss")
    found = []
    for job in jobs if isinstance(jobs, list) else []:
        if isinstance(job, dict) and isinstance(job.get("id"), int):
            before = number(job, "rss")
            growth = None if rss is None or before is None else int(rss - before)
            found.append(Run(job["id"], instant(job.get("since")), growth))
    return found


def clocks() -> dict[str, float]:
    """Return the seconds of two clocks since the machine's start: only ``boottime`` goes on while it sleeps."""
    found = {"monotonic": round(time.monotonic(), 3)}
    if _CLOCK_BOOTTIME is not None:
        found["boottime"] = round(time.clock_gettime(_CLOCK_BOOTTIME), 3)
    return found


def boot_id() -> str | None:
    """Tell one start of this machine from another; None where the kernel does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None


def look_here(hostname: str | None, pid: int | None, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Say what this machine knows of a process that is believed dead; empty if it ran on another.

    ``process`` is ``gone``, or the state that the operating system gives: ``running``, ``sleeping``, ``stopped`` ...
    Pids are given out again: a process that started at another time is another one.
    """
    if hostname is None or hostname != socket.gethostname():
        return {}
    found: dict[str, Any] = {"boot_id": boot_id(), **clocks()}
    # Two containers may have the same host name; only the same boot proves that it is this machine.
    if pid is not None and (sample.get("boot_id") is None or sample["boot_id"] == found["boot_id"]):
        found["process"] = _status(pid, instant(sample.get("pid_started")))
    return {key: value for key, value in found.items() if value is not None}


def _status(pid: int, started: datetime | None) -> str:
    import psutil  # noqa: PLC0415  (only where a process of this very host was pruned)

    try:
        process = psutil.Process(pid)
        if started is not None and abs(process.create_time() - started.timestamp()) > SAME_START:
            return "gone"
        status = str(process.status())
    except psutil.NoSuchProcess:
        return "gone"
    except psutil.Error:
        return "unknown"
    return "gone" if status in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD} else status
