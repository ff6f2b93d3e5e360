"""A bulk command that ends half-way says how many jobs it moved, under which operation, and may be run again."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, text
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database.setup import initialize
from solidjq.database.tables import failed, failures, operations, processes, ready
from solidjq.database.urls import url_text
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.queue.states import State
from solidjq_cli.exits import Exit
from support.deaths import ALL, die
from support.disks import fill, small_disk
from support.locks import sessions
from support.processes import add_process, add_worker_of, silence
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs
from support.servers import connected, execute
from support.waiting import until

AGAIN = "to go on with the rest, run the same command again"
COUNT = 40


@pytest.fixture
def died(database: Database) -> list[int]:
    ids = add_jobs(database, *plain_jobs(COUNT))
    die(database)
    return ids


def moved(database: Database) -> int:
    return len(rows(database, failures))


# -- signals ----------------------------------------------------------------------------------------------------------


@contextmanager
def stuck(database: Database, statement: str) -> Iterator[None]:
    """Keep a row locked: a command that comes to it waits."""
    with connected(database.url) as connection:
        connection.execute(text(statement))
        yield


def lock_of(table: str, column: str, value: int) -> str:
    return f"SELECT {column} FROM {table} WHERE {column} = {value} FOR UPDATE"  # noqa: S608


def last_words(run: subprocess.Popen[str]) -> str:
    """Return what a command says until it has ended, without the notice that it waits for a lock, if it waits long."""
    _, said = run.communicate()
    return "".join(line for line in said.splitlines(keepends=True) if "jq: waiting for a lock: " not in line)


def cut(database: Database, session: int) -> None:
    """End a session of the server, as an administrator or a failing network does."""
    postgresql = database.url.get_backend_name() == "postgresql"
    with database.outside_transactions() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend({session})" if postgresql else f"KILL {session}"))


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_connection_that_is_cut_in_the_second_batch(database: Database, shell: Shell, died: list[int]) -> None:
    cut_in_the_second_batch(database, shell, died[15], "retry", "--safe", done="retried 10 jobs under operation 1")


@pytest.mark.only_on("postgresql")  # of a small table, MariaDB locks every row that a DELETE reads: the first batch too
def test_a_discard_that_is_cut_off(database: Database, shell: Shell, died: list[int]) -> None:
    cut_in_the_second_batch(database, shell, died[15], "discard", "--died", done="discarded 10 jobs under operation 1")


def cut_in_the_second_batch(database: Database, shell: Shell, job_id: int, *command: str, done: str) -> None:
    command = (*command, "--yes", "--batch", "10")
    with stuck(database, lock_of("solid_queue_jobs", "id", job_id)):
        run = shell.start(*command)
        (session,) = until(lambda: sessions(database), "the second batch waits for the lock")
        cut(database, session)
        said = last_words(run)
    assert run.returncode == 3, said
    assert re.fullmatch(rf"jq: cannot reach .*; before that, it {done}; {AGAIN}\n", said), said
    assert moved(database) == 10
    again = shell.run(*command)
    assert again.returncode == 0, again.stderr
    assert [row["jobs"] for row in rows(database, operations)] == [10, 30]


def stop_where_it_waits(
    database: Database, shell: Shell, statement: str, *command: str, sent: signal.Signals = signal.SIGTERM
) -> str:
    """Start a command, send it a signal where it waits for the rows that a statement locks; return what it says."""
    with stuck(database, statement):
        run = shell.start(*command)
        until(lambda: sessions(database), "it waits for the lock")
        run.send_signal(sent)
        said = last_words(run)
    assert run.returncode == 130, said
    return said


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "stopped by SIGTERM"),
        (signal.SIGHUP, "stopped by SIGHUP"),
    ],
)
def test_a_signal_while_the_second_batch_waits_for_a_lock(
    database: Database, shell: Shell, died: list[int], sent: signal.Signals, why: str
) -> None:
    lock, command = lock_of("solid_queue_jobs", "id", died[15]), ("retry", "--safe", "--yes", "--batch", "10")
    said = stop_where_it_waits(database, shell, lock, *command, sent=sent)
    assert said == f"jq: {why}; retried 10 jobs under operation 1; {AGAIN}\n"
    assert moved(database) == 10
    assert shell.run(*command).returncode == 0
    assert set(state_of_each(database).values()) == {State.READY}


@pytest.mark.only_on("mariadb")
def test_a_signal_on_mariadb(database: Database, shell: Shell, died: list[int]) -> None:
    """It ends the command, not the session's wait: nothing that follows may need what that session has locked."""
    lock = lock_of("solid_queue_jobs", "id", died[15])
    said = stop_where_it_waits(database, shell, lock, "retry", "--safe", "--yes", "--batch", "10")
    number = rows(database, operations)[0]["id"]
    assert said == f"jq: stopped by SIGTERM; retried 10 jobs under operation {number}; {AGAIN}\n"
    assert moved(database) == 10
    assert rows(database, operations)[0]["ended_at"] is None  # so that is the next command's


