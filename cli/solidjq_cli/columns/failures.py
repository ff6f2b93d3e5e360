"""Columns of failed jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from solidjq_cli.columns.column import HOW_LEAST, Column, Fields, with_fields
from solidjq_cli.columns.progress import job_progress, masked_arguments

if TYPE_CHECKING:
    from datetime import datetime

    from solidjq.incidents.failure_deaths import FailureDeath
    from solidjq.queue.failed import Failure
    from solidjq.rails.error_text import ErrorInfo
    from solidjq.settings.policy import Policy


def failure_fields() -> Fields[Failure]:
    """Fields of a failed job."""
    return Fields(
        (
            Column("job_id", lambda f: f.job_id, "JOB"),
            Column("class_name", lambda f: f.class_name, "CLASS", wide=True),
            Column("queue_name", lambda f: f.queue_name, "QUEUE", wide=True),
            Column("death", lambda f: f.error.death.value if f.error.death else None, "DEATH"),
            Column("failed_at", lambda f: f.failed_at, "FAILED"),
            Column("error_class", lambda f: f.error.exception_class, None),
            Column("error", lambda f: error_line(f.error), "ERROR", wide=True),
            Column("message", lambda f: f.error.message),
            Column("pid", lambda f: f.error.pid),
            Column("exit_status", lambda f: f.error.exit_status),
            Column("signal", lambda f: f.error.signal),
            Column("last_heartbeat_at", lambda f: f.error.last_heartbeat_at),
            Column("failure_id", lambda f: f.failure_id, extra=True),
            Column("active_job_id", lambda f: f.active_job_id, extra=True),
            Column("priority", lambda f: f.priority, extra=True),
            Column("enqueued_at", lambda f: f.enqueued_at, extra=True),
        ),
        lambda f: [f.job_id],
    )


def failure_detail_fields() -> Fields[Failure]:
    """Fields of a failed job, with its arguments and backtrace, which are too long for a list."""
    arguments = masked_arguments()
    return Fields(
        (
            *(column for column in failure_fields().columns if column.name != "error"),
            Column("progress", lambda f: job_progress(f.arguments, f.changed_at, f.failed_at, f.error)),
            Column("arguments", lambda f: arguments(f.arguments)),
            Column("backtrace", lambda f: list(f.error.backtrace)),
        ),
        lambda f: [f.job_id],
    )


def error_line(error: ErrorInfo) -> str:
    """Return the error in one short line, its class first: ``ProcessPrunedError: last heartbeat at ...``.

    Operators search for the class. The field ``message`` contains the full text.
    """
    if error.exception_class is None and error.message is None:
        return "(no error was recorded)"
    name = error.exception_class and error.exception_class.rsplit("::", 1)[-1]
    return ": ".join(part for part in (name, how_it_ended(error)) if part)


def how_it_ended(error: ErrorInfo) -> str | None:
    """Return how the process ended if the error says it, else the error's message."""
    if error.signal is not None:
        return f"pid {error.pid} was killed by signal {error.signal}"
    if error.exit_status is not None:
        return f"pid {error.pid} exited with status {error.exit_status}"
    if error.last_heartbeat_at is not None:
        return f"last heartbeat at {error.last_heartbeat_at:%Y-%m-%d %H:%M:%S} UTC"
    return error.message


class ListedFailure(NamedTuple):
    """A failure, and the death that it records, if it records one."""

    failure: Failure
    death: FailureDeath | None


def failure_columns(policy: Policy, now: datetime) -> Fields[ListedFailure]:
    """Return the columns of failed jobs; the policy says how many crashes are too many."""

    def crash(item: ListedFailure) -> tuple[int, int]:
        from solidjq.ledger.crashes import recent_crashes, without_progress_since

        if item.death is None:
            return 0, 0
        rule = policy.rule(item.failure.class_name)
        here = item.death.position if rule.count.value == "position" else None
        counting = without_progress_since(item.death.crashes, here)
        recent = {death.failure_id for death in recent_crashes(counting, rule.window, now)}
        return len(recent | {item.failure.failure_id}), rule.max_crashes

    def how(item: ListedFailure) -> str:
        count, most = crash(item)
        return f"{_how(item.failure.error)}{f', crash {count} of {most}' if count > 1 else ''}"

    def style(item: ListedFailure) -> str | None:
        count, most = crash(item)
        return None if count <= 1 else "error" if count >= most else "warning"

    return with_fields(
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
        failure_fields(),
        lambda item: item.failure,
    )


def _how(error: ErrorInfo) -> str:
    """Return how a process ended: its signal, its status, or the error's class; or else the job's own error."""
    from solidjq.text import signal_name

    if error.signal is not None:
        return signal_name(error.signal)
    if error.exit_status is not None:
        return f"exit status {error.exit_status}"
    if error.death is not None:
        return error.death.exception_class.rsplit("::", 1)[-1]
    return error_line(error)
