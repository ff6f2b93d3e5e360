"""The actors of the interleavings, what they find in the queue, and what must hold when all have ended."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import oracle
from interleaving import Run, Schedule, perform, tables_written
from sqlalchemy import Connection, delete, select, text, update
from theatre import Theatre

from solidjq import Database, NewJob, enqueue
from solidjq.database import tables
from solidjq.database.times import ago
from solidjq.errors import ConflictError, ProcessGoneError
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.queue import claim, dispatch, endings, slot_maintenance
from solidjq.queue.concurrency import Limit
from solidjq.recovery import undo
from solidjq.runtime.unrecorded import Ending
from solidjq.runtime.worker import _end_free
from support.deaths import ALL, die
from support.processes import add_process
from support.queue import add_jobs, claim_all, plain_jobs, take_turn
from support.recovery import retry_jobs

ONE = {"Limited": Limit(1)}
LOST = "lost"  # a key that has lost its slot before anybody moves
DAY = 86400.0  # seconds
DEAD, ALIVE, RAILS = "dead", "alive", "rails"
"""Names of the processes of the scene: silent, a worker of ours, one of a Rails application."""


@dataclass(frozen=True)
class Seat:
    """Where an actor sits: its connections, and the scene's processes by name."""

    own: Database
    theatre: Theatre
    number: int
    processes: dict[str, int]

    @property
    def rails(self) -> Any:
        return self.theatre.rails[self.number]


def work(seat: Seat) -> None:
    """Take two turns of a worker: claim, then end what was claimed and claim others."""
    worker = seat.processes[ALIVE]
    claims = take_turn(seat.own, worker, [], ("*",), 2)

    def turn(connection: Connection) -> None:
        endings.finish_claims(connection, worker, {each.id: each.job_id for each in claims}, ONE)
        claim.claim(connection, worker, ("*",), 2)

    seat.own.transact(turn)


def end_what_is_free(seat: Seat) -> None:
    """End, of what a worker had claimed that others take for dead, what nobody has locked; then the rest."""
    process = seat.processes[DEAD]
    with seat.own.read() as connection:
        held = connection.execute(select(tables.claimed).where(endings.claims_of(process))).all()
    batch = [Ending(claim.Claim(each.id, each.job_id, None, "", 0, "", None, None)) for each in held]
    left = seat.own.transact(_end_free, process, batch, ONE, None)
    late = {each.id: each.job_id for each in held if each.id in left}
    seat.own.transact(endings.finish_claims, process, late, ONE)


def maintain(seat: Seat) -> None:
    """Do what a dispatcher does for concurrency limits, at an interval. It refills keys that were short before."""
    own = seat.own
    list(slot_maintenance.expire_semaphores(own))
    for key in own.transact(slot_maintenance.expired_keys, 10):
        own.transact(slot_maintenance.unblock_one, key, ONE)
    still = {f"Limited/{LOST}"}.intersection(own.transact(slot_maintenance.find_short, ONE, 10))
    own.transact(slot_maintenance.refill, still, ONE)


