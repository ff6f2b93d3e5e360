"""Every interleaving of two moves' statements with few preemptions, on PostgreSQL: one state, one ending, nothing lost.

JQ_TEST_PREEMPTIONS=2 makes all that have one or two, JQ_TEST_PREEMPTIONS=1 all that have one. By default it is a sample
of those that have one. Beside them, some at random have any number.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from random import Random

import audit
import oracle
import psycopg
import pytest
from interleaving import Move, Schedule, Stage, at_random, shrink, stops_at_statements, within
from sqlalchemy import Connection, delete, text, update
from sqlalchemy.engine import URL

from solidjq import Database, enqueue
from solidjq.database import tables
from solidjq.database.times import ago
from solidjq.errors import ConflictError, ProcessGoneError
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.queue import claim, dispatch, endings
from solidjq.queue.concurrency import Limit
from solidjq.recovery import undo
from support.databases import connected, execute
from support.deaths import ALL, die
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all, plain_jobs, rows, take_turn
from support.recovery import retry_jobs
from support.scenes import limited

PREEMPTIONS = int(os.environ.get("JQ_TEST_PREEMPTIONS", "0"))
SAMPLE = 2  # schedules of one preemption, for each who begins
RANDOM = 2 + 20 * PREEMPTIONS  # schedules with any number of preemptions
STEPS = 60  # of a schedule at random
ONE = {"Limited": Limit(1)}
TABLES = (
    *(table.name for table in tables.solid_queue.sorted_tables),
    *(table.name for table in tables.LEDGER),
    "chaos_audit",
)


# -- actors -----------------------------------------------------------------------------------------------------------


def process_of(own: Database, name: str) -> int:
    return next((row["id"] for row in rows(own, tables.processes) if row["name"] == name), 0)


def work(own: Database) -> None:
    """Take two turns of a worker: claim, then end what was claimed and claim others."""
    worker = process_of(own, "alive")
    claims = take_turn(own, worker, [], ("*",), 2)

    def turn(connection: Connection) -> None:
        endings.finish_claims(connection, [each.id for each in claims], ONE)
        claim.claim(connection, worker, ("*",), 2)

    own.transact(turn)


def wake(own: Database) -> None:
    """End what a worker had claimed that others take for dead."""
    own.transact(endings.finish, endings.claims_of(process_of(own, "dead")), ONE)


MOVES: dict[str, Move] = {
    "work": work,
    "wake": wake,
    "prune": lambda own: list(pruning.prune(own, 300)),
    "retry": lambda own: retry_jobs(own, selection=ALL, operation=Operation("retry")),
    "undo": lambda own: list(undo.undo(own, 1, Operation("undo"))),
    "discard failed": lambda own: retry_jobs(own, selection=ALL, operation=Operation("discard"), discard=True),
    "dispatch": lambda own: own.transact(dispatch.dispatch, 10, ONE),
    "enqueue": lambda own: own.transact(enqueue, limited(1, "Limited/b")),
}
TOGETHER = [*combinations(MOVES, 2), *((name, name) for name in MOVES if name != "wake")]
THREE = [("work", "prune", "undo"), ("wake", "prune", "retry"), ("work", "dispatch", "enqueue")]


# -- the stage --------------------------------------------------------------------------------------------------------


def prepare(database: Database) -> None:
    """Give each actor something to do, and most of it to two of them."""
    add_jobs(database, *plain_jobs(3), *limited(1, "Limited/a"))
    die(database)
    retry_jobs(database, selection=replace(ALL, limit=2), operation=Operation("retry"))  # one waits, two have failed
    add_jobs(database, *limited(1, "Limited/a"))
    with database.write() as connection:
        connection.execute(update(tables.scheduled).values(scheduled_at=ago(1)))
    add_jobs(database, *limited(2, "Limited/b"), *plain_jobs(1, priority=-1))
    dead = add_process(database, "dead", pid=1)
    claim_all(database, dead, 2)
    silence(database, dead, 1000)
    add_process(database, "alive", pid=2)
    add_jobs(database, *plain_jobs(1))


class Theatre:
    """A stage on a database that is the same before each performance."""

    def __init__(self, url: URL, connection: Connection) -> None:
        self._connection = connection
        execute(url, "CREATE SCHEMA saved", *(f"CREATE TABLE saved.{name} AS TABLE {name}" for name in TABLES))
        address = {"host": str(url.query["host"]), "user": url.username, "dbname": url.database, "autocommit": True}
        self._watcher = psycopg.connect(**address)
        self._databases = [Database(url) for _ in range(3)]
        for database in self._databases:
            database.now()  # what a connection does at first is no part of a schedule
        self.stage = Stage(self._databases, self._watcher)
        again = "; ".join(f"DELETE FROM {name}; INSERT INTO {name} TABLE saved.{name}" for name in TABLES)  # noqa: S608
        self._again = f"BEGIN; SET LOCAL session_replication_role = replica; {again}; COMMIT"

    def violations(self, moves: Sequence[str], schedule: Schedule) -> list[str]:
        """Perform the moves, and return what is wrong afterwards."""
        self.went, self.could = self.perform(moves, schedule)
        evidence = oracle.gather(self._connection, [], threshold=300, limit=1)
        return [*oracle.paths(evidence), *oracle.records(evidence), *limits(evidence, self._connection)]

    def perform(self, moves: Sequence[str], schedule: Schedule) -> tuple[list[int], list[set[int]]]:
        self._watcher.execute(self._again)
        return self.stage.perform([forgiving(MOVES[name]) for name in moves], schedule)

    def close(self) -> None:
        self._watcher.close()
        for database in self._databases:
            database.close()


def forgiving(move: Move) -> Move:
    """Let a worker be told that it was pruned, and an undo that there is nothing to undo any more."""

    def forgive(own: Database) -> None:
        with suppress(ProcessGoneError, ConflictError):
            move(own)

    return forgive


def limits(evidence: oracle.Evidence, connection: Connection) -> Iterator[str]:
    """Every job is in one state, no key holds more slots than its limit, and no slot is lost or counted twice."""
    for job_id, states in evidence.states.items():
        if len(states) != 1:
            yield f"job {job_id} is in the states {states}"
    keys = connection.execute(
        text("SELECT id, concurrency_key FROM solid_queue_jobs WHERE concurrency_key IS NOT NULL")
    )
    held: Counter[str] = Counter()
    for job_id, key in keys:
        held[key] += evidence.states[job_id][:1] in (["ready"], ["claimed"])
    for key, count in held.items():
        if count > 1:
            yield f"{count} jobs of {key} hold its one slot"
        if evidence.semaphores.get(key, 1) != 1 - count:
            yield f"{key} has {evidence.semaphores.get(key)} free slots, and {count} jobs hold one"


@pytest.fixture(scope="module")
def theatre(postgresql_server: URL, postgresql_template: str) -> Iterator[Theatre]:
    name = "queue_of_interleavings"
    execute(postgresql_server, f"CREATE DATABASE {name} TEMPLATE {postgresql_template}")
    url = postgresql_server.set(database=name)
    execute(url, f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
    audit.install(url)
    database = Database(url)
    prepare(database)
    database.close()
    with connected(url, isolation_level="AUTOCOMMIT") as connection, stops_at_statements():
        made = Theatre(url, connection)
        yield made
        made.close()
    execute(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


def schedules(theatre: Theatre, moves: Sequence[str]) -> Iterator[Schedule]:
    """Yield every schedule with few preemptions, or a sample, then some at random."""
    random = Random(str(moves))  # noqa: S311
    for first in range(len(moves)):  # whoever begins, the others follow in their order
        went, could = theatre.perform(moves, {0: first})
        yield {0: first}
        ones = [schedule for schedule in within(1, could, went) if 0 not in schedule]
        for schedule in ones if PREEMPTIONS else random.sample(ones, min(SAMPLE, len(ones))):
            yield {0: first, **schedule}
        for schedule in within(2, could, went) if PREEMPTIONS > 1 else ():
            if 0 not in schedule:
                yield {0: first, **schedule}
    for _ in range(RANDOM):
        yield at_random(random, len(moves), STEPS)


@pytest.mark.parametrize("moves", [*TOGETHER, *THREE], ids=" + ".join)
def test_no_interleaving_breaks_a_promise(
    theatre: Theatre, moves: Sequence[str], record_property: Callable[[str, object], None]
) -> None:
    made: set[tuple[int, ...]] = set()  # who went on at each step
    for count, schedule in enumerate(schedules(theatre, moves), 1):
        if found := theatre.violations(moves, schedule):
            least = shrink(schedule, lambda fewer: bool(theatre.violations(moves, fewer)))
            pytest.fail(f"schedule {least} of {moves}: {found}")
        made.add(tuple(theatre.went))
        record_property("schedules", count)
    record_property("different interleavings", len(made))
    assert len(made) > len(moves)


def test_a_move_that_trusts_what_it_read_before_is_found(theatre: Theatre) -> None:
    """The scheduler finds what it is for, and leaves of a long schedule what matters."""

    def careless(own: Database) -> None:
        ids = [row["job_id"] for row in rows(own, tables.failed)]
        with own.write() as connection:  # neither locks nor looks again
            connection.execute(delete(tables.failed).where(tables.failed.c.job_id.in_(ids)))
            connection.execute(delete(tables.jobs).where(tables.jobs.c.id.in_(ids)))

    MOVES["careless"] = careless
    moves = ("careless", "retry")
    try:
        wrong = [one for one in schedules(theatre, moves) if theatre.violations(moves, one)]
        assert wrong
        longest = max(wrong, key=len)
        least = shrink(longest, lambda fewer: bool(theatre.violations(moves, fewer)))
        assert len(least) <= 2
    finally:
        del MOVES["careless"]
