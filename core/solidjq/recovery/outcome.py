"""Outcomes: what became of the jobs that an operation put back to work. The database counts them.

A job is followed by its own row, and by its Active Job id once that row has finished or is gone: ``retry_on`` writes
a new row for each attempt.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, case, exists, func, literal_column, or_, select

from solidjq.database.tables import (
    blocked,
    claimed,
    crashes,
    failed,
    failures,
    jobs,
    operations,
    pauses,
    ready,
    scheduled,
)
from solidjq.incidents.summaries import find_recent
from solidjq.ledger.archive import STOP_REQUEST
from solidjq.ledger.crashes import EVIDENCE
from solidjq.ledger.operations import OperationView
from solidjq.queue.failed import is_death

PUT_BACK = frozenset({"retry", "recover", "bisect"})  # the verbs of operations whose jobs go back to work
SAME_INCIDENT = timedelta(hours=1)  # how far before the operation an incident may begin that one of its jobs died in


class JobOutcome(StrEnum):
    """What became of a job since an operation put it back to work."""

    FINISHED = "finished"
    DIED = "died"  # its process died again, and the failure waits for a decision
    FAILED = "failed"  # it failed with an error of its own, and the failure waits for a decision
    RUNNING = "running"
    READY = "ready"  # it waits for a worker
    PAUSED = "paused"  # it waits for a worker, in a paused queue
    SCHEDULED = "scheduled"  # it waits until it is due
    BLOCKED = "blocked"  # it waits for a slot of its concurrency limit
    STATELESS = "stateless"  # it has not finished, and has no row in any state: jq doctor finds such jobs
    RETRIED = "retried"  # it failed or died, and a later operation put it back to work: counted there
    DISCARDED = "discarded"  # it failed or died, and a later operation discarded it
    TAKEN_BACK = "taken_back"  # an undo made it failed again
    GONE = "gone"  # it has no row any more: finished and cleared, or deleted

    @property
    def open(self) -> bool:
        """Whether the job may still run or fail on behalf of the operation."""
        return self in _OPEN


_OPEN = frozenset(
    {
        JobOutcome.RUNNING,
        JobOutcome.READY,
        JobOutcome.PAUSED,
        JobOutcome.SCHEDULED,
        JobOutcome.BLOCKED,
        JobOutcome.STATELESS,
    }
)


class LaterMove(NamedTuple):
    """How many of the operation's jobs a later operation retried or discarded; ``died`` of them by a death."""

    operation_id: int
    verb: str
    jobs: int
    died: int


@dataclass(frozen=True, slots=True)
class OperationOutcome:
    """What became of an operation's jobs, in counts; ``incidents``: how many died again in which."""

    counts: Mapping[JobOutcome, int] = field(default_factory=Counter)
    incidents: Mapping[str, int] = field(default_factory=dict)
    later: tuple[LaterMove, ...] = ()

    def count(self, *outcomes: JobOutcome) -> int:
        """Return how many jobs have one of these outcomes."""
        return sum(self.counts.get(outcome, 0) for outcome in outcomes)

    @property
    def jobs(self) -> int:
        """How many jobs the operation put back."""
        return sum(self.counts.values())

    @property
    def open(self) -> int:
        """How many jobs wait or run."""
        return self.count(*_OPEN)

    @property
    def died(self) -> int:
        """How many jobs died again, those included that were retried or discarded since."""
        return self.count(JobOutcome.DIED) + sum(move.died for move in self.later)


def discards(verb: str) -> bool:
    """Whether an operation of this verb deletes its jobs, failed ones or those that wait."""
    return verb.removeprefix("jobs ") == "discard"


def outcome_of(connection: Connection, operation: OperationView) -> OperationOutcome | None:
    """Return what became of an operation's jobs; None if its verb puts no jobs back to work.

    It reads a row an outcome, a row a later operation and a row a death.
    """
    if operation.verb not in PUT_BACK:
        return None
    counts = Counter({JobOutcome(value): count for value, count in connection.execute(_by_outcome(operation.id))})
    later: tuple[LaterMove, ...] = ()
    if moved := counts[JobOutcome.RETRIED]:
        rows = connection.execute(_by_later_move(operation.id))
        later = tuple(LaterMove(number, verb, count, int(died)) for number, verb, count, died in rows)
        discarded = sum(move.jobs for move in later if discards(move.verb))
        counts[JobOutcome.DISCARDED], counts[JobOutcome.RETRIED] = discarded, moved - discarded
    incidents = _incidents(connection, operation) if counts[JobOutcome.DIED] else {}
    return OperationOutcome(+counts, incidents, later)


def outcomes_of(
    connection: Connection, views: Sequence[OperationView]
) -> list[tuple[OperationView, OperationOutcome | None]]:
    """Return each operation with its outcome."""
    return [(view, outcome_of(connection, view)) for view in views]


# -- statements -------------------------------------------------------------------------------------------------------

_later = failures.alias("later")
_own = jobs.alias("own")
_attempt = jobs.alias("attempt")
_now = jobs.alias("now")


