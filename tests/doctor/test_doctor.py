"""jq doctor finds each illness, takes no healthy queue for ill, and fixes only what it says."""

import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, event, insert, inspect, text, update
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database import indexes, tables
from solidjq.database.tables import claimed, failed, jobs, ready, semaphores
from solidjq.database.times import ago, utcnow
from solidjq.doctor import checks as doctor_checks
from solidjq.doctor import examine as doctor
from solidjq.doctor import fleet, shutdown, sqlite, storage
from solidjq.doctor.checks import DoctorCheck, DoctorTerms, Severity
from solidjq.errors import ConflictError, UsageError
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat
from solidjq.processes.heartbeat import Process
from solidjq.queue.concurrency import Limit
from solidjq.queue.states import State
from solidjq.rails.settings import SHUTDOWN, RailsConfig, RailsSetting
from solidjq.runtime.sampler import Sampler
from support import rails
from support.databases import execute
from support.doctor import findings, fix
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.scenes import (
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
    dead_process,
    due,
    due_with_dispatcher,
    every_state,
    expired_semaphore,
    fail_all,
    finished_and_failed,
    finished_and_ready,
    forgotten_pause,
    fresh_pause,
    just_enqueued,
    late_beat,
    leak_slot,
    long_claim,
    lose_state,
    nothing,
    orphan,
    overdue_with_dispatcher,
    recurring,
    recurring_with_scheduler,
    sample,
    semaphore_to_be_cleared,
    slot_in_use,
    two_states,
    unattended,
    working,
)
from support.terminal import terminal
from support.waiting import until

DAY = 86400.0
# What the servers of these tests are set to, on purpose or by their packagers, is not what is tested.
OF_THE_SERVER = ("durability", "isolation", "vacuum", "timeouts", "connections")


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
    ("long-claims", long_claim, Severity.WARNING, 2, working),
    ("leaked-slots", leak_slot, Severity.WARNING, 0, slot_in_use),
    ("impossible-slots", below_zero, Severity.ERROR, 0, slot_in_use),
    ("expired-semaphores", expired_semaphore, Severity.WARNING, 0, semaphore_to_be_cleared),
    ("blocked-jobs", blocked_too_long, Severity.ERROR, 2, blocked_rightly),
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
    assert all_is_well(database)


def test_every_check_of_rows_has_a_case() -> None:
    told = {case[0] for case in CASES}
    assert {
        check.name for check in (*doctor.jobs.CHECKS, *doctor.slots.CHECKS, *fleet.CHECKS, *shutdown.CHECKS)
    } - told == {"shutdown", "finished-jobs"}
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


# -- shutdown --------------------------------------------------------------------------------------------------------


@pytest.mark.sqlite_only
def test_processes_killed_at_shutdown(database: Database) -> None:
    now = datetime.now(UTC)
    told = {"sample": {"term_at": (now - timedelta(seconds=5)).isoformat(), "at": now.isoformat()}}
    death = {
        "kind": "Worker", "name": "w", "pid": 1, "noticed_at": utcnow(), "last_heartbeat_at": utcnow(),
        "noticed_by": "supervisor", "signal": 9, "evidence": json.dumps(told),
    }  # fmt: skip
    change(database, insert(tables.deaths).values(death))
    (found,) = findings(database, "shutdown")
    assert "1 processes were killed while they shut down" in found.what
    change(database, age_of(tables.deaths, 8 * DAY, "noticed_at"))
    assert findings(database, "shutdown") == []


RUBY = ["solid-queue-fork-supervisor(1.5.0): supervising 101, 102", "", ""]


def application(timeout: float | None) -> RailsConfig:
    return RailsConfig("queue.yml", settings={SHUTDOWN: RailsSetting(timeout, "x.rb:1", "code")})


def supervisor(database: Database, name: str, hostname: str = socket.gethostname(), **metadata: Any) -> Process:
    """Register this very process as a supervisor."""
    row = {"kind": "Supervisor(fork)", "name": name, "pid": os.getpid(), "hostname": hostname, "metadata": metadata}
    process_id = database.transact(heartbeat.register, **row)
    with database.read() as connection:
        return next(process for process in heartbeat.list_processes(connection) if process.id == process_id)


