"""Which product answers, and from which versions of Solid Queue its tables are."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, inspect

from solidjq.database.poolers import schema_of
from solidjq.database.tables import jobs, prefix, processes

_NAMES = {"postgresql": "PostgreSQL", "mysql": "MySQL", "sqlite": "SQLite"}


class Product(NamedTuple):
    """The database's product and version, and the versions of Solid Queue that have such tables."""

    name: str  # PostgreSQL, MySQL, MariaDB, SQLite
    version: str  # 15.9
    tables: str  # before 1.0; 1.0 to 1.6; 1.7 or later

    def __str__(self) -> str:
        """Return ``PostgreSQL 15.9, tables of Solid Queue 1.0 to 1.6``."""
        return f"{self.name} {self.version}, tables of Solid Queue {self.tables}"


def find_product(connection: Connection) -> Product:
    """Return which product a connection leads to, and what its tables show.

    Solid Queue's processes have names since 1.0, its jobs batches since 1.7.
    """
    dialect: Any = connection.dialect
    name = "MariaDB" if getattr(dialect, "is_mariadb", False) else _NAMES[dialect.name]
    version = ".".join(str(part) for part in dialect.server_version_info or () if isinstance(part, int))
    inspector, schema = inspect(connection), schema_of(connection)
    if inspector.has_table(f"{prefix()}batches", schema) and _has(inspector, jobs.name, "batch_id", schema):
        tables = "1.7 or later"
    elif _has(inspector, processes.name, "name", schema):
        tables = "1.0 to 1.6"
    else:
        tables = "before 1.0"
    return Product(name, version, tables)


def _has(inspector: Any, table: str, column: str, schema: str | None) -> bool:
    return any(there["name"] == column for there in inspector.get_columns(table, schema))
