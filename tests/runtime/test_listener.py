"""How often a worker polls, beside what the database announces."""

import time
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from solidjq import Database
from solidjq.database import notices
from solidjq.database.poolers import qualified
from solidjq.database.tables import ready
from solidjq.runtime.listener import ANNOUNCED_POLLING, CHECK_INTERVAL, Listener
from solidjq.runtime.wakeup import Wakeup
from support.waiting import PATIENCE, until

OWN = 0.1  # seconds
LISTENERS = "FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN jq_ready'"


def started(database: Database, polling_interval: float = OWN) -> Listener:
    """Start a listener, and wait until the database's first word has woken its worker."""
    wakeup = Wakeup()
    listener = Listener(database, wakeup, "worker-1", polling_interval)
    listener.start()
    wakeup.wait(PATIENCE)
    listener.check_if_due()
    return listener


@pytest.mark.only_on("postgresql")
def test_a_worker_polls_seldom_while_every_ready_row_is_announced(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices.install(database)
    listener = started(database)
    assert listener.polling_interval == ANNOUNCED_POLLING
    notices.remove(database)
    listener.check_if_due()
    assert listener.polling_interval == ANNOUNCED_POLLING  # it looked just now
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + CHECK_INTERVAL, sleep=time.sleep)
    monkeypatch.setattr("solidjq.runtime.listener.time", later)
    listener.check_if_due()
    assert listener.polling_interval == OWN


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("statement", ["DISABLE TRIGGER jq_notify", "ENABLE REPLICA TRIGGER jq_notify"])
def test_a_trigger_that_does_not_fire_announces_nothing(database: Database, statement: str) -> None:
    notices.install(database)
    with database.write() as connection:
        connection.execute(text(f"ALTER TABLE {qualified(connection, ready.name)} {statement}"))
    assert started(database).polling_interval == OWN


@pytest.mark.only_on("postgresql")
def test_without_the_trigger_others_announce_nothing_and_it_polls_as_often_as_it_is_told(database: Database) -> None:
    assert started(database).polling_interval == OWN


@pytest.mark.only_on("postgresql")
def test_a_longer_interval_of_its_own_stays(database: Database) -> None:
    notices.install(database)
    assert started(database, 30.0).polling_interval == 30.0


@pytest.mark.only_on("postgresql")
def test_a_worker_whose_listening_session_is_gone_polls_as_before(database: Database) -> None:
    notices.install(database)
    listener = started(database)
    assert listener.polling_interval == ANNOUNCED_POLLING
    with database.write() as connection:
        assert connection.execute(text(f"SELECT pg_terminate_backend(pid) {LISTENERS}")).rowcount == 1
    until(lambda: listener.polling_interval == OWN, "it polls as before")


@pytest.mark.only_on("sqlite", "mariadb")
def test_a_database_without_notices_is_polled_as_often_as_it_is_told(database: Database) -> None:
    listener = Listener(database, Wakeup(), "worker-1", OWN)
    listener.start()
    listener.check_if_due()
    assert listener.polling_interval == OWN
