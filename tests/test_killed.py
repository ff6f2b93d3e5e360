"""Kill -9 between any two statements of any command: nothing is lost, nothing doubled, and it can be run again."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import delete, inspect, select, text, update
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database import setup
from solidjq.database import tables as database_tables
from solidjq.database.tables import failed, failures, jobs, operations, scheduled, semaphores
from solidjq.database.times import ago
from solidjq.database.urls import url_text
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat, pruning
from solidjq.queue import dispatch, endings, pauses
from solidjq.queue.concurrency import Limit
from solidjq.queue.failed import Filter
from solidjq.queue.states import State
from solidjq.rails.error_text import Death, error_json
from solidjq.recovery import undo
from solidjq.recovery.retry import Selection
from support import Shell, add_jobs, add_process, claim_all, plain_jobs, retry_jobs, rows, state_of_each, until
from test_pruning import silence

ERROR = error_json("E", "boom")
ONE = Limit(1)


def with_limited(count: int) -> list[NewJob]:
    """Describe plain jobs, one that holds a slot, and one that waits for it."""
    limited = [NewJob(class_name="L", concurrency_key="L/k", limit=ONE) for _ in range(2)]
    return [*plain_jobs(count), *limited]


def empty(_: Database) -> None:
    pass


def ready(database: Database) -> None:
    add_jobs(database, *with_limited(3))
    add_process(database)


def claimed(database: Database) -> None:
    ready(database)
    (process,) = (row["id"] for row in rows(database, database_tables.processes))
    claim_all(database, process)


def silent(database: Database) -> None:
    claimed(database)
    (process,) = (row["id"] for row in rows(database, database_tables.processes))
    silence(database, process, 1000)


def orphaned(database: Database) -> None:
    claimed(database)
    with database.write() as connection:
        connection.execute(delete(database_tables.processes))


def due(database: Database) -> None:
    add_jobs(database, *plain_jobs(3, delay=3600))
    with database.write() as connection:
        connection.execute(update(scheduled).values(scheduled_at=ago(1)))


def has_failed(database: Database) -> None:
    claimed(database)
    database.transact(endings.fail, database_tables.claimed.c.id > 0, ERROR)
    with database.write() as connection:
        worn = update(jobs).where(jobs.c.class_name == "PlainJob")
        connection.execute(worn.values(arguments='{"job_class":"PlainJob","arguments":[],"executions":4}'))


def died(database: Database) -> None:
    """All five died with their process, the one that waited for a slot too."""
    for seconds in (2000, 1000):
        if seconds == 2000:
            silent(database)
        else:
            claim_all(database, add_process(database, "worker-2"))
            silence(database, rows(database, database_tables.processes)[0]["id"], seconds)
        list(pruning.prune(database, 300))
    reset_ids(database)


def retried(database: Database) -> None:
    died(database)
    retry_safely(database)


def silent_again(database: Database) -> None:
    silent(database)
    reset_ids(database)


def reset_ids(database: Database) -> None:
    """The operation of a test's own preparation is number 1 on every database."""
    with database.write() as connection:
        if connection.dialect.name == "mysql":
            connection.execute(text("ALTER TABLE jq_operations AUTO_INCREMENT = 1"))
        elif connection.dialect.name == "postgresql":
            connection.execute(text("ALTER SEQUENCE jq_operations_id_seq RESTART"))
        else:
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'jq_operations'"))