@pytest.mark.parametrize(
    ("configured", "seconds"),
    [(None, None), (RailsConfig("queue.yml"), 5.0), (application(25.0), 25.0), (application(None), None)],
)
@pytest.mark.parametrize("title", [RUBY, ["solid-queue-supervisor[a](1.7.0): starting"]])
@pytest.mark.sqlite_only
def test_the_shutdown_timeout_of_ruby(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    title: list[str],
    configured: RailsConfig | None,
    seconds: float | None,
) -> None:
    process = supervisor(database, "supervisor-1")
    for command in (["ruby", "bin/jobs"], ["solid-queue-worker(1.7.0): waiting"], []):
        monkeypatch.setattr(shutdown, "_command_line", lambda _, command=command: command)
        assert shutdown.shutdown_timeout(process, configured) is None
    monkeypatch.setattr(shutdown, "_command_line", lambda _: title)
    assert shutdown.shutdown_timeout(process, configured) == seconds


@pytest.mark.sqlite_only
def test_a_supervisor_of_ruby_that_systemd_gives_too_little_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no sample, and so no boot id: it is known by its title."""
    supervisor(database, "supervisor-1")
    supervisor(database, "supervisor-2", "elsewhere")
    monkeypatch.setattr(shutdown, "_command_line", lambda _: RUBY)
    monkeypatch.setattr(shutdown, "_systemd", lambda _: ("jobs.service", 30.0))
    assert findings(database, "shutdown") == findings(database, "shutdown", application=application(20.0)) == []
    (found,) = findings(database, "shutdown", application=application(25.0))
    assert found.what == "systemd kills supervisor-1 (jobs.service) 30 s after SIGTERM; its shutdown timeout is 25 s"
    monkeypatch.setattr(shutdown, "_command_line", lambda _: ["someone", "else"])
    assert findings(database, "shutdown", application=application(25.0)) == []


@pytest.mark.sqlite_only
def test_a_supervisor_of_ours_that_systemd_gives_too_little_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row stores its own shutdown timeout; its command line, and what Rails configures, do not matter."""
    here = Sampler().take({})
    supervisor(database, "supervisor-1", shutdown_timeout=25.0, sample=here)
    supervisor(database, "enough", shutdown_timeout=20, sample=here)
    supervisor(database, "elsewhere", "elsewhere", shutdown_timeout=25.0, sample=here)
    supervisor(database, "another-boot", shutdown_timeout=25.0, sample={**here, "boot_id": "another"})
    supervisor(database, "pid-reused", shutdown_timeout=25.0, sample={**here, "pid_started": "2026-01-01T00:00:00Z"})
    monkeypatch.setattr(shutdown, "_command_line", lambda _: ["jq", "work", "--shutdown-timeout", "99"])
    monkeypatch.setattr(shutdown, "_systemd", lambda _: ("jobs.service", 30.0))
    for terms in ({}, {"application": application(99.0)}):
        (found,) = findings(database, "shutdown", **terms)
        assert (
            found.what == "systemd kills supervisor-1 (jobs.service) 30 s after SIGTERM; its shutdown timeout is 25 s"
        )


