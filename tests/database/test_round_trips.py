"""How often a command waits for its server: over a network, that is most of the time that it takes."""

from contextlib import nullcontext
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, text

from solidjq.database import transactions
from solidjq.database.tables import jobs
from solidjq.database.transactions import Database
from solidjq.database.urls import url_text
from solidjq.errors import DatabaseError
from solidjq.queue.enqueue import enqueue
from solidjq.rails.error_text import pruned_error
from solidjq_cli import lock_watch
from support.commands import run
from support.proxies import proxied
from support.queue import fail, plain_jobs, rows
from support.servers import connected
from support.waiting import PATIENCE

# Of a whole command. On MySQL and MariaDB, a transaction has no BEGIN.
ROUND_TRIPS = {
    "failed list": {"postgresql": 5, "mariadb": 6},
    "failed show {job}": {"postgresql": 8, "mariadb": 9},
    "prune --quiet": {"postgresql": 29, "mariadb": 31},
    "retry --safe --dry-run": {"postgresql": 32, "mariadb": 27},
}
# Encryption takes more, as many as the server's version and the driver's.
UNENCRYPTED = {"postgresql": {"sslmode": "disable"}, "mariadb": {"ssl_mode": "disabled"}}


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("command", ROUND_TRIPS)
def test_a_command_takes_no_more_round_trips_than_it_did(
    database: Database, kind: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_watch, "FIRST", PATIENCE)  # on a busy machine, it would look who holds a lock
    monkeypatch.setattr(transactions, "GLANCE", PATIENCE)  # and would not wait for all that is said beside the answer
    (job,) = fail(database, *plain_jobs(1), error=pruned_error(datetime.now(UTC)))
    with proxied(database.url) as (proxy, url):
        monkeypatch.setenv("JQ_DATABASE_URL", url_text(url.update_query_dict(UNENCRYPTED[kind])))
        assert run(command.format(job=job).split()) == 0
        assert proxy.round_trips <= ROUND_TRIPS[command][kind]


# What SQLAlchemy derives from its questions to a new server.
DERIVED = {
    "postgresql": ["server_version_info", "default_isolation_level", "_backslash_escapes"],
    "mariadb": ["server_version_info", "default_isolation_level", "default_schema_name", "is_mariadb", "_casing"],
}


@pytest.mark.only_on("postgresql", "mariadb")
def test_sqlalchemy_learns_of_a_server_what_it_would_ask(database: Database, kind: str) -> None:
    with connected(database.url, isolation_level="READ COMMITTED") as connection:
        asked = {name: getattr(connection.dialect, name) for name in DERIVED[kind]}
    with database.read() as connection:
        assert {name: getattr(connection.dialect, name) for name in DERIVED[kind]} == asked


@pytest.mark.only_on("mariadb")
@pytest.mark.parametrize("read_only", [False, True])
def test_a_session_has_its_level_its_access_and_its_characters(database: Database, *, read_only: bool) -> None:
    opened = Database(database.url, read_only=read_only)
    query = "SELECT @@autocommit, @@character_set_client, @@collation_connection"
    with opened.read() as connection:
        commits, characters, collation = connection.execute(text(query)).one()
        variables = "SHOW SESSION VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')"
        levels = {level for _, level in connection.execute(text(variables))}
    refused = pytest.raises(DatabaseError, match="READ ONLY transaction")
    with refused if read_only else nullcontext(), opened.read() as connection:
        enqueue(connection, plain_jobs(1))
    opened.close()
    assert (levels, commits, characters) == ({"READ-COMMITTED"}, 0, "utf8mb4")
    with connected(database.url) as connection:
        assert connection.scalar(text("SELECT @@collation_connection")) == collation


def test_a_first_statement_that_fails_leaves_nothing_open(database: Database) -> None:
    """On PostgreSQL it was sent together with the BEGIN of its transaction."""
    for _ in range(2):
        with pytest.raises(DatabaseError), database.read() as connection:
            connection.execute(text("SELECT no_column"))
    with database.read() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_a_transaction_whose_second_statement_fails_changes_nothing(database: Database) -> None:
    def change_and_fail(connection: Connection) -> None:
        enqueue(connection, plain_jobs(1))
        connection.execute(text("SELECT no_column"))

    with pytest.raises(DatabaseError):
        database.transact(change_and_fail)
    assert rows(database, jobs) == []
