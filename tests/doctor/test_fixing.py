"""``--fix`` mends what a check found, and no other job changes its state."""

from collections.abc import Callable

import pytest
from sqlalchemy import Table, delete, text

from solidjq import Database
from solidjq.database import tables
from solidjq.database.tables import blocked, failed, jobs, ready, semaphores
from solidjq.doctor import examine as doctor
from solidjq.doctor.checks import DoctorTerms
from solidjq.ledger.operations import Operation
from solidjq.queue.states import State
from support.doctor import fix
from support.processes import add_process
from support.program import Shell
from support.queue import add_jobs, plain_jobs, rows, state_of_each
from support.refusals import UNKNOWN, VALUE, refusing
from support.scenes import (
    age_of,
    blocked_too_long,
    change,
    expired_semaphore,
    finished_and_failed,
    leak_slot,
    limited,
    lose_slot,
    lose_state,
    orphan,
)
from support.servers import execute


def key_column(kind: str) -> str:
    return "`key`" if kind == "mariadb" else "key"


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


def lose_three_states(database: Database) -> None:
    add_jobs(database, *plain_jobs(3))
    change(database, delete(ready))


def leak_two_slots(database: Database) -> None:
    held = add_jobs(database, *limited(1, "Limited/a"), *limited(1, "Limited/b"))
    add_process(database)
    change(database, delete(ready), delete(jobs).where(jobs.c.id.in_(held)))


def lose_slots_of_two_keys(database: Database) -> None:
    add_process(database, "dispatcher", kind="Dispatcher", metadata={"limits": {"Limited": 3}})
    add_jobs(database, *limited(1, "Limited/a"), *limited(1, "Limited/b"))


def two_expired_semaphores(database: Database) -> None:
    add_process(database)
    add_jobs(database, *limited(1, "Limited/a"), *limited(1, "Limited/b"))
    change(database, age_of(semaphores, 1500, "expires_at"))


def two_keys_blocked_too_long(database: Database) -> None:
    add_jobs(database, *limited(2, "Limited/a"), *limited(2, "Limited/b"))
    change(database, age_of(blocked, 1500, "expires_at"), delete(semaphores))


FIRST_JOB, LIMITED_A = "NEW.job_id = {first}", "{row}.{key} = 'Limited/a'"


@pytest.mark.parametrize("state", [VALUE, UNKNOWN])
@pytest.mark.parametrize(
    ("check", "make", "event", "table", "condition", "outcome"),
    [
        ("no-state", lose_three_states, "INSERT", failed, FIRST_JOB, "fixed 2, but not all: job {first} stays in no"),
        ("finished-and-failed", finished_and_failed, "INSERT", tables.failures, FIRST_JOB, "fixed 1, but not all: job"),
        ("orphans", orphan, "INSERT", failed, FIRST_JOB, "fixed 1, but not all: job {first} stays claimed: "),
        ("leaked-slots", leak_two_slots, "UPDATE", semaphores, LIMITED_A, "fixed 1, but not all: key Limited/a stays"),
        ("short-slots", lose_slots_of_two_keys, "UPDATE", semaphores, LIMITED_A, "fixed 1, but not all: key Limited/a"),
        ("expired-semaphores", two_expired_semaphores, "DELETE", semaphores, LIMITED_A, "fixed 1, but not all: key"),
        (
            "blocked-jobs",
            two_keys_blocked_too_long,
            "INSERT",
            semaphores,
            LIMITED_A,
            "fixed 1, but not all: key Limite",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "-" in value else "",
)
def test_a_refused_row_keeps_no_other_from_being_fixed(
    database: Database,
    kind: str,
    shell: Shell,
    check: str,
    make: Callable[[Database], None],
    event: str,
    table: Table,
    condition: str,
    outcome: str,
    state: str,
) -> None:
    """It is named, and what is left of the finding is exit code 6."""
    make(database)
    first = min((row["id"] for row in rows(database, jobs)), default=0)
    words = {"first": first, "row": "OLD" if event == "DELETE" else "NEW", "key": key_column(kind)}
    with refusing(database, kind, event, table.name, condition.format(**words), state):
        ran = shell.run("doctor", check, "--fix", "--yes")
    assert f"jq: {check}: {outcome.format(**words)}" in ran.stderr
    assert "refused by the test" in ran.stderr
    assert ran.returncode == 6
    assert shell.run("doctor", check, "--fix", "--yes").returncode == 0
    assert len(rows(database, tables.operations)) == 2


@pytest.mark.only_on("postgresql")
def test_a_row_that_a_trigger_leaves_out_in_silence_is_tried_once(database: Database) -> None:
    lose_three_states(database)
    function = "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
    trigger = f"CREATE TRIGGER leaving_out BEFORE INSERT ON {failed.name} FOR EACH ROW EXECUTE FUNCTION leave_out()"
    execute(database.url, function, trigger)
    checks = doctor.choose(["no-state"])
    results = doctor.examine(database, checks, DoctorTerms(), wait=lambda _: None)
    assert len(list(doctor.fix(database, results, DoctorTerms(), Operation("doctor")))) == 1
    assert not rows(database, failed)
