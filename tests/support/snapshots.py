"""A queue's rows as they are, to be put back: a scene that many steps begin with is made once."""

from collections.abc import Callable

from sqlalchemy import insert

from solidjq import Database
from solidjq.database import tables as database_tables
from support.queue import clear, rows
from support.scenes import reset_ids


def snapshot(database: Database) -> Callable[[], None]:
    """Return a function that puts back all rows as they are now, with their ids; operations count on from here."""
    tables = [*database_tables.solid_queue.sorted_tables, *database_tables.LEDGER]
    kept = {table: found for table in tables if (found := rows(database, table))}

    def restore() -> None:
        clear(database)
        with database.write() as connection:
            for table, found in kept.items():
                connection.execute(insert(table), found)
        reset_ids(database)

    return restore
