"""Checks of the time that processes get to stop."""

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection

from solidjq.database import times
from solidjq.doctor.checks import DoctorCheck, DoctorFinding, DoctorTerms, Severity, everywhere, living
from solidjq.durations import parse_duration
from solidjq.incidents.causes import Cause
from solidjq.incidents.incidents import count_incidents
from solidjq.processes.heartbeat import Process
from solidjq.processes.pids import find_local
from solidjq.rails.settings import RailsConfig
from solidjq.text import count_of
from solidjq.untrusted import number, read_object

STOP_MARGIN = 10.0  # seconds that a supervisor needs beyond its shutdown timeout
SHUTDOWNS = timedelta(days=7)  # how far back the check looks for processes killed while they shut down


def _find_short_grace(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    since = times.clock(connection) - SHUTDOWNS
    killed = [
        death
        for incident in count_incidents(connection, since=since)
        for death, finding in incident.pairs
        if finding.cause is Cause.SHUTDOWN
    ]
    if killed:
        yield DoctorFinding(
            f"{count_of(len(killed), 'process')} killed while shutting down in the last 7 days (jq incidents list)",
            "raise what stops them above the shutdown timeout: terminationGracePeriodSeconds (Kubernetes), "
            "TimeoutStopSec (systemd), stop_grace_period (Compose)",
            Severity.WARNING,
            subjects=frozenset(["killed"]),
        )
    for process in living(connection, terms, "Supervisor"):
        if runs_here(process):
            timeout = shutdown_timeout(process, terms.application)
            if timeout is not None:
                yield from judge_grace(process.name, timeout, *_systemd(process.pid))


def judge_grace(name: str, timeout: float, unit: str | None, grace: float | None) -> Iterator[DoctorFinding]:
    """Compare the time that a supervisor gives its jobs with the time that systemd gives the supervisor."""
    if grace is not None and grace < timeout + STOP_MARGIN:
        yield DoctorFinding(
            f"systemd kills {name} ({unit}) {grace:g} s after SIGTERM; its shutdown timeout is {timeout:g} s",
            f"set TimeoutStopSec={timeout + STOP_MARGIN:.0f} or more in {unit}, or shorten the shutdown timeout "
            "(--shutdown-timeout, config.solid_queue.shutdown_timeout)",
            Severity.WARNING,
            subjects=frozenset([name]),
        )


def runs_here(process: Process) -> bool:
    """Whether this very machine runs the process that registered the row, and its pid was not given out again."""
    return find_local(process).runs


def shutdown_timeout(process: Process, application: RailsConfig | None) -> float | None:
    """Return a supervisor's shutdown timeout in seconds; None if it is not known.

    A supervisor of ``jq work`` registers it. One of Solid Queue does not: its timeout is what its application
    configures, provided the process carries Solid Queue's title; without that title the pid may belong to another
    program, because Solid Queue registers no boot id either.
    """
    registered = number(read_object(process.metadata), "shutdown_timeout")
    if registered is not None or application is None:
        return registered
    return application.shutdown_timeout if has_ruby_title(_command_line(process.pid)) else None


def has_ruby_title(command: Sequence[str]) -> bool:
    """Whether a command line is the title that Solid Queue gives its supervisor."""
    return re.match(r"solid-queue-[a-z-]*supervisor\b", "".join(command[:1])) is not None


def _command_line(pid: int) -> list[str]:
    import psutil  # noqa: PLC0415  (only needed for a process of this host)

    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []


def _systemd(pid: int) -> tuple[str | None, float | None]:
    """Return the systemd service of a process of this host, and how many seconds a stop of the service may take."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
        unit = _service(groups.splitlines())
        if unit is None:
            return None, None
        command = ["systemctl", "show", "--property=TimeoutStopUSec", "--value", "--", unit]
        output = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None, None
    return unit, systemd_seconds(output)


def _service(groups: Iterable[str]) -> str | None:
    for line in groups:
        for part in reversed(line.split("/")):
            if part.endswith(".service") and not part.startswith(("user@", "-")):
                return part
    return None


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


CHECKS = (
    DoctorCheck(
        name="shutdown",
        asks="Processes that were killed while they shut down, and supervisors of this host to which systemd gives "
        "less than their shutdown timeout and 10 s. The shutdown timeout of Solid Queue's own supervisors is known "
        "only with --rails.",
        why="Each deployment then kills running jobs, which look like crashes. The grace period of Kubernetes cannot "
        "be seen from here, only the processes that it killed.",
        advice="Raise terminationGracePeriodSeconds or TimeoutStopSec, or shorten the shutdown timeout (jq work "
        "--shutdown-timeout, config.solid_queue.shutdown_timeout).",
        finds=everywhere(_find_short_grace),
    ),
)
