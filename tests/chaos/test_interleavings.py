"""Interleavings of the statements of two or three moves, Rails' own included: one state, one ending, nothing lost.

CI makes, of some pairs and triples that the seed JQ_TEST_SEED chooses, every schedule in which one move interrupts
another once, on each database. ``make interleavings`` makes all with two interruptions, of all of them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from random import Random

import moves
import pytest
import theatre
from interleaving import at_random, explore, shrink, stops_at_statements
from moves import DEAD, PAIRS, TRIPLES, Scene, Seat, prepare
from sqlalchemy import delete, select, update
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables
from solidjq.database.times import utcnow
from solidjq.queue import endings

SEED = os.environ.get("JQ_TEST_SEED", "1")
CHOSEN = {"sqlite": (8, 2), "postgresql": (2, 1), "mariadb": (1, 1)}  # pairs and triples; preemptions
STEPS = 40  # of a schedule at random


@pytest.fixture
def scene(queue_url: URL, kind: str) -> Iterator[Scene]:
    theatre.install(queue_url)
    database = Database(queue_url)
    prepare(database)
    database.close()
    with stops_at_statements(), theatre.opened(queue_url) as opened:
        yield Scene(opened)


def test_no_interleaving_breaks_a_promise(
    scene: Scene, kind: str, record_property: Callable[[str, object], None]
) -> None:
    count, preemptions = CHOSEN[kind]
    random = Random(f"{SEED} {kind}")  # noqa: S311
    made: set[tuple[object, ...]] = set()
    for names in random.sample([*PAIRS, *TRIPLES], count):
        scene.warm(names)
        for schedule in explore(lambda schedule, names=names: scene.perform(names, schedule), preemptions):  # type: ignore[misc]
            judge(scene, names, schedule)
            made.add((names, *scene.run.went))
        scene.perform(names, schedule := at_random(random, len(names), STEPS))
        judge(scene, names, schedule)
    record_property(f"interleavings of {count} pairs and triples by the seed {SEED}", len(made))
    assert len(made) > count


def judge(scene: Scene, names: Sequence[str], schedule: moves.Schedule) -> None:
    if found := scene.judge(names):
        least = shrink(schedule, lambda fewer: bool(scene.violations(names, fewer)))
        pytest.fail(f"schedule {least} of {names}: {found}; JQ_TEST_SEED={SEED}")


@pytest.mark.sqlite_only
def test_a_move_that_trusts_what_it_read_before_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler finds what it is for, and leaves of a schedule what matters."""

    def careless(seat: Seat) -> None:
        free = select(tables.jobs.c.id).where(tables.jobs.c.concurrency_key.is_(None))
        held = endings.claims_of(seat.processes[DEAD]) & tables.claimed.c.job_id.in_(free)
        with seat.own.read() as connection:
            job_ids = connection.scalars(select(tables.claimed.c.job_id).where(held)).all()
        with seat.own.write() as connection:  # neither locks nor looks again
            connection.execute(update(tables.jobs).where(tables.jobs.c.id.in_(job_ids)).values(finished_at=utcnow()))
            connection.execute(delete(tables.claimed).where(tables.claimed.c.job_id.in_(job_ids)))

    monkeypatch.setitem(moves.MOVES, "careless", careless)
    names = ("careless", "prune")
    scene.warm(names)
    found = explore(lambda schedule: scene.perform(names, schedule), 1)
    wrong = [schedule for schedule in found if scene.judge(names)]
    assert wrong
    assert {} not in wrong
    least = shrink({**wrong[0], 99: 1}, lambda fewer: bool(scene.violations(names, fewer)))
    assert 99 not in least