@pytest.mark.only_on("postgresql")
def test_a_plan_whose_one_batch_is_stopped_has_changed_nothing(
    database: Database, shell: Shell, died: list[int]
) -> None:
    assert shell.run("retry", "--safe", "--plan-out", "plan.json").returncode == 0
    said = stop_where_it_waits(database, shell, lock_of("solid_queue_jobs", "id", died[15]), "apply", "plan.json")
    assert said == "jq: stopped by SIGTERM; nothing was changed\n"
    assert (moved(database), rows(database, operations)) == (0, [])
    assert shell.run("apply", "plan.json").returncode == 0
    assert moved(database) == COUNT


@pytest.mark.only_on("postgresql")
def test_a_recover_that_is_stopped_in_its_retry_says_whom_it_pruned(
    database: Database, shell: Shell, died: list[int]
) -> None:
    shell.environment["JQ_CONFIG"] = "own.toml"
    (shell.folder / "own.toml").write_text('[default]\nretry = "auto"\n')
    silence(database, add_process(database, "silent"), 1000)
    said = stop_where_it_waits(database, shell, lock_of("solid_queue_jobs", "id", died[15]), "recover", "--quiet")
    assert said == f"jq: stopped by SIGTERM; pruned 1 process and failed 0 jobs; {AGAIN}\n"
    assert shell.run("recover", "--quiet").returncode == 0
    assert moved(database) == COUNT


@pytest.mark.only_on("postgresql")
def test_fixes_that_are_stopped_say_what_was_changed(database: Database, shell: Shell) -> None:
    orphan, stateless = add_jobs(database, *plain_jobs(2))
    claim_all(database, add_process(database), 1)
    with database.write() as connection:
        connection.execute(delete(processes))
        connection.execute(delete(ready))
    lock = lock_of("solid_queue_claimed_executions", "job_id", orphan)
    fix = ("doctor", "no-state", "orphans", "--fix", "--yes")
    said = stop_where_it_waits(database, shell, lock, *fix)
    assert said.endswith(f"jq: stopped by SIGTERM; changed 1 job under operation 1; {AGAIN}\n"), said
    assert state_of_each(database) == {orphan: State.CLAIMED, stateless: State.FAILED}
    assert shell.run(*fix).returncode == 0
    assert set(state_of_each(database).values()) == {State.FAILED}


@pytest.mark.only_on("postgresql")
def test_a_bisect_says_which_jobs_wait_in_quarantine(database: Database, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(4))
    claim_all(database, process := add_process(database))
    database.transact(pruning.fail_exited, process, pid=4242, returncode=-9)
    add_worker_of(database, "quarantine", "worker-of-its-own", pid=7)
    command = ("bisect", "d1", "--yes")
    said = stop_where_it_waits(database, shell, lock_of("solid_queue_jobs", "id", ids[1]), *command)
    assert said.endswith("jq: stopped by SIGTERM; nothing was changed\n"), said
    run = shell.start(*command)
    until(lambda: moved(database), "the first round is on trial")
    run.send_signal(signal.SIGINT)
    said = last_words(run)
    assert run.returncode == 130, said
    (begun,) = rows(database, operations)
    trial = f"put 2 jobs on trial in queue quarantine under operation {begun['id']}; 2 of them wait or run there"
    assert said.endswith(f"jq: interrupted; {trial}; {AGAIN}\n"), said


