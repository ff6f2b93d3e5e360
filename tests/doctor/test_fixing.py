"""``--fix`` mends what a check found, and no other job changes its state."""

import pytest
from sqlalchemy import text

from solidjq import Database
from solidjq.database import tables
from solidjq.database.tables import failed, semaphores
from solidjq.doctor import examine as doctor
from solidjq.doctor.checks import DoctorTerms
from solidjq.ledger.operations import Operation
from solidjq.queue.states import State
from support.doctor import fix
from support.queue import rows, state_of_each
from support.scenes import (
    blocked_too_long,
    change,
    expired_semaphore,
    finished_and_failed,
    leak_slot,
    lose_slot,
    lose_state,
    orphan,
)


def test_no_state_becomes_failed(database: Database) -> None:
    lose_state(database)
    operation = fix(database, "no-state")
    assert list(state_of_each(database).values()) == [State.READY, State.FAILED, State.READY]
    assert rows(database, tables.operations)[0]["jobs"] == 1
    assert rows(database, tables.operations)[0]["id"] == operation.id


def test_a_finished_job_is_finished_only(database: Database) -> None:
    finished_and_failed(database)
    before = [row["id"] for row in rows(database, failed)]
    fix(database, "finished-and-failed")
    assert set(state_of_each(database).values()) == {State.FINISHED}
    assert [row["failure_id"] for row in rows(database, tables.failures)] == before
    assert [(row["verb"], row["jobs"], row["reason"]) for row in rows(database, tables.operations)] == [
        ("doctor", 2, "INC-7")
    ]


@pytest.mark.sqlite_only
def test_without_a_ledger_no_failure_is_taken_away(database: Database) -> None:
    finished_and_failed(database)
    change(database, *(text(f"DROP TABLE {table.name}") for table in tables.jq.sorted_tables))
    results = doctor.examine(database, doctor.choose(["finished-and-failed"]), DoctorTerms(), wait=lambda _: None)
    (line,) = doctor.fix(database, results, DoctorTerms(), Operation("doctor"))
    assert "not fixed" in line
    assert "jq init" in line
    assert len(rows(database, failed)) == 2


def test_orphans_fail(database: Database) -> None:
    orphan(database)
    fix(database, "orphans")
    assert set(state_of_each(database).values()) == {State.FAILED}


def test_a_leaked_slot_goes_to_the_next(database: Database) -> None:
    leak_slot(database)
    fix(database, "leaked-slots")
    assert list(state_of_each(database).values()) == [State.READY]
    assert [row["value"] for row in rows(database, semaphores)] == [0]


def test_lost_slots_come_back(database: Database) -> None:
    lose_slot(database)
    fix(database, "short-slots")
    assert list(state_of_each(database).values()) == [State.CLAIMED, State.READY]
    assert [row["value"] for row in rows(database, semaphores)] == [1]


def test_expired_semaphores_go(database: Database) -> None:
    expired_semaphore(database)
    fix(database, "expired-semaphores")
    assert rows(database, semaphores) == []


def test_one_blocked_job_of_a_key_is_let_go(database: Database) -> None:
    """As a dispatcher does: whoever comes next waits for this one's slot."""
    blocked_too_long(database)
    fix(database, "blocked-jobs")
    assert sorted(state.value for state in state_of_each(database).values()) == ["blocked", "claimed", "ready"]
