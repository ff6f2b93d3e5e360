"""Commands to be killed: what each starts from, and what must hold afterwards, however often it was killed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from solidjq import Database
from solidjq.database import tables as database_tables
from solidjq.database.tables import failed, failures, jobs, operations, semaphores
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat, pruning
from solidjq.queue import dispatch, endings, pauses
from solidjq.queue.failed import Filter
from solidjq.queue.states import State
from solidjq.rails.error_text import Death
from solidjq.recovery import plans, undo
from solidjq.recovery.retry import plan
from solidjq.recovery.terms import RetryTerms, Selection
from support.deaths import ALL
from support.every_command import PLAN
from support.processes import fail_orphans
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs
from support.scenes import (
    ERROR,
    five_claimed,
    five_died,
    five_failed,
    five_orphaned,
    five_ready,
    five_retried,
    five_silent,
    five_silent_first_operation,
    nothing,
    retry_safely,
    three_due,
)


def discard_died(database: Database) -> None:
    retry_jobs(
        database,
        selection=Selection(chosen=Filter(deaths=frozenset(Death))),
        operation=Operation("discard"),
        discard=True,
    )


def undo_all(database: Database) -> None:
    list(undo.undo(database, 1, Operation("undo")))


def recover_again(database: Database) -> None:
    list(pruning.prune(database, 300))


def retry_all(database: Database) -> None:
    ids = [row["job_id"] for row in rows(database, failed)]
    retry_jobs(database, ids)


def end_all(end: Callable[..., list[int]], *arguments: str) -> Callable[[Database], None]:
    def again(database: Database) -> None:
        database.transact(end, database_tables.claimed.c.id > 0, *arguments)

    return again


def deregister_all(database: Database) -> None:
    for row in rows(database, database_tables.processes):
        database.transact(heartbeat.deregister, row["id"])


def enqueue_if_none(database: Database) -> None:
    """All or nothing: a person who sees no job enqueues again."""
    if not rows(database, jobs):
        add_jobs(database, *plain_jobs(3))


def claim(database: Database) -> None:
    (process,) = (row["id"] for row in rows(database, database_tables.processes))
    claim_all(database, process)


def failed_ids(database: Database) -> str:
    return " ".join(str(row["job_id"]) for row in rows(database, failed))


@dataclass(frozen=True)
class Case:
    command: tuple[str, ...]
    prepare: Callable[[Database], None]
    again: Callable[[Database], object]  # the same move in this process, once the program was killed
    expected: dict[State, int]
    stdin: Callable[[Database], str] = lambda _: ""


READY, SCHEDULED, BLOCKED, CLAIMED, FAILED, FINISHED = State
HANDED_ON = {READY: 1}  # the blocked job got the slot of the one that ended
CASES = {
    "enqueue": Case(
        ("enqueue", "PlainJob", "--stdin"), nothing, enqueue_if_none, {READY: 3}, lambda _: "[1]\n[2]\n[3]\n"
    ),
    "claim": Case(("claim",), five_ready, claim, {CLAIMED: 4, BLOCKED: 1}),
    "finish": Case(("finish",), five_claimed, end_all(endings.finish), {FINISHED: 4} | HANDED_ON),
    "fail": Case(("fail",), five_claimed, end_all(endings.fail, ERROR), {FAILED: 4} | HANDED_ON),
    "deregister": Case(("deregister",), five_claimed, deregister_all, {READY: 4, BLOCKED: 1}),
    "exited": Case(("exited",), five_claimed, end_all(endings.fail, ERROR), {FAILED: 4} | HANDED_ON),
    "dispatch": Case(("dispatch",), three_due, lambda database: database.transact(dispatch.dispatch, 10), {READY: 3}),
    "prune": Case(
        ("prune",), five_silent, lambda database: list(pruning.prune(database, 300)), {FAILED: 4} | HANDED_ON
    ),
    "missing": Case(("prune",), five_orphaned, fail_orphans, {FAILED: 4} | HANDED_ON),
    "retry": Case(("retry", "-"), five_failed, retry_all, {READY: 4, SCHEDULED: 1}, failed_ids),
    "safe": Case(
        ("retry", "--safe", "--yes", "--batch", "2", "--queue-as", "q"),
        five_died,
        retry_safely,
        {READY: 3, SCHEDULED: 2},
    ),
    "discarding": Case(("discard", "--died", "--yes", "--batch", "2"), five_died, discard_died, {}),
    "undo": Case(("undo", "1"), five_retried, undo_all, {FAILED: 5}),
    "recover": Case(("recover",), five_silent_first_operation, recover_again, {FAILED: 4} | HANDED_ON),
    "pause": Case(
        ("queues", "pause", "default"),
        five_ready,
        lambda database: database.transact(pauses.pause, "default"),
        {READY: 4, BLOCKED: 1},
    ),
}


def plan_all(database: Database, folder: Path) -> None:
    """Write the plan of a safe retry of everything."""
    terms = RetryTerms(safe=True, queue_as="q")
    decisions = (each for batch in plan(database, ALL, terms) for each in batch)
    plans.write(folder / PLAN, database.identity(), terms, decisions)


def five_ready_paused(database: Database) -> None:
    five_ready(database)
    database.transact(pauses.pause, "default")


# Commands that are killed at their commits alone: they are made of moves that others are made of too.
MORE_CASES = {
    "resume": Case(
        ("queues", "resume", "default"),
        five_ready_paused,
        lambda database: database.transact(pauses.resume, "default"),
        {READY: 4, BLOCKED: 1},
    ),
    "apply": Case(("apply", PLAN, "--yes"), five_died, retry_safely, {READY: 3, SCHEDULED: 2}),
    "fix": Case(("doctor", "orphans", "--fix", "--yes"), five_orphaned, fail_orphans, {FAILED: 4} | HANDED_ON),
}


def held(database: Database) -> Counter[State]:
    return Counter(state_of_each(database).values())


def check(database: Database, case: Case) -> None:
    assert held(database) == case.expected
    # The one slot of the limited jobs: taken while one of them is ready or claimed, and never counted twice.
    values = [row["value"] for row in rows(database, semaphores)]
    assert values in ([], [int(case.prepare in {five_died, five_retried})])  # where all have failed, it is free
    archived = Counter(row["job_id"] for row in rows(database, failures))
    assert set(archived.values()) <= {1}
    crashes = Counter(row["job_id"] for row in rows(database, database_tables.crashes))
    assert set(crashes.values()) <= {1}
    if case.prepare in {five_died, five_retried}:
        assert len(crashes) == len(archived) == 5
        assert {row["queue_name"] for row in rows(database, jobs)} <= {"q" if case.prepare is five_died else "default"}
    if case.prepare is five_failed:
        assert len(archived) == 4
        assert sum(row["jobs"] for row in rows(database, operations)) == len(archived)
        assert not [row for row in rows(database, jobs) if '"executions":4' in row["arguments"]]
