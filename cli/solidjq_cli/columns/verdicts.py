"""Columns of the verdict on each failed job, and of groups of jobs with one verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from solidjq_cli import view
from solidjq_cli.columns.column import Column, Fields
from solidjq_cli.columns.progress import position_record

if TYPE_CHECKING:
    from solidjq.recovery.verdicts import Decision, Verdict


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
    from solidjq.ledger.crashes import parse_evidence

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
