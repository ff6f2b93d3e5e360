"""Answers: how long a connection waits for its server, and how it notices that the server has vanished.

TCP keepalives notice a host or a network that is gone. They do not notice a proxy or a pooler that stays and forwards
nothing, so each answer has a time limit too.
"""

import inspect
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any

from sqlalchemy import Connection, Dialect

COMMAND_TIMEOUT = 600.0  # seconds that a command waits for one answer; counts of large tables take their time
RUNTIME_TIMEOUT = 30.0  # seconds that a process of jq work waits
WAIT_INTERVAL = 0.1  # seconds between two looks for a Ctrl-C, psycopg's own default
CANCEL_TIMEOUT = 5.0  # seconds for a server to confirm that it has cancelled a statement
# Seconds: a peer that vanished is noticed after half a minute, not after hours.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 10, 5, 4
USER_TIMEOUT = 30_000  # milliseconds
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)  # by the monotonic clock
_LEAST_WAIT = 0.01  # seconds for an answer after the deadline: psycopg takes 0 for no limit


def arguments(backend: str, timeout: float) -> dict[str, Any]:
    """Return the driver's own options for connections of which each answer may take ``timeout`` seconds."""
    if backend == "postgresql":
        return {
            "keepalives_idle": KEEPALIVE_IDLE,
            "keepalives_interval": KEEPALIVE_INTERVAL,
            "keepalives_count": KEEPALIVE_COUNT,
            "tcp_user_timeout": USER_TIMEOUT,
        }
    return {"read_timeout": timeout, "write_timeout": timeout}


def connect(dialect: Dialect, timeout: float, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return a new connection of the driver of which each answer may take ``timeout`` seconds."""
    if dialect.name == "postgresql" and (kind := _limited_connection()) is not None:
        connection = kind.connect(*positional, **named)
        connection.answer_timeout = timeout
        return connection
    if dialect.name == "mysql" and (quick := _quick_connection()) is not None:
        connection = quick(*positional, **named)
    else:
        connection = dialect.connect(*positional, **named)
    if dialect.name == "mysql":
        _keep_alive(connection)
    return connection


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Close a PostgreSQL connection whose answers take longer, all together: a pooler may have no session for it."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def wait_without_limit(connection: Any) -> None:
    """Let a driver's connection wait for answers, or notices, as long as they take."""
    _set_limit(connection, None)


@contextmanager
def without_limit(connection: Connection) -> Iterator[None]:
    """Let statements take as long as they take: to create an index of a large table, say."""
    driver: Any = connection.connection.driver_connection
    before = _set_limit(driver, None)
    try:
        yield
    finally:
        _set_limit(driver, before)


def _set_limit(driver: Any, seconds: float | None) -> Any:
    """Set how long a driver's connection waits for an answer, if it has such a limit; return what it was."""
    # PyMySQL has no public name for its own.
    name = next((name for name in ("answer_timeout", "_read_timeout") if hasattr(driver, name)), None)
    if name is None:
        return None
    before = getattr(driver, name)
    setattr(driver, name, seconds)
    return before


def _keep_alive(connection: Any) -> None:
    """Set the keepalives of a MySQL connection over TCP; the driver itself only switches them on."""
    opened = getattr(connection, "_sock", None)
    if not isinstance(opened, socket.socket) or opened.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    wanted = {
        "TCP_KEEPIDLE": KEEPALIVE_IDLE,
        "TCP_KEEPINTVL": KEEPALIVE_INTERVAL,
        "TCP_KEEPCNT": KEEPALIVE_COUNT,
        "TCP_USER_TIMEOUT": USER_TIMEOUT,
    }
    for name, value in wanted.items():
        if hasattr(socket, name):  # not every system has each
            with suppress(OSError):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@cache
def _quick_connection() -> Any:
    """Return PyMySQL's connection, which reads no certificate authorities where none is asked for: 65 ms each time.

    None if this PyMySQL makes its TLS contexts in another way.
    """
    from pymysql.connections import Connection as DriverConnection  # noqa: PLC0415  (only where MySQL is used)

    from solidjq.database.tls import lenient_context  # noqa: PLC0415

    if not hasattr(DriverConnection, "_create_ssl_ctx"):
        return None

    class QuickConnection(DriverConnection):  # type: ignore[misc,type-arg,unused-ignore]
        def set_character_set(self, charset: str, collation: str | None = None) -> None:
            """Send nothing: a new session's settings begin with it."""

        def _create_ssl_ctx(self, sslp: Any) -> Any:
            return super()._create_ssl_ctx(sslp) if sslp else lenient_context()  # type: ignore[misc,unused-ignore]

    return QuickConnection


@cache
def _limited_connection() -> Any:
    """Return psycopg's connection with a limit of time for each answer; None if this psycopg cannot have one."""
    import psycopg  # noqa: PLC0415  (only where PostgreSQL is used)
    from psycopg import errors  # noqa: PLC0415

    timed_out: Any = getattr(errors, "_WaitTimeout", None)
    if timed_out is None or "timeout" not in inspect.signature(psycopg.Connection.wait).parameters:
        return None

    class LimitedConnection(psycopg.Connection[Any]):
        answer_timeout: float | None = None  # seconds

        def wait(self, gen: Any, interval: float = WAIT_INTERVAL, timeout: float | None = None) -> Any:
            deadline = _deadline.get()
            limit = self.answer_timeout if deadline is None else max(_LEAST_WAIT, deadline - time.monotonic())
            if timeout is not None or limit is None:
                return super().wait(gen, interval, timeout)
            try:
                return super().wait(gen, interval, limit)
            except timed_out:
                with suppress(timed_out):  # a statement that waits for a lock can be cancelled
                    if deadline is None and self._cancels():
                        return super().wait(gen, interval, CANCEL_TIMEOUT)
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer within {limit:g} s") from None

        def _cancels(self) -> bool:
            try:
                self.cancel_safe(timeout=CANCEL_TIMEOUT)
            except psycopg.Error:  # the server cannot be reached
                return False
            return True

    return LimitedConnection
