"""Checks of the time that processes get to stop: grace periods, shutdown timeouts, and what runs out of memory."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, case, select

from solidjq.database import times
from solidjq.database.tables import crashes, deaths
from solidjq.doctor import local_units
from solidjq.doctor.checks import DoctorCheck, DoctorFinding, DoctorTerms, Severity, everywhere, living
from solidjq.doctor.local_units import Unit
from solidjq.durations import spell_duration
from solidjq.incidents.causes import Cause
from solidjq.incidents.incidents import each_incident
from solidjq.ledger import operations
from solidjq.ledger.deaths import DeathSource
from solidjq.processes.heartbeat import HEARTBEAT_INTERVAL, Process
from solidjq.processes.pids import find_local
from solidjq.queue.job_times import SAMPLE, JobTimes, job_times
from solidjq.rails.settings import HEARTBEAT, RailsConfig
from solidjq.text import count_of, first_of
from solidjq.untrusted import number, read_object

STOP_MARGIN = 10.0  # seconds that a supervisor needs beyond its shutdown timeout
SHUTDOWNS = timedelta(days=7)  # how far back the check looks for processes killed while they shut down, and long jobs
MOST_CLASSES = 5  # that one finding names


class Grace(NamedTuple):
    """A time between SIGTERM and SIGKILL: who gives it, by which setting, and whether anybody has set it."""

    seconds: float
    giver: str  # systemd, a deployment, Kamal
    setting: str  # TimeoutStopSec in jobs.service
    chosen: bool = True


class LongClass(NamedTuple):
    """A class with a job that took ``seconds``, and what that time is."""

    class_name: str
    seconds: float
    what: str


def _find_short_grace(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    since = times.clock(connection) - SHUTDOWNS
    findings = (finding for incident in each_incident(connection, since=since) for finding in incident.findings)
    yield from judge_killed(sum(finding.cause is Cause.SHUTDOWN for finding in findings))
    supervisors = living(connection, terms, "Supervisor")
    graces = deployment_graces(terms)
    for process in supervisors:
        if not runs_here(process):
            continue
        unit = local_units.find_unit(process.pid)
        yield from judge_memory(process.name, unit)
        timeout = shutdown_timeout(process, terms.application)
        if unit.name is not None and unit.stop is not None:
            grace = Grace(unit.stop, "systemd", f"TimeoutStopSec in {unit.name}")
            graces.append(grace)
            if timeout is not None:
                yield from judge_grace(f"{process.name} ({unit.name})", timeout, grace)
    for grace in deployment_graces(terms):
        for timeout, names in known_timeouts(supervisors, terms.application).items():
            yield from judge_grace(names, timeout, grace)
    yield from judge_threshold(terms)
    if terms.grace is not None:
        yield room_for(terms.grace)
    if graces:
        shortest = min(grace.seconds for grace in graces)
        times_at_death = list(_times_at_death(connection, since))
        yield from judge_long(long_classes(job_times(connection, since=since), times_at_death, shortest), shortest)


def judge_killed(killed: int) -> Iterator[DoctorFinding]:
    """Warn of processes that were killed before their jobs had ended."""
    if killed:
        yield DoctorFinding(
            f"{count_of(killed, 'process')} killed while shutting down in the last 7 days (jq incidents list)",
            "raise what stops them above the shutdown timeout: terminationGracePeriodSeconds (Kubernetes), "
            "TimeoutStopSec (systemd), stop_grace_period (Compose)",
            Severity.WARNING,
            subjects=frozenset(["killed"]),
        )


def deployment_graces(terms: DoctorTerms) -> list[Grace]:
    """Return the grace period that the operator gave, and that of Kamal if the application is deployed with it."""
    graces = []
    if terms.grace is not None:
        graces.append(Grace(terms.grace, "a deployment", "the grace period (--grace)"))
    drain = None if terms.application is None else terms.application.drain_timeout
    if drain is not None and drain.value is not None:
        graces.append(Grace(drain.value, "Kamal", f"drain_timeout in {drain.place}", chosen=bool(drain.code)))
    return graces


def known_timeouts(supervisors: Sequence[Process], application: RailsConfig | None) -> dict[float, str]:
    """Return the shutdown timeouts that are registered or configured, in seconds, each with whose it is."""
    names: dict[float, list[str]] = {}
    for process in supervisors:
        timeout = number(read_object(process.metadata), "shutdown_timeout")
        if timeout is not None:
            names.setdefault(timeout, []).append(process.name)
    known = {timeout: first_of(whose, MOST_CLASSES) for timeout, whose in names.items()}
    if application is not None and application.shutdown_timeout is not None:
        known.setdefault(application.shutdown_timeout, "the application's supervisors")
    return known


def judge_grace(names: str, timeout: float, grace: Grace) -> Iterator[DoctorFinding]:
    """Compare the time that a supervisor gives its jobs with the time that it gets itself."""
    if grace.seconds < timeout + STOP_MARGIN:
        default = "" if grace.chosen else " by default, in a role without the proxy"
        yield DoctorFinding(
            f"{grace.giver} kills {names} {grace.seconds:g} s after SIGTERM{default}; its shutdown timeout is "
            f"{timeout:g} s",
            f"set {grace.setting} to {timeout + STOP_MARGIN:.0f} s or more, or shorten the shutdown timeout "
            "(--shutdown-timeout, config.solid_queue.shutdown_timeout)",
            Severity.WARNING if grace.chosen else Severity.NOTE,
            subjects=frozenset([names]),
        )


def judge_memory(name: str, unit: Unit) -> Iterator[DoctorFinding]:
    """Warn if the death of one worker for want of memory ends its supervisor and all others, too."""
    if unit.name is not None and unit.oom_policy not in {None, "continue"}:
        yield DoctorFinding(
            f"OOMPolicy of {unit.name} is {unit.oom_policy}: when one worker of {name} runs out of memory, systemd "
            "ends the whole service, and every job that it ran",
            f"OOMPolicy=continue in {unit.name}; the supervisor then replaces the one worker",
            Severity.WARNING,
            subjects=frozenset([(name, "oom")]),
        )
    elif unit.oom_group:
        yield DoctorFinding(
            f"memory.oom.group is 1 in the cgroup of {name}: when one worker runs out of memory, the kernel kills all "
            "processes there, the supervisor included, and nobody reports the deaths before the next prune",
            "singleProcessOOMKill: true in the kubelet's configuration (Kubernetes 1.32 and later), or one worker a "
            "container; then jq prune, or a timer with solidjq recover",
            Severity.WARNING,
            subjects=frozenset([(name, "oom")]),
        )


def judge_threshold(terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Note a shutdown timeout at which an older Solid Queue counts as dead while it lets its jobs end."""
    if terms.application is None or terms.application.shutdown_timeout is None:
        return
    beat = (terms.application.settings or {}).get(HEARTBEAT)
    interval = HEARTBEAT_INTERVAL if beat is None else beat.value
    timeout = terms.application.shutdown_timeout
    if interval is not None and timeout + interval >= terms.threshold:
        yield DoctorFinding(
            f"the application's shutdown timeout of {timeout:g} s and a heartbeat interval of {interval:g} s reach the "
            f"alive threshold of {terms.threshold:g} s: Solid Queue before 1.2 does not beat while it shuts down, and "
            "would be pruned with its jobs still running",
            "run Solid Queue 1.2 or later, or raise process_alive_threshold",
            Severity.NOTE,
            subjects=frozenset(["threshold"]),
        )


