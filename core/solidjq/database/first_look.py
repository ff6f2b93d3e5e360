"""The first look: what every new connection is asked before its first statement, in one round trip.

Whether reading the queue would run the code of another role, whether its keys can be read, and on MySQL what server it
is.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from solidjq.database import keys, owners, poolers
from solidjq.database.poolers import Session

if TYPE_CHECKING:
    import psycopg

_ON_MYSQL = f"""
SELECT 'server', CONVERT(VERSION() USING utf8mb4), CONVERT(DATABASE() USING utf8mb4),
  CONVERT(@@lower_case_table_names USING utf8mb4)
UNION ALL {owners.INVOKED_VIEWS} UNION ALL {keys.ON_MYSQL}
"""


class MySQLServer(NamedTuple):
    """What a server says of itself. A proxy may name another version when a connection begins."""

    version: str
    database: str | None
    lower_case_table_names: str


def look_at_postgresql(driver: "psycopg.Connection[Any]", session: Session) -> None:
    """Look at a new connection to PostgreSQL.

    Raises RefusedError if reading the queue would run the code of another role, NotAQueueError for keys that jq cannot
    read.
    """
    superuser = poolers.is_superuser(driver)
    queries = [keys.ON_POSTGRESQL, *([owners.RUN_BY_READING] if superuser else [])]
    values = {**keys.values(), **owners.values(), "schema": session.schema}
    columns, *foreign = poolers.ask(driver, session, queries, values)
    for rows in foreign:
        owners.require_safe_to_read(rows)
    keys.require_readable(columns)


def look_at_mysql(driver: Any) -> MySQLServer:
    """Look at a new connection to MySQL or MariaDB, and return what the server is.

    Raises RefusedError if reading the queue would run the code of another role, NotAQueueError for keys that jq cannot
    read.
    """
    with driver.cursor() as cursor:
        cursor.execute(_ON_MYSQL, {**keys.values(), **owners.values()})
        rows = cursor.fetchall()
    owners.require_safe_to_read(row for row in rows if row[0] == "view")
    keys.require_readable(row[1:] for row in rows if row[0] == "key")
    return next(MySQLServer(*row[1:]) for row in rows if row[0] == "server")