@pytest.mark.only_on("postgresql")
def test_a_statement_that_takes_too_long(database: Database, shell: Shell, died: list[int]) -> None:
    limited = f"{shell.url}{'&' if '?' in shell.url else '?'}options=-c%20statement_timeout%3D2000"
    with stuck(database, lock_of("solid_queue_jobs", "id", died[15])):
        done = shell.run("retry", "--safe", "--yes", "--batch", "10", url=limited)
    assert done.returncode == 3, done.stderr
    assert "took too long: canceling statement due to statement timeout" in done.stderr
    assert done.stderr.endswith(f"; before that, it retried 10 jobs under operation 1; {AGAIN}\n")
    assert moved(database) == 10


@pytest.mark.only_on("postgresql", "mariadb")
def test_an_undo_that_is_cut_off_names_its_own_operation(database: Database, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(1200))
    die(database)
    retry_jobs(database, selection=ALL, operation=Operation("retry"))
    with stuck(database, lock_of("solid_queue_jobs", "id", ids[1100])):
        run = shell.start("undo", "1")
        (session,) = until(lambda: sessions(database), "the second batch waits for the lock")
        cut(database, session)
        told = last_words(run)
    assert run.returncode == 3, told
    assert told.endswith(f"; before that, it took back 1,000 jobs under operation 2; {AGAIN}\n"), told
    assert len(rows(database, failed)) == 1000
    again = shell.run("undo", "1")
    assert (again.returncode, again.stderr) == (0, "jq: took back 200 jobs of operation 1\n")


@pytest.mark.only_on("postgresql")  # of half a table, MariaDB locks every row: those of the first process, too
def test_a_prune_that_is_cut_off_says_whom_it_pruned(database: Database, shell: Shell) -> None:
    first, second = (add_process(database, name) for name in ("first", "second"))
    ids = add_jobs(database, *plain_jobs(1200))  # a transaction for each process: more than it takes of both
    claim_all(database, first, 600)
    claim_all(database, second, 600)
    for process in (first, second):
        silence(database, process, 1000)
    with stuck(database, lock_of("solid_queue_claimed_executions", "job_id", ids[-1])):
        run = shell.start("prune")
        (session,) = until(lambda: sessions(database), "the second process's claims are locked")
        cut(database, session)
        told = last_words(run)
    assert run.returncode == 3, told
    assert told.endswith(f"; before that, it pruned 1 process and failed 600 jobs under operation 1; {AGAIN}\n"), told
    assert shell.run("prune").returncode == 0
    assert set(state_of_each(database).values()) == {State.FAILED}


# -- what the database refuses half-way -------------------------------------------------------------------------------


@pytest.mark.sqlite_only
def test_a_full_disk_half_way(kind: str, tmp_path: Path) -> None:
    """It is the fault of no job: none is tried alone, or named."""
    assert kind == "sqlite"
    with small_disk(tmp_path / "disk", "1m") as disk:
        database = Database(URL.create("sqlite", database=str(disk / "queue.sqlite3")))
        initialize(database)
        add_jobs(database, *plain_jobs(COUNT))
        die(database)
        fill(disk, but=200_000)
        done = Shell(url_text(database.url), tmp_path).run("retry", "--safe", "--yes", "--batch", "4")
        count = moved(database)
        assert 0 < count < COUNT
        assert count % 4 == 0
        assert (done.returncode, "stay failed" in done.stderr) == (3, False), done.stderr
        assert done.stderr.endswith(
            f"has no room left: database or disk is full; before that, it retried {count} jobs under operation 1; "
            f"{AGAIN}\n"
        )
        database.close()


