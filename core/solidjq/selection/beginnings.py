"""Completes the beginning of an Active Job id, as people copy it from a log or a screen, if only one id begins so."""

import re
from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, select

from solidjq.database.tables import failures, jobs
from solidjq.errors import UsageError
from solidjq.ledger import operations
from solidjq.text import first_of

# At least four characters, and one that is no digit: a number is a job's id, even if no job has it any more.
_BEGINNING = re.compile(r"(?=.*[a-f-])[0-9a-f][0-9a-f-]{3,34}")
_NAMED = 3  # ids in a message


def complete(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return the whole Active Job id for each of these names that is the beginning of one.

    Jobs that ``jq`` retried or discarded count too, so that a name means the same job in every command.
    Raises UsageError if several ids begin with a name.
    """
    beginnings = {name: name.lower() for name in names if _BEGINNING.fullmatch(name.lower())}
    if not beginnings:
        return {}
    columns: list[ColumnElement[str]] = [jobs.c.active_job_id]
    if operations.exists(connection):
        columns.append(failures.c.active_job_id)
    whole: dict[str, str] = {}
    for name, beginning in beginnings.items():
        ids = sorted({each for column in columns for each in _ids(connection, column, beginning)})
        if len(ids) > 1:
            raise UsageError(
                f"{name} is the beginning of several Active Job ids: {first_of(ids, _NAMED)}; write more of it"
            )
        whole.update((name, active_job_id) for active_job_id in ids)
    return whole


def _ids(connection: Connection, column: ColumnElement[str], beginning: str) -> list[str]:
    # The range is what an index serves under every collation: a "g" comes after all that can follow. LIKE is exact.
    query = (
        select(column)
        .distinct()
        .where(column >= beginning, column < f"{beginning}g", column.startswith(beginning, autoescape=True))
        .order_by(column)
        .limit(_NAMED + 1)
    )
    return list(connection.scalars(query))
