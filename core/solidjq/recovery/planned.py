"""The failures of a plan, and whether each of them may still move as planned."""

from collections.abc import Sequence
from dataclasses import dataclass

from solidjq.errors import RefusedError
from solidjq.recovery.verdicts import Decision
from solidjq.text import first_of

PREVIEW = 3  # changed jobs that a message names


@dataclass(frozen=True, slots=True)
class PlannedFailure:
    """A failure that a plan would move, and what the plan says of its job and where that goes (``queue_as``).

    If the failure is gone, its job has another Active Job id, or would go elsewhere by now, the plan is stale. If the
    job has another class or queue, the plan is not about this job.
    """

    failure_id: int
    job_id: int
    active_job_id: str | None
    class_name: str
    queue_name: str
    queue_as: str | None = None


def check_unchanged(expected: Sequence[PlannedFailure], decisions: Sequence[Decision], *, moved: bool = False) -> None:
    """Raise RefusedError unless the decisions of now move exactly these failures, each as planned.

    ``moved``: whether earlier batches of the plan were moved, and stay so.
    """
    by_id = {decision.candidate.failure_id: decision for decision in decisions}
    changed = [words for failure in expected if (words := _difference(failure, by_id.get(failure.failure_id)))]
    if changed:
        rest = "the rest of it was not moved" if moved else "nothing was moved"
        words = first_of(changed, PREVIEW, separator="; ")
        raise RefusedError(f"the plan is stale, and {rest}: {words}; make a new one")


def _difference(planned: PlannedFailure, now: Decision | None) -> str | None:
    """Return in words why a failure of a plan may not be moved as planned; None if it may."""
    job = f"job {planned.job_id}"
    if now is None or (now.job_id, now.candidate.active_job_id) != (planned.job_id, planned.active_job_id):
        return f"{job} is not failed any more, or failed anew"
    if now.candidate.class_name != planned.class_name:
        return f"{job} is {now.candidate.class_name} in the database and {planned.class_name} in the plan"
    if now.candidate.queue_name != planned.queue_name:
        return f"{job} is of queue {now.candidate.queue_name} in the database and of {planned.queue_name} in the plan"
    if not now.verdict.moves:
        return f"{job}: {now.reason}"
    if now.queue_as != planned.queue_as:
        going, was = now.queue_as or "its own queue", planned.queue_as or "its own queue"
        return f"{job} would go to {going} now, and to {was} by the plan"
    return None
