"""Evidence of a process: the last sample that it wrote into its row, and the clocks that samples record."""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from solidjq.ledger.crashes import Run
from solidjq.untrusted import in_range, moment_of, number, parse_time, part, read_object

_CLOCK_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def sample_of(metadata: str | None) -> Mapping[str, Any]:
    """Return the sample in a process's metadata; empty if there is none."""
    return part(read_object(metadata), "sample")


def instant(value: object) -> datetime | None:
    """Parse a time in a sample, UTC where it has no zone; None if ``value`` is not the time of something past."""
    return moment_of(parse_time(value))


def write_instant(seconds: float) -> str:
    """Format a time, in seconds since 1970, the way samples store it: RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def runs_of(sample: Mapping[str, Any]) -> list[Run]:
    """Return the running jobs of a sample; malformed entries are left out."""
    jobs, rss = sample.get("jobs"), number(sample, "rss")
    runs = []
    for job in jobs if isinstance(jobs, list) else []:
        if isinstance(job, dict) and type(job.get("id")) is int:
            before = number(job, "rss")
            growth = None if rss is None or before is None else in_range(int(rss) - int(before))
            runs.append(Run(job["id"], instant(job.get("since")), growth))
    return runs


class UnrecordedEndings(NamedTuple):
    """How many jobs have ended whose endings the database does not take, since when, and its error."""

    jobs: int
    since: datetime | None
    error: str


def read_unrecorded(metadata: str | None) -> UnrecordedEndings | None:
    """Return what the last sample says about endings that the database does not take; None if it takes them."""
    entry = sample_of(metadata).get("unrecorded")
    if not isinstance(entry, dict) or not (jobs := number(entry, "jobs")):
        return None
    return UnrecordedEndings(int(jobs), instant(entry.get("since")), str(entry.get("error")))


def clocks() -> dict[str, float]:
    """Return the seconds since this host started, by two clocks; only ``boottime`` runs while it is suspended."""
    readings = {"monotonic": round(time.monotonic(), 3)}
    if _CLOCK_BOOTTIME is not None:
        readings["boottime"] = round(time.clock_gettime(_CLOCK_BOOTTIME), 3)
    return readings


def boot_id() -> str | None:
    """Return the id of this host's current boot; None if the kernel has none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None


def pid_namespace() -> str | None:
    """Return the namespace that this process's pids are of, one for each container; None if the kernel has none."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return None
