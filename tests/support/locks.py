"""Which sessions of a server wait for a lock."""

import time

from sqlalchemy import Connection, text

from solidjq import Database


def waiting_sessions(connection: Connection) -> list[int]:
    """Return the sessions of this server's database that wait for a lock."""
    if connection.dialect.name == "postgresql":
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    else:
        query = (
            "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx t "
            "JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id "
            "WHERE trx_state = 'LOCK WAIT' AND p.db = database()"
        )
    return list(connection.scalars(text(query)))


def sessions(database: Database) -> list[int]:
    if database.url.get_backend_name() == "mysql":
        time.sleep(0.2)  # the server renews that table every 0.1 s, and not while it is read more often
    with database.outside_transactions() as connection:
        return waiting_sessions(connection)
