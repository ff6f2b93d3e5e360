"""Sessions: what every connection sets first, so that no server, database or role decides what our statements mean."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

ISOLATION = "READ COMMITTED"  # each statement of a move sees what others committed before it
# Strict: a text that is too long or has foreign characters is refused, not shortened or stored with question marks.
# The list replaces the server's: ANSI_QUOTES or PIPES_AS_CONCAT would change what a statement says.
MYSQL_MODE = "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
# Bytes, MariaDB's own default: with less, rows with long texts cannot be sorted (error 1038). MySQL has 256 KiB.
MYSQL_SORT_BUFFER = 2 * 1024 * 1024
MYSQL_LONGEST_LIST = 1024 * 1024  # bytes, also MariaDB's default: with less, JSON_ARRAYAGG cuts a batch's ids off there
ANY_BYTES = "SQL_ASCII"  # the encoding of a PostgreSQL database that stores bytes of any encoding
# Nothing is looked up in a schema in which others may create. pg_temp is searched first if it is not named.
SAFE_PATH = "pg_catalog, pg_temp"
JIT_SINCE = 110_000  # the version of PostgreSQL that began to compile statements
_UTC = frozenset(("UTC", "Etc/UTC", "GMT", "Etc/GMT", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal"))


def begin_mysql_session(driver: Any, lock_timeout: float | None, *, read_only: bool) -> None:
    """Make a new connection strict, and its zone UTC, in which MySQL converts TIMESTAMP columns: two round trips.

    With ``lock_timeout``, a statement waits for a row's lock as many seconds, at least one. With ``read_only``, the
    server refuses every write.
    """
    collation = f" COLLATE {driver.collation}" if driver.collation else ""
    wait = "" if lock_timeout is None else f", innodb_lock_wait_timeout = {max(1, round(lock_timeout))}"
    # Off after on: MySQL whose own default is off reports it as on, and the driver would never switch it on.
    driver.query(
        f"SET NAMES {driver.charset}{collation}, "
        f"SESSION sql_mode = '{MYSQL_MODE}', time_zone = '+00:00', autocommit = 1, autocommit = 0, "
        f"sort_buffer_size = CAST(GREATEST(@@sort_buffer_size, {MYSQL_SORT_BUFFER}) AS UNSIGNED), "
        f"group_concat_max_len = CAST(GREATEST(@@group_concat_max_len, {MYSQL_LONGEST_LIST}) AS UNSIGNED)"
        f"{wait}"
    )
    # A statement of its own, which all versions take: the variables have other names on MySQL than on MariaDB.
    access = "READ ONLY" if read_only else "READ WRITE"
    driver.query(f"SET SESSION TRANSACTION ISOLATION LEVEL {ISOLATION}, {access}")


def postgresql_settings(driver: "psycopg.Connection[Any]") -> dict[str, str]:
    """Return what a new connection must set: UTC, in which PostgreSQL compares ``timestamptz`` columns with our times.

    And the encoding, which a URL's option or a pooler may have changed; neither where it is so already, which costs no
    round trip to see. Names of types come unquoted, or they would not be known.

    No statement is compiled: a condition of fifty ranges took 0.7 s to compile, and 0.1 s to execute. What is streamed
    is read to its end: by itself PostgreSQL plans a cursor for the first tenth of its rows.
    """
    settings = {"quote_all_identifiers": "off", "cursor_tuple_fraction": "1"}
    if driver.info.server_version >= JIT_SINCE:
        settings["jit"] = "off"
    if driver.info.parameter_status("TimeZone") not in _UTC:
        settings["timezone"] = "UTC"
    # Asked for UTF-8, the server fails a read of any bytes that are not UTF-8.
    any_bytes = driver.info.parameter_status("server_encoding") == ANY_BYTES
    encoding = ANY_BYTES if any_bytes else "UTF8"
    same = driver.info.parameter_status("client_encoding") == encoding
    return settings if same else {**settings, "client_encoding": encoding}
