"""SQLAlchemy's dialect of MySQL and MariaDB, without the ten round trips that it begins with.

A new session sets what SQLAlchemy would set (``sessions``), and is asked what it would ask (``first_look``).
"""

from typing import Any

from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

from solidjq.database.first_look import MySQLServer
from solidjq.database.sessions import ISOLATION, MYSQL_MODE


class QuietMySQL(MySQLDialect_pymysql):
    """Takes what it needs from ``server``, which the first look at a connection sets."""

    supports_statement_cache = True
    server: MySQLServer
    _untouched = False  # whether the connection has only been looked at

    def on_connect(self) -> Any:
        """Return nothing to do: the session's character set is set."""
        return

    def initialize(self, connection: Any) -> None:
        """Derive what depends on the server; no statement is sent."""
        super().initialize(connection)
        self._untouched = True

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll back, except after ``initialize``, where SQLAlchemy does so once."""
        if self._untouched:
            self._untouched = False
        else:
            dbapi_connection.rollback()

    def _get_server_version_info(self, connection: Any) -> Any:  # noqa: ARG002
        return self._parse_server_version(self.server.version)

    def _get_default_schema_name(self, connection: Any) -> Any:  # noqa: ARG002
        return self.server.database

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:  # noqa: ARG002
        """Return the level that a new session sets."""
        return ISOLATION

    def _fetch_setting(self, connection: Any, setting_name: str) -> Any:
        settings = {"sql_mode": MYSQL_MODE, "lower_case_table_names": self.server.lower_case_table_names}
        return settings[setting_name] if setting_name in settings else super()._fetch_setting(connection, setting_name)
