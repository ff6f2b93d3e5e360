"""Presence: which of the ``jq_`` tables are there; a transaction asks once."""

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, inspect, text

from solidjq.database import tables
from solidjq.database.poolers import schema_of

_THERE = "solidjq_tables"  # execution option of a connection

# As in the queries of keys.py; a view counts as a table.
_QUERIES = {
    "postgresql": """
SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname IN :names AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
AND CASE WHEN CAST(:schema AS name) IS NULL THEN pg_catalog.pg_table_is_visible(c.oid)
  ELSE n.nspname = CAST(:schema AS name) END
""",
    "mysql": """
SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN :names
""",
    "sqlite": "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name IN :names",
}


def missing_tables(connection: Connection, names: Collection[str]) -> list[str]:
    """Return which of these tables of ours are not there, in their order.

    A table that was there stays so until the transaction ends. One that was not is looked for each time: it may have
    been created, and MySQL lists no table on which this user has no right, but then raises an error here.
    """
    there = connection.get_execution_options().get(_THERE)
    if there is None:
        there = frozenset(_find(connection))
        connection.execution_options(**{_THERE: there})
    schema = schema_of(connection)
    return [name for name in names if name not in there and not inspect(connection).has_table(name, schema)]


def _find(connection: Connection) -> Collection[str]:
    backend = connection.dialect.name
    query = text(_QUERIES[backend]).bindparams(bindparam("names", expanding=True))
    values = {"names": [str(table.name) for table in tables.jq.tables.values()]}
    more = {"schema": schema_of(connection)} if backend == "postgresql" else {}
    return connection.scalars(query, {**values, **more}).all()
