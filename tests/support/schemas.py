"""What the database says of its tables, and tables as an older version made them."""

from typing import Any

from sqlalchemy import create_engine, inspect

from solidjq import Database
from solidjq.database import tables
from support.servers import execute

OURS = {table.name for table in tables.jq.sorted_tables}
THEIRS = {table.name for table in tables.solid_queue.sorted_tables}


def definitions(database: Database) -> dict[str, Any]:
    """Return everything that the database says of its tables."""
    engine = create_engine(database.url)
    inspector = inspect(engine)
    found = {
        name: (
            [{key: str(value) for key, value in column.items()} for column in inspector.get_columns(name)],
            sorted(str(sorted(index.items(), key=str)) for index in inspector.get_indexes(name)),
            sorted(str(sorted(key.items(), key=str)) for key in inspector.get_foreign_keys(name)),
        )
        for name in inspector.get_table_names()
    }
    engine.dispose()
    return found


def make_older(database: Database) -> None:
    """Take back what version 3 of the ledger has brought, and 4, and the stamp of 5."""
    without_chain(database)
    stamp = "DELETE FROM jq_schema_migrations WHERE version >= 3"
    execute(database.url, "ALTER TABLE jq_failures DROP COLUMN more", stamp)


def without_chain(database: Database) -> None:
    """Take back what version 4 of the ledger has brought."""
    columns = ("database_role", "ci_job", "ended_at")
    dropped = [f"ALTER TABLE jq_operations DROP COLUMN {column}" for column in columns]
    execute(database.url, "DROP TABLE jq_chain", *dropped, "DELETE FROM jq_schema_migrations WHERE version = 4")


def drop_index(database: Database, name: str, table: str) -> None:
    execute(database.url, f"DROP INDEX {name}" + (f" ON {table}" if "mysql" in database.url.drivername else ""))
