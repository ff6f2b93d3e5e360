"""Retries and undos in the test's own process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solidjq import Database
from solidjq.ledger.operations import Operation
from solidjq.recovery import undo as recovery_undo
from solidjq.recovery.details import Detail
from solidjq.recovery.retry import retry
from solidjq.recovery.terms import RetryTerms, Selection
from solidjq.recovery.verdicts import Decision, Verdict
from solidjq.settings.policy import BUILT_IN, Policy
from support.deaths import ALL


@dataclass(frozen=True)
class Retried:
    """What a retry decided."""

    decisions: list[Decision]

    @property
    def count(self) -> int:
        return sum(decision.jobs for decision in self.decisions if decision.verdict.moves)

    @property
    def job_ids(self) -> list[int]:
        return sorted(decision.job_id for decision in self.decisions if decision.verdict.moves)

    @property
    def ready(self) -> list[int]:
        return sorted(d.job_id for d in self.decisions if d.verdict.moves and not d.scheduled)

    @property
    def scheduled(self) -> list[int]:
        return sorted(d.job_id for d in self.decisions if d.verdict.moves and d.scheduled)

    @property
    def verdicts(self) -> dict[int, Verdict]:
        return {decision.job_id: decision.verdict for decision in self.decisions}

    def reason(self, job_id: int) -> str | None:
        (reason,) = (decision.reason for decision in self.decisions if decision.job_id == job_id)
        return reason


def retry_jobs(
    database: Database,
    job_ids: Sequence[int] | None = None,
    operation: Operation | None = None,
    *,
    policy: Policy = BUILT_IN,
    selection: Selection | None = None,
    by_job: bool = True,
    **terms: Any,
) -> Retried:
    """Retry these jobs, or a selection, in this process."""
    chosen = Selection(job_ids=job_ids) if selection is None else selection
    detail = Detail.JOBS if by_job else Detail.COUNTS
    ran = retry(database, chosen, operation or Operation("retry"), RetryTerms(**terms), policy=policy, detail=detail)
    return Retried([decision for batch in ran for decision in batch])


def undo(database: Database, operation: Operation) -> dict[int, str | None]:
    assert operation.id is not None
    return {
        each.job_id: each.reason
        for batch in recovery_undo.undo(database, operation.id, Operation("undo", reason="wrong"))
        for each in batch
    }


def safe(database: Database, **terms: object) -> dict[int, Verdict]:
    return retry_jobs(database, selection=ALL, safe=True, **terms).verdicts


def last_line(operation_id: int) -> str:
    """Return the line that a retry ends with."""
    return f"jq: to see what became of them: jq operations show {operation_id}; to take it back: jq undo {operation_id}"
