"""How often a worker polls, beside what the database announces."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from solidjq import Database
from solidjq.database import notices
from solidjq.database.poolers import qualified
from solidjq.database.tables import ready
from solidjq.runtime import listener
from solidjq.runtime.listener import ANNOUNCED_POLLING, Listener
from solidjq.runtime.wakeup import Wakeup
from support.waiting import PATIENCE, until

OWN = 0.1  # seconds
LISTENERS = "FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN jq_ready'"


@pytest.fixture
def started(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Listener]]:
    """Start a listener and wait until it listens; it listens no more when the test has ended."""
    ended = threading.Event()

    def rest(_seconds: float) -> None:
        ended.set()
        threading.Event().wait()  # for ever, instead of listening again

    monkeypatch.setattr(listener, "time", SimpleNamespace(monotonic=time.monotonic, sleep=rest))

    def start(polling_interval: float) -> Listener:
        wakeup = Wakeup()
        started = Listener(database, wakeup, "worker-1", polling_interval)
        started.start()
        wakeup.wait(PATIENCE)
        started.check_if_due()
        return started

    yield start
    end_listening(database)
    assert ended.wait(PATIENCE)


def end_listening(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {LISTENERS}"))


@pytest.mark.only_on("postgresql")
def test_a_worker_polls_seldom_while_every_ready_row_is_announced(
    database: Database, started: Callable[[float], Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    notices.install(database)
    made = started(OWN)
    assert made.polling_interval == ANNOUNCED_POLLING
    notices.remove(database)
    made.check_if_due()
    assert made.polling_interval == ANNOUNCED_POLLING  # it looked just now
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(made, "_check_at", 0.0)
    made.check_if_due()
    assert made.polling_interval == OWN


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("statement", ["DISABLE TRIGGER jq_notify", "ENABLE REPLICA TRIGGER jq_notify"])
def test_a_trigger_that_does_not_fire_announces_nothing(
    database: Database, started: Callable[[float], Listener], statement: str
) -> None:
    notices.install(database)
    with database.write() as connection:
        connection.execute(text(f"ALTER TABLE {qualified(connection, ready.name)} {statement}"))
    assert started(OWN).polling_interval == OWN


@pytest.mark.only_on("postgresql")
def test_without_the_trigger_it_polls_as_often_as_it_is_told(started: Callable[[float], Listener]) -> None:
    assert started(OWN).polling_interval == OWN


@pytest.mark.only_on("postgresql")
def test_a_longer_interval_of_its_own_stays(database: Database, started: Callable[[float], Listener]) -> None:
    notices.install(database)
    assert started(30.0).polling_interval == 30.0


@pytest.mark.only_on("postgresql")
def test_a_worker_whose_listening_session_is_gone_polls_as_before(
    database: Database, started: Callable[[float], Listener]
) -> None:
    notices.install(database)
    made = started(OWN)
    assert made.polling_interval == ANNOUNCED_POLLING
    end_listening(database)
    until(lambda: made.polling_interval == OWN, "it polls as before")


@pytest.mark.only_on("sqlite", "mariadb")
def test_a_database_without_notices_is_polled_as_often_as_it_is_told(database: Database) -> None:
    made = Listener(database, Wakeup(), "worker-1", OWN)
    made._listen()  # what its thread does; it ends at once, and not in the middle of a later test
    made.check_if_due()
    assert made.polling_interval == OWN
