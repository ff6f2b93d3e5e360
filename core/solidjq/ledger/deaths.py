"""The table ``jq_deaths``: each end of a process that ``jq`` saw, with its evidence."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, insert

from solidjq.database import notices, owners
from solidjq.database.inserts import inserted_id
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
    values = _values(process, source, evidence, sample)
    result = connection.execute(
        insert(deaths).values(**values, exit_status=exit_status, signal=signal, noticed_at=utcnow())
    )
    # Host, pid and last heartbeat mark a process that may only be frozen; one that a supervisor reaped is dead.
    number = inserted_id(result)
    notices.send(connection, notices.DEATHS)
    return _frozen(process, number) if source is DeathSource.PRUNE else crashes.Origin(death_id=number)


def record_pruned(
    connection: Connection,
    processes: Sequence[Row[Any]],
    evidence: Mapping[int, Mapping[str, object]],
    samples: Mapping[int, Mapping[str, object]],
) -> dict[int, crashes.Origin]:
    """Write the deaths of pruned processes at once; return the origins of their jobs' crashes.

    All three are by process id. What is said of ``record`` holds here, too.
    """
    owners.require_safe_for_superuser(connection)
    values = {row.id: _values(row, DeathSource.PRUNE, evidence[row.id], samples[row.id]) for row in processes}
    statement = insert(deaths).values(noticed_at=utcnow())
    if connection.dialect.insert_executemany_returning:
        returning = statement.returning(deaths.c.process_id, deaths.c.id)
        numbers = dict(connection.execute(returning, list(values.values())).all())
    else:  # MySQL
        numbers = {number: inserted_id(connection.execute(statement, one)) for number, one in values.items()}
    notices.send(connection, notices.DEATHS)
    return {row.id: _frozen(row, numbers[row.id]) for row in processes}


def _values(
    process: Row[Any], source: DeathSource, evidence: Mapping[str, object], sample: Mapping[str, object]
) -> dict[str, Any]:
    return {
        "process_id": process.id,
        "kind": process.kind,
        "name": process.name,
        "hostname": process.hostname,
        "pid": process.pid,
        "supervisor_id": process.supervisor_id,
        "started_at": process.created_at,
        "last_heartbeat_at": process.last_heartbeat_at,
        "noticed_by": source.value,
        "evidence": _json({**evidence, **_stored(sample)}),
    }


def _frozen(process: Row[Any], number: int) -> crashes.Origin:
    """Return the origin of crashes whose process may only be frozen."""
    return crashes.Origin(number, process.hostname, process.pid, process.last_heartbeat_at)