def _archived(operation_id: int) -> Select[Any]:
    """Select the operation's jobs: which row of jobs is theirs now, which undo and which later archive row has them.

    ``+ 0`` keeps PostgreSQL from the index of that column, of which it would read a large part for each job.
    """
    later = _later.c
    was_moved = and_(
        later.operation_id + 0 > failures.c.operation_id, later.restored_by.is_(None), later.failure_id != STOP_REQUEST
    )
    by_id = select(func.min(later.id + 0)).where(later.job_id == failures.c.job_id, was_moved).scalar_subquery()
    by_active_job = (
        select(func.min(later.id + 0))
        .where(later.active_job_id == failures.c.active_job_id, was_moved)
        .scalar_subquery()
    )
    newest = (
        select(func.max(_attempt.c.id + 0))
        .where(_attempt.c.active_job_id == failures.c.active_job_id, _attempt.c.id + 0 > failures.c.job_id)
        .scalar_subquery()
    )
    ended = or_(_own.c.id.is_(None), _own.c.finished_at.is_not(None))
    return (
        select(
            func.coalesce(case((ended, newest)), failures.c.job_id).label("job_id"),
            failures.c.restored_by,
            case((failures.c.active_job_id.is_(None), by_id), else_=by_active_job).label("later_id"),
        )
        .join_from(failures, _own, _own.c.id == failures.c.job_id, isouter=True)
        .where(failures.c.operation_id == operation_id)
    )


def _by_outcome(operation_id: int) -> Select[Any]:
    """Count the jobs by outcome, in one statement: jobs change their state meanwhile. RETRIED: moved in any way."""
    archived = _archived(operation_id).subquery("archived")
    outcomes: tuple[tuple[ColumnElement[bool], JobOutcome], ...] = (
        (archived.c.restored_by.is_not(None), JobOutcome.TAKEN_BACK),
        (archived.c.later_id.is_not(None), JobOutcome.RETRIED),
        (and_(failed.c.id.is_not(None), is_death()), JobOutcome.DIED),
        (failed.c.id.is_not(None), JobOutcome.FAILED),
        (claimed.c.id.is_not(None), JobOutcome.RUNNING),
        (and_(ready.c.id.is_not(None), pauses.c.id.is_not(None)), JobOutcome.PAUSED),
        (ready.c.id.is_not(None), JobOutcome.READY),
        (scheduled.c.id.is_not(None), JobOutcome.SCHEDULED),
        (blocked.c.id.is_not(None), JobOutcome.BLOCKED),
        (_now.c.finished_at.is_not(None), JobOutcome.FINISHED),
        (_now.c.id.is_not(None), JobOutcome.STATELESS),
    )
    values: list[tuple[ColumnElement[bool], Any]] = [
        (condition, literal_column(f"'{value.value}'")) for condition, value in outcomes
    ]
    outcome: ColumnElement[Any] = case(*values, else_=literal_column(f"'{JobOutcome.GONE.value}'")).label("outcome")
    query = select(outcome, func.count()).join_from(archived, _now, _now.c.id == archived.c.job_id, isouter=True)
    for table in (failed, claimed, ready, scheduled, blocked):
        query = query.join(table, table.c.job_id == _now.c.id, isouter=True)
    return query.join(pauses, pauses.c.queue_name == ready.c.queue_name, isouter=True).group_by(outcome)


def _by_later_move(operation_id: int) -> Select[Any]:
    archived = _archived(operation_id).subquery("archived")
    died = exists().where(crashes.c.failure_id == _later.c.failure_id)
    return (
        select(operations.c.id, operations.c.verb, func.count(), func.sum(case((died, 1), else_=0)))
        .join_from(archived, _later, _later.c.id == archived.c.later_id)
        .join(operations, operations.c.id == _later.c.operation_id)
        .where(archived.c.restored_by.is_(None))
        .group_by(operations.c.id, operations.c.verb)
        .order_by(operations.c.id)
    )


def _by_death(operation_id: int) -> Select[Any]:
    archived = _archived(operation_id).subquery("archived")
    # Grouped, not filtered: PostgreSQL takes such a condition for far rarer than it is, and plans for one row.
    elsewhere = case((archived.c.restored_by.is_not(None), 1), (archived.c.later_id.is_not(None), 1), else_=0)
    error = func.substr(failed.c.error, 1, EVIDENCE).label("error")
    return (
        select(elsewhere.label("elsewhere"), crashes.c.death_id, error, func.min(failed.c.id), func.count())
        .join_from(archived, failed, failed.c.job_id == archived.c.job_id)
        .join(crashes, crashes.c.failure_id == failed.c.id, isouter=True)
        .where(is_death())
        .group_by("elsewhere", crashes.c.death_id, error)
    )


# -- incidents --------------------------------------------------------------------------------------------------------


def _incidents(connection: Connection, operation: OperationView) -> dict[str, int]:
    """Return how many of the operation's jobs died again in which incident, the most first."""
    since = operation.created_at
    recent = [] if since is None else find_recent(connection, since - SAME_INCIDENT, most=None)
    names: dict[str, str] = {}  # of the incident, by the death's name and by the error of its jobs
    for incident in recent:
        for death in incident.deaths:
            names[death.name] = incident.name
            if error := death.evidence.get("error"):
                names.setdefault(str(error), incident.name)
    counts: Counter[str] = Counter()
    for elsewhere, death_id, error, failure_id, count in connection.execute(_by_death(operation.id)):
        if not elsewhere:
            counts[names.get(error if death_id is None else f"d{death_id}", f"f{failure_id}")] += count
    return dict(counts.most_common())
