"""Columns of jobs in any state, and of how long the jobs of a class take."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from solidjq_cli import view
from solidjq_cli.ages import when
from solidjq_cli.columns.column import HOW_LEAST, Column, Fields, with_fields
from solidjq_cli.columns.failures import error_line
from solidjq_cli.columns.progress import job_progress, masked_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from solidjq.ledger.stop_requests import StopRequest
    from solidjq.queue.job_times import ClassTimes
    from solidjq.queue.jobs import JobView
    from solidjq.queue.keys import SlotHolder
    from solidjq.queue.states import State
    from solidjq.rails.error_text import ErrorInfo


def job_fields(holders: Sequence[SlotHolder] = (), asked: Mapping[int, StopRequest] | None = None) -> Fields[JobView]:
    """Fields of a job in any state; ``holders``: jobs that hold slots of the concurrency keys of blocked jobs.

    ``asked``: the requests that running jobs stop, by job id.
    """
    arguments = masked_arguments()
    stops = {} if asked is None else {job_id: request.words for job_id, request in asked.items()}
    return Fields(
        (
            Column("job_id", lambda j: j.job_id, "JOB"),
            Column("class_name", lambda j: j.class_name, "CLASS", wide=True),
            Column("queue_name", lambda j: j.queue_name, "QUEUE", wide=True),
            Column("state", lambda j: state_words(j.states), "STATE"),
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
            Column("stop_requested", lambda j: stops.get(j.job_id)),
            Column("blocked_until", lambda j: j.blocked_until),
            Column("blocked_by", lambda j: _blocked_by(j, holders)),
            Column("failed_at", lambda j: j.failed_at),
            Column("error_class", lambda j: _parsed(j).exception_class),
            Column("message", lambda j: _parsed(j).message),
            Column("progress", lambda j: job_progress(j.arguments, j.changed_at, j.failed_at, _parsed(j))),
            Column("arguments", lambda j: arguments(j.arguments)),
        ),
        lambda j: [j.job_id],
    )


def _blocked_by(job: JobView, holders: Sequence[SlotHolder]) -> list[Any]:
    """Return the jobs that hold the slots which a blocked job waits for; for people in words."""
    from solidjq.queue.states import State

    if State.BLOCKED not in job.states:
        return []
    return [
        f"job {holder.job_id} {holder.class_name}, {holder.state.value}"
        + (f" by pid {holder.pid} on {holder.hostname}" if holder.pid else "")
        if view.for_people()
        else {
            "job_id": holder.job_id,
            "class_name": holder.class_name,
            "state": holder.state.value,
            "since": holder.since,
            "hostname": holder.hostname,
            "pid": holder.pid,
        }
        for holder in holders
        if holder.key == job.concurrency_key
    ]


def listed_job_fields() -> Fields[JobView]:
    """Fields of a job in a list: what it waits for, or who has it, in words."""
    shown = {"job_id", "class_name", "queue_name", "state", "enqueued_at"}
    columns = tuple(
        column if column.name in shown else column._replace(title=None)
        for column in job_fields().columns
        if column.name not in {"message", "blocked_by", "progress"}
    )
    return Fields((*columns, Column("detail", _standing(), "DETAIL", wide=True)), lambda j: [j.job_id])


def _standing() -> Callable[[JobView], str | None]:
    """Return the function that says what a job waits for, who has it, or how it failed."""
    from solidjq.queue.states import State
    from solidjq_cli.ages import rfc3339

    def standing(job: JobView) -> str | None:
        state = job.states[0] if job.states else None
        if state is State.FINISHED:  # most jobs of a long list
            return None
        if state is State.SCHEDULED and job.scheduled_at is not None:
            return f"due {(when if view.for_people() else rfc3339)(job.scheduled_at)}"
        if state is State.BLOCKED:
            return f"for {job.concurrency_key}"
        if state is State.CLAIMED:
            return f"pid {job.process_pid} on {job.process_hostname}" if job.process_pid else "its process is gone"
        if state is State.FAILED:
            return error_line(_parsed(job))
        return f"holds {job.concurrency_key}" if state is State.READY and job.concurrency_key else None

    return standing


@lru_cache(maxsize=64)  # the jobs of a list have few
def state_words(states: tuple[State, ...]) -> str:
    """Return a job's states in one word, joined by ``+`` where its rows are damaged."""
    return "+".join(state.value for state in states) or "none"


def _parsed(job: JobView) -> ErrorInfo:
    return _error(job.error)


@lru_cache(maxsize=1)  # several fields of a job are read from its error
def _error(text: str | None) -> ErrorInfo:
    from solidjq.rails.error_text import parse_error

    return parse_error(text)


def job_columns() -> Fields[JobView]:
    """Return the columns of jobs in any state: since when each exists, and what it waits for, or who has it."""
    fields = listed_job_fields()
    by_name = {column.name: column for column in fields.columns}
    return with_fields(
        (
            by_name["job_id"],
            by_name["class_name"],
            by_name["queue_name"]._replace(leaves=1),
            by_name["state"],
            by_name["enqueued_at"]._replace(title="AGE"),
            by_name["detail"]._replace(least=HOW_LEAST, optional=True),
        ),
        fields,
        lambda job: job,
    )


def class_time_fields() -> Fields[ClassTimes]:
    """Fields of how long the jobs of a class take, in seconds."""
    kinds = (("finished", "TOOK"), ("waiting", "WAITING"), ("waited", "WAITED"), ("running", "RUNNING"))
    return Fields(
        (
            Column("class_name", lambda t: t.class_name, "CLASS", wide=True),
            *(column for name, title in kinds for column in _percentiles(name, title)),
        ),
        lambda _: [],
    )


def _percentiles(name: str, title: str) -> Iterator[Column[ClassTimes]]:
    """Yield the columns of one kind of time; a table shows the three percentiles in one cell."""

    def part(which: str) -> Callable[[ClassTimes], Any]:
        return lambda times: getattr(getattr(times, name), which, None)

    def words(times: ClassTimes) -> str:
        percentiles = getattr(times, name)
        return "-" if percentiles is None else " ".join(_seconds(value) for value in percentiles[1:])

    yield Column(f"{name}_jobs", part("times"), "DONE" if name == "finished" else None)
    yield Column(f"{name}_p50", part("p50"), title, words=words)
    yield Column(f"{name}_p95", part("p95"))
    yield Column(f"{name}_p99", part("p99"))


def _seconds(value: float) -> str:
    """Return seconds in three figures or so: ``0.012``, ``3.4``, ``82``, ``14m``."""
    from datetime import timedelta

    from solidjq.durations import spell_duration

    if value >= 100:  # noqa: PLR2004
        return spell_duration(timedelta(seconds=value))
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.3f}"  # noqa: PLR2004