def room_for(grace: float) -> DoctorFinding:
    """Return the arithmetic of a grace period that the operator gave."""
    room = grace - STOP_MARGIN
    if room <= 0:
        return DoctorFinding(
            f"a grace period of {grace:g} s leaves running jobs no time: the supervisor itself needs {STOP_MARGIN:g} s",
            "raise the grace period",
            Severity.WARNING,
            subjects=frozenset(["room"]),
        )
    return DoctorFinding(
        f"of a grace period of {grace:g} s the supervisor needs {STOP_MARGIN:g} s: the shutdown timeout, which is what "
        f"running jobs get, may be up to {room:g} s",
        f"--shutdown-timeout {room:g}, or config.solid_queue.shutdown_timeout = {room:g}.seconds, at most",
        Severity.NOTE,
        subjects=frozenset(["room"]),
    )


def long_classes(found: JobTimes, at_death: Sequence[tuple[str, float]], limit: float) -> list[LongClass]:
    """Return the classes with jobs that took longer than ``limit`` seconds, the longest first, each once.

    How long a job ran is known while it runs, and if a sample recorded its start before its process died. Of finished
    jobs only the time from due to finished is: at least as long as they ran. ``at_death``: classes, and the seconds
    that a job of each ran until its process died.
    """
    longest: dict[str, LongClass] = {}

    def add(class_name: str, seconds: float, what: str) -> None:
        if seconds > limit and class_name not in longest:
            longest[class_name] = LongClass(class_name, seconds, what)

    for each in found.classes:
        if each.running is not None:
            add(each.class_name, each.running.p99, "held by a worker now")
    for class_name, seconds in sorted(at_death, key=lambda pair: -pair[1]):
        add(class_name, seconds, "until its process died")
    for each in found.classes:
        if each.finished is not None:
            add(each.class_name, each.finished.p99, "from due to finished")
    return sorted(longest.values(), key=lambda long: -long.seconds)


