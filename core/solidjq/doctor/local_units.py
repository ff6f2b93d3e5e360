"""What this host's systemd and kernel grant one process: the time to stop, and what its end for want of memory ends."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from solidjq.durations import parse_duration

CGROUPS = Path("/sys/fs/cgroup")
TITLE = re.compile(r"solid-queue-[a-z-]*supervisor\b")


class Unit(NamedTuple):
    """The systemd service of a process, and its cgroup; what is unknown, or not there, is None."""

    name: str | None = None
    stop: float | None = None  # seconds from SIGTERM to SIGKILL; None also for no limit
    oom_policy: str | None = None
    oom_group: bool = False  # the kernel kills every process of the cgroup together


def find_unit(pid: int) -> Unit:
    """Return the service and cgroup of a process of this host."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Unit()
    grouped = _is_grouped(groups)
    name = service_of(groups)
    if name is None:
        return Unit(oom_group=grouped)
    command = ["systemctl", "show", "--property=TimeoutStopUSec,OOMPolicy", "--", name]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return Unit(name, oom_group=grouped)
    shown = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    return Unit(name, systemd_seconds(shown.get("TimeoutStopUSec", "")), shown.get("OOMPolicy") or None, grouped)


def service_of(groups: Iterable[str]) -> str | None:
    """Return the systemd service in the lines of ``/proc/PID/cgroup``; None if there is none but a user's session."""
    for line in groups:
        for part in reversed(line.split("/")):
            if part.endswith(".service") and not part.startswith(("user@", "-")):
                return part
    return None


def _is_grouped(groups: Iterable[str]) -> bool:
    for line in groups:
        if line.startswith("0::/"):  # cgroup v2; in a container the path begins at the container's own group
            try:
                return (CGROUPS / line.removeprefix("0::/") / "memory.oom.group").read_text("ascii").strip() == "1"
            except (OSError, ValueError):
                return False
    return False


def systemd_seconds(text: str) -> float | None:
    """Parse a time span of systemd, such as ``1min 30s``; None for ``infinity`` or any other text."""
    total = 0.0
    for part in text.split():
        if part.endswith("ms"):
            continue
        duration = parse_duration(part.removesuffix("in") if part.endswith("min") else part)
        if duration is None:
            return None
        total += duration.total_seconds()
    return total if text.strip() else None


def has_ruby_title(pid: int) -> bool:
    """Whether the command line of a process of this host is the title that Solid Queue gives its supervisor."""
    return TITLE.match("".join(_command_line(pid)[:1])) is not None


def _command_line(pid: int) -> list[str]:
    import psutil  # noqa: PLC0415  (only needed for a process of this host)

    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []
