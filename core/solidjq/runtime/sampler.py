"""The sample that a process stores with each heartbeat: its memory and limits, its clocks, and its running jobs.

Once the process is dead, the last sample is the only record of its state. It is JSON of at most 4 KB, under ``sample``
in ``processes.metadata``. Values that this operating system does not provide are left out.
"""

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solidjq.processes.samples import boot_id, clocks, pid_namespace, write_instant

# The variables that may name the deployed release; the first that is set counts.
RELEASE = ("JQ_RELEASE", "KAMAL_VERSION", "HEROKU_SLUG_COMMIT", "GIT_SHA", "RELEASE")
MOST_BYTES = 4096
FRESH = 0.1  # seconds that a measured size is reused: measuring before every short job would slow all job threads
MOST_JOBS = 25
MOST_CLASSES = 25
LONGEST_RELEASE = 80
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss, in bytes
UNLIMITED = 2**60  # version 1 of control groups writes "no limit" as a number above
_PAGE = resource.getpagesize()


class Cgroup:
    """The memory control group of this process, version 1 or 2; values that it does not have are None."""

    def __init__(self, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> None:
        self._current = self._most = self._events = self._pressure = None
        for folder in _folders(proc, root):
            current = folder / "memory.current"
            if current.exists():
                self._current, self._most = current, folder / "memory.max"
                self._events, self._pressure = folder / "memory.events", folder / "memory.pressure"
                return
            current = folder / "memory.usage_in_bytes"
            if current.exists():
                self._current, self._most = current, folder / "memory.limit_in_bytes"
                self._events = folder / "memory.oom_control"
                return

    def oom_kills(self) -> int | None:
        """Return how many processes of the group the kernel has killed because memory ran out."""
        for line in _read(self._events).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdigit():
                return int(count)
        return None

    def limit(self) -> int | None:
        """Return the lowest memory limit of the group and of the groups around it, in bytes; None without any."""
        if self._most is None:
            return None
        around = (folder / self._most.name for folder in self._most.parents)
        limits = (_number(_read(path)) for path in around)
        return min((limit for limit in limits if limit is not None and limit < UNLIMITED), default=None)

    def sample(self) -> dict[str, Any]:
        """Return ``current`` and ``max`` in bytes and the count ``oom_kill``; without a limit there is no ``max``."""
        most = _number(_read(self._most))
        values = {
            "current": _number(_read(self._current)),
            "max": None if most is None or most >= UNLIMITED else most,
            "oom_kill": self.oom_kills(),
        }
        return {key: value for key, value in values.items() if value is not None}

    def pressure(self) -> dict[str, float]:
        """Return in which percentage of the last 10 seconds ``some`` or all (``full``) tasks waited for memory."""
        shares: dict[str, float] = {}
        for line in (_read(self._pressure) or _read(Path("/proc/pressure/memory"))).splitlines():
            kind, _, rest = line.partition(" ")
            for part in rest.split():
                if part.startswith("avg10="):
                    with suppress(ValueError):
                        shares[kind] = float(part.removeprefix("avg10="))
        return shares


def _folders(proc: Path, root: Path) -> Iterable[Path]:
    """Yield the folders to search: the group's own, and the root, where a container with its own namespace finds it."""
    for line in _read(proc).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            yield root / path.lstrip("/")
            yield root
        elif "memory" in controllers.split(","):
            yield root / "memory" / path.lstrip("/")
            yield root / "memory"


def _read(path: Path | None) -> str:
    try:
        return "" if path is None else path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() else None


def resident() -> int | None:
    """Return the resident memory of this process in bytes; None without /proc. Takes microseconds."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as statm:  # noqa: PTH123  (called before every job)
            return int(statm.read(100).split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


@dataclass(slots=True)
class _Running:
    class_name: str
    since: float
    rss: int | None


@dataclass(slots=True)
class Sampler:
    """Takes the samples of one process. Job threads call ``begin`` and ``end``, the heartbeat thread calls ``take``."""

    cgroup: Cgroup = field(default_factory=Cgroup)
    _running: dict[int, _Running] = field(default_factory=dict)
    _rss: tuple[float, int | None] = (0.0, None)  # when it was measured, and the bytes
    _looks: int = 0
    _seen: Counter[str] = field(default_factory=Counter)
    _constant: dict[str, Any] = field(default_factory=lambda: dict(_constants()))
    stopping_since: float | None = None  # when the process was told to stop
    unrecorded: Mapping[str, Any] | None = None  # the endings that the database does not take: jobs, since, error

    def begin(self, job_id: int, class_name: str) -> None:
        """Note that a job begins."""
        now = time.time()
        if now - self._rss[0] > FRESH:
            self._rss = (now, resident())
        self._running[job_id] = _Running(class_name, now, self._rss[1])

    def end(self, job_id: int) -> None:
        """Note that a job has ended."""
        self._running.pop(job_id, None)

    @property
    def running(self) -> list[int]:
        """The ids of the running jobs."""
        return list(self._running)

    @property
    def running_since(self) -> float | None:
        """When the job began that runs longest, in seconds since 1970; None if none runs."""
        return min((job.since for job in self._running.copy().values()), default=None)

    def take(self, beats: Mapping[str, Any]) -> dict[str, Any]:
        """Return a sample, at most 4 KB as JSON. ``beats`` is added: interval, latency, outage of the heartbeats."""
        running = list(self._running.copy().items())  # job threads change it meanwhile; copying is atomic
        classes = {job.class_name for _, job in running}
        self._looks += bool(running)
        self._seen.update(classes)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        jobs = [
            {"id": job_id, "since": write_instant(job.since), **({} if job.rss is None else {"rss": job.rss})}
            for job_id, job in sorted(running, key=lambda item: item[1].since)
        ]
        sample: dict[str, Any] = {
            "at": write_instant(time.time()),
            "rss": resident(),
            "peak": usage.ru_maxrss * PEAK_UNIT,
            "cpu": round(usage.ru_utime + usage.ru_stime, 3),
            "cgroup": self.cgroup.sample(),
            "psi": self.cgroup.pressure(),
            **clocks(),
            "term_at": None if self.stopping_since is None else write_instant(self.stopping_since),
            "unrecorded": self.unrecorded,
            **self._constant,
            **beats,
            "jobs": jobs[:MOST_JOBS],
            "more_jobs": max(0, len(jobs) - MOST_JOBS),
            # What usually runs here: ``looks`` counts the samples with running jobs, ``seen`` those of each class.
            "looks": self._looks,
            "seen": dict(self._seen.most_common(MOST_CLASSES)),
        }
        sample = {key: value for key, value in sample.items() if value not in (None, {}, 0)}
        return _shortened(sample)


def _shortened(sample: dict[str, Any]) -> dict[str, Any]:
    """Drop jobs and classes from the end of their lists until the sample fits."""
    while len(json.dumps(sample, separators=(",", ":"))) > MOST_BYTES and (sample.get("seen") or sample.get("jobs")):
        sample["seen"] = dict(list(sample.get("seen", {}).items())[:-5])
        sample["more_jobs"] = sample.get("more_jobs", 0) + len(sample.get("jobs", [])[-5:])
        sample["jobs"] = sample.get("jobs", [])[:-5]
    return sample


def _constants() -> Iterable[tuple[str, Any]]:
    if boot := boot_id():
        yield "boot_id", boot
    if namespace := pid_namespace():
        yield "pid_ns", namespace
    if started := _pid_started():
        yield "pid_started", started
    if release := next((os.environ[name] for name in RELEASE if os.environ.get(name)), None):
        yield "release", release[:LONGEST_RELEASE]


def _pid_started() -> str | None:
    import psutil  # noqa: PLC0415  (once a process)

    try:
        return write_instant(psutil.Process().create_time())
    except psutil.Error:
        return None
