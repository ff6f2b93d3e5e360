"""Dead processes and orphaned claims."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Table, delete, event, select, update

from solidjq import Database, NewJob
from solidjq.batching import in_batches
from solidjq.database.tables import blocked, claimed, crashes, deaths, failed, jobs, operations, semaphores
from solidjq.database.tables import processes as process_table
from solidjq.database.times import ago
from solidjq.errors import DatabaseError, RowsRefusedError
from solidjq.processes import heartbeat, prune_sequence, pruning
from solidjq.processes.prune_guard import Doubts
from solidjq.queue import endings
from solidjq.queue.concurrency import Limit
from solidjq.queue.states import State
from solidjq.rails.error_text import Death, parse_error
from support.locks import sessions
from support.processes import add_process, fail_orphans, silence
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.refusals import UNKNOWN, VALUE, refusing
from support.servers import execute
from support.waiting import PATIENCE, until

THRESHOLD = 300.0


def prune(database: Database, **settings: Any) -> list[pruning.PrunedProcess]:
    return list(pruning.prune(database, THRESHOLD, **settings))


def test_only_processes_silent_for_the_threshold_are_pruned(database: Database) -> None:
    dead, quiet, fresh = (add_process(database, name) for name in ("dead", "quiet", "fresh"))
    silence(database, dead, THRESHOLD + 1)
    silence(database, quiet, THRESHOLD - 30)
    assert [process.process_id for process in prune(database)] == [dead]
    assert [row["id"] for row in rows(database, process_table)] == [quiet, fresh]


def test_the_jobs_of_a_dead_process_fail_in_solid_queues_words(database: Database) -> None:
    held, other = add_jobs(database, *plain_jobs(2))
    dead = add_process(database, "dead")
    claim_all(database, dead, 1)
    alive = add_process(database, "alive")
    claim_all(database, alive, 1)
    moment = datetime(2026, 11, 23, 4, 40, 22, 999999, tzinfo=UTC)
    with database.write() as connection:
        beat = update(process_table).where(process_table.c.id == dead)
        connection.execute(beat.values(last_heartbeat_at=moment))
    (pruned,) = prune(database)
    assert pruned.job_ids == [held]
    assert (pruned.process_id, pruned.name, pruned.last_heartbeat_at) == (dead, "dead", moment)
    (failure,) = rows(database, failed)
    assert failure["error"] == (
        '{"exception_class":"SolidQueue::Processes::ProcessPrunedError","message":"Process was found dead and pruned '
        '(last heartbeat at: 2026-11-23 04:40:22 UTC)","backtrace":null}'
    )
    assert state_of_each(database) == {held: State.FAILED, other: State.CLAIMED}


def test_many_processes_are_pruned_at_once_each_with_its_own_error_death_and_jobs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solidjq.processes.pruning.AT_ONCE", 4)
    monkeypatch.setattr("solidjq.processes.pruning.BATCH", 3)
    sizes = [2, 1, 1, 0, 5, 0, 1]  # a transaction each: 2 + 1, then 1 + 0, then 5 alone, then 0 + 1
    held: dict[int, list[int]] = {}
    for number, size in enumerate(sizes):
        job_ids = add_jobs(database, *plain_jobs(size)) if size else []
        run = {"id": job_ids[0], "since": "2026-01-01T00:00:00Z", "rss": 100} if job_ids else None
        sample = {"sample": {"rss": 100 + number, "jobs": [run] if run else []}}
        process = add_process(database, f"pod-{number}", pid=number + 1, metadata=sample)
        claim_all(database, process)
        silence(database, process, THRESHOLD + 1 + number)
        held[process] = job_ids
    transactions: list[int] = []
    pruned = prune(database, record=lambda _, jobs: transactions.append(jobs))
    assert {process.process_id: process.job_ids for process in pruned} == held
    assert transactions == [3, 1, 5, 1]
    of_process = {row["id"]: row for row in rows(database, deaths)}
    assert [row["process_id"] for row in of_process.values()] == list(held)
    errors = {row["job_id"]: parse_error(row["error"]) for row in rows(database, failed)}
    for crash in rows(database, crashes):
        death = of_process[crash["death_id"]]
        number = list(held).index(death["process_id"])
        job_ids = held[death["process_id"]]
        assert crash["job_id"] in job_ids
        assert (crash["pid"], crash["hostname"]) == (number + 1, "testhost")
        assert crash["growth"] == (number if crash["job_id"] == job_ids[0] else None)
        assert (crash["started_at"] is not None) == (crash["job_id"] == job_ids[0])
        beat = errors[crash["job_id"]].last_heartbeat_at
        assert beat == death["last_heartbeat_at"].replace(microsecond=0)
    assert len(rows(database, crashes)) == len(errors) == sum(sizes)


def test_the_claims_of_one_process_are_ended_in_parts_that_miss_none(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solidjq.queue.endings.LOCKED", 2)
    monkeypatch.setattr("solidjq.ledger.crashes.LOCKED", 2)
    first, alive, *others = add_jobs(database, *plain_jobs(6))
    dead, living = add_process(database, "dead", pid=1), add_process(database, "alive", pid=2)
    for process, size in ((dead, 1), (living, 1), (dead, 4)):  # a gap in the ids of the dead one's claims
        claim_all(database, process, size)
    silence(database, dead, THRESHOLD + 1)
    (pruned,) = prune(database)
    assert pruned.job_ids == [first, *others]
    assert state_of_each(database) == {alive: State.CLAIMED} | dict.fromkeys([first, *others], State.FAILED)
    (death,) = rows(database, deaths)
    assert [(row["job_id"], row["death_id"]) for row in rows(database, crashes)] == [
        (job_id, death["id"]) for job_id in (first, *others)
    ]


def test_a_prune_of_many_claims_sends_as_many_statements_as_one_of_few(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_batches, "__defaults__", (3,))
    numbers: list[int] = []
    for size in (1, 1, 20):  # the first one reads the catalogue, too
        process = add_process(database, f"of {size}", pid=size)
        add_jobs(database, *plain_jobs(size))
        claim_all(database, process)
        silence(database, process, THRESHOLD + 1)
        with statements_of(database) as sent:
            (pruned,) = prune(database)
        assert len(pruned.job_ids) == size
        numbers.append(len(sent))
    assert numbers[1] == numbers[2] < 25, numbers


@contextmanager
def statements_of(database: Database) -> Iterator[list[str]]:
    """Note the statements that a block sends."""
    sent: list[str] = []

    def note(*event_of: Any) -> None:
        sent.append(event_of[2])

    event.listen(database._writer, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database._writer, "before_cursor_execute", note)


def test_metadata_as_long_as_the_column_stop_no_prune(database: Database) -> None:
    """MySQL's columns take 65,535 bytes: with what the prune adds, the evidence of the death would be longer."""
    dead = add_process(database, "dead")
    database.transact(heartbeat.heartbeat, dead, {"sample": {"release": "x" * 65_500}})
    silence(database, dead, THRESHOLD + 1)
    assert [process.process_id for process in prune(database)] == [dead]
    (death,) = rows(database, deaths)
    assert "sample" not in json.loads(death["evidence"])