@pytest.mark.sqlite_only
def test_nothing_is_said_of_a_supervisor_whose_shutdown_timeout_is_not_registered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older jq did not register it, and a row may hold anything."""
    here = Sampler().take({})
    for name, metadata in (("older", {}), ("text", {"shutdown_timeout": "25"}), ("none", {"shutdown_timeout": None})):
        supervisor(database, name, sample=here, **metadata)
    monkeypatch.setattr(shutdown, "_command_line", lambda _: ["jq", "work", "--shutdown-timeout", "99"])
    monkeypatch.setattr(shutdown, "_systemd", lambda _: ("jobs.service", 1.0))
    assert findings(database, "shutdown", application=application(25.0)) == []


def test_systemd() -> None:
    assert [shutdown.systemd_seconds(told) for told in ("1min 30s\n", "2min", "45s", "1h", "infinity", "")] == [
        90, 120, 45, 3600, None, None,
    ]  # fmt: skip
    assert shutdown._service(["12:memory:/", "0::/system.slice/jobs.service"]) == "jobs.service"
    assert shutdown._service(["0::/user.slice/user@1000.service/app.slice/tmux.scope"]) is None
    assert [
        *shutdown.judge_grace("s", 25, "jobs.service", 35),
        *shutdown.judge_grace("s", 25, "jobs.service", None),
    ] == []
    (found,) = shutdown.judge_grace("s", 25, "jobs.service", 30)
    assert "TimeoutStopSec=35" in found.advice


# -- fixing ----------------------------------------------------------------------------------------------------------


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


def test_expired_semaphores_go(database: Database) -> None:
    expired_semaphore(database)
    fix(database, "expired-semaphores")
    assert rows(database, semaphores) == []


def test_one_blocked_job_of_a_key_is_let_go(database: Database) -> None:
    """As a dispatcher does: whoever comes next waits for this one's slot."""
    blocked_too_long(database)
    fix(database, "blocked-jobs")
    assert sorted(state.value for state in state_of_each(database).values()) == ["blocked", "claimed", "ready"]


# -- indexes ---------------------------------------------------------------------------------------------------------


def drop_index(database: Database, name: str, table: str) -> None:
    execute(database.url, f"DROP INDEX {name}" + (f" ON {table}" if "mysql" in database.url.drivername else ""))


@pytest.fixture
def bare(empty_url: URL) -> Any:
    """A database with Solid Queue's tables, to be altered."""
    database = Database(empty_url)
    database.transact(tables.solid_queue.create_all)
    yield database
    database.close()


def test_missing_indexes_are_found_and_made(bare: Database) -> None:
    assert findings(bare, "indexes") == []
    drop_index(bare, "index_solid_queue_poll_by_queue", "solid_queue_ready_executions")
    drop_index(bare, "index_solid_queue_semaphores_on_key", "solid_queue_semaphores")
    unique, poll = sorted(findings(bare, "indexes"), key=lambda finding: finding.severity)
    assert (poll.severity, unique.severity) == (Severity.WARNING, Severity.ERROR)
    assert "solid_queue_ready_executions (queue_name, priority, job_id)" in poll.what
    made = {index.name for index in indexes.create_missing(bare)}
    ours = {index.name for index in indexes.ours()}
    assert made == ours | {"index_solid_queue_poll_by_queue", "index_solid_queue_semaphores_on_key"}
    assert findings(bare, "indexes") == []
    assert list(indexes.create_missing(bare)) == []
    engine = create_engine(bare.url)
    there = {index["name"]: index for index in inspect(engine).get_indexes("solid_queue_semaphores")}
    engine.dispose()
    assert there["index_solid_queue_semaphores_on_key"]["unique"]


def test_an_index_of_another_name_will_do(bare: Database) -> None:
    drop_index(bare, "index_solid_queue_poll_all", "solid_queue_ready_executions")
    execute(bare.url, "CREATE INDEX mine ON solid_queue_ready_executions (priority, job_id, created_at)")
    assert findings(bare, "indexes") == []
    drop_index(bare, "mine", "solid_queue_ready_executions")
    execute(bare.url, "CREATE INDEX index_solid_queue_poll_all ON solid_queue_ready_executions (job_id, priority)")
    assert len(findings(bare, "indexes")) == 1
    names = {index.name for index in indexes.create_missing(bare)}
    assert "jq_index_solid_queue_poll_all" in names  # what is there keeps its name
    assert findings(bare, "indexes") == []


@pytest.mark.only_on("postgresql")
def test_an_unfinished_index_is_made_again(bare: Database) -> None:
    """A CREATE INDEX CONCURRENTLY that fails leaves an index that serves nobody."""
    name, table = "index_solid_queue_semaphores_on_key", "solid_queue_semaphores"
    drop_index(bare, name, table)
    row = {"key": "twice", "value": 1, "expires_at": utcnow(), "created_at": utcnow(), "updated_at": utcnow()}
    change(bare, insert(semaphores).values(row), insert(semaphores).values(row))
    with pytest.raises(Exception, match="could not create unique index"):
        list(indexes.create_missing(bare))
    assert len(findings(bare, "indexes")) == 1
    change(bare, delete(semaphores))
    assert {index.name for index in indexes.create_missing(bare)} >= {name}
    assert findings(bare, "indexes") == []


