"""``jq jobs``: lists and moves jobs in any state, asks where a filter chooses, and shows who holds a slot."""

import json
from datetime import UTC, datetime

import pytest

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.processes.heartbeat import CAN_STOP
from solidjq.queue.concurrency import Limit
from solidjq.queue.listing import JobFilter
from solidjq.queue.states import State
from solidjq.rails.error_text import missing_error
from solidjq.selection import job_explanations
from support.processes import add_process
from support.program import Shell, assert_refused
from support.queue import add_jobs, claim_all, fail, rows, state_of_each
from support.waiting import PATIENCE

LATER = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.fixture
def ids(database: Database) -> dict[str, int]:
    """A job in each state that is not finished."""
    (claimed,) = add_jobs(database, NewJob(class_name="Report", queue_name="reports", args=["gid://shop/Order/77"]))
    claim_all(database, add_process(database, "worker-x", pid=77))
    (failed,) = fail(database, NewJob(class_name="Mail", queue_name="mail"), error=missing_error())
    keyed = NewJob(class_name="Import", concurrency_key="Import/7", limit=Limit(1, 60.0), args=[{"token": "s3cret"}])
    ready, blocked = add_jobs(database, keyed, keyed)
    (scheduled,) = add_jobs(database, NewJob(class_name="Mail", queue_name="mail", at=LATER))
    return {"claimed": claimed, "failed": failed, "ready": ready, "blocked": blocked, "scheduled": scheduled}


def listed(shell: Shell, *options: str) -> list[int]:
    done = shell.run("jobs", "list", *options, "-o", "ids")
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def test_jobs_are_chosen_in_every_way(database: Database, shell: Shell, ids: dict[str, int]) -> None:
    assert database
    assert listed(shell) == sorted(ids.values(), reverse=True)
    for options, states in {
        "--state ready --state blocked": ("ready", "blocked"),
        "--class Imp*": ("ready", "blocked"),
        "--not-class Import --not-class Mail": ("claimed",),
        "--queue mail": ("failed", "scheduled"),
        "--argument order/77": ("claimed",),
        "--key Import/*": ("ready", "blocked"),
        "--process worker-x": ("claimed",),
        "--host test*": ("claimed",),
        "--since yesterday --state scheduled": ("scheduled",),
        "--until 1h": (),
        f"{ids['failed']} {ids['ready']}": ("failed", "ready"),
        f"{ids['failed']} {ids['ready']} --class Mail": ("failed",),
    }.items():
        assert listed(shell, *options.split()) == sorted((ids[state] for state in states), reverse=True), options


def test_the_list_says_what_each_job_waits_for_and_masks_its_arguments(shell: Shell, ids: dict[str, int]) -> None:
    done = shell.run("jobs", "list", "-o", "json")
    details = {job["job_id"]: job["detail"] for job in json.loads(done.stdout)}
    assert details[ids["claimed"]] == "pid 77 on testhost"
    assert details[ids["blocked"]] == "for Import/7"
    assert details[ids["ready"]] == "holds Import/7"
    assert details[ids["scheduled"]].startswith("due 2099-01-01T00:00:00")
    assert details[ids["failed"]].startswith("ProcessMissingError")
    assert "s3cret" not in done.stdout
    assert "s3cret" in shell.run("jobs", "list", "--show-arguments", "-o", "json").stdout
    page = shell.run("jobs", "list", "--limit", "2", "-o", "ids")
    assert page.stderr == f"jq: 3 more; the next page: --page-after {sorted(ids.values())[3]}\n"


def test_a_list_of_no_jobs_says_why(database: Database, shell: Shell, ids: dict[str, int]) -> None:
    """A name that no job has, another state, or the option that leaves nothing."""
    assert len(ids) == len(state_of_each(database))
    none = shell.run("jobs", "list", "--until", "1h")
    assert (none.returncode, none.stderr) == (0, "jq: no jobs\n")
    # With time enough: the second that the command has is not always enough on a busy machine.
    of: dict[str, tuple[JobFilter, list[str]]] = {
        "name": (JobFilter(classes=("Impor",)), ["no job of class Impor; did you mean Import?"]),
        "state": (
            JobFilter(queues=("mail",), states=(State.CLAIMED,)),
            ["there are such jobs that are scheduled or failed: --state scheduled"],
        ),
        "one": (
            JobFilter(queues=("mail",), keys=("Import/7",)),
            ["without --queue there are some", "without --key there are some"],
        ),
        "more": (
            JobFilter(queues=("reports",), argument="zzz", keys=("none",)),
            ["more than one of these options leaves nothing"],
        ),
        "ids": (
            JobFilter(job_ids=[ids["failed"]], states=(State.READY,)),
            ["there are such jobs that are failed: --state failed"],
        ),
        "nothing": (JobFilter(until=datetime(2020, 1, 1, tzinfo=UTC)), []),
    }
    for chosen, sentences in of.values():
        assert job_explanations.explain_no_jobs(database, chosen, seconds=PATIENCE) == sentences


def test_a_running_job_shows_who_asked_it_to_stop(database: Database, shell: Shell) -> None:
    asked, other = add_jobs(database, NewJob(class_name="Import"), NewJob(class_name="Import"))
    claim_all(database, add_process(database, metadata={"runtime": "solidjq 1", CAN_STOP: True}))
    stopped = shell.run("jobs", "stop", str(asked), "--reason", "INC-7: wrong file")
    assert stopped.returncode == 0, stopped.stderr
    shown = json.loads(shell.run("jobs", "show", str(asked), str(other), "-o", "json").stdout)
    words = {job["job_id"]: job["stop_requested"] for job in shown}
    assert words[other] is None
    assert words[asked].startswith("asked to stop by ")
    assert words[asked].endswith("operation 1: INC-7: wrong file")
    assert "INC-7: wrong file" in shell.run("jobs", "show", str(asked), "-o", "table").stdout


