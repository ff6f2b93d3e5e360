"""One row that the database refuses, by a trigger say, keeps no other from a release, a dispatch or a maintenance."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update

from solidjq import Database, NewJob
from solidjq.database.tables import blocked, claimed, ready, scheduled, semaphores
from solidjq.database.tables import processes as process_table
from solidjq.database.times import ago
from solidjq.errors import DatabaseError
from solidjq.processes import heartbeat
from solidjq.queue import dispatch, endings
from solidjq.queue.concurrency import Limit
from solidjq.queue.states import State
from solidjq.runtime.dispatcher import Dispatcher
from support.processes import add_process, fail_orphans
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.refusals import UNKNOWN, VALUE, refusing

LATER = datetime(2099, 5, 4, tzinfo=UTC)


def is_job(job_id: int) -> str:
    return f"NEW.job_id = {job_id}"


@pytest.mark.parametrize("state", [VALUE, UNKNOWN])
def test_a_claim_that_is_refused_keeps_no_other_from_a_process_that_stops(
    database: Database, kind: str, state: str
) -> None:
    bad, *others = add_jobs(database, *plain_jobs(5))
    process = add_process(database)
    claim_all(database, process)
    with refusing(database, kind, "INSERT", ready.name, is_job(bad), state):
        assert sorted(database.transact(heartbeat.deregister, process)) == others
    assert not rows(database, process_table)
    assert state_of_each(database) == {bad: State.CLAIMED, **dict.fromkeys(others, State.READY)}
    assert fail_orphans(database) == [bad]


def test_a_process_of_which_every_claim_is_refused_stays(database: Database, kind: str) -> None:
    ids = add_jobs(database, *plain_jobs(3))
    process = add_process(database)
    claim_all(database, process)
    with (
        refusing(database, kind, "INSERT", ready.name, "NEW.job_id > 0", UNKNOWN),
        pytest.raises(DatabaseError, match="refused by the test"),
    ):
        database.transact(heartbeat.deregister, process)
    assert len(rows(database, process_table)) == 1
    assert state_of_each(database) == dict.fromkeys(ids, State.CLAIMED)


def test_a_claim_that_is_refused_keeps_no_other_from_being_released(database: Database, kind: str) -> None:
    bad, kept, *others = add_jobs(database, *plain_jobs(5))
    process = add_process(database)
    claims = {claim.job_id: claim.id for claim in claim_all(database, process)}
    with refusing(database, kind, "INSERT", ready.name, is_job(bad), UNKNOWN):
        assert sorted(database.transact(endings.release_others, process, [claims[kept]])) == others
    assert [row["job_id"] for row in rows(database, claimed)] == [bad, kept]


def due(database: Database, count: int) -> list[int]:
    ids = add_jobs(database, *plain_jobs(count, at=LATER))
    with database.write() as connection:
        connection.execute(update(scheduled).values(scheduled_at=ago(60)))
    return ids


def test_a_job_that_is_refused_keeps_no_other_from_a_dispatcher(database: Database, kind: str) -> None:
    """It is passed over for a while: it is due before the others, and would fill each batch."""
    ids = due(database, 9)
    dispatcher = object.__new__(Dispatcher)
    dispatcher.database, dispatcher.name = database, "dispatcher"
    with refusing(database, kind, "INSERT", ready.name, is_job(ids[0]), UNKNOWN):
        assert dispatcher._dispatch(4) == ids[1:4]
        assert dispatcher._dispatch(4) == ids[4:8]
        assert dispatcher._dispatch(4) == ids[8:]
        assert dispatcher._dispatch(4) == []
    assert state_of_each(database) == {ids[0]: State.SCHEDULED, **dict.fromkeys(ids[1:], State.READY)}
    dispatcher._passed = frozenset()
    assert dispatcher._dispatch(4) == ids[:1]


def test_a_database_that_refuses_every_job_is_not_asked_for_each(database: Database, kind: str) -> None:
    due(database, dispatch.MOST_REFUSED + 2)
    with (
        refusing(database, kind, "INSERT", ready.name, "NEW.job_id > 0", UNKNOWN),
        pytest.raises(DatabaseError, match="refused by the test"),
    ):
        database.transact(dispatch.dispatch_but_refused, 500)
    with database.read() as connection:
        assert not connection.scalars(select(ready.c.id)).all()


def test_a_semaphore_that_is_refused_keeps_a_dispatcher_from_no_maintenance(database: Database, kind: str) -> None:
    """The database refuses to delete one that has expired; the other goes, and the job that waited for it is ready."""
    keys = ("A/a", "A/a", "A/b", "A/b")
    add_jobs(database, *(NewJob(class_name="A", concurrency_key=key, limit=Limit(1)) for key in keys))
    with database.write() as connection:
        for table in (semaphores, blocked):
            connection.execute(update(table).values(expires_at=ago(60)))
    dispatcher = object.__new__(Dispatcher)
    dispatcher.database, dispatcher.name = database, "dispatcher"
    column = "`key`" if kind == "mariadb" else "key"
    with refusing(database, kind, "DELETE", semaphores.name, f"OLD.{column} = 'A/a'", UNKNOWN):
        dispatcher._maintain_concurrency(100)
    assert list(state_of_each(database).values()) == [State.READY, State.BLOCKED, State.READY, State.READY]


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_semaphore_that_is_locked_keeps_no_other_job_from_a_dispatcher(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor another key from its maintenance: PostgreSQL would wait for ever, and nothing be dispatched meanwhile."""
    limits = {"A": Limit(2)}
    monkeypatch.setattr("solidjq.registry.limits", lambda: limits)
    keys = ("A/a", "A/b", None)
    new = [NewJob(class_name="A", concurrency_key=key, limit=key and Limit(2)) for key in keys]
    add_jobs(database, *new)
    bad, *others = add_jobs(database, *(replace(one, at=LATER) for one in new))
    with database.write() as connection:
        connection.execute(update(scheduled).values(scheduled_at=ago(60)))
    waiting = add_jobs(database, *(one for one in new[:2] for _ in range(2)))
    with database.write() as connection:
        connection.execute(update(blocked).values(expires_at=ago(60)))
        connection.execute(update(semaphores).values(value=2))
    dispatcher = object.__new__(Dispatcher)
    dispatcher.database, dispatcher.name = Database(database.url, lock_timeout=1), "dispatcher"
    with database.write() as connection:
        connection.execute(select(semaphores).where(semaphores.c.key == "A/a").with_for_update())
        assert sorted(dispatcher._dispatch(10)) == others
        assert dispatcher._passed == {bad}
        assert dispatcher._dispatch(10) == []
        dispatcher._maintain_concurrency(10)
    states = state_of_each(database)
    assert [states[job_id] for job_id in waiting].count(State.BLOCKED) == 1
    assert states[bad] is State.SCHEDULED
    dispatcher._passed = frozenset()
    assert dispatcher._dispatch(10) == [bad]
    dispatcher.database.close()
