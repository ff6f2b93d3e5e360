"""Interleavings: actors that run one at a time, and a schedule that decides who goes on at each statement.

An actor stops before each statement that it sends, and before each commit, where the moves of others could make a
difference. They cannot before a read of tables that the others leave alone, before the end of a transaction that has
only read, and, on SQLite, within a transaction: it reads one snapshot, or is the only one that writes.

Without preemptions the first actor that can go on does so until it ends or waits for a lock. A preemption
``step: actor`` lets another one go on at that step instead. So a schedule is a few numbers, and does the same again.
"""

import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, event

from support.waiting import PATIENCE

Schedule = Mapping[int, int]  # at which step which actor goes on instead
Move = Callable[[], Any]
LOOK = 0.002  # seconds that a statement gets before the database is asked whether it waits for a lock
TAKES_WRITE_LOCK = "BEGIN IMMEDIATE"  # of SQLite
COMMIT = "COMMIT"
_READS = ("SELECT", "DESCRIBE", "SHOW")
_LOCKS = re.compile(r"\bFOR (UPDATE|NO KEY UPDATE|SHARE|KEY SHARE)\b|\bLOCK IN SHARE MODE\b")
_NAME = re.compile(r"\b(?:solid_queue|jq)_[a-z_]+")


class Locks(Protocol):
    """What a database says of its locks."""

    def waiting(self) -> set[int]:
        """Return the sessions that wait for a lock."""

    def session_of(self, connection: Connection) -> int:
        """Return the session of an actor's connection."""

    def write_lock_is_free(self) -> bool:
        """Whether a transaction that begins with TAKES_WRITE_LOCK would begin at once."""


@dataclass
class Actor:
    """A program with connections of its own, in a thread of its own."""

    move: Move
    locks: Locks
    changed: threading.Event  # shared: some actor stopped or ended
    at_gate: threading.Event = field(default_factory=threading.Event)  # it waits for its turn
    turn: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    written: frozenset[str] = frozenset()  # tables that others write
    next: str = ""  # the statement that it will send
    has_written: bool = False  # in this transaction
    sent: list[str] = field(default_factory=list)
    session: int = 0  # the server's session that executes its statements
    error: BaseException | None = None

    def run(self) -> None:
        _running.actor = self
        try:
            self.move()
        except BaseException as error:  # noqa: BLE001  (raised again by the test's own thread)
            self.error = error
        finally:
            self.ended.set()
            self.changed.set()

    def reach(self, connection: Connection, statement: str) -> None:
        """Stop before a statement, if it matters who goes on there."""
        if self.ended.is_set():
            return
        self.sent.append(statement)
        if connection.dialect.name == "sqlite":
            matters = statement.startswith("BEGIN")
        elif statement == COMMIT:
            matters, self.has_written = self.has_written, False
        elif is_read(statement):
            matters = not self.written.isdisjoint(_NAME.findall(statement))
        else:
            matters = self.has_written = not statement.startswith(("SAVEPOINT", "RELEASE"))
        if matters:
            self.session = self.locks.session_of(connection)
            self.wait(statement)

    def wait(self, statement: str) -> None:
        """Stop until it is this actor's turn."""
        self.next = statement
        self.at_gate.set()
        self.changed.set()
        self.turn.wait()  # as long as the others take: the scheduler alone gives up
        self.turn.clear()


_running = threading.local()


def is_read(statement: str) -> bool:
    """Whether a statement neither changes nor locks a row."""
    return statement.lstrip().startswith(_READS) and not _LOCKS.search(statement)


def tables_written(statements: Iterable[str]) -> set[str]:
    """Return the tables that are named in statements that write or lock."""
    return {name for statement in statements if not is_read(statement) for name in _NAME.findall(statement)}


