"""Ask running jobs to stop: those that a worker of ``jq work`` has. They end as failed, with their progress.

The request is written down under the claim's lock, and the worker reads it within seconds. What it then does is the
worker's: nothing here ends a claim that a living process has.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from solidjq.batching import BATCH
from solidjq.database.among import among
from solidjq.database.tables import claimed
from solidjq.database.transactions import Database
from solidjq.ledger import operations, stop_requests
from solidjq.ledger.stop_requests import StopRequest
from solidjq.processes.heartbeat import CAN_STOP, Process, list_processes
from solidjq.queue.jobs import JobView, views_of
from solidjq.queue.listing import JobFilter
from solidjq.queue.states import State
from solidjq.recovery.refusals import Refusals
from solidjq.recovery.waiting import WaitingDecision, move_pages, pages_of, until_limit, within_limit
from solidjq.untrusted import read_object

VERB = "jobs stop"


class ClaimFacts(NamedTuple):
    """What is known of the claims of some jobs: their processes by id, and the requests that count, by the job."""

    processes: Mapping[int, Process]
    requests: Mapping[int, StopRequest]


def plan_stop(
    database: Database, chosen: JobFilter, threshold: float, *, limit: int | None = None, batch: int = BATCH
) -> Iterator[list[WaitingDecision]]:
    """Yield, batch by batch, what ``stop`` would do now. Changes nothing."""

    def decide(job_ids: Sequence[int], left: int | None) -> list[WaitingDecision]:
        with database.read() as connection:
            return within_limit(_judge(connection, job_ids, threshold), left)

    yield from until_limit(pages_of(database, chosen, (State.CLAIMED,), batch), decide, limit)


def stop(
    database: Database,
    chosen: JobFilter,
    threshold: float,
    operation: operations.Operation,
    *,
    limit: int | None = None,
    batch: int = BATCH,
    refusals: Refusals | None = None,
) -> Iterator[list[WaitingDecision]]:
    """Ask the running jobs that the filter selects to stop; yield each batch's decisions, committed.

    Jobs that are named by ids and do not run get a decision that says which command is for them. ``threshold``: the
    seconds without a sign of life after which a worker is taken for dead. ``limit``: the most jobs to ask. Jobs whose
    request the database refuses are added to ``refusals``; without it, the first of them stops the command. Raises
    LedgerMissingError, before it changes anything, if the ``jq_`` tables are missing.
    """
    with database.read() as connection:
        operations.require(connection)

    def look(job_ids: Sequence[int]) -> list[WaitingDecision]:
        with database.read() as connection:
            return _judge(connection, job_ids, threshold)

    yield from move_pages(
        pages_of(database, chosen, (State.CLAIMED,), batch),
        lambda job_ids, left: database.transact(_stop_batch, job_ids, threshold, operation, left),
        look,
        operation,
        refusals,
        limit,
    )


def _stop_batch(
    connection: Connection,
    job_ids: Sequence[int],
    threshold: float,
    operation: operations.Operation,
    limit: int | None,
) -> list[WaitingDecision]:
    stop_requests.lock_claims(connection, job_ids)
    decisions = within_limit(_judge(connection, job_ids, threshold), limit)
    asked = [decision.job.job_id for decision in decisions if decision.moves]
    if asked:
        stop_requests.ask(connection, asked, operation.record(connection, len(asked)))
    return decisions


def _judge(connection: Connection, job_ids: Sequence[int], threshold: float) -> list[WaitingDecision]:
    views = views_of(connection, job_ids)
    found = stop_requests.requests_of(connection, among(claimed.c.job_id, job_ids))
    claims = ClaimFacts(
        {process.id: process for process in list_processes(connection)},
        {request.job_id: request for request in found.values()},
    )
    return [WaitingDecision(view, State.CLAIMED, decide(view, claims, threshold)) for view in views]


def decide(job: JobView, claims: ClaimFacts, threshold: float) -> str | None:
    """Return why a job is not asked to stop; None if it is."""
    if State.CLAIMED not in job.states:
        return _why_not(job)
    process = None if job.process_id is None else claims.processes.get(job.process_id)
    if (reason := _why_not_asked(process, threshold)) is not None:
        return reason
    request = claims.requests.get(job.job_id)
    return None if request is None else f"it was asked to stop already, by operation {request.operation_id}"


def _why_not_asked(process: Process | None, threshold: float) -> str | None:
    if process is None:
        return "its process is gone: jq prune, then jq discard"
    if not process.is_ours:
        return "a worker of Rails runs it, and that cannot be asked"
    if not process.is_alive(threshold):
        return "its worker is dead by its heartbeat: jq prune, then jq discard"
    if read_object(process.metadata).get(CAN_STOP) is not True:
        return "its worker is of a version that cannot be asked"
    return None


def _why_not(job: JobView) -> str:
    if State.FAILED in job.states:
        return "it does not run: it has failed; to delete it: jq discard"
    if State.FINISHED in job.states:
        return "it has finished"
    waits = ", ".join(state.value for state in job.states) or "in no state"
    return f"it does not run: it is {waits}; to delete it: jq jobs discard"
