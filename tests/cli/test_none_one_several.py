"""What screens and notices say where there is none, one, or several."""

import pytest

from solidjq import Database
from solidjq.database.urls import url_text
from solidjq.processes import heartbeat, pruning
from solidjq.rails.error_text import error_json
from support.commands import run
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all, fail, plain_jobs
from support.screen import Terminal


@pytest.fixture
def kind() -> str:
    """All of this is the same on every database."""
    return "sqlite"


@pytest.fixture(autouse=True)
def url(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(database.url))


@pytest.mark.parametrize(("command", "heading"), [("failed", "0 failed jobs"), ("jobs", "0 jobs")])
def test_an_empty_list_says_so_once(
    command: str, heading: str, screen: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert screen.show([command, "list"]).startswith(f"{heading}  ")
    assert capsys.readouterr().err == ""


def test_one_job_died_with_its_process(database: Database, screen: Terminal) -> None:
    add_jobs(database, *plain_jobs(1))
    worker = add_process(database, "dead")
    claim_all(database, worker)
    silence(database, worker, 1000)
    assert len(list(pruning.prune(database, 300))) == 1
    fail(database, *plain_jobs(2), error=error_json("ValueError", "boom"))
    assert screen.show(["failed", "list"], width=200).startswith("3 failed jobs, 1 died with its process; newest")
    assert "3: 1 died with its process (1 incident), 2 failed" in screen.show(["status"], width=200)
    assert "1 died with its process, 2 failed with an error" in screen.show(["status"], width=200)
    assert "1 job died with its process and waits for a decision" in screen.show(["doctor"], width=200)


def test_one_job_may_have_killed_its_process(database: Database, screen: Terminal) -> None:
    add_jobs(database, *plain_jobs(1))
    for name in ("first", "second"):
        worker = add_process(database, name)
        claim_all(database, worker)
        silence(database, worker, 1000)
        assert len(list(pruning.prune(database, 300))) == 1
        assert name == "second" or run(["retry", "1"]) == 0
    assert screen.show(["suspects"], width=200).startswith("1 job may have killed its process")


def test_supervisors_that_fork_and_that_spawn_are_counted_together(database: Database, screen: Terminal) -> None:
    for number, kind in enumerate(("Supervisor(fork)", "Supervisor(spawn)")):
        database.transact(heartbeat.register, kind=kind, name=str(number), pid=number, hostname="a", metadata={})
    assert " 2 supervisors alive" in screen.show(["status"])


def test_where_no_job_failed_none_is_pointed_to(
    database: Database, screen: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    silence(database, add_process(database, "idle"), 1000)
    assert run(["prune"]) == 0
    assert capsys.readouterr().err == "jq: pruned 1 process and failed 0 jobs\n"
    assert "next  jq incidents show d1 | jq suspects\n" in screen.show(["incidents", "list"])
