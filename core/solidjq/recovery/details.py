"""Details: the jobs of a retry one by one, after it has decided on groups of failures."""

from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from typing import Any

from sqlalchemy import Connection, select

from solidjq.database.among import read_among
from solidjq.database.grouping import read_numbers
from solidjq.database.tables import failed, jobs
from solidjq.recovery.verdicts import Decision


class Detail(Enum):
    """How much a retry reads of each job that it decides on."""

    COUNTS = "counts"  # nothing: a decision may be on a group of failures, as is one that holds back in IDS
    IDS = "ids"  # of the jobs that move, the ids of job and failure: the rest may be another's of its group
    JOBS = "jobs"  # all that differs within a group, but for the error's message
    FACTS = "facts"  # all: no groups, each job is read by itself

    def divides(self, decision: Decision) -> bool:
        """Whether each job of the decision's group gets a decision of its own."""
        return self is not Detail.COUNTS and (decision.verdict.moves or self is not Detail.IDS)


def decisions_by_job(connection: Connection, decisions: Sequence[Decision], detail: Detail) -> list[Decision]:
    """Divide the decisions on groups as the detail says; return all in the order of their failures.

    Call it while the failures are still there.
    """
    divided = [decision for decision in decisions if decision.group and detail.divides(decision)]
    of_failure = {failure_id: decision for decision in divided for failure_id in decision.group}
    by_job = [decision for decision in decisions if not (decision.group and detail.divides(decision))]
    for failure_id, job_id, *names in _jobs_of(connection, of_failure, detail) if of_failure else ():
        _, verdict, reason, queue_as, scheduled, _ = decision = of_failure[failure_id]
        candidate = decision.candidate.like_it(failure_id, job_id, *names)
        by_job.append(Decision(candidate, verdict, reason, queue_as, scheduled))
    by_job.sort(key=_failure_of)
    return by_job


def _failure_of(decision: Decision) -> int:
    return decision.candidate.failure_id


def _jobs_of(connection: Connection, failure_ids: Collection[int], detail: Detail) -> Iterable[Sequence[Any]]:
    chosen = read_among(failed.c.id, failure_ids)
    if detail is Detail.IDS:
        return read_numbers(connection, select(failed.c.id, failed.c.job_id).where(chosen))
    columns = (failed.c.id, failed.c.job_id, jobs.c.active_job_id, failed.c.created_at)
    return connection.execute(select(*columns).join(jobs, jobs.c.id == failed.c.job_id).where(chosen)).all()
