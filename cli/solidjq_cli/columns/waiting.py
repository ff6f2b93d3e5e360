"""Columns of what was decided on each job that waits, and of groups of such jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from solidjq_cli.columns.column import Column, Fields
from solidjq_cli.columns.jobs import state_words

if TYPE_CHECKING:
    from solidjq.recovery.waiting import WaitingDecision


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
