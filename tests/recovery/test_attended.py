"""Commands that put jobs back say which of them will wait, and refuse to let suspects kill the workers of others."""

import json

import pytest

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.queue import pauses
from solidjq.queue.states import State
from support.deaths import die
from support.processes import add_attendants, add_process, add_worker_of
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs
from support.terminal import terminal

NOBODY = "no living worker polls queue mailers: 2 jobs wait until one starts (bin/jobs, or jq work --queues mailers)"


@pytest.fixture
def died(database: Database) -> list[int]:
    """Two jobs of one queue that died with their process; a worker of another queue lives."""
    ids = add_jobs(database, *(NewJob(class_name="Mail", queue_name="mailers") for _ in range(2)))
    die(database, silent=5000)
    add_worker_of(database, "low", "worker-low", pid=7)
    return ids


@pytest.fixture
def suspects(database: Database) -> list[int]:
    """Two jobs that were in flight at two deaths: suspects, and one bystander."""
    ids = add_jobs(database, *plain_jobs(2))
    die(database, silent=1000)
    retry_jobs(database, ids)
    add_jobs(database, NewJob(class_name="Bystander"))
    die(database, silent=5000)
    return ids


def retried(database: Database) -> int:
    return list(state_of_each(database).values()).count(State.READY)


# -- jobs that will wait


def test_a_queue_that_nobody_polls_is_said_before_and_after(database: Database, shell: Shell, died: list[int]) -> None:
    drawn = shell.run("retry", "--safe", "--dry-run", "-o", "table")
    assert (drawn.stdout.count(NOBODY), drawn.stderr) == (1, "")
    for output in ([], ["-o", "json"]):
        plan = shell.run("retry", "--safe", "--dry-run", *output)
        assert plan.stderr.count(NOBODY) == 1
    assert len(json.loads(plan.stdout)) == 2
    assert NOBODY in shell.run("retry", "--safe", "--plan-out", "plan.json").stderr
    done = shell.run("retry", *map(str, died), "-o", "ids")
    assert (done.returncode, done.stdout.split(), done.stderr.count(NOBODY)) == (0, list(map(str, died)), 1)


def test_a_terminal_is_told_before_it_is_asked(database: Database, shell: Shell, died: list[int]) -> None:
    shown = " ".join(terminal(shell, "retry", "--safe", typed="n\n").split())
    assert shown.index("no living worker polls queue mailers") < shown.index("retry 2 jobs?")
    assert died


def test_a_paused_queue_is_said_too(database: Database, shell: Shell, died: list[int]) -> None:
    add_attendants(database)
    database.transact(pauses.pause, "mailers")
    done = shell.run("retry", "--safe", "--yes")
    assert "queue mailers is paused: 2 jobs wait until you resume it (jq queues resume mailers)" in done.stderr
    assert died


def test_jobs_that_need_a_dispatcher_say_so_where_none_lives(database: Database, shell: Shell, died: list[int]) -> None:
    add_worker_of(database, "*", "worker-all")
    undispatched = "no dispatcher lives: 2 scheduled jobs wait until one starts"
    assert undispatched in shell.run("retry", "--safe", "--delay", "1m", "--dry-run").stderr
    assert shell.run("retry", "--safe", "--delay", "1m", "--plan-out", "plan.json").returncode == 0
    assert undispatched in shell.run("apply", "plan.json").stderr
    assert died


def test_nothing_is_said_where_all_is_well_and_of_a_discard(database: Database, shell: Shell, died: list[int]) -> None:
    assert "wait" not in shell.run("discard", "--class", "Mail", "--dry-run").stderr
    add_attendants(database)
    done = shell.run("retry", "--safe", "--yes")
    assert (done.returncode, "wait" in done.stderr) == (0, False)
    assert died


def test_recover_and_enqueue_say_it_too(database: Database, shell: Shell, died: list[int]) -> None:
    shell.environment["JQ_CONFIG"] = "own.toml"
    (shell.folder / "own.toml").write_text('[default]\nretry = "auto"\n')
    assert NOBODY in shell.run("recover", "--dry-run").stderr
    assert NOBODY in shell.run("recover").stderr
    done = shell.run("enqueue", "A", "--queue", "reports", "-o", "ids")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "no living worker polls queue reports: 1 job waits until one starts" in done.stderr
    assert "no dispatcher lives" in shell.run("enqueue", "A", "--queue", "low", "--at", "1h").stderr
    assert "jq:" not in shell.run("enqueue", "A", "--queue", "low").stderr
    assert died


@pytest.mark.sqlite_only
def test_the_threshold_of_the_environment_decides_who_lives(shell: Shell, died: list[int]) -> None:
    shell.environment["JQ_ALIVE_THRESHOLD"] = "0"
    assert "no worker lives: 2 jobs wait" in shell.run("retry", "--safe", "--dry-run").stderr
    shell.environment["JQ_ALIVE_THRESHOLD"] = "soon"
    assert shell.run("retry", "--safe", "--dry-run").returncode == 2
    assert died


