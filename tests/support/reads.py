"""How many rows a server reads for a transaction."""

from sqlalchemy import Connection, Table, text


def rows_read(connection: Connection, table: Table) -> int:
    """Return how many rows of a table this transaction has read; on MariaDB, how many of all this session has."""
    if connection.dialect.name == "postgresql":
        counted = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = :name"
        return int(connection.scalar(text(counted), {"name": table.name}) or 0)
    return sum(int(row[1]) for row in connection.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'")))
