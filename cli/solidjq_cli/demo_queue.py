"""The queue that ``jq demo`` runs on: a temporary one, or a scratch database that is left as it was."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from solidjq import Database


@contextmanager
def demo_queue(url: str | URL | None, table_prefix: str | None, folder: Path) -> Iterator[Database]:
    """Yield a queue for the demo; afterwards remove everything that the demo put into it."""
    from solidjq.database import tables
    from solidjq.database.opening import open_database
    from solidjq.database.setup import initialize

    database = open_database(f"sqlite:{folder}/queue.sqlite3" if url is None else url, table_prefix=table_prefix)
    created = set(initialize(database).created)
    _refuse_if_in_use(database)
    with database.read() as connection:
        before = _last_ids(connection)
    try:
        yield database
    finally:
        if url is not None:
            database.transact(_remove_since, before)
            for metadata in (tables.jq, tables.solid_queue):
                mine = [table for table in metadata.sorted_tables if table.name in created]
                database.transact(metadata.drop_all, tables=mine)
        database.close()


def _refuse_if_in_use(database: Database) -> None:
    from solidjq.errors import RefusedError
    from solidjq.processes.heartbeat import list_processes
    from solidjq.processes.pruning import find_orphans

    with database.read() as connection:
        if list_processes(connection) or find_orphans(connection):
            raise RefusedError(f"{database} is in use; the demo would prune its workers. Name a scratch database")


def _last_ids(connection: Connection) -> dict[str, int]:
    """Return the highest id of each table that the demo adds rows to and does not clear itself."""
    from sqlalchemy import func, select

    from solidjq.database import tables

    return {
        table.name: connection.scalar(select(func.max(*table.primary_key))) or 0
        for table in (tables.jobs, *tables.LEDGER)
    }


def _remove_since(connection: Connection, last_ids: dict[str, int]) -> None:
    from sqlalchemy import delete

    from solidjq.database import tables
    from solidjq_cli.demo_jobs import QUEUE

    # The execution rows go with their jobs.
    mine = tables.jobs.c.queue_name == QUEUE
    connection.execute(delete(tables.jobs).where(mine, tables.jobs.c.id > last_ids[tables.jobs.name]))
    for table in tables.LEDGER:
        (key,) = table.primary_key
        connection.execute(delete(table).where(key > last_ids[table.name]))
    connection.execute(delete(tables.processes))
