"""jq doctor finds each illness, takes no healthy queue for ill, and fixes only what it says."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from compatibility import BATCHES
from sqlalchemy import delete, update
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables
from solidjq.database.tables import claimed, jobs, ready, semaphores
from solidjq.database.times import ago
from solidjq.doctor import examine as doctor
from solidjq.doctor import fleet, shutdown
from solidjq.doctor.checks import DoctorTerms, Severity
from support import environments, rails
from support.doctor import findings
from support.queue import add_jobs, claim_all, plain_jobs
from support.scenes import (
    DAY,
    ONE,
    add_worker,
    age_of,
    attended,
    attended_by_nobody,
    beats_too_slowly,
    below_zero,
    between_beats,
    blocked_rightly,
    blocked_too_long,
    change,
    clock_ahead,
    clock_behind,
    clock_right,
    crowded_key,
    dead_process,
    due,
    due_with_dispatcher,
    every_state,
    expired_semaphore,
    fail_all,
    fail_by_errors,
    finished_and_failed,
    finished_and_ready,
    forgotten_pause,
    fresh_pause,
    just_enqueued,
    late_beat,
    leak_slot,
    long_claim,
    lose_slot,
    lose_state,
    nearly_crowded_key,
    nothing,
    orphan,
    overdue_with_dispatcher,
    recurring,
    recurring_with_scheduler,
    refused_endings,
    sample,
    semaphore_to_be_cleared,
    slot_in_use,
    two_states,
    unattended,
    working,
)
from support.servers import execute

# What the servers of these tests are set to, or what other tests did on them, is not what is tested.
OF_THE_SERVER = ("durability", "isolation", "vacuum", "timeouts", "connections", "deadlocks")


def all_is_well(database: Database, *but: str) -> bool:
    """Tell whether no check but these finds anything, notes included."""
    checks = doctor.choose(skip=(*but, *OF_THE_SERVER))
    results = doctor.examine(database, checks, DoctorTerms(), wait=lambda _: None)
    assert [result for result in results if result.findings or result.skipped] == []
    return True


# -- one case each: what makes a healthy queue ill, and what looks alike and is not ----------------------------------


CASES: list[tuple[str, Callable[[Database], None], Severity, int, Callable[[Database], None]]] = [
    ("no-state", lose_state, Severity.ERROR, 1, every_state),
    ("two-states", two_states, Severity.ERROR, 1, every_state),
    ("two-states", finished_and_ready, Severity.ERROR, 1, every_state),
    ("finished-and-failed", finished_and_failed, Severity.ERROR, 2, fail_all),
    ("orphans", orphan, Severity.ERROR, 2, working),
    ("died-jobs", fail_all, Severity.ERROR, 0, fail_by_errors),
    ("failed-jobs", fail_by_errors, Severity.WARNING, 0, fail_all),
    ("long-claims", long_claim, Severity.WARNING, 2, working),
    ("leaked-slots", leak_slot, Severity.WARNING, 0, slot_in_use),
    ("short-slots", lose_slot, Severity.WARNING, 0, slot_in_use),
    ("impossible-slots", below_zero, Severity.ERROR, 0, slot_in_use),
    ("expired-semaphores", expired_semaphore, Severity.WARNING, 0, semaphore_to_be_cleared),
    ("blocked-jobs", blocked_too_long, Severity.ERROR, 2, blocked_rightly),
    ("hot-keys", crowded_key, Severity.WARNING, 0, nearly_crowded_key),
    ("dead-processes", dead_process, Severity.ERROR, 0, working),
    ("dispatcher", due, Severity.ERROR, 1, due_with_dispatcher),
    ("dispatcher", overdue_with_dispatcher, Severity.WARNING, 1, due_with_dispatcher),
    ("workers", unattended, Severity.ERROR, 1, attended),
    ("workers", attended_by_nobody, Severity.ERROR, 1, just_enqueued),
    ("scheduler", recurring, Severity.ERROR, 0, recurring_with_scheduler),
    ("clock-skew", clock_ahead, Severity.WARNING, 0, clock_right),
    ("clock-skew", clock_behind, Severity.WARNING, 0, clock_right),
    ("heartbeats", beats_too_slowly, Severity.ERROR, 0, clock_right),
    ("heartbeats", late_beat, Severity.WARNING, 0, between_beats),
    ("endings", refused_endings, Severity.ERROR, 0, between_beats),
    ("paused-queues", forgotten_pause, Severity.WARNING, 2, fresh_pause),
]


def is_ill(database: Database, name: str, severity: Severity, named: int) -> None:
    found = findings(database, name)
    assert {finding.severity for finding in found} == {severity}, name
    assert len(found[0].job_ids) == named, name
    assert found[0].advice


@pytest.mark.parametrize(
    ("name", "ill", "severity", "named"), [case[:4] for case in CASES], ids=[case[1].__name__ for case in CASES]
)
@pytest.mark.sqlite_only
def test_finds(database: Database, name: str, ill: Callable[[Database], None], severity: Severity, named: int) -> None:
    ill(database)
    is_ill(database, name, severity, named)


@pytest.mark.parametrize(
    ("name", "well"),
    sorted({(case[0], case[4]) for case in CASES}, key=lambda c: (c[0], c[1].__name__)),
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.sqlite_only
def test_does_not_find(database: Database, name: str, well: Callable[[Database], None]) -> None:
    well(database)
    assert findings(database, name) == []


@pytest.mark.only_on("postgresql", "mariadb")
def test_finds_the_same_on_a_server(database: Database) -> None:
    """One database for all cases: making one takes longer than asking."""
    for name, ill, severity, named, well in CASES:
        ill(database)
        is_ill(database, name, severity, named)
        clear(database)
        well(database)
        assert findings(database, name) == [], well.__name__
        clear(database)


def clear(database: Database) -> None:
    change(database, *(delete(table) for table in reversed(tables.solid_queue.sorted_tables)))


@pytest.mark.parametrize("well", [nothing, every_state, slot_in_use, attended])
def test_a_healthy_queue_is_healthy(database: Database, well: Callable[[Database], None]) -> None:
    well(database)
    assert all_is_well(database, "died-jobs")


def test_every_check_of_rows_has_a_case() -> None:
    told = {case[0] for case in CASES}
    assert {
        check.name for check in (*doctor.jobs.CHECKS, *doctor.slots.CHECKS, *fleet.CHECKS, *shutdown.CHECKS)
    } - told == {"shutdown", "finished-jobs", "writes"}  # tested where it is set up
    assert len({check.name for check in doctor.CHECKS}) == len(doctor.CHECKS)


def test_several_ills_hide_none(database: Database) -> None:
    lose_state(database)
    orphan(database)
    forgotten_pause(database)
    recurring(database)
    results = doctor.examine(database, doctor.choose(skip=OF_THE_SERVER), DoctorTerms(), wait=lambda _: None)
    assert {result.check.name for result in results if not result.healthy} == {
        "no-state", "orphans", "paused-queues", "scheduler",
    }  # fmt: skip


def test_a_job_in_two_states_hides_no_other_that_is_in_none(database: Database) -> None:
    two_states(database)
    lose_state(database)
    (finding,) = findings(database, "no-state")
    assert len(finding.job_ids) == 1


# -- what only looks ill ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["1d", "2b", "2d", "3b", "4b", "5a", "6"])
@pytest.mark.only_on("postgresql")
def test_rows_that_rails_left_are_in_one_state(empty_url: URL, scenario: str) -> None:
    rails.load(empty_url, rails.read("postgresql", scenario))
    database = Database(empty_url)
    assert findings(database, "no-state", "two-states", "finished-and-failed", "leaked-slots", "impossible-slots") == []
    database.close()


@pytest.mark.sqlite_only
def test_what_is_gone_at_the_second_look_was_a_moment(database: Database) -> None:
    """Rails gives a slot back in a transaction after the one that ends the job."""
    leak_slot(database)

    def meanwhile(_seconds: float) -> None:
        change(database, update(semaphores).values(value=1))

    assert doctor.examine(database, doctor.choose(["leaked-slots"]), DoctorTerms(), wait=meanwhile)[0].healthy
    change(database, update(semaphores).values(value=0))
    assert not doctor.examine(database, doctor.choose(["leaked-slots"]), DoctorTerms(), wait=lambda _: None)[0].healthy


@pytest.mark.sqlite_only
def test_a_worker_that_does_not_run_what_it_holds(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(2))
    later = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    claim_all(database, add_worker(database, "*", **sample(at=later, jobs=[{"id": ids[0]}])))
    change(database, age_of(claimed, 7200))
    lost, running = findings(database, "long-claims")
    assert (lost.severity, lost.job_ids) == (Severity.ERROR, (ids[1],))
    assert (running.severity, running.job_ids) == (Severity.WARNING, (ids[0],))
    assert findings(database, "long-claims", long=DAY) == []


def test_batches_that_stand_still(empty_url: URL) -> None:
    """A batch waits for its jobs that wait or run, not for those that have finished or failed."""
    environments.make(empty_url, BATCHES)
    queue = Database(empty_url)
    age = "UPDATE solid_queue_batches SET created_at = '{:%Y-%m-%d %H:%M:%S.%f}'"
    execute(empty_url, age.format(datetime.now(UTC) - timedelta(days=1)))
    assert findings(queue, "batches") == []  # it has jobs in every state
    for state in ("ready", "claimed", "scheduled", "blocked"):
        execute(empty_url, f"DELETE FROM solid_queue_{state}_executions")  # noqa: S608
    (found,) = findings(queue, "batches")
    assert (found.severity, found.what) == (
        Severity.WARNING, "1 batch has no job that waits or runs, and is not finished: 1",
    )  # fmt: skip
    execute(empty_url, "UPDATE solid_queue_batches SET enqueued_at = NULL")
    assert "was never started: 1" in findings(queue, "batches")[0].what
    execute(empty_url, age.format(datetime.now(UTC) - timedelta(seconds=1000)))
    assert findings(queue, "batches") == []  # maintenance may still come
    execute(empty_url, age.format(datetime.now(UTC) - timedelta(days=1)) + ", finished_at = created_at")
    assert findings(queue, "batches") == []
    execute(empty_url, "ALTER TABLE solid_queue_batches DROP COLUMN enqueued_at")
    assert findings(queue, "batches") == []  # tables of another's
    queue.close()


@pytest.mark.sqlite_only
def test_more_slots_than_a_known_limit(database: Database) -> None:
    slot_in_use(database)
    change(database, update(semaphores).values(value=2))
    assert findings(database, "impossible-slots") == []  # the limit of a Ruby class is not in the database
    (found,) = findings(database, "impossible-slots", limits={"Limited": ONE})
    assert "Limited's limit of 1: Limited/a" in found.what


@pytest.mark.sqlite_only
def test_finished_jobs_that_nobody_clears(database: Database) -> None:
    add_jobs(database, *plain_jobs(1001))
    change(database, delete(ready), update(jobs).values(finished_at=ago(31 * DAY)))
    (found,) = findings(database, "finished-jobs")
    assert found.severity is Severity.NOTE
    change(database, update(jobs).values(finished_at=ago(29 * DAY)))
    assert findings(database, "finished-jobs") == []
