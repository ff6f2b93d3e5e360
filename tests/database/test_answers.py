"""A server that goes silent without a word: the connection is given up, and the next one serves."""

import socket

import pytest
from sqlalchemy import Connection, select, text

from solidjq import Database
from solidjq.database import answers
from solidjq.database.tables import jobs
from solidjq.errors import DatabaseUnreachableError, TookTooLongError
from support.proxies import proxied
from support.queue import add_jobs, plain_jobs

TIMEOUT = 2.0  # seconds, in which a server that is only busy answers


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_server_that_goes_silent_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "CANCEL_TIMEOUT", TIMEOUT)
    with proxied(database.url) as (proxy, url):
        behind = Database(url, answer_timeout=TIMEOUT)
        behind.now()
        proxy.silence()
        with pytest.raises(DatabaseUnreachableError):
            behind.now()
        proxy.heal()
        assert behind.now()
        behind.close()


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_server_that_goes_silent_within_a_transaction_is_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "CANCEL_TIMEOUT", TIMEOUT)
    with proxied(database.url) as (proxy, url):
        behind = Database(url, answer_timeout=TIMEOUT)

        def move(connection: Connection) -> None:
            connection.execute(select(jobs.c.id))
            proxy.silence()

        with pytest.raises(DatabaseUnreachableError):
            behind.transact(move)
        proxy.heal()
        assert behind.now()
        behind.close()


@pytest.mark.only_on("postgresql")
def test_a_statement_that_waits_for_a_lock_is_cancelled_and_the_connection_stays(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    limited = Database(database.url, answer_timeout=TIMEOUT)
    lock = select(jobs.c.id).where(jobs.c.id == job_id).with_for_update()
    with limited.read() as connection:
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
    with database.write() as holder:
        holder.execute(lock)
        with pytest.raises(TookTooLongError), limited.write() as connection:
            connection.execute(lock)
    with limited.read() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) == backend
    limited.close()


@pytest.mark.only_on("postgresql", "mariadb")
def test_what_may_take_long_has_no_limit(database: Database, kind: str) -> None:
    limited = Database(database.url, answer_timeout=TIMEOUT)
    sleep = text(f"SELECT {'pg_sleep' if kind == 'postgresql' else 'SLEEP'}({2 * TIMEOUT})")
    with limited.read() as connection, answers.without_limit(connection):
        connection.execute(sleep)
    with pytest.raises((DatabaseUnreachableError, TookTooLongError)), limited.read() as connection:
        connection.execute(sleep)
    limited.close()


@pytest.mark.only_on("mariadb")
def test_keepalives_are_set(database: Database) -> None:
    with database.read() as connection:
        opened: socket.socket = connection.connection.driver_connection._sock  # type: ignore[union-attr]
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == answers.KEEPALIVE_IDLE
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == answers.USER_TIMEOUT
