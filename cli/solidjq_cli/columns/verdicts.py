"""Columns of what a command decided on each job, and of groups of such jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from solidjq_cli import view
from solidjq_cli.columns.column import Column, Fields
from solidjq_cli.columns.jobs import state_words
from solidjq_cli.columns.progress import position_record

if TYPE_CHECKING:
    from solidjq.recovery.verdicts import Decision, Verdict
    from solidjq.recovery.waiting import WaitingDecision


def decision_fields() -> Fields[Decision]:
    """Fields of one job's verdict."""
    return Fields(
        (
            Column("job_id", lambda d: d.job_id, "JOB"),
            Column("class_name", lambda d: d.candidate.class_name, "CLASS", wide=True),
            Column("queue_name", lambda d: d.candidate.queue_name, "QUEUE", wide=True),
            Column("verdict", lambda d: d.verdict.value, "VERDICT"),
            Column("state", _next_state, "STATE"),
            Column("reason", lambda d: d.reason, "REASON", wide=True),
            Column("queue_as", lambda d: d.queue_as),
            Column("crashes", lambda d: len(d.candidate.crashes)),
            Column("progress", _resumption),
            Column("death", lambda d: d.candidate.death and d.candidate.death.value),
            Column("failed_at", lambda d: d.candidate.failed_at),
            Column("failure_id", lambda d: d.candidate.failure_id),
            Column("active_job_id", lambda d: d.candidate.active_job_id),
        ),
        lambda d: [d.job_id],
    )


def _resumption(decision: Decision) -> Any:
    """Return how far a long job is; for people in words."""
    from solidjq.ledger.crashes import parse_evidence  # noqa: PLC0415

    candidate, stands = decision.candidate, decision.candidate.stands
    if stands is None or not view.for_people():
        return position_record(stands)
    error = parse_evidence(candidate.evidence)
    return stands.position.progress.described(stands.saved_at, candidate.failed_at, error) or None


def _next_state(decision: Decision) -> str:
    """Name the state that the job goes to, or stays in."""
    if decision.verdict.value == "discard":
        return "gone"
    if not decision.verdict.moves:
        return "failed"
    return "scheduled" if decision.scheduled else "ready"


class VerdictGroup(NamedTuple):
    """Jobs of one class and queue with the same verdict."""

    verdict: Verdict
    class_name: str
    queue_name: str
    jobs: int


def verdict_group_fields() -> Fields[VerdictGroup]:
    """Fields of a group of jobs: one class and queue, one verdict."""
    return Fields(
        (
            Column("verdict", lambda g: g.verdict.value, "VERDICT"),
            Column("jobs", lambda g: g.jobs, "JOBS", counts=True),
            Column("class_name", lambda g: g.class_name, "CLASS", wide=True),
            Column("queue_name", lambda g: g.queue_name, "QUEUE", wide=True),
            Column("meaning", lambda g: g.verdict.meaning, "THE JOB", wide=True),
        ),
        lambda _: [],
    )


def waiting_decision_fields() -> Fields[WaitingDecision]:
    """Fields of what was decided on one job that waits."""
    return Fields(
        (
            Column("job_id", lambda d: d.job.job_id, "JOB"),
            Column("class_name", lambda d: d.job.class_name, "CLASS", wide=True),
            Column("queue_name", lambda d: d.job.queue_name, "QUEUE", wide=True),
            Column("state", lambda d: state_words(d.job.states), "STATE"),
            Column("moves", lambda d: d.moves, "MOVES"),
            Column("reason", lambda d: d.reason, "WHY NOT", wide=True),
            Column("concurrency_key", lambda d: d.job.concurrency_key),
            Column("active_job_id", lambda d: d.job.active_job_id),
        ),
        lambda d: [d.job.job_id] if d.moves else [],
    )


class WaitingGroup(NamedTuple):
    """Jobs of one class, queue and state with the same decision."""

    reason: str | None
    class_name: str
    queue_name: str
    state: str
    jobs: int


def waiting_group_fields() -> Fields[WaitingGroup]:
    """Fields of a group of waiting jobs with the same decision."""
    return Fields(
        (
            Column("moves", lambda g: g.reason is None, "MOVES"),
            Column("jobs", lambda g: g.jobs, "JOBS", counts=True),
            Column("class_name", lambda g: g.class_name, "CLASS", wide=True),
            Column("queue_name", lambda g: g.queue_name, "QUEUE", wide=True),
            Column("state", lambda g: g.state, "STATE"),
            Column("reason", lambda g: g.reason, "WHY NOT", wide=True),
        ),
        lambda _: [],
    )