@pytest.mark.only_on("postgresql", "mariadb")
def test_one_at_a_time(bare: Database) -> None:
    other = Database(bare.url)
    first = indexes.create_missing(bare)
    next(first)
    with pytest.raises(ConflictError):
        list(indexes.create_missing(other))
    list(first)
    assert list(indexes.create_missing(other)) == []
    other.close()


@pytest.mark.only_on("postgresql")
def test_workers_go_on_while_an_index_is_made(bare: Database) -> None:
    """A writer that is not done yet would block a plain CREATE INDEX, and it everybody else."""
    drop_index(bare, "index_solid_queue_poll_all", "solid_queue_ready_executions")
    statements: list[str] = []
    event.listen(bare._reader, "before_cursor_execute", lambda *told: statements.append(told[2]))
    list(indexes.create_missing(bare))
    made = [statement for statement in statements if statement.startswith("CREATE")]
    assert made
    assert all(" CONCURRENTLY " in statement for statement in made)


# -- databases -------------------------------------------------------------------------------------------------------


@pytest.mark.only_on("postgresql", "mariadb")
def test_the_settings_of_a_server_can_be_asked(database: Database) -> None:
    names = [check.name for check in storage.CHECKS]
    results = doctor.examine(database, doctor.choose(names), DoctorTerms(), wait=lambda _: None)
    assert not [result for result in results if result.skipped]


@pytest.mark.only_on("postgresql")
def test_fsync_off_is_an_error(database: Database) -> None:
    """The server of the tests runs without."""
    assert [(f.severity, "fsync is off" in f.what) for f in findings(database, "durability")] == [
        (Severity.ERROR, True)
    ]


@pytest.mark.only_on("postgresql")
def test_settings_of_the_role(database: Database) -> None:
    name = database.url.database
    execute(
        database.url,
        f"ALTER DATABASE {name} SET statement_timeout = '2s'",
        f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'",
        f"ALTER DATABASE {name} SET synchronous_commit = off",
    )
    other = Database(database.url)
    (timeout,) = findings(other, "timeouts")
    assert "statement_timeout is 2000 ms" in timeout.what
    (isolation,) = findings(other, "isolation")
    assert "serializable" in isolation.what
    assert ["synchronous_commit" in finding.what for finding in findings(other, "durability")] == [False, True]
    other.close()


@pytest.mark.only_on("postgresql")
def test_what_takes_too_long_or_is_refused_is_skipped(database: Database) -> None:
    def sleep(connection: Any, _terms: DoctorTerms) -> Any:
        connection.execute(text("SELECT pg_sleep(30)"))
        yield from ()

    def forbidden(connection: Any, _terms: DoctorTerms) -> Any:
        connection.execute(text("SET LOCAL ROLE pg_read_all_stats"))
        connection.execute(text("SELECT * FROM solid_queue_jobs"))
        yield from ()

    look = doctor.choose(["orphans"])[0]
    checks = [
        DoctorCheck(name="slow", asks="", why="", advice="", finds={"postgresql": sleep}),
        DoctorCheck(name="secret", asks="", why="", advice="", finds={"postgresql": forbidden}),
        look,
    ]
    slow, secret, orphans = doctor.examine(database, checks, DoctorTerms(patience=0.1))
    assert "longer than 0.1 s" in str(slow.skipped)
    assert "permission denied" in str(secret.skipped)
    assert orphans.healthy


