"""Kill -9 between any two statements of any command: nothing is lost, nothing doubled, and it can be run again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import setup
from solidjq.database import tables as database_tables
from solidjq.database.tables import failed, failures, jobs, operations, semaphores
from solidjq.database.urls import url_text
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat, pruning
from solidjq.queue import dispatch, endings, pauses
from solidjq.queue.failed import Filter
from solidjq.queue.states import State
from solidjq.rails.error_text import Death
from solidjq.recovery import undo
from solidjq.recovery.terms import Selection
from support.databases import DATABASES
from support.killer import KILLED, killer
from support.program import Shell
from support.queue import add_jobs, claim_all, clear, plain_jobs, rows, state_of_each
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
from support.waiting import until


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
    "missing": Case(("prune",), five_orphaned, pruning.fail_orphans, {FAILED: 4} | HANDED_ON),
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


@pytest.mark.parametrize("name", CASES)
def test_killed_between_any_two_statements(database: Database, shell: Shell, kind: str, name: str) -> None:
    case = CASES[name]
    # The longer commands have many steps: together the databases see each of them.
    long = name in {"prune", "missing", "retry", "safe", "discarding", "undo", "recover"}
    first, stride = (DATABASES.index(kind) + 1, len(DATABASES)) if long else (1, 1)
    killed = 0
    with killer(shell.url, shell, case.command, first=first, stride=stride) as run:
        code = KILLED
        while code == KILLED:
            clear(database)
            case.prepare(database)
            code = run(case.stdin(database))
            found = state_of_each(database)  # one state each, whenever it was killed
            if name == "discarding":
                assert len(found) in {0, 1, 3, 5}
            else:
                assert len(found) in ({0, 3} if name == "enqueue" else {sum(case.expected.values())})
            if code == KILLED:
                killed += 1
                # A server may notice late that the other side is dead; its locks hold until then.
                until(lambda: (case.again(database), held(database) == case.expected)[1], "the next run completes it")
            check(database, case)
    assert code == 0
    assert killed >= 4


def test_an_init_killed_anywhere_is_completed_by_the_next(kind: str, empty_url: URL, tmp_path: Path) -> None:
    url = url_text(empty_url)
    # Each statement is a step, and the tables are made anew for each.
    stride = {"mariadb": 4, "postgresql": 3}.get(kind, 2)
    database = Database(empty_url)
    everything = {
        table.name for metadata in (database_tables.solid_queue, database_tables.jq) for table in metadata.sorted_tables
    }
    killed = 0
    with killer(url, Shell(url, tmp_path), ("init",), stride=stride) as run:
        code = KILLED
        while code == KILLED:
            database.transact(database_tables.jq.drop_all)
            database.transact(database_tables.solid_queue.drop_all)
            code = run("")
            if code == KILLED:
                killed += 1
                setup.initialize(database)
            with database.read() as connection:
                assert set(inspect(connection).get_table_names()) - {"sqlite_sequence"} == everything
                assert connection.scalars(select(database_tables.schema_migrations.c.version)).all() == [
                    migration.version for migration in setup.MIGRATIONS
                ]
    database.close()
    assert code == 0
    assert killed >= 10


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
