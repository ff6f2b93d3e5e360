"""The columns of lists as people read them; scripts get the fields of ``columns`` alone.

Each kind has all fields of ``columns`` too, without a title, so that ``--sort`` knows the same names in both.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from solidjq_cli import columns
from solidjq_cli.ages import when
from solidjq_cli.columns import Column, Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from solidjq.database.standby import Standby
    from solidjq.incidents.failure_deaths import FailureDeath
    from solidjq.ledger.operations import OperationView
    from solidjq.processes.attendance import Attendance
    from solidjq.processes.heartbeat import Process
    from solidjq.queue.failed import Failure
    from solidjq.queue.jobs import JobView
    from solidjq.queue.overview import Queue
    from solidjq.rails.error_text import ErrorInfo
    from solidjq.settings.policy import Policy

T = TypeVar("T")
Inner = TypeVar("Inner")

HOW_LEAST = 24  # cells: "SIGKILL, crash 12 of 12" is never cut
MEGABYTE = 1024 * 1024


def _with_fields(people: Sequence[Column[T]], fields: Fields[Inner], inner: Callable[[T], Inner]) -> Fields[T]:
    """Return columns for people, followed by the other fields of the item within, which have no title."""
    taken = {column.name for column in people}

    def outer(column: Column[Inner]) -> Column[T]:
        return Column(column.name, lambda item: column.value(inner(item)), extra=column.extra)

    rest = (outer(column) for column in fields.columns if column.name not in taken)
    return Fields((*people, *rest), lambda item: fields.ids(inner(item)))


# -- failed jobs ------------------------------------------------------------------------------------------------------


class ListedFailure(NamedTuple):
    """A failure, and the death that it records, if it records one."""

    failure: Failure
    death: FailureDeath | None


def failures(policy: Policy, now: datetime) -> Fields[ListedFailure]:
    """Return the columns of failed jobs; the policy says how many crashes are too many."""

    def crash(item: ListedFailure) -> tuple[int, int]:
        from solidjq.ledger.crashes import recent_crashes, without_progress_since  # noqa: PLC0415

        if item.death is None:
            return 0, 0
        rule = policy.rule(item.failure.class_name)
        here = item.death.position if rule.count.value == "position" else None
        counting = without_progress_since(item.death.crashes, here)
        recent = {each.failure_id for each in recent_crashes(counting, rule.window, now)}
        return len(recent | {item.failure.failure_id}), rule.max_crashes

    def how(item: ListedFailure) -> str:
        count, most = crash(item)
        return f"{_how(item.failure.error)}{f', crash {count} of {most}' if count > 1 else ''}"

    def style(item: ListedFailure) -> str | None:
        count, most = crash(item)
        return None if count <= 1 else "error" if count >= most else "warning"

    return _with_fields(
        (
            Column("job_id", lambda f: f.failure.job_id, "JOB"),
            Column("class_name", lambda f: f.failure.class_name, "CLASS", wide=True),
            Column("queue_name", lambda f: f.failure.queue_name, "QUEUE", wide=True, leaves=2),
            Column("failed_at", lambda f: f.failure.failed_at, "WHEN"),
            Column("how", how, "HOW", wide=True, least=HOW_LEAST, style=style),
            Column("incident", lambda f: f.death and f.death.incident, "INCIDENT", optional=True),
            Column(
                "host", lambda f: f.death and f.death.hostname, "HOST", wide=True, leaves=1, optional=True, hosts=True
            ),
        ),
        columns.failures(),
        lambda item: item.failure,
    )


def _how(error: ErrorInfo) -> str:
    """Return how a process ended: its signal, its status, or the error's class; or else the job's own error."""
    from solidjq.text import signal_name  # noqa: PLC0415

    if error.signal is not None:
        return signal_name(error.signal)
    if error.exit_status is not None:
        return f"exit status {error.exit_status}"
    if error.death is not None:
        return error.death.exception_class.rsplit("::", 1)[-1]
    return columns.error_line(error)


# -- jobs in any state ------------------------------------------------------------------------------------------------


def jobs() -> Fields[JobView]:
    """Return the columns of jobs in any state: since when each exists, and what it waits for, or who has it."""
    fields = columns.listed_jobs()
    by_name = {column.name: column for column in fields.columns}
    return _with_fields(
        (
            by_name["job_id"],
            by_name["class_name"],
            replace(by_name["queue_name"], leaves=1),
            by_name["state"],
            replace(by_name["enqueued_at"], title="AGE"),
            replace(by_name["detail"], least=HOW_LEAST, optional=True),
        ),
        fields,
        lambda job: job,
    )


# -- processes --------------------------------------------------------------------------------------------------------


class ListedProcess(NamedTuple):
    """A process, and where it stands below its supervisor: nothing before it, or the branch of a tree."""

    process: Process
    branch: str


def in_trees(processes: Iterable[Process]) -> Iterator[ListedProcess]:
    """Yield processes, which are listed each supervisor before its children, with the branches between them."""
    listed = list(processes)
    for process, after in zip_longest(listed, listed[1:]):
        if process.supervisor_id is None or all(each.id != process.supervisor_id for each in listed):
            yield ListedProcess(process, "")
        else:
            more = after is not None and after.supervisor_id == process.supervisor_id
            yield ListedProcess(process, "├─ " if more else "└─ ")


def processes(threshold: float, standby: Standby | None) -> Fields[ListedProcess]:
    """Return the columns of processes. On a standby, it is unknown whether a silent process is alive."""

    def beat(item: ListedProcess) -> str:
        return {True: "", False: "dead ", None: "silent "}[item.process.life(threshold, standby)] + _beat(item.process)

    def style(item: ListedProcess) -> str | None:
        return {True: None, False: "error", None: "warning"}[item.process.life(threshold, standby)]

    return _with_fields(
        (
            Column(
                "hostname",
                lambda p: p.process.hostname,
                "HOST",
                wide=True,
                hosts=True,
                words=lambda p: "" if p.branch else p.process.hostname,
            ),
            Column("kind", lambda p: p.branch + kind_of(p.process), "PROCESS"),
            Column("pid", lambda p: p.process.pid, "PID"),
            Column("last_heartbeat_at", lambda p: p.process.last_heartbeat_at, "BEAT", words=beat, style=style),
            Column("claimed", lambda p: p.process.claimed, "JOBS", words=lambda p: _load(p.process)),
            Column("rss", _rss, "RSS", words=_megabytes, leaves=2, optional=True),
            Column("queues", lambda p: columns.polled(p.process), "QUEUES", wide=True, optional=True),
            Column("release", lambda p: _sample(p).get("release"), "RELEASE", leaves=1, optional=True),
            Column("process_id", lambda p: p.process.id, extra=True),
            Column("name", lambda p: p.process.name, extra=True),
        ),
        columns.processes(threshold, standby),
        lambda item: item.process,
    )


def _sample(item: ListedProcess) -> Mapping[str, Any]:
    from solidjq.processes.samples import sample_of  # noqa: PLC0415

    return sample_of(item.process.metadata)


def _rss(item: ListedProcess) -> float | None:
    from solidjq.untrusted import number  # noqa: PLC0415

    return number(_sample(item), "rss")


def _megabytes(item: ListedProcess) -> str | None:
    size = _rss(item)
    return None if size is None else f"{size / MEGABYTE:,.0f} MB"


def kind_of(process: Process) -> str:
    """Return what a process is, in a word."""
    return process.kind.partition("(")[0].lower()  # Solid Queue 1.0 writes Supervisor(fork)


def _beat(process: Process) -> str:
    return "-" if process.last_heartbeat_at is None else when(process.last_heartbeat_at)


def _load(process: Process) -> str:
    """Return how many jobs a worker holds, and how many threads it has: ``3/5``."""
    from solidjq.untrusted import number, read_object  # noqa: PLC0415

    threads = number(read_object(process.metadata), "thread_pool_size")
    if process.kind != "Worker":
        return f"{process.claimed}" if process.claimed else "-"
    return f"{process.claimed}" if threads is None else f"{process.claimed}/{threads:.0f}"


# -- queues -----------------------------------------------------------------------------------------------------------


def queues(attendance: Attendance) -> Fields[Queue]:
    """Return the columns of queues; whether it is paused or has no worker is one word."""

    def state(queue: Queue) -> str | None:
        return "paused" if queue.paused else None if attendance.takers(queue.name) else "no worker"

    def style(queue: Queue) -> str | None:
        return "warning" if queue.paused else "error" if state(queue) and queue.ready else None

    fields = columns.queues()
    of = {column.name: column for column in fields.columns}
    counts = (("ready", 0), ("claimed", 0), ("scheduled", 2), ("blocked", 1))
    return _with_fields(
        (
            of["queue_name"],
            *(replace(_grouped(of[name]), leaves=leaves) for name, leaves in counts),
            of["oldest_ready_at"],
            Column("state", state, "STATE", style=style, optional=True),
        ),
        fields,
        lambda queue: queue,
    )


def _grouped(column: Column[T]) -> Column[T]:
    """Return a column of counts as people read them: ``4,966``."""
    return replace(column, words=lambda item: f"{column.value(item):,}")


# -- operations -------------------------------------------------------------------------------------------------------


def operations() -> Fields[OperationView]:
    """Return the columns of operations."""
    return _with_fields(
        (
            Column("operation_id", lambda o: o.id, "ID"),
            Column("created_at", lambda o: o.created_at, "WHEN"),
            Column("verb", lambda o: o.verb, "WHAT"),
            Column("jobs", lambda o: o.jobs, "JOBS"),
            Column("restored", lambda o: o.restored or None, "TAKEN BACK", optional=True),
            Column("actor", lambda o: o.actor, "WHO", wide=True),
            Column("ci_job", lambda o: o.ci_job, "CI JOB", wide=True, leaves=2, optional=True),
            Column("database_role", lambda o: o.database_role, "ROLE", wide=True, leaves=1, optional=True),
            Column("reason", lambda o: o.reason, "REASON", flows=True),
            Column("command", lambda o: o.command, extra=True),
        ),
        columns.operations(),
        lambda operation: operation,
    )