@pytest.mark.sqlite_only
def test_a_slow_check_of_a_file_is_skipped(database: Database) -> None:
    def count(connection: Any, _terms: DoctorTerms) -> Any:
        connection.execute(text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"))
        yield from ()

    check = DoctorCheck(name="slow", asks="", why="", advice="", finds={"sqlite": count})
    assert "longer" in str(doctor.examine(database, [check], DoctorTerms(patience=0.1))[0].skipped)
    assert findings(database, "orphans") == []


@pytest.mark.only_on("mariadb")
def test_a_slow_check_on_mariadb_is_skipped(database: Database) -> None:
    def count(connection: Any, _terms: DoctorTerms) -> Any:
        connection.execute(text("SELECT SLEEP(30)"))
        yield from ()

    check = DoctorCheck(name="slow", asks="", why="", advice="", finds={"mysql": count})
    assert "longer" in str(doctor.examine(database, [check], DoctorTerms(patience=0.2))[0].skipped)
    assert findings(database, "orphans") == []


@pytest.mark.only_on("mariadb")
def test_another_engine(bare: Database) -> None:
    assert findings(bare, "engine") == []
    execute(bare.url, "ALTER TABLE solid_queue_pauses ENGINE=MyISAM")
    (found,) = findings(bare, "engine")
    assert "solid_queue_pauses" in found.what


@pytest.mark.sqlite_only
def test_a_journal_that_hurts(database: Database) -> None:
    assert findings(database, "journal", "integrity", "file-system", "bloat") == []
    database.close()
    execute(database.url, "PRAGMA journal_mode = DELETE")
    (found,) = findings(database, "journal")
    assert "delete" in found.what


@pytest.mark.sqlite_only
def test_a_damaged_file(database: Database) -> None:
    add_jobs(database, *plain_jobs(500))
    execute(database.url, "PRAGMA wal_checkpoint(TRUNCATE)")
    with create_engine(database.url).connect() as connection:
        page = connection.exec_driver_sql(
            "SELECT rootpage FROM sqlite_master WHERE name = 'index_solid_queue_jobs_on_class_name'"
        ).scalar_one()
    database.close()
    path = Path(str(database.url.database))
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 8)
        file.write(b"\xff" * 60)
    result = doctor.examine(database, doctor.choose(["integrity"]), DoctorTerms(), wait=lambda _: None)[0]
    assert "damaged" in result.findings[0].what


def test_file_systems() -> None:
    mounts = [
        "/dev/sda1 / ext4 rw 0 0",
        "nas:/export /srv/with\\040space nfs4 rw 0 0",
        "/dev/sdb1 /srv/with\\040space/local xfs rw 0 0",
    ]
    kinds = [
        sqlite.file_system(Path(path), mounts)
        for path in ("/srv/with space/queue.sqlite3", "/srv/with space/local/queue.sqlite3", "/srv/queue.sqlite3")
    ]
    assert kinds == ["nfs4", "xfs", "ext4"]
    assert kinds[0] in sqlite.NETWORKED


def test_connections() -> None:
    assert list(doctor_checks.judge_connections(89, 100)) == []
    assert len(list(doctor_checks.judge_connections(90, 100))) == 1


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.sqlite_only
def test_healthy_and_not(database: Database, shell: Shell) -> None:
    well = shell.run("doctor", "-o", "json")
    assert (well.returncode, {row["status"] for row in json.loads(well.stdout)}) == (0, {"healthy"})
    orphan(database)
    ill = shell.run("doctor", "-o", "json")
    assert ill.returncode == 6
    (found,) = [row for row in json.loads(ill.stdout) if row["status"] != "healthy"]
    assert (found["check"], found["status"], found["fixable"], len(found["job_ids"])) == ("orphans", "error", True, 2)
    assert "jq prune" in found["fix"]
    assert ill.stderr.startswith("jq: 1 error; ")
    assert shell.run("doctor", "orphans", "-o", "ids").stdout.split() == [str(i) for i in found["job_ids"]]


@pytest.mark.sqlite_only
def test_fix(database: Database, shell: Shell) -> None:
    orphan(database)
    recurring(database)  # nobody but the operator can start a scheduler
    refused = shell.run("doctor", "--fix")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--yes" in refused.stderr
    assert rows(database, failed) == []
    done = shell.run("doctor", "--fix", "--yes", "--reason", "INC-7")
    assert (done.returncode, "1 error; " in done.stderr) == (6, True)
    assert "orphans: fixed 2" in done.stderr
    assert set(state_of_each(database).values()) == {State.FAILED}
    (operation,) = rows(database, tables.operations)
    assert (operation["verb"], operation["jobs"], operation["reason"]) == ("doctor", 2, "INC-7")
    again = shell.run("doctor", "--fix", "--yes", "--skip", "scheduler")
    assert again.returncode == 0
    assert len(rows(database, tables.operations)) == 1


