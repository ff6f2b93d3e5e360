"""Interleavings: actors that run one at a time on PostgreSQL, and a schedule that decides who goes on at a statement.

An actor stops before each statement that it sends, and before each commit. Without preemptions the first actor that can
go on does so until it ends or waits for a lock. A preemption ``step: actor`` lets another one go on at that step
instead. So a schedule is a few numbers, and does the same again.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations, product
from random import Random
from typing import Any

from psycopg import Connection
from sqlalchemy import Engine, event

from solidjq import Database
from support.waiting import PATIENCE

Schedule = Mapping[int, int]  # at which step which actor goes on instead
Move = Callable[[Database], Any]
LOOK = 0.003  # seconds that a statement gets before it may be one that waits for a lock


@dataclass
class Actor:
    """A program with connections of its own, in a thread of its own."""

    database: Database
    move: Move
    at_gate: threading.Event = field(default_factory=threading.Event)  # it waits for its turn
    turn: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    changed: threading.Event = field(default_factory=threading.Event)  # shared: some actor stopped or ended
    backend: int = 0  # the server's process that executes its statements
    error: BaseException | None = None

    def run(self) -> None:
        _running.actor = self
        try:
            self.wait()
            self.move(self.database)
        except BaseException as error:  # noqa: BLE001  (raised again by the test's own thread)
            self.error = error
        finally:
            self.ended.set()
            self.changed.set()

    def wait(self) -> None:
        """Stop until it is this actor's turn."""
        self.at_gate.set()
        self.changed.set()
        assert self.turn.wait(PATIENCE), "its turn never came"
        self.turn.clear()


_running = threading.local()


def _stop_here(connection: Any, *_: object) -> None:
    actor: Actor | None = getattr(_running, "actor", None)
    if actor is not None and not actor.ended.is_set():
        actor.backend = connection.connection.driver_connection.info.backend_pid
        actor.wait()


@contextmanager
def stops_at_statements() -> Iterator[None]:
    """Let actors stop before each statement and each commit."""
    for moment in ("before_cursor_execute", "commit"):
        event.listen(Engine, moment, _stop_here)
    try:
        yield
    finally:
        for moment in ("before_cursor_execute", "commit"):
            event.remove(Engine, moment, _stop_here)


@dataclass
class Stage:
    """Where actors perform; ``watcher`` is a connection that sees who waits for a lock."""

    databases: Sequence[Database]
    watcher: Connection[Any]

    def perform(self, moves: Sequence[Move], schedule: Schedule) -> tuple[list[int], list[set[int]]]:
        """Run the moves; return who went on at each step, and who else could have."""
        changed = threading.Event()
        actors = [Actor(own, move, changed=changed) for own, move in zip(self.databases, moves, strict=False)]
        threads = [threading.Thread(target=actor.run, daemon=True) for actor in actors]
        for thread in threads:
            thread.start()
        went: list[int] = []
        could: list[set[int]] = []
        current = 0
        deadline = time.monotonic() + PATIENCE
        while not all(actor.ended.is_set() for actor in actors):
            able = self._settle(actors)
            if not able:  # a deadlock, which the server ends, or an actor that waits to try again
                assert time.monotonic() < deadline, "nobody can go on"
                continue
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
        return went, could

    def _settle(self, actors: Sequence[Actor]) -> set[int]:
        """Wait until each actor has stopped, ended, or waits for a lock; return which can go on."""
        while True:
            actors[0].changed.clear()
            moving = [actor for actor in actors if not (actor.at_gate.is_set() or actor.ended.is_set())]
            if moving and actors[0].changed.wait(LOOK):
                continue
            if not moving or {actor.backend for actor in moving} <= self._waiting():
                return {number for number, actor in enumerate(actors) if actor.at_gate.is_set()}

    def _waiting(self) -> set[int]:
        return {pid for (pid,) in self.watcher.execute("SELECT pid FROM pg_locks WHERE NOT granted").fetchall()}


def within(preemptions: int, could: Sequence[set[int]], went: Sequence[int]) -> Iterator[dict[int, int]]:
    """Yield every schedule of so many preemptions, at the steps of a run without any."""
    for steps in combinations(range(len(went)), preemptions):
        for chosen in product(*(sorted(could[step] - {went[step]}) for step in steps)):
            yield dict(zip(steps, chosen, strict=True))


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
