"""Keys: whether a queue's ids are integers, and whether its claims name their process by id, as jq reads them.

Solid Queue's own migrations make integers, but some applications change them to UUIDs. jq would compare those with
numbers, or take a claim for an orphan whose process it cannot look up: such a queue is refused before the first row is
read.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import BigInteger

from solidjq.database import tables
from solidjq.errors import NotAQueueError
from solidjq.text import printable

_PROCESS_NAME = "process_name"  # of a claim, in a proposal for Solid Queue

# Tables by the schema that statements name, else by the search path; types as PostgreSQL writes them. to_regclass would
# raise an error where this role may not use the schema.
ON_POSTGRESQL = """
SELECT c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = ANY (%(tables)s::name[])
AND CASE WHEN %(schema)s::name IS NULL THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = %(schema)s::name END
AND a.attname = ANY (%(columns)s::name[]) AND NOT a.attisdropped
"""
# Like each query of a new connection to MySQL, with its kind first, and in one character set: a UNION refuses texts of
# different collations.
ON_MYSQL = """
SELECT 'key', CONVERT(table_name USING utf8mb4), CONVERT(column_name USING utf8mb4), CONVERT(column_type USING utf8mb4)
FROM information_schema.columns
WHERE table_schema = DATABASE() AND table_name IN %(tables)s AND column_name IN %(columns)s
"""
ON_SQLITE = """
SELECT m.name, c.name, c.type FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'
"""


@cache
def _keys(prefix: str) -> frozenset[tuple[str, str]]:  # noqa: ARG001  (the tables' names have it)
    """Return the table and the name of each column that must be an integer, and of the one that must not be there."""
    columns = [column for table in tables.solid_queue.sorted_tables for column in table.columns]
    keys = {(str(column.table.name), column.name) for column in columns if isinstance(column.type, BigInteger)}
    return frozenset(keys | {(str(tables.claimed.name), _PROCESS_NAME)})


def values() -> dict[str, Any]:
    """Return the values of the queries, except the schema."""
    keys = _keys(tables.prefix())
    return {"tables": sorted({table for table, _ in keys}), "columns": sorted({column for _, column in keys})}


def require_readable(rows: Iterable[tuple[Any, ...]]) -> None:
    """Raise NotAQueueError if the queue has keys that jq cannot read.

    The rows of the query are columns, with table and type.
    """
    keys = _keys(tables.prefix())
    for table, column, kind in rows:
        if (table, column) not in keys:
            continue
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
