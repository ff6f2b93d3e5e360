"""Requests that a running job end, ``jq jobs stop``: rows of ``jq_failures`` that belong to one claim of the job.

A request is an archived copy of the job as it was, with ``STOP_REQUEST`` for a failure and the claim's id in ``error``.
It counts for that claim alone: a job that is retried later runs. The worker that has the claim reads its requests every
few seconds, and once more under the claim's lock before it gives a job back to its queue.
"""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, String, cast, literal, literal_column, select

from solidjq.database.among import among
from solidjq.database.faults import unless_denied
from solidjq.database.tables import claimed, failures, operations
from solidjq.database.text_columns import require_room
from solidjq.ledger import operations as ledger_operations
from solidjq.ledger.archive import ARCHIVED_TEXTS, STOP_REQUEST, archive_statement
from solidjq.queue import endings
from solidjq.queue.concurrency import NO_LIMITS, Limits
from solidjq.rails.error_text import error_json
from solidjq.untrusted import read_object

EXCEPTION_CLASS = "solidjq.errors.Cancelled"  # of a job that ended because it was asked to


_WHO = (operations.c.id, operations.c.actor, operations.c.reason)


class StopRequest(NamedTuple):
    """Who asked a claimed job to stop, and why."""

    job_id: int
    claim_id: int
    operation_id: int
    actor: str | None
    reason: str | None

    @property
    def words(self) -> str:
        """The message of the error with which the job ends."""
        why = f": {self.reason}" if self.reason else ""
        return f"asked to stop by {self.actor or 'somebody'}, operation {self.operation_id}{why}"


def lock_claims(connection: Connection, job_ids: Collection[int]) -> set[int]:
    """Lock the claims of those of these jobs that are claimed, until the transaction ends; return the jobs' ids."""
    rows = select(claimed.c.job_id).where(among(claimed.c.job_id, job_ids)).order_by(claimed.c.id).with_for_update()
    return set(connection.scalars(rows))


def ask(connection: Connection, job_ids: Collection[int], operation_id: int) -> None:
    """Ask the workers of these claimed jobs, whose claims the transaction has locked, to stop them.

    Raises LedgerMissingError if the archive cannot store the jobs.
    """
    require_room(connection, ARCHIVED_TEXTS)
    claim = literal('{"state":"claimed","claim":') + cast(claimed.c.id, String(20)) + literal("}")
    asked = (
        select(
            literal_column(str(STOP_REQUEST)).label("id"),
            claimed.c.job_id,
            claim.label("error"),
            claimed.c.created_at,
        )
        .where(among(claimed.c.job_id, job_ids))
        .subquery()
    )
    connection.execute(archive_statement(asked, literal(operation_id)))


def requests_of(connection: Connection, claims: ColumnElement[bool]) -> dict[int, StopRequest]:
    """Return the requests that count for these claims, by the claim's id; none in a database without a ledger."""
    if not ledger_operations.exists(connection):
        return {}
    columns = (claimed.c.id, claimed.c.job_id, failures.c.error, failures.c.operation_id)
    asked = select(*columns).join_from(claimed, failures, failures.c.job_id == claimed.c.job_id)
    rows = connection.execute(asked.where(claims, failures.c.failure_id == STOP_REQUEST)).all()
    current = {row.id: row for row in rows if read_object(row.error).get("claim") == row.id}
    if not current:
        return {}
    numbers = {row.operation_id for row in current.values()}
    who = {row.id: row for row in connection.execute(select(*_WHO).where(among(operations.c.id, numbers)))}
    return {
        row.id: StopRequest(
            row.job_id,
            row.id,
            row.operation_id,
            *((found.actor, found.reason) if (found := who.get(row.operation_id)) else (None, None)),
        )
        for row in current.values()
    }


def end_asked(connection: Connection, claims: ColumnElement[bool], limits: Limits = NO_LIMITS) -> list[int]:
    """Fail those of these claimed jobs that were asked to stop, as their worker would have; return the jobs' ids.

    It comes before a release: else a job whose worker stops at this moment would run again elsewhere. It locks the
    claims, so that a request either counts here or finds the job released. Where the role may not read the archive,
    there are no requests: a worker must be able to leave all the same.
    """
    locked = connection.scalars(select(claimed.c.id).where(claims).order_by(claimed.c.id).with_for_update()).all()
    found = _readable_requests(connection, claims) if locked else {}
    errors = {claim_id: error_json(EXCEPTION_CLASS, request.words, []) for claim_id, request in found.items()}
    return endings.fail(connection, among(claimed.c.id, errors), errors, limits) if errors else []


def requested_stops(connection: Connection, job_ids: Collection[int]) -> dict[int, StopRequest]:
    """Return the requests that count for the claims of these jobs, by job id; none if the role may not read them."""
    found = _readable_requests(connection, among(claimed.c.job_id, job_ids))
    return {request.job_id: request for request in found.values()}


def _readable_requests(connection: Connection, claims: ColumnElement[bool]) -> dict[int, StopRequest]:
    with unless_denied(connection):
        return requests_of(connection, claims)
    return {}
