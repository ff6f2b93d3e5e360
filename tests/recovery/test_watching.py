"""operations show --watch and retry --watch: what they print while the jobs end, and how they end themselves."""

import json
import signal
import subprocess

import pytest
from sqlalchemy import delete

from solidjq import Database
from solidjq.database.tables import claimed, jobs, operations
from solidjq.ledger.operations import Operation
from solidjq.queue import endings
from solidjq.queue.states import State
from support.deaths import ALL, die
from support.processes import add_process
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs
from support.terminal import terminal
from support.waiting import until


@pytest.fixture
def retried(database: Database) -> list[int]:
    """Three jobs that wait since operation 1 has retried them."""
    ids = add_jobs(database, *plain_jobs(3))
    die(database, silent=9000)
    retry_jobs(database, selection=ALL, operation=Operation("retry"))
    return ids


def next_line(run: subprocess.Popen[str]) -> str:
    assert run.stdout
    return run.stdout.readline().rstrip("\n").partition("\t")[2]


def finish_all(database: Database) -> None:
    claim_all(database, add_process(database, "finisher"))
    database.transact(endings.finish, claimed.c.id > 0)


def test_a_line_a_change_until_all_have_ended(database: Database, shell: Shell, retried: list[int]) -> None:
    run = shell.start("operations", "show", "1", "--watch")
    assert next_line(run) == "3 waiting (3 ready)"
    claim_all(database, add_process(database))
    assert next_line(run) == "3 running"
    database.transact(endings.finish, claimed.c.job_id == retried[0])
    assert next_line(run) == "1 finished; 2 running"
    with database.write() as connection:
        connection.execute(delete(jobs).where(jobs.c.id == retried[0]))
    assert next_line(run) == "2 running; 1 no longer there: finished and cleared, or deleted"
    database.transact(endings.finish, claimed.c.id > 0)
    out, told = run.communicate()
    assert (run.returncode, told) == (0, "")
    assert out.partition("\t")[2] == "2 finished; 1 no longer there: finished and cleared, or deleted\n"


def test_a_retry_that_is_watched_ends_with_6_if_jobs_died_again(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(2))
    die(database, silent=9000)
    run = shell.start("retry", "--safe", "--yes", "--watch", "-o", "ndjson")
    assert run.stdout
    decided = [json.loads(run.stdout.readline()) for _ in range(2)]
    assert [record["verdict"] for record in decided] == ["retry", "retry"]
    first = json.loads(run.stdout.readline())
    assert (first["operation_id"], first["outcome"]["open"], first["outcome"]["ready"]) == (1, 2, 2)
    die(database, silent=5000)
    out, told = run.communicate()
    last = json.loads(out.splitlines()[-1])["outcome"]
    assert (run.returncode, last["died"], last["open"], list(last["incidents"].values())) == (6, 2, 0, [2])
    assert told.splitlines()[0] == "jq: retried 2 jobs: 2 ready, 0 scheduled"


@pytest.mark.sqlite_only
def test_with_a_whole_document_on_stdout_the_lines_go_to_stderr(database: Database, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(2))
    die(database, silent=9000)
    run = shell.start("retry", "--safe", "--yes", "--watch", "-o", "json")
    until(lambda: set(state_of_each(database).values()) == {State.READY}, "both are retried")
    finish_all(database)
    out, told = run.communicate()
    assert run.returncode == 0
    assert [record["job_id"] for record in json.loads(out)] == ids
    assert told.splitlines()[-1].endswith("\t2 finished")


@pytest.mark.sqlite_only
def test_ctrl_c_ends_the_watch_and_says_how_to_look_later(database: Database, shell: Shell, retried: list[int]) -> None:
    run = shell.start("operations", "show", "1", "--watch")
    next_line(run)
    run.send_signal(signal.SIGINT)
    _, told = run.communicate()
    assert run.returncode == 130
    assert told == "jq: the jobs go on without being watched; to look later: jq operations show 1\n"
    assert list(state_of_each(database)) == retried


@pytest.mark.sqlite_only
@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_a_small_table_is_drawn(database: Database, shell: Shell, retried: list[int], width: int) -> None:
    finish_all(database)
    shown = terminal(shell, "operations", "show", "1", "--watch", width=width)
    assert "operation 1  3 jobs" in shown
    assert "100 % ended" in shown
    assert "3 finished" in shown
    assert retried


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("operations show 1 2 --watch", 2, "--watch follows one operation"),
        ("operations show 1 --watch -o json", 2, "-o table or -o ndjson"),
        ("operations show 9 --watch", 4, "no operation 9"),
        ("operations show 2 --watch", 2, "operation 2 put no jobs back to work: it was an undo"),
        ("retry --safe --watch --dry-run", 2, "it goes without --dry-run"),
        ("recover --watch --quiet", 2, "it goes without --quiet"),
        ("undo 2", 2, "operation 2 was an undo; only what moves jobs"),
    ],
)
def test_what_cannot_be_watched(
    database: Database, shell: Shell, retried: list[int], command: str, code: int, words: str
) -> None:
    assert shell.run("undo", "1").returncode == 0
    done = shell.run(*command.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert words in done.stderr
    assert len(rows(database, operations)) == 2
    assert retried


@pytest.mark.sqlite_only
def test_apply_and_recover_watch_too(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(2))
    die(database, silent=9000)
    assert shell.run("retry", "--safe", "--plan-out", "plan.json").returncode == 0
    run = shell.start("apply", "plan.json", "--watch")
    until(lambda: set(state_of_each(database).values()) == {State.READY}, "both are retried")
    die(database, silent=5000)
    out, _ = run.communicate()
    assert (run.returncode, "2 died again (d2)" in out) == (6, True)
    (shell.folder / "auto.toml").write_text('[default]\nretry = "auto"\nmax_crashes = 9\n')
    add_jobs(database, *plain_jobs(1))
    die(database, silent=3000)
    run = shell.start("recover", "--config", "auto.toml", "--watch")
    until(lambda: list(state_of_each(database).values()).count(State.READY) == 1, "the new one is retried")
    finish_all(database)
    out, told = run.communicate()
    assert out.splitlines()[-1].endswith("\t1 finished"), (out, told)
