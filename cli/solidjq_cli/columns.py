"""Which fields each kind of thing has: the same names in every output and every command."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from solidjq.failures import ErrorInfo, Failure
    from solidjq.lookup import JobView
    from solidjq.processes import Process
    from solidjq.pruning import Pruned
    from solidjq.queues import Queue

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One field. ``title`` is its heading in a table; a field without one is left to the other outputs."""

    name: str
    value: Callable[[T], Any]
    title: str | None = None
    wide: bool = False  # may be cut short on a terminal


@dataclass(frozen=True, slots=True)
class Fields(Generic[T]):
    """All fields of one kind of thing, and which ids ``-o ids`` prints for one."""

    columns: tuple[Column[T], ...]
    ids: Callable[[T], list[int]]


def _arguments(text: str | None) -> Any:
    from solidjq.activejob import shown_arguments  # noqa: PLC0415

    return shown_arguments(text)


def failures() -> "Fields[Failure]":
    """Fields of a failed job."""
    return Fields(
        (
            Column("job_id", lambda f: f.job_id, "JOB"),
            Column("class_name", lambda f: f.class_name, "CLASS", wide=True),
            Column("queue_name", lambda f: f.queue_name, "QUEUE", wide=True),
            Column("death", lambda f: f.error.death.value if f.error.death else None, "DEATH"),
            Column("failed_at", lambda f: f.failed_at, "FAILED"),
            Column("error_class", lambda f: f.error.exception_class, None),
            Column("error", lambda f: _error_line(f.error), "ERROR", wide=True),
            Column("message", lambda f: f.error.message),
            Column("pid", lambda f: f.error.pid),
            Column("exit_status", lambda f: f.error.exit_status),
            Column("signal", lambda f: f.error.signal),
            Column("last_heartbeat_at", lambda f: f.error.last_heartbeat_at),
            Column("failure_id", lambda f: f.failure_id),
            Column("active_job_id", lambda f: f.active_job_id),
            Column("priority", lambda f: f.priority),
            Column("enqueued_at", lambda f: f.enqueued_at),
        ),
        lambda f: [f.job_id],
    )


def failure_details() -> "Fields[Failure]":
    """Fields of a failed job, with what is too long for a list."""
    return Fields(
        (
            *(column for column in failures().columns if column.name != "error"),
            Column("arguments", lambda f: _arguments(f.arguments)),
            Column("backtrace", lambda f: list(f.error.backtrace)),
        ),
        lambda f: [f.job_id],
    )


def _error_line(error: "ErrorInfo") -> str:
    """Say in a few words what a table has room for; ``message`` has it in full."""
    if error.signal is not None:
        return f"pid {error.pid} was killed by signal {error.signal}"
    if error.exit_status is not None:
        return f"pid {error.pid} exited with status {error.exit_status}"
    if error.last_heartbeat_at is not None:
        return f"last heartbeat at {error.last_heartbeat_at:%Y-%m-%d %H:%M:%S} UTC"
    name, message = error.exception_class, error.message
    if name is None and message is None:
        return "(no error was recorded)"
    short = name and name.rsplit("::", 1)[-1]
    return ": ".join(part for part in (short, message) if part)


def jobs() -> "Fields[JobView]":
    """Fields of a job in any state."""
    return Fields(
        (
            Column("job_id", lambda j: j.job_id, "JOB"),
            Column("class_name", lambda j: j.class_name, "CLASS", wide=True),
            Column("queue_name", lambda j: j.queue_name, "QUEUE", wide=True),
            Column("state", lambda j: "+".join(state.value for state in j.states) or "none", "STATE"),
            Column("active_job_id", lambda j: j.active_job_id),
            Column("priority", lambda j: j.priority, "PRIORITY"),
            Column("concurrency_key", lambda j: j.concurrency_key),
            Column("enqueued_at", lambda j: j.enqueued_at, "ENQUEUED"),
            Column("scheduled_at", lambda j: j.scheduled_at),
            Column("finished_at", lambda j: j.finished_at),
            Column("claimed_at", lambda j: j.claimed_at),
            Column("process_id", lambda j: j.process_id),
            Column("process_name", lambda j: j.process_name),
            Column("process_hostname", lambda j: j.process_hostname),
            Column("process_pid", lambda j: j.process_pid),
            Column("blocked_until", lambda j: j.blocked_until),
            Column("failed_at", lambda j: j.failed_at),
            Column("error_class", lambda j: _parsed(j).exception_class),
            Column("message", lambda j: _parsed(j).message),
            Column("arguments", lambda j: _arguments(j.arguments)),
        ),
        lambda j: [j.job_id],
    )


def _parsed(job: "JobView") -> Any:
    from solidjq.failures import parse_error  # noqa: PLC0415

    return parse_error(job.error)


def processes(threshold: float) -> "Fields[Process]":
    """Fields of a process."""
    return Fields(
        (
            Column("process_id", lambda p: p.id, "ID"),
            Column("kind", lambda p: p.kind, "KIND", wide=True),
            Column("name", lambda p: p.name, "NAME", wide=True),
            Column("hostname", lambda p: p.hostname, "HOST", wide=True),
            Column("pid", lambda p: p.pid, "PID"),
            Column("supervisor_id", lambda p: p.supervisor_id, "PARENT"),
            Column("alive", lambda p: p.is_alive(threshold), "ALIVE"),
            Column("last_heartbeat_at", lambda p: p.last_heartbeat_at, "BEAT"),
            Column("heartbeat_age", lambda p: p.heartbeat_age),
            Column("claimed", lambda p: p.claimed, "JOBS"),
            Column("created_at", lambda p: p.created_at),
            Column("metadata", lambda p: p.metadata),
        ),
        lambda p: [p.id],
    )


def queues() -> "Fields[Queue]":
    """Fields of a queue."""
    return Fields(
        (
            Column("queue_name", lambda q: q.name, "QUEUE", wide=True),
            Column("paused", lambda q: q.paused, "PAUSED"),
            Column("ready", lambda q: q.ready, "READY"),
            Column("claimed", lambda q: q.claimed, "CLAIMED"),
            Column("scheduled", lambda q: q.scheduled, "SCHEDULED"),
            Column("blocked", lambda q: q.blocked, "BLOCKED"),
            Column("oldest_ready_at", lambda q: q.oldest_ready_at, "OLDEST"),
            Column("latency", lambda q: q.latency),
        ),
        lambda _: [],
    )


def pruned() -> "Fields[Pruned]":
    """Fields of what a prune removed, or would."""
    return Fields(
        (
            Column("process_id", lambda p: p.process_id, "ID"),
            Column("kind", lambda p: p.kind, "KIND", wide=True),
            Column("name", lambda p: p.name, "NAME", wide=True),
            Column("hostname", lambda p: p.hostname, "HOST", wide=True),
            Column("pid", lambda p: p.pid, "PID"),
            Column("last_heartbeat_at", lambda p: p.last_heartbeat_at, "BEAT"),
            Column("failed", lambda p: len(p.job_ids), "FAILED JOBS"),
            Column("job_ids", lambda p: p.job_ids),
        ),
        lambda p: p.job_ids,
    )
