"""Where long jobs stood at their deaths: in ``jq_crashes``, and until a job is moved in the job's own payload.

Only a move changes the row of a failed job, and ``jq`` counts its crash before a move. So the position is right,
whoever noticed the death, Rails' own supervisor included.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, update

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.faults import unless_denied
from solidjq.database.functions import holds
from solidjq.database.tables import crashes, failed, jobs
from solidjq.database.unknown_columns import column_types
from solidjq.ledger import operations
from solidjq.rails.continuation import CONTINUATION_KEY, NOT_STARTED
from solidjq.rails.positions import Position, position_of, progress_part


class DeathPosition(NamedTuple):
    """Where a job stood when its process died, and when that was saved; None if nothing says when."""

    position: Position
    saved_at: datetime | None


def are_stored(connection: Connection) -> bool:
    """Whether ``jq_crashes`` stores positions: not without a ledger, nor in an older one until ``jq init``."""
    return operations.exists(connection) and crashes.c.progress.name in column_types(connection, crashes)


def have_begun() -> ColumnElement[bool]:
    """Return the SQL condition that a job has begun a step, with false positives."""
    text = func.coalesce(jobs.c.arguments, "")
    return holds(text, CONTINUATION_KEY) & ~holds(text, NOT_STARTED)


def has_steps() -> ColumnElement[bool]:
    """Return the SQL condition that a job has checkpoints, with false positives."""
    return holds(jobs.c.arguments, CONTINUATION_KEY)


def note(connection: Connection, failure_ids: Collection[int]) -> None:
    """Store where the jobs of these failures stand, if the failures were counted as crashes.

    Call it in the transaction that counted them. Does nothing in a ledger without the columns, or for a role that may
    not write them, as those that an older ``jq grants`` allowed for: then a crash counts at every position.
    """
    if not failure_ids or not are_stored(connection):
        return
    # Without a join with the crashes: PostgreSQL takes a table that is being filled for empty, and read all of it for
    # each failure. Few jobs have checkpoints, and of what is not counted as a crash the update finds no row.
    positions = [
        {"noted_id": row.id, "part": part, "at": row.updated_at}
        for batch in in_batches(failure_ids)
        for row in connection.execute(_payloads().where(among(failed.c.id, batch)).order_by(failed.c.id))
        if (part := progress_part(row.arguments)) is not None
    ]
    if not positions:
        return
    with unless_denied(connection):
        connection.execute(
            update(crashes)
            .where(crashes.c.failure_id == bindparam("noted_id"), crashes.c.progress.is_(None))
            .values(progress=bindparam("part"), saved_at=bindparam("at")),
            positions,
        )


def find_present(connection: Connection, failure_ids: Collection[int]) -> dict[int, DeathPosition]:
    """Return, by failure, where the jobs stand whose failures are still there; leave out jobs without checkpoints."""
    found: dict[int, DeathPosition] = {}
    for batch in in_batches(failure_ids):
        for row in connection.execute(_payloads().where(among(failed.c.id, batch))):
            if (position := position_of(row.arguments)) is not None:
                found[row.id] = DeathPosition(position, row.updated_at)
    return found


def find(connection: Connection, failure_ids: Collection[int]) -> dict[int, DeathPosition]:
    """Return, by failure, where the jobs stood; leave out those without checkpoints, or of which nobody noted it."""
    found = find_present(connection, failure_ids)
    rest = [failure_id for failure_id in failure_ids if failure_id not in found]
    if not rest or not are_stored(connection):
        return found
    columns = (crashes.c.failure_id, crashes.c.progress, crashes.c.saved_at)
    for batch in in_batches(rest):
        query = select(*columns).where(among(crashes.c.failure_id, batch), crashes.c.progress.is_not(None))
        for row in connection.execute(query):
            if (position := position_of(row.progress)) is not None:
                found[row.failure_id] = DeathPosition(position, row.saved_at)
    return found


def _payloads() -> Select[tuple[int, str | None, datetime | None]]:
    """Return the statement for the payloads that may have a progress, joined from failures."""
    return (
        select(failed.c.id, jobs.c.arguments, jobs.c.updated_at)
        .join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        .where(has_steps())
    )