def _before_statement(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
    actor: Actor | None = getattr(_running, "actor", None)
    if actor is not None:
        actor.reach(connection, statement)


def _before_commit(connection: Connection) -> None:
    _before_statement(connection, None, COMMIT)


@contextmanager
def stops_at_statements() -> Iterator[None]:
    """Let actors stop before each statement and each commit."""
    event.listen(Engine, "before_cursor_execute", _before_statement)
    event.listen(Engine, "commit", _before_commit)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", _before_statement)
        event.remove(Engine, "commit", _before_commit)


@dataclass(frozen=True)
class Run:
    """Who went on at each step, and who else could have."""

    went: Sequence[int]
    could: Sequence[frozenset[int]]
    sent: Sequence[Sequence[str]] = ()  # the statements of each actor


def perform(moves: Sequence[Move], schedule: Schedule, locks: Locks, written: Sequence[Collection[str]] = ()) -> Run:
    """Run the moves as the schedule says; ``written`` are the tables that each of them writes."""
    changed = threading.Event()
    actors = [Actor(move, locks, changed) for move in moves]
    for number, actor in enumerate(actors):
        actor.written = frozenset().union(*(names for other, names in enumerate(written) if other != number))
    threads = [threading.Thread(target=actor.run, daemon=True) for actor in actors]
    for thread in threads:
        thread.start()
    went: list[int] = []
    could: list[frozenset[int]] = []
    current = 0
    deadline = time.monotonic() + PATIENCE
    while not all(actor.ended.is_set() for actor in actors):
        able = _settle(actors, locks, changed)
        if not able:  # a deadlock, which the server ends, or an actor that waits to try again
            assert time.monotonic() < deadline, "nobody can go on"
            continue
        deadline = time.monotonic() + PATIENCE
        wanted = schedule.get(len(went), current)
        current = wanted if wanted in able else min(able)
        could.append(able)
        went.append(current)
        actors[current].at_gate.clear()
        actors[current].turn.set()
    for thread in threads:
        thread.join()
    for actor in actors:
        if actor.error is not None:
            raise actor.error
    return Run(went, could, [actor.sent for actor in actors])


def _settle(actors: Sequence[Actor], locks: Locks, changed: threading.Event) -> frozenset[int]:
    """Wait until each actor has stopped, ended, or waits for a lock; return which can go on."""
    while True:
        changed.clear()
        moving = [actor for actor in actors if not (actor.at_gate.is_set() or actor.ended.is_set())]
        if moving and changed.wait(LOOK):
            continue
        if not moving or {actor.session for actor in moving} <= locks.waiting():
            break
    stopped = [(number, actor.next) for number, actor in enumerate(actors) if actor.at_gate.is_set()]
    free = not any(statement == TAKES_WRITE_LOCK for _, statement in stopped) or locks.write_lock_is_free()
    return frozenset(number for number, statement in stopped if free or statement != TAKES_WRITE_LOCK)


def explore(run: Callable[[Schedule], Run], preemptions: int) -> Iterator[Schedule]:
    """Run and yield each schedule with at most so many preemptions once.

    A preemption interrupts an actor that could go on. Who begins, and who follows one that ended or waits, costs none.
    """
    todo: list[tuple[dict[int, int], int, int]] = [({}, 0, 0)]
    while todo:
        schedule, start, used = todo.pop()
        made = run(schedule)
        yield schedule
        for step in range(start, len(made.went)):
            cost = used + (step > 0 and made.went[step - 1] in made.could[step])
            if cost <= preemptions:
                others = sorted(made.could[step] - {made.went[step]})
                todo += [({**schedule, step: other}, step + 1, cost) for other in others]


def at_random(random: Random, actors: int, steps: int, probability: float = 0.3) -> dict[int, int]:
    """Return a schedule with any number of preemptions."""
    return {step: random.randrange(actors) for step in range(steps) if random.random() < probability}


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> dict[int, int]:
    """Leave out each preemption without which the schedule still fails."""
    left = dict(schedule)
    for step in schedule:
        without = {each: actor for each, actor in left.items() if each != step}
        if fails(without):
            left = without
    return left