Moves = dict[str, Callable[[Seat], Any]]
OURS: Moves = {
    "work": work,
    "wake": lambda seat: seat.own.transact(endings.finish, endings.claims_of(seat.processes[DEAD]), ONE),
    "end what is free": end_what_is_free,
    "prune": lambda seat: list(pruning.prune(seat.own, 300)),
    "retry": lambda seat: retry_jobs(seat.own, selection=ALL, operation=Operation("retry")),
    "retry --safe": lambda seat: retry_jobs(seat.own, selection=ALL, operation=Operation("retry"), safe=True),
    "undo": lambda seat: list(undo.undo(seat.own, 1, Operation("undo"))),
    "discard": lambda seat: retry_jobs(seat.own, selection=ALL, operation=Operation("discard"), discard=True),
    "dispatch": lambda seat: seat.own.transact(dispatch.dispatch, 10, ONE),
    "maintain": maintain,
    "enqueue": lambda seat: seat.own.transact(enqueue, _limited(1, "b")),
}
OF_RAILS: Moves = {
    "Rails: claim": lambda seat: seat.rails.claim(seat.processes[RAILS]),
    "Rails: finish": lambda seat: seat.rails.finish(seat.processes[RAILS]),
    "Rails: release": lambda seat: seat.rails.release(seat.processes[RAILS]),
    "Rails: prune": lambda seat: seat.rails.prune(),
    "Rails: retry_all": lambda seat: seat.rails.retry_all(),
    "Rails: discard_all": lambda seat: seat.rails.discard_all(),
    "Rails: dispatch": lambda seat: seat.rails.dispatch(),
    "Rails: maintain": lambda seat: seat.rails.maintain(),
}
MOVES: Moves = {**OURS, **OF_RAILS}
UNARCHIVED = {"Rails: retry_all", "Rails: discard_all"}  # they keep no record of the failures that they remove
PAIRS: list[tuple[str, ...]] = [
    *combinations(OURS, 2),
    *((name, name) for name in OURS if name not in {"wake", "end what is free"}),
    *((ours, theirs) for ours in OURS for theirs in OF_RAILS),
]
TRIPLES: list[tuple[str, ...]] = [
    ("work", "prune", "undo"),
    ("wake", "prune", "retry"),
    ("work", "dispatch", "enqueue"),
    ("work", "prune", "Rails: prune"),
    ("retry --safe", "undo", "Rails: retry_all"),
    ("prune", "dispatch", "Rails: finish"),
    ("work", "maintain", "Rails: dispatch"),
]


def prepare(database: Database) -> None:
    """Give each actor something to do, and most of it to two of them."""
    add_jobs(database, *plain_jobs(2), *_limited(1, "a"))
    die(database)
    retry_jobs(database, selection=replace(ALL, limit=1), operation=Operation("retry"))  # one waits, two have failed
    add_jobs(database, *_limited(1, "a"), *plain_jobs(1, delay=3600))
    with database.write() as connection:
        connection.execute(update(tables.scheduled).values(scheduled_at=ago(1)))
    add_jobs(database, *_limited(2, "b"), *plain_jobs(1, priority=-1))
    claim_all(database, add_process(database, DEAD, pid=1), 3)
    add_process(database, ALIVE, pid=2)
    add_jobs(database, *plain_jobs(1, priority=-9), *_limited(2, "c", priority=-9))
    claim_all(database, add_process(database, RAILS, pid=3), 2)
    held, _ = add_jobs(database, *_limited(2, LOST))
    with database.write() as connection:
        connection.execute(delete(tables.jobs).where(tables.jobs.c.id == held))  # and nobody gives its slot back
        for table in (tables.semaphores, tables.blocked):  # however long it takes to make all interleavings
            connection.execute(update(table).values(expires_at=ago(-DAY)))
        connection.execute(update(tables.processes).values(last_heartbeat_at=ago(-DAY)))
        of_lost = tables.blocked.c.concurrency_key == f"Limited/{LOST}"
        connection.execute(update(tables.blocked).where(of_lost).values(expires_at=ago(1)))
        of_dead = tables.processes.c.name == DEAD
        connection.execute(update(tables.processes).where(of_dead).values(last_heartbeat_at=ago(1000)))


def _limited(count: int, key: str, **settings: Any) -> list[NewJob]:
    one = NewJob(class_name="Limited", concurrency_key=f"Limited/{key}", limit=ONE["Limited"], **settings)
    return [one] * count