def test_a_canary_that_nobody_would_run_is_refused(database: Database, shell: Shell, died: list[int]) -> None:
    refused = shell.run("retry", "--safe", "--canary", "1", "--yes")
    assert (refused.returncode, retried(database), rows(database, tables.operations)) == (5, 0, [])
    assert "the canary would not end: no living worker polls queue mailers: 1 job waits" in refused.stderr
    add_attendants(database)
    database.transact(pauses.pause, "mailers")
    refused = shell.run("retry", *map(str, died), "--canary", "1")
    assert (refused.returncode, "queue mailers is paused" in refused.stderr) == (5, True)
    database.transact(pauses.resume, "mailers")
    slow = shell.run("retry", "--safe", "--canary", "1", "--wait", "0.2s", "--yes")
    assert (slow.returncode, retried(database)) == (6, 1)


# -- suspects among the workers of others


def test_isolating_among_shared_workers_needs_a_yes(database: Database, shell: Shell, suspects: list[int]) -> None:
    add_worker_of(database, "*", "worker-all", pid=7)
    named = "worker-all (host h, pid 7, polls *)"
    plan = shell.run("retry", "--safe", "--isolate", "--dry-run", "-o", "json")
    assert [row["verdict"] for row in json.loads(plan.stdout)].count("isolate") == 2
    assert "2 jobs that may kill a process go to queue quarantine, and 1 worker of other queues" in plan.stderr
    assert named in plan.stderr
    ids = list(map(str, suspects))
    refused = shell.run("retry", "--safe", "--isolate", *ids)
    assert (refused.returncode, retried(database)) == (5, 0)
    assert named in refused.stderr
    shown = terminal(shell, "retry", "--safe", "--isolate", *ids, typed="n\n")
    assert "worker-all" in shown
    assert retried(database) == 0
    done = shell.run("retry", "--safe", "--isolate", *ids, "--yes")
    assert (done.returncode, named in done.stderr, retried(database)) == (0, True, 2)


@pytest.mark.parametrize("queues", ["quarantine", "low"])
def test_isolating_where_the_quarantine_is_apart_asks_nothing(
    database: Database, shell: Shell, suspects: list[int], queues: str
) -> None:
    add_worker_of(database, queues, "worker-own", pid=7)
    add_worker_of(database, "*", "worker-all", pid=8, **{"except": "quarantine"})
    done = shell.run("retry", "--safe", "--isolate", *map(str, suspects))
    assert (done.returncode, retried(database)) == (0, 2)
    assert "worker-all" not in done.stderr


def test_a_plan_with_suspects_needs_a_yes_as_well(database: Database, shell: Shell, suspects: list[int]) -> None:
    add_worker_of(database, "*", "worker-all", pid=7)
    planned = shell.run("retry", "--safe", "--isolate", "--plan-out", "plan.json")
    assert "worker-all (host h, pid 7, polls *)" in planned.stderr
    refused = shell.run("apply", "plan.json")
    assert (refused.returncode, retried(database)) == (5, 0)
    done = shell.run("apply", "plan.json", "--yes")
    assert (done.returncode, retried(database)) == (0, 3)
    assert suspects


def test_a_plan_of_suspects_sent_by_hand_needs_one_too(database: Database, shell: Shell, suspects: list[int]) -> None:
    add_worker_of(database, "*", "worker-all", pid=7)
    ids = list(map(str, suspects))
    assert "worker-all" in shell.run("retry", "--queue-as", "apart", "--plan-out", "plan.json", *ids).stderr
    refused = shell.run("apply", "plan.json")
    assert (refused.returncode, retried(database)) == (5, 0)
    assert "2 jobs that may kill a process go to queue apart" in refused.stderr


def test_a_plan_without_suspects_needs_none(database: Database, shell: Shell, died: list[int]) -> None:
    add_worker_of(database, "*", "worker-all", pid=9)
    assert shell.run("retry", "--safe", "--isolate", "--plan-out", "plan.json").returncode == 0
    assert shell.run("apply", "plan.json").returncode == 0
    assert died


def test_suspects_sent_by_hand_to_a_shared_queue_need_a_yes(
    database: Database, shell: Shell, suspects: list[int]
) -> None:
    """Whatever the queue is called; an innocent job goes to an ordinary queue without a question."""
    add_worker_of(database, "*", "worker-all", pid=7)
    ids = list(map(str, suspects))
    for queue in ("quarantine", "apart"):
        refused = shell.run("retry", "--queue-as", queue, *ids)
        assert (refused.returncode, retried(database)) == (5, 0), queue
        assert f"2 jobs that may kill a process go to queue {queue}" in refused.stderr
    (bystander,) = (row["id"] for row in rows(database, tables.jobs) if row["class_name"] == "Bystander")
    assert shell.run("retry", "--queue-as", "apart", str(bystander)).returncode == 0
    assert shell.run("retry", "--queue-as", "quarantine", *ids, "--yes").returncode == 0
    assert retried(database) == 3


def test_workers_that_claim_nothing_of_it_are_left_in_peace(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(1))
    claim_all(database, add_process(database, "worker-that-dies"))
    assert shell.run("retry", "--queue-as", "quarantine", "--class", "PlainJob", "--dry-run").returncode == 0