def test_a_prune_takes_only_those_that_are_named(database: Database) -> None:
    named, other, alive = (add_process(database, name) for name in ("named", "other", "alive"))
    silence(database, named, THRESHOLD * 2)
    silence(database, other, THRESHOLD * 2)
    assert prune(database, only=[]) == []
    assert [process.process_id for process in prune(database, only=[named, alive])] == [named]


def test_finding_the_dead_changes_nothing(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(2))
    dead = add_process(database)
    claim_all(database, dead)
    silence(database, dead, THRESHOLD * 2)
    with database.read() as connection:
        (found,) = pruning.find_dead(connection, THRESHOLD)
    assert (found.process_id, found.job_ids) == (dead, ids)
    assert set(state_of_each(database).values()) == {State.CLAIMED}


def test_a_pruned_holder_of_a_slot_lets_exactly_one_blocked_job_in(database: Database) -> None:
    one = Limit(1, duration=600)
    limited = [NewJob(class_name="L", concurrency_key="L/k", limit=one, priority=n) for n in (0, 9, 5)]
    first, third, second = add_jobs(database, *limited)
    dead = add_process(database)
    claim_all(database, dead)
    silence(database, dead, THRESHOLD * 2)
    before = database.now()
    prune(database)
    assert state_of_each(database) == {first: State.FAILED, second: State.READY, third: State.BLOCKED}
    (semaphore,) = rows(database, semaphores)
    assert semaphore["value"] == 0
    # Its class's own duration from now on, read from the row that had waited.
    assert 595 < (semaphore["expires_at"] - before).total_seconds() < 660
    assert [row["job_id"] for row in rows(database, blocked)] == [third]


