"""A job's whole life: every attempt under one Active Job id, every failure, and every operation on it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from solidjq.database.among import among
from solidjq.database.tables import failures, operations
from solidjq.ledger import operations as ledger_operations
from solidjq.ledger.archive import NO_FAILURE
from solidjq.ledger.crashes import crashes_of, subject_of
from solidjq.queue.jobs import JobView, find_jobs
from solidjq.queue.states import State
from solidjq.rails.continuation import progress_of
from solidjq.rails.error_text import parse_error
from solidjq.text import parse_id


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job. ``at`` is None if the database does not store when."""

    at: datetime | None
    job_id: int
    event: str
    detail: str | None = None
    operation_id: int | None = None
    actor: str | None = None
    crash: bool = False  # its process died
    waits: bool = False  # a failure that waits for a decision


def history(connection: Connection, text: str) -> list[Event]:
    """Return the events of a job, found by job id or Active Job id, the oldest first; empty if there are none.

    All jobs of the same Active Job id count as one life, those that ``jq`` archived and that are deleted by now
    included. Without the ``jq_`` tables only what Solid Queue's own tables store is returned.
    """
    views = {view.job_id: view for view in find_jobs(connection, [text])[text]}
    has_ledger = ledger_operations.exists(connection)
    names = {view.active_job_id for view in views.values()} - {None}
    archived = _archived(connection, [*map(str, views), text], names | {text}) if has_ledger else []
    names |= {row.active_job_id for row in archived} - {None}
    for name in names:  # the other attempts
        views |= {view.job_id: view for view in find_jobs(connection, [str(name)])[str(name)]}
    if has_ledger and names:
        archived = _archived(connection, [*map(str, views), text], names | {text})
    queues: dict[int, list[str]] = defaultdict(list)  # by job, in the order of time: where it was when it failed, or is
    for row in archived:
        queues[row.job_id].append(row.queue_name)
    for view in views.values():
        queues[view.job_id].append(view.queue_name)
    events: list[Event] = []
    passed: Counter[int] = Counter()
    for row in archived:
        first, *_ = of_job = queues[row.job_id]
        passed[row.job_id] += 1
        after = next(iter(of_job[passed[row.job_id] :]), row.queue_name)
        if row.job_id not in views and row.enqueued_at is not None:
            events.append(Event(row.enqueued_at, row.job_id, "enqueued", f"{row.class_name} in {first}"))
        events += _of_failure(row, None if after == row.queue_name else after)
    events += [event for view in views.values() for event in _of_job(view, queues[view.job_id][0])]
    if has_ledger:
        events += _retried_elsewhere(connection, views, archived, names)
    unique = {(event.at, event.job_id, event.event, event.operation_id): event for event in events}
    return sorted(unique.values(), key=lambda event: event.at or datetime.min.replace(tzinfo=UTC))


def _retried_elsewhere(
    connection: Connection, views: Mapping[int, JobView], archived: Sequence[Row[Any]], names: Iterable[str | None]
) -> Iterator[Event]:
    """Yield the counted crashes whose failure another program has removed since."""
    archived_ids = {row.failure_id for row in archived}
    current = {(view.job_id, view.failed_at) for view in views.values()}
    subjects = {name for name in names if name} | {subject_of(v.job_id, v.active_job_id) for v in views.values()}
    for crashes in crashes_of(connection, sorted(subjects)).values():
        for crash in crashes:
            if crash.failure_id not in archived_ids and (crash.job_id, crash.crashed_at) not in current:
                detail = f"{_describe_error(crash.evidence).rstrip('.')}; retried without jq"
                yield Event(crash.crashed_at, crash.job_id, "failed", detail, crash=True)


def _archived(connection: Connection, job_ids: Sequence[str], names: set[str | None]) -> Sequence[Row[Any]]:
    numbers = [number for number in map(parse_id, job_ids) if number is not None]
    undo = operations.alias()
    query = (
        select(
            failures,
            operations.c.verb,
            operations.c.actor,
            operations.c.reason,
            undo.c.created_at.label("restored_at"),
            undo.c.actor.label("restorer"),
            undo.c.reason.label("restored_for"),
        )
        .join(operations, operations.c.id == failures.c.operation_id, isouter=True)
        .join(undo, undo.c.id == failures.c.restored_by, isouter=True)
        .order_by(failures.c.id)
    )
    # A statement for either index: MariaDB reads the whole table for an OR of both that is to be sorted.
    which = (among(failures.c.job_id, set(numbers)), among(failures.c.active_job_id, names - {None}))
    rows = {row.id: row for one in which for row in connection.execute(query.where(one))}
    return [rows[number] for number in sorted(rows)]


def _of_job(view: JobView, first_queue: str) -> Iterator[Event]:
    yield Event(view.enqueued_at, view.job_id, "enqueued", f"{view.class_name} in {first_queue}")
    if view.claimed_at:
        where = f"pid {view.process_pid} at {view.process_hostname}" if view.process_pid else "a process that is gone"
        yield Event(view.claimed_at, view.job_id, "claimed", f"held by {where}")
    yield from _saved(view.changed_at, view.job_id, view.arguments)
    if view.failed_at or State.FAILED in view.states:
        yield _failed(view.failed_at, view.job_id, view.error, now=True)
    if view.finished_at:
        yield Event(view.finished_at, view.job_id, "finished")


def _of_failure(row: Row[Any], moved_to: str | None) -> Iterator[Event]:
    """Yield a failure that jq removed, and how; ``moved_to`` is the other queue that the job went to, if it did.

    A job that jq moved while it waited had not failed.
    """
    if row.failure_id > NO_FAILURE:
        yield from _saved(row.updated_at, row.job_id, row.arguments)
        yield _failed(row.failed_at, row.job_id, row.error)
    verb = _DONE.get(row.verb, row.verb)
    to = None if moved_to is None else f"to queue {moved_to}"
    detail = ": ".join(part for part in (to, row.reason) if part) or None
    yield Event(row.archived_at, row.job_id, verb, detail, row.operation_id, row.actor)
    if row.restored_by is not None:
        yield Event(row.restored_at, row.job_id, "taken back", row.restored_for, row.restored_by, row.restorer)


_DONE = {
    "retry": "retried",
    "recover": "retried",
    "discard": "discarded",
    "jobs discard": "discarded",
    "jobs move": "moved",
    "jobs postpone": "postponed",
    "jobs run-now": "made due",
    "jobs stop": "asked to stop",
}


def _saved(at: datetime | None, job_id: int, arguments: str | None) -> Iterator[Event]:
    """Yield the last checkpoint of a long job, whose row it changed last."""
    if (progress := progress_of(arguments)).started:
        yield Event(at, job_id, "saved", progress.words)


def _failed(at: datetime | None, job_id: int, error: str | None, *, now: bool = False) -> Event:
    detail = _describe_error(error)
    if now:
        detail = f"{detail.rstrip('.')}; it waits for a decision"
    return Event(at, job_id, "failed", detail, crash=parse_error(error).death is not None, waits=now)


def _describe_error(text: str | None) -> str:
    error = parse_error(text)
    name = (error.exception_class or "").rsplit("::", 1)[-1]
    return ": ".join(part for part in (name, error.message) if part) or "no error was recorded"
