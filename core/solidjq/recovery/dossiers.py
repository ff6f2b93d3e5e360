"""What is known about a failed job beside its own row: where it died, how often, and whether a safe retry takes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from solidjq.batching import in_batches
from solidjq.database.transactions import Database
from solidjq.errors import AccessDeniedError, NotAQueueError
from solidjq.incidents.claimed_jobs import ClaimedJob
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.incidents import Incident, each_with_jobs
from solidjq.ledger.history import Event, history
from solidjq.queue.failed import Failure
from solidjq.recovery.details import Detail
from solidjq.recovery.run import Run, begin
from solidjq.recovery.terms import RetryTerms, Selection
from solidjq.recovery.verdicts import Decision, counting_crashes, window_of
from solidjq.settings.policy import Policy

AROUND = timedelta(hours=1)  # how far from its failure the death of a job may have been noticed
AT_ONCE = 50  # failures whose deaths are looked up together


@dataclass(frozen=True, slots=True)
class CrashCount:
    """How many crashes count against a job, within which time, and how many its policy allows."""

    crashes: int
    most: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class Dossier:
    """A failed job with what is known about it; None for what nobody recorded, or this user may not read."""

    failure: Failure
    decision: Decision | None = None  # what a safe retry would do with it now
    crashes: CrashCount | None = None
    incident: Incident | None = None
    death: DeathRecord | None = None  # of its process, one of the incident's
    claim: ClaimedJob | None = None  # what the process's last sample stored about it
    past: tuple[Event, ...] = ()  # its life, the oldest event first


def compile_dossiers(database: Database, failures: Sequence[Failure], policy: Policy) -> Iterator[Dossier]:
    """Yield the dossier of each of these failures, in their order.

    A database that lacks a table or a right for a part of it leaves that part out. It reads the deaths around the
    failures, and each job's life: it is for a few failures that a person reads.
    """
    terms = RetryTerms(safe=True)
    run = _begin(database, failures, terms, policy)
    for batch in in_batches(failures, AT_ONCE):
        decisions = {} if run is None else _decide(database, run, batch)
        incidents = _find_incidents(database, batch)
        for failure in batch:
            decision = decisions.get(failure.failure_id)
            incident, death, claim = incidents.get(failure.failure_id, (None, None, None))
            yield Dossier(
                failure,
                decision,
                None if run is None or decision is None else _count_crashes(run, decision),
                incident,
                death,
                claim,
                tuple(_past(database, failure)),
            )


def _begin(database: Database, failures: Sequence[Failure], terms: RetryTerms, policy: Policy) -> Run | None:
    chosen = Selection(job_ids=[failure.job_id for failure in failures])
    try:
        with database.read() as connection:
            return begin(connection, terms, policy, chosen, detail=Detail.FACTS)
    except (AccessDeniedError, NotAQueueError):  # a role that may read little, a schema of before 1.0
        return None


def _decide(database: Database, run: Run, failures: Sequence[Failure]) -> dict[int, Decision]:
    try:
        with database.read() as connection:
            decisions = run.judge(connection, [failure.failure_id for failure in failures])
    except (AccessDeniedError, NotAQueueError):
        return {}
    return {decision.candidate.failure_id: decision for decision in decisions}


def _count_crashes(run: Run, decision: Decision) -> CrashCount | None:
    candidate = decision.candidate
    if candidate.death is None:
        return None
    rule = run.policy.rule(candidate.class_name)
    counting = counting_crashes(candidate, run.terms, rule, run.now)
    return CrashCount(len(counting), rule.max_crashes, window_of(run.terms, rule))


def _find_incidents(
    database: Database, failures: Sequence[Failure]
) -> dict[int, tuple[Incident, DeathRecord, ClaimedJob]]:
    """Return, by failure, the incident and the death that it was in flight at, and what the sample stored of it."""
    times: list[datetime] = [failure.failed_at for failure in failures if failure.error.death and failure.failed_at]
    if not times:
        return {}
    wanted = {failure.failure_id for failure in failures}
    try:
        with database.read() as connection:
            return {
                job.failure_id: (incident, death, job)
                for incident in each_with_jobs(connection, since=min(times) - AROUND, until=max(times) + AROUND)
                for death in incident.deaths
                for job in death.jobs
                if job.failure_id in wanted and job.failure_id is not None
            }
    except (AccessDeniedError, NotAQueueError):
        return {}


def _past(database: Database, failure: Failure) -> list[Event]:
    try:
        with database.read() as connection:
            return history(connection, str(failure.job_id))
    except (AccessDeniedError, NotAQueueError):
        return []
