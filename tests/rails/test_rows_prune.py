"""On databases that Rails left: prune and dispatch leave what Solid Queue itself would leave."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from solidjq import Database
from solidjq.database.tables import claimed, failed, processes, ready, semaphores
from solidjq.processes import pruning
from solidjq.queue import dispatch
from solidjq.queue.failed import Filter
from solidjq.rails.error_text import Death
from support import rails
from support.processes import fail_orphans
from support.program import Shell
from support.queue import rows
from support.rails_rows import BEATING, FAR_AHEAD, LONG_AGO, failed_jobs, failure_records, written

PRUNED = (
    '{"exception_class":"SolidQueue::Processes::ProcessPrunedError","message":"Process was found dead and pruned '
    '(last heartbeat at: 2020-01-01 12:34:56 UTC)","backtrace":null}'
)
MISSING = (
    '{"exception_class":"SolidQueue::Processes::ProcessMissingError","message":"The process that was running this job '
    'no longer exists","backtrace":null}'
)


def limited_job_in_dead_hands(kind: str) -> rails.Fixture:
    """5c: job 5 holds the one slot of LimitedJob/k1, claimed by process 6; jobs 6 and 25 wait for it."""
    fixture = rails.read(kind, "5c")
    for process_id, beat in ((4, BEATING), (5, BEATING), (6, LONG_AGO)):
        rails.row(fixture, "processes", process_id)["last_heartbeat_at"] = beat
    return fixture


def assert_failed_and_next_let_in(
    left: Database, before: dict[str, Any], began: datetime, *, error: str, priorities: dict[int, int], unblocked: int
) -> None:
    """Check every table after job 5 failed: its slot went to the next blocked job, and nothing else happened."""
    ended, after = left.now(), rails.snapshot(left.url)
    changed = ("claimed_executions", "failed_executions", "blocked_executions", "ready_executions", "semaphores")
    for name in after.keys() - {f"solid_queue_{name}" for name in (*changed, "processes")}:
        assert after[name] == before[name]
    assert rows(left, claimed) == []
    _, failure = rows(left, failed)
    assert (failure["job_id"], failure["error"]) == (5, error)
    assert began <= failure["created_at"] <= ended
    assert after["solid_queue_failed_executions"][1][0] == before["solid_queue_failed_executions"][1][0]
    _, let_in = rows(left, ready)
    assert (let_in["job_id"], let_in["queue_name"], let_in["priority"]) == (unblocked, "default", priorities[unblocked])
    assert began <= let_in["created_at"] <= ended
    waiting = before["solid_queue_blocked_executions"][1]
    assert after["solid_queue_blocked_executions"][1] == [row for row in waiting if row["job_id"] != unblocked]
    semaphore, other = rows(left, semaphores)
    assert (semaphore["key"], semaphore["value"]) == ("LimitedJob/k1", 0)
    about = timedelta(minutes=3)
    slack = timedelta(milliseconds=10)
    assert began + about - slack <= semaphore["expires_at"] <= ended + about + slack
    old, untouched = before["solid_queue_semaphores"][1]
    assert after["solid_queue_semaphores"][1][0] == {
        **old,
        "expires_at": after["solid_queue_semaphores"][1][0]["expires_at"],
    }
    assert after["solid_queue_semaphores"][1][1] == untouched
    assert other["key"] == "LimitedJob/k2"


@pytest.mark.parametrize(
    ("priorities", "unblocked"),
    [({6: 0, 25: 0}, 6), ({6: 5, 25: -1}, 25), ({6: 7, 25: 7}, 6), ({6: -2, 25: -1}, 6)],
)
def test_a_dead_process_is_pruned_as_solid_queue_does_it(
    left: Database, kind: str, priorities: dict[int, int], unblocked: int
) -> None:
    fixture = limited_job_in_dead_hands(kind)
    for row in fixture["tables"]["solid_queue_blocked_executions"]:
        row["priority"] = priorities[int(row["job_id"])]
    rails.load(left.url, fixture)
    before, began = rails.snapshot(left.url), left.now()
    (pruned,) = pruning.prune(left, 300)
    assert (pruned.process_id, pruned.kind, pruned.job_ids) == (6, "Worker", [5])
    assert [process["id"] for process in rows(left, processes)] == [4, 5]
    assert_failed_and_next_let_in(left, before, began, error=PRUNED, priorities=priorities, unblocked=unblocked)
    assert list(pruning.prune(left, 300)) == []
    assert fail_orphans(left) == []


@pytest.mark.only_on("postgresql")
def test_the_program_prunes_without_jqs_tables(left: Database, jq: Shell, kind: str) -> None:
    fixture = limited_job_in_dead_hands(kind)
    rails.load(left.url, fixture)
    before, began = rails.snapshot(left.url), left.now()
    ran = jq.run("prune", "-o", "json")
    assert ran.returncode == 0
    dead = rails.row(fixture, "processes", 6)
    assert json.loads(ran.stdout) == [
        {
            "process_id": 6,
            "kind": "Worker",
            "name": dead["name"],
            "hostname": "vm",
            "pid": int(dead["pid"]),
            "last_heartbeat_at": "2020-01-01T12:34:56.789000Z",
            "failed": 1,
            "job_ids": [5],
        }
    ]
    assert_failed_and_next_let_in(left, before, began, error=PRUNED, priorities={6: 0}, unblocked=6)
    assert written(failure_records(left)[:1], rails.FAILURE[1:-1]) == [
        "5 LimitedJob default 0 pruned - - - 2020-01-01T12:34:56"
    ]


def test_an_orphaned_claim_fails_in_solid_queues_words(left: Database, jq: Shell, kind: str) -> None:
    fixture = limited_job_in_dead_hands(kind)
    fixture["tables"]["solid_queue_processes"].remove(rails.row(fixture, "processes", 6))
    rails.load(left.url, fixture)
    before, began = rails.snapshot(left.url), left.now()
    ran = jq.run("prune", "-o", "json")
    assert ran.returncode == 0
    (pruned,) = json.loads(ran.stdout)
    assert (pruned["process_id"], pruned["failed"], pruned["job_ids"]) == (None, 1, [5])
    assert_failed_and_next_let_in(left, before, began, error=MISSING, priorities={6: 0}, unblocked=6)
    assert failed_jobs(left, Filter(deaths=frozenset({Death.MISSING}))) == [5]


def test_a_claim_of_no_process_fails_too(left: Database, kind: str) -> None:
    fixture = limited_job_in_dead_hands(kind)
    rails.row(fixture, "processes", 6)["last_heartbeat_at"] = BEATING
    rails.row(fixture, "claimed_executions", 21)["process_id"] = None
    rails.load(left.url, fixture)
    before, began = rails.snapshot(left.url), left.now()
    assert list(pruning.prune(left, 300)) == []
    assert fail_orphans(left) == [5]
    assert_failed_and_next_let_in(left, before, began, error=MISSING, priorities={6: 0}, unblocked=6)
    assert [process["id"] for process in rows(left, processes)] == [4, 5, 6]


def test_dispatch_leaves_a_limited_job_of_a_ruby_class_to_rails(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "5a")
    for execution in fixture["tables"]["solid_queue_scheduled_executions"]:
        execution["scheduled_at"] = LONG_AGO if int(execution["job_id"]) in {3, 24} else FAR_AHEAD
    rails.load(left.url, fixture)
    before = rails.snapshot(left.url)
    assert left.transact(dispatch.dispatch, 100) == [24]
    after = rails.snapshot(left.url)
    for name in after.keys() - {"solid_queue_scheduled_executions", "solid_queue_ready_executions"}:
        assert after[name] == before[name]
    was = before["solid_queue_scheduled_executions"][1]
    assert after["solid_queue_scheduled_executions"][1] == [row for row in was if row["job_id"] != 24]
    *old, new = after["solid_queue_ready_executions"][1]
    assert old == before["solid_queue_ready_executions"][1]
    assert (new["job_id"], new["queue_name"], new["priority"]) == (24, "default", 0)
    assert left.transact(dispatch.dispatch, 100) == []