def test_orphaned_claims_fail_as_missing(database: Database) -> None:
    orphan, nobodys, held = add_jobs(database, *plain_jobs(3))
    gone, alive = add_process(database, "gone"), add_process(database, "alive")
    claim_all(database, gone, 2)
    claim_all(database, alive, 1)
    with database.write() as connection:
        connection.execute(delete(process_table).where(process_table.c.id == gone))
        connection.execute(update(claimed).where(claimed.c.job_id == nobodys).values(process_id=None))
    with database.read() as connection:
        assert pruning.find_orphans(connection) == [orphan, nobodys]
    assert fail_orphans(database) == [orphan, nobodys]
    assert fail_orphans(database) == []
    assert state_of_each(database) == {orphan: State.FAILED, nobodys: State.FAILED, held: State.CLAIMED}
    assert {row["error"] for row in rows(database, failed)} == {
        (
            '{"exception_class":"SolidQueue::Processes::ProcessMissingError",'
            '"message":"The process that was running this job no longer exists","backtrace":null}'
        )
    }


@pytest.mark.parametrize(
    ("returncode", "words", "status", "signal"),
    [
        (-9, "Process pid=4242 exited unexpectedly. Received unhandled signal 9.", None, 9),
        (3, "Process pid=4242 exited unexpectedly. Exited with status 3.", 3, None),
        (0, "Process pid=4242 exited unexpectedly. Exited with status 0.", 0, None),
    ],
)
def test_an_exited_child_fails_its_jobs_and_loses_its_row(
    database: Database, returncode: int, words: str, status: int | None, signal: int | None
) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    child = add_process(database)
    claim_all(database, child)
    assert database.transact(pruning.fail_exited, child, pid=4242, returncode=returncode) == [job_id]
    (failure,) = rows(database, failed)
    error = parse_error(failure["error"])
    assert (error.message, error.death, error.pid) == (words, Death.EXITED, 4242)
    assert (error.exit_status, error.signal) == (status, signal)
    assert rows(database, process_table) == []


def test_what_a_dead_child_had_not_begun_goes_back_and_counts_as_no_crash(database: Database) -> None:
    begun, waiting, unseen = add_jobs(database, *plain_jobs(3))
    child = add_process(database)
    claims = {claim.job_id: claim.id for claim in claim_all(database, child)}
    failed_ids = database.transact(
        pruning.fail_exited, child, pid=4242, returncode=-9, not_begun=[claims[waiting], 10**9]
    )
    assert failed_ids == [begun, unseen]
    assert state_of_each(database) == {begun: State.FAILED, waiting: State.READY, unseen: State.FAILED}
    assert sorted(row["job_id"] for row in rows(database, crashes)) == [begun, unseen]


# -- processes