def _times_at_death(connection: Connection, since: datetime) -> Iterator[tuple[str, float]]:
    """Yield the class of each job whose start was recorded, and how long it ran until its process died."""
    if not operations.exists(connection):
        return
    ended = case(
        (deaths.c.noticed_by == DeathSource.PRUNE.value, deaths.c.last_heartbeat_at), else_=deaths.c.noticed_at
    )
    begun = (
        select(crashes.c.class_name, crashes.c.started_at, ended.label("ended_at"))
        .join(deaths, deaths.c.id == crashes.c.death_id)
        .where(deaths.c.noticed_at >= times.boundary(since), crashes.c.started_at.is_not(None))
        .order_by(deaths.c.id.desc())
        .limit(SAMPLE)
    )
    for row in connection.execute(begun):
        if row.started_at is not None and row.ended_at is not None:
            yield row.class_name, (row.ended_at - row.started_at).total_seconds()


def judge_long(classes: Sequence[LongClass], grace: float) -> Iterator[DoctorFinding]:
    """Note the classes whose jobs a deployment interrupts."""
    if classes:
        words = [
            f"{long.class_name} ({spell_duration(timedelta(seconds=long.seconds))} {long.what})" for long in classes
        ]
        yield DoctorFinding(
            f"jobs of {count_of(len(classes), 'class')} took longer than the grace period of {grace:g} s in the last 7 "
            f"days: {first_of(words, MOST_CLASSES)}",
            "each deployment interrupts such a job, and it begins anew: give it steps or a cursor to go on from "
            "(Active Job's continuations; docs/how-to/long-jobs.md), or deploy when it does not run: jq wait --idle "
            "--queue QUEUE. The time from due to finished includes the wait for a worker",
            Severity.NOTE,
            subjects=frozenset(long.class_name for long in classes),
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
    return application.shutdown_timeout if local_units.has_ruby_title(process.pid) else None


CHECKS = (
    DoctorCheck(
        name="shutdown",
        asks="Processes that were killed while they shut down; grace periods of less than the shutdown timeout and 10 "
        "s: what systemd gives supervisors of this host, Kamal's drain_timeout (with --rails), and --grace; "
        "classes whose jobs took longer than the shortest of these in the last 7 days; systemd services without "
        "OOMPolicy=continue, and memory.oom.group=1 in a supervisor's cgroup. The shutdown timeout of Solid Queue's "
        "own supervisors is known only with --rails.",
        why="A grace period that is too short kills running jobs at each deployment, which look like crashes. The "
        "grace period of Kubernetes cannot be seen from here, only the processes that it killed; give it with --grace.",
        advice="Raise terminationGracePeriodSeconds or TimeoutStopSec, or shorten the shutdown timeout (jq work "
        "--shutdown-timeout, config.solid_queue.shutdown_timeout).",
        finds=everywhere(_find_short_grace),
    ),
)