TAKES_NO_WRITES = {  # what a server says once it has become a standby
    "postgresql": (
        (
            "CREATE FUNCTION standby() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN "
            "IF (SELECT COUNT(*) FROM jq_failures) >= 10 THEN RAISE EXCEPTION USING ERRCODE = '25006', "
            "MESSAGE = 'cannot execute INSERT in a read-only transaction'; END IF; RETURN NEW; END $$"
        ),
        "CREATE TRIGGER standby BEFORE INSERT ON jq_failures FOR EACH STATEMENT EXECUTE FUNCTION standby()",
    ),
    "mysql": (
        (
            "CREATE TRIGGER standby BEFORE INSERT ON jq_failures FOR EACH ROW "
            "IF (SELECT COUNT(*) FROM jq_failures) >= 10 THEN "
            "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1290, MESSAGE_TEXT = 'it runs with --read-only'; END IF"
        ),
    ),
}


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_fail_over_half_way(kind: str, database: Database, shell: Shell, died: list[int]) -> None:
    execute(database.url, *TAKES_NO_WRITES[database.url.get_backend_name()])
    try:
        done = shell.run("retry", "--safe", "--yes", "--batch", "10")
    finally:  # on MariaDB, all tests share the table
        execute(database.url, f"DROP TRIGGER standby{' ON jq_failures' * (kind == 'postgresql')}")
    assert done.returncode == 3, done.stderr
    assert "takes no writes: " in done.stderr
    assert "; if it is a standby, name its primary instead" in done.stderr
    assert done.stderr.endswith(f"; before that, it retried 10 jobs under operation 1; {AGAIN}\n"), done.stderr
    assert moved(database) == 10
    assert len(died) == COUNT


@pytest.mark.sqlite_only
def test_an_error_before_the_first_batch_stays_as_it_is(database: Database, shell: Shell, died: list[int]) -> None:
    with database.write() as connection:
        connection.execute(text("DROP TABLE jq_deaths"))
    done = shell.run("retry", "--safe", "--yes")
    assert done.returncode == 3
    assert "before that" not in done.stderr
    assert len(died) == COUNT


# -- a pipe whose reader leaves ---------------------------------------------------------------------------------------


def piped(shell: Shell, command: str) -> subprocess.CompletedProcess[str]:
    """Run a pipeline in bash; its status is that of its first command that failed, jq's own if that did."""
    program = f'jq() {{ {sys.executable} -m solidjq_cli "$@"; }}; set -o pipefail; {command}'
    return subprocess.run(
        ["bash", "-c", program],
        capture_output=True,
        text=True,
        env={**shell.env(), "PYTHONUNBUFFERED": ""},
        cwd=shell.folder,
        check=False,
    )


@pytest.mark.sqlite_only
def test_a_retry_whose_reader_leaves_says_how_far_it_came(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(1000))
    die(database)
    done = piped(shell, "jq retry --safe --yes --batch 100 -o json | head -n 2")
    assert done.returncode == 6, done.stderr
    line = re.fullmatch(
        rf"jq: standard output was closed; retried (\d+) jobs under operation 1; {AGAIN}\n", done.stderr
    )
    assert line, done.stderr
    assert int(line[1]) == moved(database) < 1000
    assert shell.run("retry", "--safe", "--yes").returncode == 0
    assert moved(database) == 1000


@pytest.mark.sqlite_only
def test_a_reader_that_has_enough_gets_no_message(database: Database, shell: Shell) -> None:
    # Even the ids alone must be more than a pipe holds, or the command may end before its reader does.
    execute(database.url, "INSERT INTO sqlite_sequence VALUES ('solid_queue_jobs', 1000000000000000000)")
    ids = add_jobs(database, *plain_jobs(4000))
    assert len("\n".join(map(str, ids))) > 75_000
    die(database)
    everything = " ".join(map(str, ids))
    for command in ("failed list -o ids", "failed list", "failed list -o json", f"jobs show {everything}"):
        done = piped(shell, f"jq {command} | head -n 1")
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (Exit.UNREAD, "", 1), command


@pytest.mark.sqlite_only
def test_a_prune_whose_reader_leaves_has_pruned_all_and_says_so(database: Database, shell: Shell) -> None:
    for number in range(30):
        process = add_process(database, f"worker-{number}", pid=number + 100_000)
        silence(database, process, 1000)
    done = piped(shell, "jq prune -o json | true")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "jq: pruned 30 processes and failed 0 jobs" in done.stderr
