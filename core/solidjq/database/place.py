"""The place of a connection: which database it leads to, whether it may write there, and whether it is a standby."""

import os
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePath
from typing import Any, NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from solidjq.database import grants, tables
from solidjq.database.poolers import qualified, schema_of
from solidjq.database.standby import Standby, find_standby
from solidjq.database.url_options import last_values
from solidjq.text import mask_secrets, printable

_PORTS = {"postgresql": 5432, "mysql": 3306}
_USUAL_SCHEMA = "public"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection leads. ``str()`` names it for a person, without user and password."""

    database: str  # its name; of SQLite the file's path
    host: str | None = None  # with the port unless it is the usual one; None for a local socket, and for SQLite
    schema: str | None = None  # PostgreSQL's, where the tables are looked for
    prefix: str = tables.DEFAULT_PREFIX
    writable: bool = True
    standby: Standby | None = None

    @property
    def name(self) -> str:
        """The database and its server: ``shop_queue on db1``."""
        schema = f", schema {self.schema}" if self.schema not in {None, _USUAL_SCHEMA} else ""
        prefix = f", tables {self.prefix}*" if self.prefix != tables.DEFAULT_PREFIX else ""
        host = f" on {self.host}" if self.host else ""
        return printable(f"{self.database}{host}{schema}{prefix}")

    @property
    def access(self) -> str:
        """Whether this connection may write: ``read-write``, ``read-only``; of a standby also how far behind it is."""
        access = "read-write" if self.writable else "read-only"
        return f"{self.standby.access}, {access}" if self.standby else access

    def short_forms(self) -> list[str]:
        """Return names for a heading, the fullest first: ``shop_queue on db1 (read-only)``, ``shop_queue (read-only)``.

        Of an SQLite file the shortest is its name alone. That the database may be written to is left out: it is usual.
        """
        access = "" if self.writable and not self.standby else f" ({self.access})"
        alone = printable(self.database)
        last = f"…/{PurePath(alone).name}" if "/" in alone else alone
        return list(dict.fromkeys(f"{name}{access}" for name in (self.name, alone, last)))

    def __str__(self) -> str:
        """Return ``shop_queue on db1 (read-only)``."""
        return f"{self.name} ({self.access})"


def find_place(connection: Connection, url: URL, *, read_only: bool) -> Place:
    """Return where a connection to ``url`` leads; ``read_only``: whether it was opened so."""
    prefix, standby = tables.prefix(), find_standby(connection)
    match connection.dialect.name:
        case "postgresql":
            # A role that may only read is common on call, and worth seeing before a retry is typed.
            row = connection.execute(
                text(
                    "SELECT current_database() AS database, "
                    "coalesce(CAST(:schema AS text), current_schema()) AS schema, "
                    "current_setting('transaction_read_only') = 'off' AND coalesce("
                    "has_table_privilege(to_regclass(:failed), 'DELETE'), true) AS writable"
                ),
                {"schema": schema_of(connection), "failed": qualified(connection, tables.failed.name)},
            ).one()
            return Place(
                row.database, _reached(connection), row.schema, prefix, row.writable and not read_only, standby
            )
        case "mysql":
            name = str(connection.scalar(text("SELECT DATABASE()")))
            writable = not (read_only or standby) and _may_delete_on_mysql(connection)
            return Place(name, host_of(url), None, prefix, writable, standby)
        case _:
            return Place(below_home(url), prefix=prefix, writable=not read_only and grants.unwritable(url) is None)


def _may_delete_on_mysql(connection: Connection) -> bool:
    """Whether this account may delete failures, as every recovery does; True where roles or an old server hide it."""
    query = text(
        "SELECT EXISTS (SELECT 1 FROM information_schema.user_privileges "
        "WHERE grantee = :me AND privilege_type = 'DELETE') "
        "OR EXISTS (SELECT 1 FROM information_schema.schema_privileges "
        "WHERE grantee = :me AND privilege_type = 'DELETE' AND DATABASE() LIKE table_schema) "
        "OR EXISTS (SELECT 1 FROM information_schema.table_privileges "
        "WHERE grantee = :me AND privilege_type = 'DELETE' AND table_schema = DATABASE() AND table_name = :failed) "
        "OR EXISTS (SELECT 1 FROM information_schema.applicable_roles)"
    )
    try:
        user, _, host = str(connection.scalar(text("SELECT CURRENT_USER()"))).rpartition("@")
        return bool(connection.scalar(query, {"me": f"'{user}'@'{host}'", "failed": tables.failed.name}))
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return True


class DatabaseIdentity(NamedTuple):
    """Which database this is, for a file that belongs to it: no user, no password."""

    dialect: str
    host: str | None  # as the connection has it; a folder for a local socket, None for SQLite
    port: int | None
    database: str  # its name; of SQLite the file's absolute path, without symbolic links
    schema: str | None  # PostgreSQL's, where the tables are looked for
    prefix: str  # of Solid Queue's tables

    def __str__(self) -> str:
        """Return ``postgresql database shop_queue on db1:5432, schema public``."""
        host = f" on {self.host}{'' if self.port is None else f':{self.port}'}" if self.host else ""
        schema = f", schema {self.schema}" if self.schema else ""
        prefix = f", tables {self.prefix}*" if self.prefix != tables.DEFAULT_PREFIX else ""
        return printable(f"{self.dialect} database {self.database}{host}{schema}{prefix}")


def identify(connection: Connection, url: URL) -> DatabaseIdentity:
    """Return which database a connection to ``url`` leads to."""
    driver: Any = connection.connection.driver_connection
    match connection.dialect.name:
        case "postgresql":
            names = connection.execute(text("SELECT current_database(), current_schema()")).one()
            schema = schema_of(connection) or names[1]
            host, port = driver.info.host.lower(), driver.info.port
            return DatabaseIdentity("postgresql", host or None, port, names[0], schema, tables.prefix())
        case "mysql":
            name = str(connection.scalar(text("SELECT DATABASE()")))
            socket = driver.unix_socket or None
            host, port = (socket, None) if socket else (driver.host.lower(), driver.port)
            return DatabaseIdentity("mysql", host, port, name, None, tables.prefix())
        case dialect:
            path = os.path.realpath(url.database or "")
            return DatabaseIdentity(dialect, None, None, path, None, tables.prefix())


def host_of(url: URL) -> str | None:
    """Return the host of a URL, with its port unless that is the usual one; None for a local socket and for SQLite."""
    options = last_values(url.query)
    hosts = (url.host or options.get("host", "")).split(",")
    ports = options.get("port", str(url.port or "")).split(",")
    usual = str(_PORTS.get(url.get_backend_name()))
    each = zip_longest(hosts, ports[: len(hosts)], fillvalue="")
    named = [host if port in {"", usual} else f"{host}:{port}" for host, port in each if host[:1] not in {"", "/"}]
    return mask_secrets(",".join(named)) or None


def _reached(connection: Connection) -> str | None:
    """Return the host that a connection to PostgreSQL reached, of several in the URL or in a service file the one."""
    driver: Any = connection.connection.driver_connection
    return host_of(URL.create("postgresql", host=driver.info.host or None, port=driver.info.port))


def below_home(url: URL) -> str:
    """Return the path of an SQLite file as a shell takes it, ``~`` for the home folder."""
    home, path = os.path.expanduser("~"), url.database or ""  # noqa: PTH111  (it leaves a ~ that has no home)
    return f"~{path.removeprefix(home)}" if home != "~" and path.startswith(f"{home.rstrip('/')}/") else path
