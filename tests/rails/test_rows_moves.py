"""On databases that Rails left: init, retry and undo leave what Solid Queue itself would leave."""

import json

import pytest

from solidjq import Database
from solidjq.database.setup import initialize
from solidjq.database.tables import failed, failures, jobs, operations, ready, scheduled
from solidjq.queue.failed import Filter
from solidjq.rails.error_text import Death
from solidjq.text import count_of
from support import rails
from support.program import Shell, assert_refused
from support.queue import rows
from support.rails_rows import FAR_AHEAD, JQ_TABLES, failed_jobs, retry, shown
from support.recovery import last_line


def test_nothing_needs_jqs_tables_but_a_retry(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "5c"))
    before = rails.snapshot(left.url)
    refused = jq.run("retry", "4")
    assert refused.returncode == 3
    assert refused.stderr.startswith("jq: ")
    assert refused.stderr.endswith("run: jq init\n")
    assert refused.stdout == ""
    assert rails.snapshot(left.url) == before


def test_init_adds_its_own_tables_and_touches_no_other(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "5c"))
    before = rails.snapshot(left.url)
    assert len(before) == 11
    ran = jq.run("init")
    assert ran.returncode == 6  # the rows were loaded into tables without indexes, and init says so
    after = rails.snapshot(left.url)
    assert sorted(after.keys() - before.keys()) == JQ_TABLES
    for name, table in before.items():
        assert after[name] == table
    assert initialize(left) == ([], [])
    assert rails.snapshot(left.url) == after


def test_a_retry_leaves_what_solid_queues_own_leaves(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "4b")
    rails.load(left.url, fixture)
    initialize(left)
    before, began = rails.snapshot(left.url), left.now()
    typed = {name: rows(left, table) for name, table in (("jobs", jobs), ("failed", failed))}
    chosen = [1, 6, 9, 11, 17]
    retried = retry(left, *chosen)
    ended, after = left.now(), rails.snapshot(left.url)
    assert (retried.ready, retried.scheduled) == ([1, 6, 9, 17], [11])

    moved = {
        f"solid_queue_{name}" for name in ("jobs", "ready_executions", "scheduled_executions", "failed_executions")
    }
    for name in after.keys() - moved - set(JQ_TABLES):
        assert after[name] == before[name]
    was = before["solid_queue_failed_executions"][1]
    assert after["solid_queue_failed_executions"][1] == [row for row in was if row["job_id"] not in chosen]

    made = rows(left, ready)
    assert [(row["job_id"], row["queue_name"], row["priority"]) for row in made] == [
        (1, "default", 0),
        (6, "default", 0),
        (9, "urgent", 5),
        (17, "default", 0),
    ]
    (due,) = rows(left, scheduled)
    assert (due["job_id"], due["queue_name"], due["priority"]) == (11, "default", 0)
    assert began <= due["scheduled_at"] <= ended
    assert all(began <= row["created_at"] <= ended for row in [*made, due])

    for old, new in zip(typed["jobs"], rows(left, jobs), strict=True):
        if old["id"] != 17:
            assert new == old
            continue
        assert began <= new["updated_at"] <= ended
        worn = '"executions":2,"exception_executions":{"[RetryingJob::Flaky]":2}'
        assert old["arguments"].count(worn) == 1
        fresh = old["arguments"].replace(worn, '"executions":0,"exception_executions":{}')
        assert new == {**old, "arguments": fresh, "updated_at": new["updated_at"]}

    (operation,) = rows(left, operations)
    assert (operation["verb"], operation["reason"], operation["jobs"]) == ("retry", "because", 5)
    by_id = {job["id"]: job for job in typed["jobs"]}
    kept = sorted(rows(left, failures), key=lambda row: row["failure_id"])
    assert all(began <= row.pop("archived_at") <= ended for row in kept)
    assert [{key: value for key, value in row.items() if key != "id"} for row in kept] == [
        {
            "failure_id": failure["id"],
            "job_id": failure["job_id"],
            "active_job_id": by_id[failure["job_id"]]["active_job_id"],
            "queue_name": by_id[failure["job_id"]]["queue_name"],
            "class_name": by_id[failure["job_id"]]["class_name"],
            "error": failure["error"],
            "failed_at": failure["created_at"],
            "operation_id": operation["id"],
            "restored_by": None,
            "more": None,
            **{
                key: by_id[failure["job_id"]][key]
                for key in ("arguments", "priority", "concurrency_key", "scheduled_at", "updated_at")
            },
            "enqueued_at": by_id[failure["job_id"]]["created_at"],
        }
        for failure in typed["failed"]
        if failure["job_id"] in chosen
    ]
    given = {int(row["job_id"]): row["error"] for row in fixture["tables"]["solid_queue_failed_executions"]}
    assert {row["job_id"]: row["error"] for row in kept} == {job_id: given[job_id] for job_id in chosen}


def test_a_second_retry_changes_nothing(left: Database, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "4b"))
    initialize(left)
    assert retry(left, 1, 11, 17).job_ids == [1, 11, 17]
    before = rails.snapshot(left.url)
    assert retry(left, 1, 11, 17).job_ids == []
    assert rails.snapshot(left.url) == before


