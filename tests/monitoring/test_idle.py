"""``jq wait --idle``: the gate of a deployment."""

import json
from collections.abc import Sequence

import pytest

from solidjq import Database
from solidjq.database.tables import claimed
from solidjq.errors import DatabaseUnreachableError
from solidjq.monitoring.idle import wait_until_idle
from solidjq.queue import endings
from solidjq.queue.jobs import JobView
from solidjq_cli.exits import Exit
from support.processes import add_process
from support.program import Shell, assert_refused
from support.queue import add_jobs, claim_all, plain_jobs
from support.terminal import terminal


def wait(database: Database, queues: Sequence[str] = (), *, looks: list[int] | None = None) -> list[int]:
    """Wait without sleeping; ``looks`` gets how many jobs ran at each look."""
    seen: list[int] = [] if looks is None else looks

    def said(running: Sequence[JobView]) -> None:
        seen.append(len(running))

    left = wait_until_idle(database, queues, timeout=0, poll=0.1, said=said, sleep=lambda _: None)
    return [view.job_id for view in left]


def test_idle_or_not(database: Database) -> None:
    """Jobs that are ready run nowhere; those of other queues are not waited for."""
    looks: list[int] = []
    mail, report = add_jobs(database, *plain_jobs(1, queue_name="mailers"), *plain_jobs(1, queue_name="reports"))
    assert (wait(database, looks=looks), looks) == ([], [0, 0])
    worker = add_process(database)
    assert len(claim_all(database, worker)) == 2
    assert sorted(wait(database)) == [mail, report]
    assert wait(database, ["mail*"]) == [mail]
    assert wait(database, ["other"]) == []
    database.transact(endings.finish, claimed.c.job_id == mail)
    assert wait(database, ["mail*"]) == []
    assert wait(database) == [report]


def test_it_looks_until_the_jobs_have_ended(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    claim_all(database, add_process(database))
    looks: list[int] = []

    def said(running: Sequence[JobView]) -> None:
        looks.append(len(running))
        if len(looks) == 3:
            database.transact(endings.finish, claimed.c.job_id == job_id)

    assert wait_until_idle(database, timeout=3600, poll=0.1, said=said, sleep=lambda _: None) == []
    assert looks == [1, 1, 1, 0, 0]


def test_two_looks_must_find_nothing(database: Database) -> None:
    """A worker that has ended a job claims the next one a moment later."""
    add_jobs(database, *plain_jobs(1))
    worker = add_process(database)
    looks: list[int] = []

    def said(running: Sequence[JobView]) -> None:
        looks.append(len(running))
        if len(looks) == 1:
            claim_all(database, worker)

    assert len(wait_until_idle(database, timeout=0, poll=0.1, said=said, sleep=lambda _: None)) == 1
    assert looks == [0, 1]


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_database_that_is_away(database: Database) -> None:
    away = Database(database.url.set(host="127.0.0.1", port=1).difference_update_query(["host"]))
    with pytest.raises(DatabaseUnreachableError):
        wait(away)


@pytest.mark.sqlite_only
def test_the_command(database: Database, shell: Shell) -> None:
    idle = shell.run("--read-only", "wait", "--idle")
    assert (idle.returncode, idle.stderr) == (0, "")
    (job_id,) = add_jobs(database, *plain_jobs(1, queue_name="reports"))
    claim_all(database, add_process(database, pid=4711))
    busy = shell.run("wait", "--idle", "--queue", "reports", "--timeout", "0s", "-o", "json")
    (found,) = json.loads(busy.stdout)
    assert (busy.returncode, found["job_id"], found["detail"]) == (6, job_id, "pid 4711 on testhost")
    assert "1 job still runs after 0s" in busy.stderr
    add_jobs(database, *plain_jobs(1, queue_name="mailers"))
    assert shell.run("wait", "--idle", "--queue", "mailers", "--timeout", "0s").returncode == 0
    assert "1 job still runs" in terminal(shell, "wait", "--idle", "--timeout", "0s")
    for line in ([], ["--idle", "--timeout", "soon"], ["--idle", "--queue", ","], ["--idle", "--queue", "a*b"]):
        assert shell.run("wait", *line).returncode == 2


def test_a_gate_for_a_queue_that_nothing_names_stays_shut(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(1, queue_name="mailers"))
    for named, words in (("mialers", "no queue mialers; did you mean mailers?"), ("x*,mail*", "no queue x*.")):
        done = shell.run("wait", "--idle", "--queue", named, "--timeout", "0s")
        assert_refused(done, Exit.REFUSED, words, "jq queues pause --create")
    assert shell.run("queues", "pause", "--create", "mialers").returncode == 0
    assert shell.run("wait", "--idle", "--queue", "mialers,mail*", "--timeout", "0s").returncode == 0