def test_a_heartbeat_moves_the_time_and_tells_whether_the_row_is_there(database: Database) -> None:
    process = add_process(database)
    silence(database, process, 100)
    (before,) = rows(database, process_table)
    assert database.transact(heartbeat.heartbeat, process) is True
    (after,) = rows(database, process_table)
    assert (after["last_heartbeat_at"] - before["last_heartbeat_at"]).total_seconds() > 95
    database.transact(heartbeat.deregister, process)
    assert database.transact(heartbeat.heartbeat, process) is False


def test_two_beats_within_one_tick_of_the_clock_are_both_alive(database: Database) -> None:
    """MySQL counts changed rows unless it is asked for matched ones."""
    process = add_process(database)
    assert all(database.transact(heartbeat.heartbeat, process) for _ in range(20))


def test_deregistering_releases_what_is_held(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(2))
    process = add_process(database)
    claim_all(database, process)
    assert database.transact(heartbeat.deregister, process) == ids
    assert set(state_of_each(database).values()) == {State.READY}
    assert rows(database, process_table) == []


def test_processes_are_listed_below_their_supervisor(database: Database) -> None:
    def register(name: str, supervisor: int | None = None) -> int:
        return database.transact(
            heartbeat.register, kind="K", name=name, pid=1, hostname="h", metadata={}, supervisor_id=supervisor
        )

    first, second = register("first"), register("second")
    register("child of second", second)
    register("child of first", first)
    add_jobs(database, *plain_jobs(3))
    claim_all(database, second)
    silence(database, first, 1000)
    with database.read() as connection:
        found = heartbeat.list_processes(connection)
    assert [process.name for process in found] == ["first", "child of first", "second", "child of second"]
    assert [process.claimed for process in found] == [0, 0, 3, 0]
    assert [process.is_alive(THRESHOLD) for process in found] == [False, True, True, True]


# -- the command