@pytest.mark.sqlite_only
def test_on_a_terminal_it_asks(database: Database, shell: Shell) -> None:
    orphan(database)
    looked = terminal(shell, "doctor", "orphans")
    assert "error    orphans: 2 jobs are claimed by processes that are not registered" in looked
    assert "\n         why: Nobody will end these claims" in looked
    assert "\n         fix: jq prune" in looked
    shown = terminal(shell, "doctor", "orphans", "--fix", typed="n\n")
    assert "that are not registered; --fix fails them with" in " ".join(shown.split())
    assert "fix it? [y/N]" in shown
    assert "nothing was changed" in shown
    assert rows(database, failed) == []
    assert "fixed 2" in terminal(shell, "doctor", "orphans", "--fix", typed="y\n")
    assert len(rows(database, failed)) == 2


@pytest.mark.sqlite_only
def test_a_name_from_a_row_is_only_shown(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(1, queue_name="a\x1b[31m'; rm -rf ~"))
    change(database, age_of(ready, 90))
    assert "\x1b[31m" not in terminal(shell, "doctor", "workers")
    (found,) = findings(database, "workers")
    assert "--queues 'a\x1b[31m'\"'\"'; rm -rf ~'" in found.advice


@pytest.mark.sqlite_only
def test_list_and_unknown_names(shell: Shell) -> None:
    listed = shell.run("doctor", "--list", "-o", "json")
    assert [row["check"] for row in json.loads(listed.stdout)] == [check.name for check in doctor.CHECKS]
    unknown = shell.run("doctor", "orphan")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "there is no check 'orphan'; the checks are: no-state" in unknown.stderr
    with pytest.raises(UsageError):
        doctor.choose(skip=["nonsense"])


@pytest.mark.sqlite_only
def test_init_indexes(database: Database, shell: Shell) -> None:
    drop_index(database, "index_solid_queue_poll_all", "")
    assert "index_solid_queue_poll_all" not in shell.run("init").stderr
    assert findings(database, "indexes")
    done = shell.run("init", "--indexes")
    assert "created index index_solid_queue_poll_all on solid_queue_ready_executions (priority, job_id)" in done.stderr
    assert findings(database, "indexes") == []
    assert "nothing to do" in shell.run("init", "--indexes").stderr


@pytest.mark.sqlite_only
def test_no_queue_is_no_finding(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "other.sqlite3").touch()
    assert shell.run("doctor", "--database", str(tmp_path / "other.sqlite3")).returncode == 3


@pytest.mark.sqlite_only
def test_a_real_queue_under_load_is_healthy(database: Database, shell: Shell) -> None:
    """Workers finish jobs, fail some, pass slots on, while every check looks."""
    shell.folder.joinpath("load.py").write_text(
        "import time\nfrom solidjq import job\n"
        "@job\ndef quick(n):\n    time.sleep(0.001)\n"
        "@job(limit=2, limit_by=lambda n: n % 3)\ndef narrow(n):\n    assert n % 10\n"
    )
    shell.environment["PYTHONPATH"] = str(shell.folder)
    work = shell.start("work", "--import", "load", "--processes", "2")
    try:
        plain = [NewJob(class_name="quick", args=[n]) for n in range(150)]
        keyed = [
            NewJob(class_name="narrow", args=[n], concurrency_key=f"narrow/{n % 3}", limit=Limit(2)) for n in range(100)
        ]
        add_jobs(database, *plain, *keyed, NewJob(class_name="quick", args=[0], delay=0.5))
        until(lambda: any(row["finished_at"] for row in rows(database, jobs)), "a job finished")
        busy = 0
        while rows(database, ready) or rows(database, claimed):
            results = doctor.examine(database, doctor.choose(), DoctorTerms(limits={"narrow": Limit(2)}))
            assert [result for result in results if result.findings or result.skipped] == []
            busy += bool(rows(database, ready))
        assert busy
    finally:
        work.terminate()
        work.communicate()