def retry_safely(database: Database) -> None:
    retry_jobs(database, selection=Selection(chosen=Filter(deaths=frozenset(Death))), safe=True, queue_as="q")


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
        ("enqueue", "PlainJob", "--stdin"), empty, enqueue_if_none, {READY: 3}, lambda _: "[1]\n[2]\n[3]\n"
    ),
    "claim": Case(("claim",), ready, claim, {CLAIMED: 4, BLOCKED: 1}),
    "finish": Case(("finish",), claimed, end_all(endings.finish), {FINISHED: 4} | HANDED_ON),
    "fail": Case(("fail",), claimed, end_all(endings.fail, ERROR), {FAILED: 4} | HANDED_ON),
    "deregister": Case(("deregister",), claimed, deregister_all, {READY: 4, BLOCKED: 1}),
    "exited": Case(("exited",), claimed, end_all(endings.fail, ERROR), {FAILED: 4} | HANDED_ON),
    "dispatch": Case(("dispatch",), due, lambda database: database.transact(dispatch.dispatch, 10), {READY: 3}),
    "prune": Case(("prune",), silent, lambda database: list(pruning.prune(database, 300)), {FAILED: 4} | HANDED_ON),
    "missing": Case(("prune",), orphaned, pruning.fail_orphans, {FAILED: 4} | HANDED_ON),
    "retry": Case(("retry", "-"), has_failed, retry_all, {READY: 4, SCHEDULED: 1}, failed_ids),
    "safe": Case(
        ("retry", "--safe", "--yes", "--batch", "2", "--queue-as", "q"), died, retry_safely, {READY: 3, SCHEDULED: 2}
    ),
    "discarding": Case(("discard", "--died", "--yes", "--batch", "2"), died, discard_died, {}),
    "undo": Case(("undo", "1"), retried, undo_all, {FAILED: 5}),
    "recover": Case(("recover",), silent_again, recover_again, {FAILED: 4} | HANDED_ON),
    "pause": Case(
        ("queues", "pause", "default"),
        ready,
        lambda database: database.transact(pauses.pause, "default"),
        {READY: 4, BLOCKED: 1},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_killed_between_any_two_statements(database: Database, shell: Shell, kind: str, name: str) -> None:
    case = CASES[name]
    if kind != "sqlite" and name in {"prune", "missing", "retry", "safe", "discarding", "undo", "recover"}:
        # Each step takes a server half a second. The offset differs, so that both together see most steps.
        shell.environment |= {"JQ_TEST_STRIDE": "2", "JQ_TEST_FIRST": "1" if kind == "postgresql" else "2"}
    killed = 0
    with killer(shell.url, shell, case.command) as run:
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
    # A server takes up to a second to make all tables, and each statement is a step.
    stride = {"JQ_TEST_STRIDE": {"mariadb": "4", "postgresql": "3"}.get(kind, "1")}
    database = Database(empty_url)
    everything = {
        table.name for metadata in (database_tables.solid_queue, database_tables.jq) for table in metadata.sorted_tables
    }
    killed = 0
    with killer(url, Shell(url, tmp_path, stride), ("init",)) as run:
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
    assert values in ([], [int(case.prepare in {died, retried})])  # where all have failed, it is free
    archived = Counter(row["job_id"] for row in rows(database, failures))
    assert set(archived.values()) <= {1}
    crashes = Counter(row["job_id"] for row in rows(database, database_tables.crashes))
    assert set(crashes.values()) <= {1}
    if case.prepare in {died, retried}:
        assert len(crashes) == len(archived) == 5
        assert {row["queue_name"] for row in rows(database, jobs)} <= {"q" if case.prepare is died else "default"}
    if case.prepare is has_failed:
        assert len(archived) == 4
        assert sum(row["jobs"] for row in rows(database, operations)) == len(archived)
        assert not [row for row in rows(database, jobs) if '"executions":4' in row["arguments"]]


KILLED = -signal.SIGKILL


@contextmanager
def killer(url: str, shell: Shell, command: tuple[str, ...]) -> Iterator[Callable[[str], int]]:
    """Start killer.py; give a function that runs the command once and returns its exit status."""
    program = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "killer.py"), url, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=shell.env(url),
        cwd=shell.folder,
    )
    stdin, stdout = program.stdin, program.stdout
    assert stdin is not None
    assert stdout is not None

    def run(given: str) -> int:
        stdin.write(json.dumps(given) + "\n")
        stdin.flush()
        return int(stdout.readline())

    try:
        yield run
    finally:
        program.kill()
        program.communicate()


def clear(database: Database) -> None:
    tables = [*reversed(database_tables.solid_queue.sorted_tables), *database_tables.LEDGER]
    with database.write() as connection:
        for table in tables:
            connection.execute(delete(table))
