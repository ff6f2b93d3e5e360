"""The table ``jq_deaths``: each end of a process that ``jq`` saw, with its evidence."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, insert

from solidjq.database import owners
from solidjq.database.statements import inserted_id
from solidjq.database.tables import deaths
from solidjq.database.times import utcnow
from solidjq.ledger import crashes

# Characters of a sample that are stored: none of ours is longer, and MySQL refuses evidence of more than 65,535 bytes.
MOST_SAMPLE = 16_384


class DeathSource(StrEnum):
    """Who noticed a death; the value is stored in ``jq_deaths.noticed_by``."""

    SUPERVISOR = "supervisor"  # our supervisor reaped the child
    PRUNE = "prune"  # our prune found the heartbeat too old
    FAILURES = "failures"  # nobody: the death is put together from the failures that Rails wrote


def _json(data: Mapping[str, object]) -> str:
    return json.dumps(data, separators=(",", ":"))


def _stored(sample: Mapping[str, object]) -> dict[str, object]:
    return {"sample": sample} if sample and len(_json(sample)) <= MOST_SAMPLE else {}


def source_of(row: Row[Any]) -> DeathSource:
    """Return who noticed the death of a row of ``jq_deaths``; if the row does not say, its other columns do."""
    reaped = row.exit_status is not None or row.signal is not None
    match row.noticed_by:
        case DeathSource.SUPERVISOR.value | DeathSource.PRUNE.value as name:
            return DeathSource(name)
        case _:
            return DeathSource.SUPERVISOR if reaped else DeathSource.PRUNE


def record(
    connection: Connection,
    process: Row[Any],
    source: DeathSource,
    *,
    exit_status: int | None = None,
    signal: int | None = None,
    evidence: Mapping[str, object],
    sample: Mapping[str, object],
) -> crashes.Origin:
    """Write the death of a registered process, with its last sample unless that is longer than any of ours.

    Returns the origin of its jobs' crashes.

    Call it only if the database has a ledger, in the transaction that removes the process. ``process`` is its row.
    """
    owners.require_safe_for_superuser(connection)  # a worker writes for months: the table may be new
    result = connection.execute(
        insert(deaths).values(
            process_id=process.id,
            kind=process.kind,
            name=process.name,
            hostname=process.hostname,
            pid=process.pid,
            supervisor_id=process.supervisor_id,
            started_at=process.created_at,
            last_heartbeat_at=process.last_heartbeat_at,
            noticed_at=utcnow(),
            noticed_by=source.value,
            exit_status=exit_status,
            signal=signal,
            evidence=_json({**evidence, **_stored(sample)}),
        )
    )
    # Host, pid and last heartbeat mark a process that may only be frozen; one that a supervisor reaped is dead.
    pruned = source is DeathSource.PRUNE
    return crashes.Origin(
        death_id=inserted_id(result),
        hostname=process.hostname if pruned else None,
        pid=process.pid if pruned else None,
        last_heartbeat_at=process.last_heartbeat_at if pruned else None,
    )
