"""Aftermath: what became of an incident's jobs, and which operations moved them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.tables import failures, operations
from solidjq.incidents.claimed_jobs import ClaimedJob
from solidjq.incidents.incidents import Incident
from solidjq.ledger.operations import OperationView, exists, list_operations
from solidjq.queue.jobs import JobView, find_jobs
from solidjq.queue.states import State
from solidjq.rails.error_text import parse_error
from solidjq.recovery.outcome import PUT_BACK, JobOutcome, discards


class JobAftermath(NamedTuple):
    """A job of an incident and what became of it. ``again``: its failure came after an operation had put it back."""

    job: ClaimedJob
    outcome: JobOutcome
    at: datetime | None  # since when, if its row says so
    again: bool = False


class MovedJobs(NamedTuple):
    """An operation, and how many jobs of the incident it moved."""

    operation: OperationView
    jobs: int


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What became of an incident: its jobs as they are now, in the incident's order, and the operations on them."""

    jobs: tuple[JobAftermath, ...] = ()
    operations: tuple[MovedJobs, ...] = ()
    counts: Mapping[JobOutcome, int] = field(default_factory=Counter)


def aftermath_of(connection: Connection, incident: Incident) -> Aftermath:
    """Return what became of an incident's jobs. Without jq's record the operations, and why a job is gone, are unknown.

    A job is followed by its Active Job id: ``retry_on`` writes a new row for each attempt, and the newest one counts.
    """
    jobs = list({job.job_id: job for job in incident.jobs}.values())
    moved = _moves(connection, [job.job_id for job in jobs], incident.at) if exists(connection) else {}
    verbs = {view.id: view for view in list_operations(connection, ids=_all(moved))} if moved else {}
    found: list[JobAftermath] = []
    for batch in in_batches(jobs):
        views = find_jobs(connection, [_subject(job) for job in batch])
        for job in batch:
            last = [verbs[number].verb for number in moved.get(job.job_id, ())]
            found.append(_outcome(job, views[_subject(job)], last))
    counted = Counter(number for numbers in moved.values() for number in numbers)
    return Aftermath(
        tuple(found),
        tuple(MovedJobs(verbs[number], counted[number]) for number in sorted(verbs)),
        Counter(each.outcome for each in found),
    )


def _subject(job: ClaimedJob) -> str:
    return str(job.job_id) if job.subject == f"job {job.job_id}" else job.subject


def _all(moved: Mapping[int, Sequence[int]]) -> set[int]:
    return {number for numbers in moved.values() for number in numbers}


def _moves(connection: Connection, job_ids: Sequence[int], since: datetime) -> dict[int, list[int]]:
    """Return by job the operations that took one of its failures since then, the oldest first, without undone ones."""
    moves: dict[int, list[int]] = {}
    taken = (
        select(failures.c.job_id, failures.c.operation_id)
        .join(operations, operations.c.id == failures.c.operation_id)
        .where(failures.c.restored_by.is_(None), operations.c.created_at >= since)
        .group_by(failures.c.job_id, failures.c.operation_id)
        .order_by(func.min(failures.c.id))
    )
    for batch in in_batches(job_ids):
        for job_id, number in connection.execute(taken.where(among(failures.c.job_id, batch))):
            moves.setdefault(job_id, []).append(number)
    return moves


def _outcome(job: ClaimedJob, views: Sequence[JobView], verbs: Sequence[str]) -> JobAftermath:
    """Decide what became of a job: by its newest row, if there is one; ``verbs`` of the operations that moved it."""
    if not views:
        discarded = bool(verbs) and discards(verbs[-1])
        return JobAftermath(job, JobOutcome.DISCARDED if discarded else JobOutcome.GONE, None)
    view = views[-1]
    again = any(verb in PUT_BACK for verb in verbs) or view.job_id != job.job_id
    if State.FAILED in view.states:
        died = parse_error(view.error).death is not None
        return JobAftermath(job, JobOutcome.DIED if died else JobOutcome.FAILED, view.failed_at, again)
    outcome, at = next(((_OUTCOMES[state], _since(view, state)) for state in view.states), (JobOutcome.STATELESS, None))
    return JobAftermath(job, outcome, at)


_OUTCOMES = {
    State.CLAIMED: JobOutcome.RUNNING,
    State.READY: JobOutcome.READY,
    State.SCHEDULED: JobOutcome.SCHEDULED,
    State.BLOCKED: JobOutcome.BLOCKED,
    State.FINISHED: JobOutcome.FINISHED,
}


def _since(view: JobView, state: State) -> datetime | None:
    return {
        State.CLAIMED: view.claimed_at,
        State.SCHEDULED: view.scheduled_at,
        State.FINISHED: view.finished_at,
    }.get(state)
