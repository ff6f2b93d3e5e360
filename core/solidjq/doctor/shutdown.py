"""Checks of the time that processes get to stop."""

import re
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection

from solidjq.database import times
from solidjq.doctor.checks import DoctorCheck, DoctorFinding, DoctorTerms, Severity, everywhere, living
from solidjq.durations import parse_duration
from solidjq.incidents.causes import Cause
from solidjq.incidents.incidents import find_incidents
from solidjq.processes.samples import boot_id, sample_of
from solidjq.rails.settings import RailsConfig

STOP_MARGIN = 10.0  # seconds that a supervisor needs beyond its shutdown timeout
SHUTDOWNS = timedelta(days=7)  # how far back processes killed at shutdown are of interest


def _find_short_grace(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    since = times.clock(connection) - SHUTDOWNS
    killed = [
        death
        for incident in find_incidents(connection, since=since)
        for death, finding in incident.pairs
        if finding.cause is Cause.SHUTDOWN
    ]
    if killed:
        yield DoctorFinding(
            f"{len(killed)} processes were killed while they shut down in the last 7 days (jq incidents list)",
            "let whatever stops them wait longer than the shutdown timeout: terminationGracePeriodSeconds "
            "(Kubernetes), TimeoutStopSec (systemd), stop_grace_period (Compose)",
            Severity.WARNING,
            subjects=frozenset(["killed"]),
        )
    for process in living(connection, terms, "Supervisor"):
        if process.hostname != socket.gethostname():
            continue
        command = _command_line(process.pid)
        if is_ruby(command) or sample_of(process.metadata).get("boot_id") == boot_id():
            timeout = shutdown_timeout(command, terms.application)
            yield from judge_grace(process.name, timeout, *_systemd(process.pid))


def judge_grace(name: str, timeout: float | None, unit: str | None, grace: float | None) -> Iterator[DoctorFinding]:
    """Compare the time that a supervisor gives its jobs with the time that systemd gives the supervisor."""
    if timeout is not None and grace is not None and grace < timeout + STOP_MARGIN:
        yield DoctorFinding(
            f"systemd kills {name} ({unit}) {grace:g} s after SIGTERM; its shutdown timeout is {timeout:g} s",
            f"set TimeoutStopSec={timeout + STOP_MARGIN:.0f} or more in {unit}, or shorten the shutdown timeout "
            "(--shutdown-timeout, config.solid_queue.shutdown_timeout)",
            Severity.WARNING,
            subjects=frozenset([name]),
        )


def shutdown_timeout(command: Sequence[str], application: RailsConfig | None = None) -> float | None:
    """Read the shutdown timeout out of the command line of ``jq work``; Solid Queue's own is what its application says.

    None where neither tells.
    """
    if is_ruby(command):
        return None if application is None else application.shutdown_timeout
    if "work" not in command:
        return None
    words = iter(command)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--shutdown-timeout":
            with suppress(ValueError):
                return float(value if equals else next(words, ""))
            return None
    return 5.0


def is_ruby(command: Sequence[str]) -> bool:
    """Tell Solid Queue's own supervisor by the title that it gives itself.

    It tells of no boot id; but no other process of this host has such a title.
    """
    return re.match(r"solid-queue-[a-z-]*supervisor\b", "".join(command[:1])) is not None


def _command_line(pid: int) -> list[str]:
    import psutil  # noqa: PLC0415  (only where a process of this very host is looked at)

    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []


def _systemd(pid: int) -> tuple[str | None, float | None]:
    """Return the systemd service that a process of this host belongs to, and how long a stop of it may take."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
        unit = _service(groups.splitlines())
        if unit is None:
            return None, None
        asked = ["systemctl", "show", "--property=TimeoutStopUSec", "--value", "--", unit]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None, None
    return unit, systemd_seconds(told)


def _service(groups: Iterable[str]) -> str | None:
    for line in groups:
        for part in reversed(line.split("/")):
            if part.endswith(".service") and not part.startswith(("user@", "-")):
                return part
    return None


def systemd_seconds(text: str) -> float | None:
    """Read systemd's ``1min 30s``; None for ``infinity`` or what it is not."""
    total = 0.0
    for part in text.split():
        if part.endswith("ms"):
            continue
        duration = parse_duration(part.removesuffix("in") if part.endswith("min") else part)
        if duration is None:
            return None
        total += duration.total_seconds()
    return total if text.strip() else None


CHECKS = (
    DoctorCheck(
        name="shutdown",
        asks="Processes that were killed while they shut down, and supervisors of this host to which systemd gives "
        "less than their shutdown timeout and 10 s. What Solid Queue's own supervisors take is known with --rails.",
        why="Each deployment then kills running jobs, which look like crashes. What Kubernetes allows cannot be seen "
        "from here, only what came of it.",
        fix="Raise terminationGracePeriodSeconds or TimeoutStopSec, or shorten the shutdown timeout (jq work "
        "--shutdown-timeout, config.solid_queue.shutdown_timeout).",
        looks=everywhere(_find_short_grace),
    ),
)
