"""SQLAlchemy's dialect of PostgreSQL, with fewer round trips: no questions to a new server, no BEGIN by itself."""

from typing import Any

from psycopg import Connection, Cursor, Pipeline
from psycopg.pq import TransactionStatus
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from solidjq.database.poolers import begin_of
from solidjq.database.sessions import ISOLATION


class TransactionCursor(Cursor[Any]):
    """Sends the BEGIN of a transaction together with its first statement; the driver would wait in between."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """Execute a statement as the driver does."""
        driver: Any = self.connection
        if driver.autocommit or driver.info.transaction_status is not TransactionStatus.IDLE:
            return super().execute(*arguments, **options)
        driver._autocommit = True  # noqa: SLF001  (or it would send another BEGIN; the property asks the server first)
        try:
            with driver.pipeline():
                driver.execute(begin_of(driver), prepare=False)
                return super().execute(*arguments, **options)
        finally:
            driver._autocommit = False  # noqa: SLF001


class QuietPostgreSQL(PGDialect_psycopg):
    """Takes the version and the settings from what the server reported when the connection began.

    SQLAlchemy would ask for them, in five round trips. What a pooler has not passed on is asked.
    """

    supports_statement_cache = True

    def create_connect_args(self, url: Any) -> Any:
        """Return the driver's arguments."""
        create: Any = super().create_connect_args
        arguments, options = create(url)
        return arguments, {"cursor_factory": TransactionCursor, **options} if Pipeline.is_supported() else options

    def _get_server_version_info(self, connection: Any) -> Any:
        number = _driver(connection).info.server_version  # such as 150004
        ask: Any = super()._get_server_version_info
        return (number // 10_000, number % 10_000) if number else ask(connection)

    def _get_default_schema_name(self, connection: Any) -> Any:  # noqa: ARG002
        """Return no schema: statements name theirs, and the session's search path is not theirs."""
        return

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:  # noqa: ARG002
        """Return the level that the engine sets."""
        return ISOLATION

    def _set_backslash_escapes(self, connection: Any) -> None:
        setting = _driver(connection).info.parameter_status("standard_conforming_strings")
        ask: Any = super()._set_backslash_escapes
        if setting is None:
            ask(connection)
        else:
            self._backslash_escapes = setting == "off"


def _driver(connection: Any) -> Connection[Any]:
    driver: Connection[Any] = connection.connection.dbapi_connection
    return driver