@pytest.mark.only_on("mariadb")
def test_the_program_says_why_it_retries_nothing(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "4b"))
    initialize(left)
    retry(left, 1, 11, 17)
    before = rails.snapshot(left.url)
    ran = jq.run("retry", "1", "11", "17", "10")
    assert ran.returncode == 6
    assert ran.stderr.splitlines() == [
        "jq: no failed jobs to retry",
        "jq: job 1 is ready, not failed",
        "jq: job 11 is scheduled, not failed",
        "jq: job 17 is ready, not failed",
        "jq: job 10 is finished, not failed",
    ]
    assert rails.snapshot(left.url) == before


def test_the_program_retries_the_ids_it_reads(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "2b"))
    initialize(left)
    names = "".join(f"{job_id}\n" for job_id in failed_jobs(left, Filter(deaths=frozenset({Death.PRUNED}))))
    ran = jq.run("retry", "-", "-o", "json", "--reason", "host was rebooted", stdin=names)
    assert ran.returncode == 0
    expected = {
        job_id: "scheduled" if job_id == 5 else "ready" for job_id in rails.reading(kind, "2b").states["failed"]
    }
    assert {job["job_id"]: job["state"] for job in json.loads(ran.stdout)} == expected
    assert ran.stderr.splitlines() == [
        f"jq: retried {len(expected)} jobs: {len(expected) - 1} ready, 1 scheduled",
        f"jq: no worker lives: {count_of(len(expected), 'job')} wait until one starts (bin/jobs, or jq work)",
        "jq: no dispatcher lives: 1 scheduled job waits until one starts (bin/jobs, or jq work)",
        last_line(1),
    ]
    (operation,) = rows(left, operations)
    assert (operation["verb"], operation["reason"]) == ("retry", "host was rebooted")


@pytest.mark.parametrize("command", ["retry --safe --yes", "discard --died --yes"])
@pytest.mark.parametrize("scenario", ["2b", "5c"])
def test_an_undo_leaves_every_row_as_rails_wrote_it(
    left: Database, jq: Shell, kind: str, scenario: str, command: str
) -> None:
    rails.load(left.url, rails.read(kind, scenario))
    initialize(left)
    before = rails.snapshot(left.url)
    moved = len(failed_jobs(left, Filter(deaths=frozenset(Death))))
    done = jq.run(*command.split())
    assert (done.returncode, failed_jobs(left, Filter(deaths=frozenset(Death)))) == (0, [])
    undone = jq.run("undo", "1")
    assert (undone.returncode, undone.stderr) == (0, f"jq: took back {count_of(moved, 'job')} of operation 1\n")
    after = rails.snapshot(left.url)
    theirs = before.keys() - set(JQ_TABLES)
    assert {name: after[name][1] for name in theirs} == {name: before[name][1] for name in theirs}
    assert moved


@pytest.mark.parametrize("number", [19, 20])
def test_a_retry_changes_nothing_else_in_the_arguments(left: Database, kind: str, number: int) -> None:
    fixture = rails.read(kind, "5a")  # 19: escapes and emoji; 20: numbers that no float can hold
    tables = fixture["tables"]
    tables["solid_queue_ready_executions"] = [
        row for row in tables["solid_queue_ready_executions"] if int(row["job_id"]) != number
    ]
    job = rails.row(fixture, "jobs", number)
    given = job["arguments"]
    counters = '"executions":0,"exception_executions":{}'
    assert given.count(counters) == 1
    job["arguments"] = given.replace(counters, '"executions":4,"exception_executions":{"[A, \\"B\\"]":3,"[C]":1}')
    tables["solid_queue_failed_executions"] = [
        {"id": 1, "job_id": number, "error": None, "created_at": job["created_at"]}
    ]
    rails.load(left.url, fixture)
    initialize(left)
    assert retry(left, number).ready == [number]
    (after,) = (row for row in rows(left, jobs) if row["id"] == number)
    assert after["arguments"] == given
    (kept,) = rows(left, failures)
    assert kept["error"] is None


def test_a_job_whose_time_has_not_come_waits_for_it(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "4b")
    for number in (1, 11):
        rails.row(fixture, "jobs", number)["scheduled_at"] = FAR_AHEAD
    rails.load(left.url, fixture)
    initialize(left)
    retried = retry(left, 1, 11, 17)
    assert (retried.ready, sorted(retried.scheduled)) == ([17], [1, 11])
    assert [(row["job_id"], shown(row["scheduled_at"])) for row in rows(left, scheduled)] == [
        (1, "2099-01-01T00:00:00.000001"),
        (11, "2099-01-01T00:00:00.000001"),
    ]


def test_a_job_of_a_limited_ruby_class_is_refused_without_a_key(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "5c"))
    before = rails.snapshot(left.url)
    assert_refused(jq.run("enqueue", "LimitedJob", "k1"), 5, "LimitedJob/k1", "--concurrency-key KEY")
    assert rails.snapshot(left.url) == before
    done = jq.run("enqueue", "LimitedJob", "k1", "--concurrency-key", "LimitedJob/k1", "-o", "json")
    assert (done.returncode, json.loads(done.stdout)[0]["state"]) == (0, "scheduled")
    assert jq.run("enqueue", "HelloJob").returncode == 0