def test_a_blocked_job_names_the_holder_of_its_slot(shell: Shell, ids: dict[str, int]) -> None:
    (job,) = json.loads(shell.run("jobs", "show", str(ids["blocked"]), "-o", "json").stdout)
    (holder,) = job["blocked_by"]
    assert (holder["job_id"], holder["state"]) == (ids["ready"], "ready")
    (key,) = json.loads(shell.run("queues", "keys", "-o", "json").stdout)
    assert (key["concurrency_key"], key["blocked"], key["ready"], key["limit"]) == ("Import/7", 1, 1, 1)


def test_ids_move_at_once_and_the_others_are_named(database: Database, shell: Shell, ids: dict[str, int]) -> None:
    chosen = [str(ids[state]) for state in ("scheduled", "claimed", "failed")]
    done = shell.run("jobs", "move", *chosen, "4711", "--to", "low", "-o", "json", "--reason", "INC-7")
    assert done.returncode == 6
    reasons = {job["job_id"]: job["reason"] for job in json.loads(done.stdout)}
    assert reasons == {
        ids["scheduled"]: None,
        ids["claimed"]: "a worker has it: only that can end it",
        ids["failed"]: "it has failed: jq retry or jq discard",
    }
    assert "jq: no job 4711\n" in done.stderr
    assert "moved 1 job; to take it back: jq undo 1\n" in done.stderr
    (operation,) = rows(database, tables.operations)
    assert (operation["verb"], operation["jobs"], operation["reason"]) == ("jobs move", 1, "INC-7")
    history = shell.run("history", str(ids["scheduled"]), "-o", "json")
    events = [(event["event"], event["detail"]) for event in json.loads(history.stdout)]
    assert events == [("enqueued", "Mail in mail"), ("moved", "to queue low: INC-7")]
    assert shell.run("undo", "1").returncode == 0
    (job,) = json.loads(shell.run("jobs", "show", str(ids["scheduled"]), "-o", "json").stdout)
    assert (job["queue_name"], job["state"]) == ("mail", "scheduled")
    assert shell.run("jobs", "move", "4711", "--to", "low").returncode == 4


def test_a_filter_needs_yes_and_a_dry_run_changes_nothing(
    database: Database, shell: Shell, ids: dict[str, int]
) -> None:
    before = state_of_each(database)
    for command in ("discard", "run-now", "postpone --to 2h", "move --to low"):
        words = ["jobs", *command.split()]
        assert_refused(shell.run(*words, "--queue", "mail"), 2, "needs --yes")
        assert_refused(shell.run(*words), 2, "which jobs?")
        assert_refused(shell.run(*words, "--state", "claimed", "--yes"), 2, "claimed", "ready, scheduled and blocked")
        done = shell.run(*words, "--queue", "mail", "--dry-run", "-o", "ids")
        assert (done.returncode, done.stdout.split()) == (0, [str(ids["scheduled"])])
        assert "1 job and leave 0 alone; nothing was changed" in done.stderr
    assert state_of_each(database) == before
    done = shell.run("jobs", "discard", "--class", "Import", "--yes", "-o", "ids")
    assert sorted(map(int, done.stdout.split())) == sorted([ids["ready"], ids["blocked"]])
    done = shell.run("jobs", "discard", "--class", "Import", "--yes")
    assert (done.returncode, done.stderr) == (0, "jq: no waiting jobs to discard\n")
    assert shell.run("jobs", "run-now", "--class", "Mail", "--yes").returncode == 0
    assert state_of_each(database)[ids["scheduled"]] is State.READY


@pytest.mark.sqlite_only
def test_what_cannot_be_meant_is_refused(database: Database, shell: Shell) -> None:
    assert database
    assert_refused(shell.run("jobs", "list", "--state", "redy"), 2, "'redy'", "did you mean ready?")
    assert_refused(shell.run("jobs", "postpone", "1", "--to", "yesterday"), 2, "--to", "tomorrow")
    assert_refused(shell.run("jobs", "postpone", "1", "--to", "2020-01-01"), 2, "in the past")
    assert_refused(shell.run("jobs", "move", "1", "--to", ""), 2, "1 to 255")
    assert_refused(shell.run("jobs", "list", "--since", "1h", "--until", "2h"), 2, "--until")


@pytest.mark.sqlite_only
def test_a_plan_of_waiting_jobs_is_applied(database: Database, shell: Shell, ids: dict[str, int]) -> None:
    assert shell.run("jobs", "move", "--class", "Mail", "--to", "low", "--plan-out", "plan.json").stderr == (
        "jq: wrote a plan of 1 job, 0 left alone; to carry it out: jq apply plan.json\n"
    )
    assert rows(database, tables.operations) == []
    done = shell.run("apply", "plan.json", "-o", "ids", "--reason", "INC-7")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"{ids['scheduled']}\n",
        "jq: moved 1 job; to take it back: jq undo 1\n",
    )
    (operation,) = rows(database, tables.operations)
    assert (operation["verb"], json.loads(operation["filter"])) == ("jobs move", {"verb": "move", "queue_name": "low"})
    assert shell.run("jobs", "discard", "--class", "Mail", "--plan-out", "plan.json").returncode == 0
    assert_refused(shell.run("apply", "plan.json"), 5, "--yes")
    assert shell.run("apply", "plan.json", "--yes").returncode == 0
    assert ids["scheduled"] not in state_of_each(database)
    assert shell.run("apply", "plan.json", "--yes").stderr.endswith("carried out before, or is empty\n")