def test_jq_prune_for_cron(database: Database, shell: Shell) -> None:
    held, orphan = add_jobs(database, *plain_jobs(2))
    dead, gone = add_process(database, "dead"), add_process(database, "gone")
    claim_all(database, dead, 1)
    claim_all(database, gone, 1)
    silence(database, dead, 100)
    with database.write() as connection:
        connection.execute(delete(process_table).where(process_table.c.id == gone))

    trial = shell.run("prune", "--alive-threshold", "60", "--dry-run", "-o", "ids")
    assert (trial.returncode, trial.stdout.split()) == (0, [str(held), str(orphan)])
    assert set(state_of_each(database).values()) == {State.CLAIMED}

    done = shell.run("prune", "--alive-threshold", "60", "-o", "ids")
    assert (done.returncode, done.stdout) == (0, trial.stdout)
    assert re.search(r"pruned 1 process and failed 2 jobs", done.stderr)
    assert set(state_of_each(database).values()) == {State.FAILED}
    (operation,) = rows(database, operations)
    assert (operation["verb"], operation["jobs"]) == ("prune", 2)
    assert operation["command"] == "jq prune --alive-threshold 60 -o ids"

    again = shell.run("prune", "--alive-threshold", "60", "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(rows(database, operations)) == 1


def test_a_process_whose_prune_is_refused_keeps_no_other(database: Database, kind: str) -> None:
    """Each holds a job, and an application's trigger takes the failure of one of them for none."""
    bad, *others = add_jobs(database, *plain_jobs(4))
    dead = [add_process(database, f"dead {number}") for number in range(4)]
    for process in dead:
        claim_all(database, process, 1)
        silence(database, process, 1000)
    with refusing(database, kind, "INSERT", failed.name, f"NEW.job_id = {bad}", UNKNOWN):
        with pytest.raises(DatabaseError, match="refused by the test"):
            list(prune_sequence.prune_checked(database, THRESHOLD, Doubts(dead=frozenset(dead))))
        assert state_of_each(database) == {bad: State.CLAIMED, **dict.fromkeys(others, State.FAILED)}
        assert len(rows(database, crashes)) == 3
    assert [process.job_ids for process in prune(database)] == [[bad]]


def test_an_orphan_that_is_refused_keeps_no_other(database: Database, kind: str) -> None:
    """Nor does it keep the crashes of the others from being counted."""
    bad, *others = add_jobs(database, *plain_jobs(4))
    gone = add_process(database)
    claim_all(database, gone)
    with database.write() as connection:
        connection.execute(delete(process_table))
    with refusing(database, kind, "INSERT", failed.name, f"NEW.job_id = {bad}", UNKNOWN):
        pruned = prune_sequence.prune_checked(database, THRESHOLD, Doubts())
        assert sorted(next(pruned).job_ids) == others
        with pytest.raises(DatabaseError, match="refused by the test"):
            next(pruned)
        assert state_of_each(database) == {bad: State.CLAIMED, **dict.fromkeys(others, State.FAILED)}
        assert len(rows(database, crashes)) == 3
    assert fail_orphans(database) == [bad]


@pytest.mark.parametrize("state", [VALUE, UNKNOWN])
def test_a_job_that_is_refused_keeps_no_other_of_its_process(
    database: Database, kind: str, shell: Shell, state: str
) -> None:
    """It stays claimed, as an orphan: the next prune tries again."""
    ids = add_jobs(database, *plain_jobs(9))
    dead = [add_process(database, f"dead {number}") for number in range(2)]
    claim_all(database, dead[0], 7)
    claim_all(database, dead[1])
    for process in dead:
        silence(database, process, 1000)
    bad = {ids[1], ids[5]}
    left = {job_id: State.CLAIMED if job_id in bad else State.FAILED for job_id in ids}
    with refusing(database, kind, "INSERT", failed.name, f"NEW.job_id IN ({ids[1]}, {ids[5]})", state):
        ran = shell.run("prune", "--force", "-o", "ids")
        assert (ran.returncode, ran.stdout.split()) == (6, [str(job_id) for job_id in ids if job_id not in bad])
        assert f"jobs {ids[1]}, {ids[5]} stay claimed" in ran.stderr
        assert "refused by the test" in ran.stderr
        assert state_of_each(database) == left
        assert len(rows(database, crashes)) == len({row["failure_id"] for row in rows(database, crashes)}) == 7
        assert len(rows(database, deaths)) == 2
        assert not rows(database, process_table)
        ran = shell.run("prune", "--force", "-o", "ids")
        assert (ran.returncode, ran.stdout) == (6, "")
        assert f"jobs {ids[1]}, {ids[5]} stay claimed" in ran.stderr
        assert state_of_each(database) == left
    assert set(fail_orphans(database)) == bad
    assert len(rows(database, crashes)) == 9


def test_each_refused_job_is_named_whether_its_process_is_there_or_not(
    database: Database, kind: str, shell: Shell
) -> None:
    add_jobs(database, *plain_jobs(4))
    gone, alone, with_others = (add_process(database, name) for name in ("gone", "alone", "with others"))
    holders = (gone, alone, with_others, with_others)
    orphan, refused, other, free = (claim_all(database, process, 1)[0].job_id for process in holders)
    with database.write() as connection:
        connection.execute(process_table.delete().where(process_table.c.id == gone))
    for process in (alone, with_others):
        silence(database, process, 1000)
    bad = f"{orphan}, {refused}, {other}"
    with refusing(database, kind, "INSERT", failed.name, f"NEW.job_id IN ({bad})", UNKNOWN):
        ran = shell.run("prune", "--force", "-o", "ids")
    assert (ran.returncode, ran.stdout.split()) == (6, [str(free)])
    assert f"jobs {refused}, {other}, {orphan} stay claimed" in ran.stderr


def test_a_crash_that_the_database_refuses_to_count_is_no_other_program(
    database: Database, kind: str, shell: Shell
) -> None:
    ids = add_jobs(database, *plain_jobs(6))
    dead = [add_process(database, f"dead {number}") for number in range(3)]
    for process in dead:
        claim_all(database, process, 2)
        silence(database, process, 1000)
    with refusing(database, kind, "INSERT", crashes.name, f"NEW.job_id = {ids[2]}", VALUE):
        ran = shell.run("prune", "--force", "-o", "ids")
    assert ran.returncode == 6
    assert "refused by the test" in ran.stderr
    assert ran.stdout.split() == [str(job_id) for job_id in (*ids[:2], *ids[4:])]
    assert [process.job_ids for process in prune(database)] == [ids[2:4]]


def test_many_refused_jobs_keep_no_other(database: Database, kind: str, shell: Shell) -> None:
    """The first twelve claims of the first process are refused; then those of its jobs that are orphans, and others."""
    ids = add_jobs(database, *plain_jobs(60))
    dead = [add_process(database, f"dead {number}") for number in range(15)]
    claim_all(database, dead[0], 32)
    for process in dead[1:]:
        claim_all(database, process, 2)
    for process in dead:
        silence(database, process, 1000)
    bad = [*ids[:12], *ids[32::2]]
    good = [job_id for job_id in ids if job_id not in bad]
    left = {job_id: State.CLAIMED if job_id in bad else State.FAILED for job_id in ids}
    with refusing(database, kind, "INSERT", failed.name, f"NEW.job_id IN ({', '.join(map(str, bad))})", UNKNOWN):
        ran = shell.run("prune", "--force", "-o", "ids")
        assert (ran.returncode, ran.stdout.split()) == (6, [str(job_id) for job_id in good])
        assert f"{', '.join(map(str, bad[:20]))} and 6 more stay claimed" in ran.stderr
        assert state_of_each(database) == left
        (late,) = add_jobs(database, *plain_jobs(1))
        gone = add_process(database, "gone")
        claim_all(database, gone)
        with database.write() as connection:
            connection.execute(process_table.delete().where(process_table.c.id == gone))
        ran = shell.run("prune", "--force", "-o", "ids")
        assert (ran.returncode, ran.stdout.split()) == (6, [str(late)])
    assert set(fail_orphans(database)) == set(bad)
    assert len(rows(database, crashes)) == 61


def test_a_database_that_refuses_every_failure_stops_a_prune(database: Database, kind: str, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(40))
    dead = add_process(database)
    claim_all(database, dead)
    silence(database, dead, 1000)
    with refusing(database, kind, "INSERT", failed.name, "NEW.job_id > 0", UNKNOWN):
        with pytest.raises(DatabaseError, match="refused by the test"):
            list(prune_sequence.prune_checked(database, THRESHOLD, Doubts(dead=frozenset([dead]))))
        assert set(state_of_each(database).values()) == {State.CLAIMED}
        ran = shell.run("prune", "--force")
        assert ran.returncode == 6
        assert "jq: nothing was pruned\n" in ran.stderr
        assert not rows(database, deaths)
        assert rows(database, process_table)
    assert [process.job_ids for process in prune(database)] == [ids]


SERVERS = pytest.mark.only_on("postgresql", "mariadb")  # SQLite has one lock for all


def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a server that counts in whole seconds can wait for a lock at least."""
    for module in ("solidjq.processes.pruning", "solidjq.doctor.slots"):
        monkeypatch.setattr(f"{module}.LOCK_WAIT", 1.0)


@contextmanager
def holding(database: Database, table: Table, condition: ColumnElement[bool]) -> Iterator[None]:
    """Hold the locks of rows, in a transaction of another connection."""
    with database.write() as connection:
        assert connection.execute(select(table).where(condition).with_for_update()).all()
        yield


@SERVERS
@pytest.mark.parametrize("what", ["claim", "job", "semaphore"])
def test_what_another_transaction_has_locked_keeps_nothing_else_from_a_prune(
    database: Database, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is waited for once, left and named; the process of which nothing else failed stays, the other goes."""
    one_second(monkeypatch)
    limited = NewJob(class_name="Limited", concurrency_key="Limited/a", limit=Limit(1))
    bad, *others = add_jobs(database, limited, *plain_jobs(4))
    alone, with_others, orphaned = (add_process(database, name) for name in ("alone", "with others", "gone"))
    claim_all(database, alone, 1)
    claim_all(database, with_others, 2)
    claim_all(database, orphaned)
    with database.write() as connection:
        connection.execute(process_table.delete().where(process_table.c.id == orphaned))
    for process in (alone, with_others):
        silence(database, process, 1000)
    locked = {
        "claim": (claimed, claimed.c.job_id == bad),
        "job": (jobs, jobs.c.id == bad),
        "semaphore": (semaphores, semaphores.c.key == "Limited/a"),
    }[what]
    pruned: list[pruning.PrunedProcess] = []
    with (
        holding(database, *locked),
        pytest.raises(RowsRefusedError, match=f"job {bad} stays claimed: another transaction"),
    ):
        pruned.extend(prune_sequence.prune_checked(database, THRESHOLD, Doubts(dead=frozenset([alone, with_others]))))
    assert [process.job_ids for process in pruned] == [others[:2], others[2:]]
    assert state_of_each(database) == {bad: State.CLAIMED, **dict.fromkeys(others, State.FAILED)}
    assert [row["id"] for row in rows(database, process_table)] == [alone]
    assert [process.job_ids for process in prune(database)] == [[bad]]
    assert len(rows(database, crashes)) == 5


@SERVERS
def test_a_claim_that_is_unlocked_before_a_prune_ends_is_not_said_to_stay(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process goes, since another job of it failed; then it ends as an orphan, of the same prune."""
    one_second(monkeypatch)
    bad, other = add_jobs(database, *plain_jobs(2))
    process = add_process(database)
    claim_all(database, process)
    silence(database, process, 1000)
    sequence = prune_sequence.prune_checked(database, THRESHOLD, Doubts(dead=frozenset([process])))
    with holding(database, claimed, claimed.c.job_id == bad):
        assert next(sequence).job_ids == [other]
    assert [(orphaned.process_id, orphaned.job_ids) for orphaned in sequence] == [(None, [bad])]
    assert state_of_each(database) == dict.fromkeys((bad, other), State.FAILED)


@SERVERS
def test_an_orphan_that_another_transaction_has_locked_keeps_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_second(monkeypatch)
    bad, *others = add_jobs(database, *plain_jobs(4))
    claim_all(database, add_process(database))
    with database.write() as connection:
        connection.execute(delete(process_table))
    ended: list[list[int]] = []
    with (
        holding(database, claimed, claimed.c.job_id == bad),
        pytest.raises(RowsRefusedError, match=f"job {bad} stays claimed: another transaction"),
    ):
        ended.extend(pruning.fail_orphans(database))
    assert ended == [others]
    assert fail_orphans(database) == [bad]


@SERVERS
def test_a_claim_that_is_finished_while_a_prune_waits_for_it_is_not_failed(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    process = add_process(database)
    claim_all(database, process)
    silence(database, process, 1000)
    own, pruned = Database(database.url), []
    thread = threading.Thread(target=lambda: pruned.extend(pruning.prune(own, THRESHOLD)))
    with database.write() as connection:
        endings.finish(connection, endings.claims_of(process))
        thread.start()
        until(lambda: sessions(database), "the prune waits for the claim")
    thread.join(PATIENCE)
    own.close()
    assert [process.job_ids for process in pruned] == [[]]
    assert state_of_each(database) == {job_id: State.FINISHED}


def test_a_recover_retries_although_a_job_is_refused(database: Database, kind: str, shell: Shell) -> None:
    bad, *others = add_jobs(database, *plain_jobs(3))
    dead = add_process(database)
    claim_all(database, dead)
    silence(database, dead, 1000)
    shell.environment["JQ_CONFIG"] = "own.toml"
    (shell.folder / "own.toml").write_text('[default]\nretry = "auto"\n')
    with refusing(database, kind, "INSERT", failed.name, f"NEW.job_id = {bad}", UNKNOWN):
        ran = shell.run("recover", "--force", "-o", "ids")
    assert ran.returncode == 6
    assert f"job {bad} stays claimed" in ran.stderr
    assert state_of_each(database) == {bad: State.CLAIMED, **dict.fromkeys(others, State.READY)}


def test_a_job_that_is_refused_keeps_no_other_of_a_dead_child(database: Database, kind: str) -> None:
    bad, *others = add_jobs(database, *plain_jobs(4))
    child = add_process(database)
    claim_all(database, child)
    with refusing(database, kind, "INSERT", failed.name, f"NEW.job_id = {bad}", UNKNOWN):
        assert sorted(database.transact(pruning.fail_exited, child, pid=77, returncode=-9)) == others
        assert state_of_each(database) == {bad: State.CLAIMED, **dict.fromkeys(others, State.FAILED)}
    assert len(rows(database, crashes)) == 3
    assert fail_orphans(database) == [bad]


@pytest.mark.only_on("sqlite")
def test_a_trigger_that_ends_the_transaction_stops_a_prune_whole(database: Database) -> None:
    bad, *others = add_jobs(database, *plain_jobs(4))
    dead = [add_process(database, f"dead {number}") for number in range(2)]
    claim_all(database, dead[0], 2)
    claim_all(database, dead[1])
    for process in dead:
        silence(database, process, 1000)
    refusal = f"WHEN NEW.job_id = {bad} BEGIN SELECT RAISE(ROLLBACK, 'ended by the test'); END"
    execute(database.url, f"CREATE TRIGGER refusal BEFORE INSERT ON {failed.name} {refusal}")
    with pytest.raises(DatabaseError, match="ended by the test"):
        list(prune_sequence.prune_checked(database, THRESHOLD, Doubts(dead=frozenset(dead))))
    assert state_of_each(database) == {
        **dict.fromkeys([bad, others[0]], State.CLAIMED),
        **dict.fromkeys(others[1:], State.FAILED),
    }
    assert len(rows(database, deaths)) == 1


def test_each_death_of_a_prune_has_the_same_fleet(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that fell silent with it are counted, though an earlier transaction of the same prune removed them."""
    monkeypatch.setattr("solidjq.processes.pruning.AT_ONCE", 1)
    for number in range(3):
        silence(database, add_process(database, f"dead {number}"), 1000)
    with database.write() as connection:
        connection.execute(update(process_table).values(created_at=ago(5000)))
    assert len(list(prune(database))) == 3
    assert [json.loads(row["evidence"])["fleet"]["silent"] for row in rows(database, deaths)] == [3, 3, 3]


@pytest.mark.only_on("postgresql", "mariadb")
def test_neither_a_prune_nor_an_ending_waits_for_claims_of_others_that_are_locked(database: Database) -> None:
    """Each takes half of the claims, for which MariaDB would rather scan, and lock, all of them."""
    add_jobs(database, *plain_jobs(30))
    dead, ending, alive = (add_process(database, name) for name in ("dead", "ending", "alive"))
    claims = {process: [claim.id for claim in claim_all(database, process, 10)] for process in (dead, ending, alive)}
    silence(database, dead, 1000)
    impatient = Database(database.url, lock_timeout=1)
    with database.write() as holder:
        for claim_id in claims[alive]:
            holder.execute(select(claimed.c.id).where(claimed.c.id == claim_id).with_for_update())
        ((pruned),) = pruning.prune(impatient, 300)
        assert len(pruned.job_ids) == 10
        assert len(impatient.transact(endings.finish, endings.claims_of(ending, claims[ending][:5]))) == 5
        assert len(impatient.transact(endings.release, endings.claims_of(ending))) == 5
        beaten = impatient.transact(heartbeat.heartbeat, alive, {})
        assert beaten
    impatient.close()
    assert [row["id"] for row in rows(database, claimed)] == claims[alive]