class Scene:
    """What actors find in a theatre."""

    def __init__(self, theatre: Theatre) -> None:
        self.theatre = theatre
        with theatre.databases[0].read() as connection:
            named = select(tables.processes.c.name, tables.processes.c.id)
            processes: dict[str, int] = dict(connection.execute(named).all())
        self._seats = [Seat(own, theatre, number, processes) for number, own in enumerate(theatre.databases)]
        self.run = Run((), ())
        self._written: dict[str, set[str]] = {}

    def warm(self, names: Sequence[str]) -> None:
        """Let each actor do its part alone: what a connection does at first is no part of a schedule."""
        for seat, name in zip(self._seats, names, strict=False):
            self.theatre.restore()
            alone = perform([_forgiving(MOVES[name], seat)], {}, self.theatre)
            self._written[name] = tables_written(alone.sent[0])

    def perform(self, names: Sequence[str], schedule: Schedule) -> Run:
        """Perform the moves of these names."""
        self.theatre.restore()
        for rails in self.theatre.rails:
            rails.failed = False
        moves = [_forgiving(MOVES[name], seat) for name, seat in zip(names, self._seats, strict=False)]
        self.run = perform(moves, schedule, self.theatre, [self._written[name] for name in names])
        return self.run

    def violations(self, names: Sequence[str], schedule: Schedule) -> list[str]:
        """Perform the moves, and return what is wrong afterwards."""
        self.perform(names, schedule)
        return self.judge(names)

    def judge(self, names: Sequence[str]) -> list[str]:
        """Return what is wrong after the moves of these names."""
        evidence = oracle.gather(self.theatre.oracle, [], threshold=300, limit=1)
        undone = any(rails.failed for rails in self.theatre.rails)
        return [
            *_paths(evidence, names),
            *_records(evidence, names),
            *_states(evidence),
            *_limits(evidence, self.theatre.oracle, exact=not undone),
        ]


def _forgiving(move: Callable[[Seat], Any], seat: Seat) -> Callable[[], None]:
    """Let a worker be told that it was pruned, and an undo that there is nothing to undo any more."""

    def forgive() -> None:
        with suppress(ProcessGoneError, ConflictError):
            move(seat)

    return forgive


def _paths(evidence: oracle.Evidence, names: Sequence[str]) -> Iterator[str]:
    """Return the wrong changes of state. Rails' retry blocks a job whose key has no free slot; ours lets it be due."""
    for violation in oracle.paths(evidence):
        if not ("Rails: retry_all" in names and violation.endswith("went from failed to blocked")):
            yield violation


def _states(evidence: oracle.Evidence) -> Iterator[str]:
    for job_id, states in evidence.states.items():
        if len(states) != 1:
            yield f"job {job_id} is in the states {states}"


def _records(evidence: oracle.Evidence, names: Sequence[str]) -> Iterator[str]:
    """Return what the archive lacks. Rails archives nothing, but what it took away nobody may have archived twice."""
    if UNARCHIVED.isdisjoint(names):
        yield from oracle.records(evidence)
        return
    removed = oracle.removed_failures(evidence)
    yield from oracle.records(replace(evidence, archived=removed))
    for job_id, count in evidence.archived.items():
        if count > removed[job_id]:
            yield f"job {job_id} lost {removed[job_id]} failures; {count} are archived"


def _limits(evidence: oracle.Evidence, connection: Connection, *, exact: bool) -> Iterator[str]:
    """No key holds more slots than its limit, and no slot is lost or counted twice.

    Not ``exact``: Rails was interrupted between the end of a job and that of its slot, so that one may be lost.
    """
    keys = connection.execute(
        text("SELECT id, concurrency_key FROM solid_queue_jobs WHERE concurrency_key IS NOT NULL")
    )
    held: Counter[str] = Counter()
    for job_id, key in keys:
        held[key] += evidence.states[job_id][:1] in (["ready"], ["claimed"])
    for key, count in held.items():
        free = evidence.semaphores.get(key, 1)
        if count > 1:
            yield f"{count} jobs of {key} hold its one slot"
        if free > 1 - count or (exact and free < 1 - count and key != f"Limited/{LOST}"):
            yield f"{key} has {free} free slots, and {count} jobs hold one"
