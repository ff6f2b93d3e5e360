"""Keys: whether a queue's ids are integers, and whether its claims name their process by id, as jq reads them.

Solid Queue's own migrations make integers, but some applications change them to UUIDs. jq would compare those with
numbers, or take a claim for an orphan whose process it cannot look up: such a queue is refused before the first row is
read.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger

from solidjq.database import tables
from solidjq.database.poolers import Session, own_names
from solidjq.errors import NotAQueueError
from solidjq.text import printable

_PROCESS_NAME = "process_name"  # of a claim, in a proposal for Solid Queue

# Tables by the schema that statements name, else by the search path; types as PostgreSQL writes them. to_regclass would
# raise an error where this role may not use the schema.
_ON_POSTGRESQL = """
SELECT c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = ANY (%(tables)s::name[])
AND CASE WHEN %(schema)s::name IS NULL THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = %(schema)s::name END
AND a.attname = ANY (%(columns)s::name[]) AND NOT a.attisdropped
"""
_ON_MYSQL = """
SELECT table_name, column_name, column_type FROM information_schema.columns
WHERE table_schema = DATABASE() AND table_name IN %(tables)s AND column_name IN %(columns)s
"""
_ON_SQLITE = """
SELECT m.name, c.name, c.type FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'
"""


def require_readable_keys(backend: str, driver: Any, session: Session | None) -> None:
    """Raise NotAQueueError if the queue behind this new connection of a driver has keys that jq cannot read.

    ``session`` is that of a connection to PostgreSQL.
    """
    columns = [column for table in tables.solid_queue.sorted_tables for column in table.columns]
    keys = {(str(column.table.name), column.name) for column in columns if isinstance(column.type, BigInteger)}
    keys.add((str(tables.claimed.name), _PROCESS_NAME))
    names = {"tables": sorted({table for table, _ in keys}), "columns": sorted({column for _, column in keys})}
    match backend:
        case _ if session is not None:
            with own_names(driver, session):
                rows = driver.execute(_ON_POSTGRESQL, {**names, "schema": session.schema}).fetchall()
        case "mysql":
            with driver.cursor() as cursor:
                cursor.execute(_ON_MYSQL, names)
                rows = cursor.fetchall()
        case _:
            rows = driver.execute(_ON_SQLITE).fetchall()
    _judge(row for row in rows if row[:2] in keys)


def _judge(columns: Iterable[tuple[str, str, str]]) -> None:
    """Judge the keys of a queue, each with its table and its type."""
    for table, column, kind in columns:
        if column == _PROCESS_NAME:
            raise NotAQueueError(
                f"{table} has a column {column}: claims that name their process that way, not by its id, are "
                "not supported, since jq cannot tell which of them are orphaned; nothing was read or changed"
            )
        if "int" not in kind.lower():
            raise NotAQueueError(
                f"{table}.{column} is of type {printable(kind)}: keys that are not integers, such as UUIDs, are not "
                "supported, here or in any other table of Solid Queue; nothing was read or changed"
            )
