"""What a peer's script understands: ``python SCRIPT VERB JSON`` prints one line of JSON.

about    -> versions and settings, what is measured, and a query that is true when nothing is left to do
install  make its tables
fill     enqueue so many jobs in whatever way is quick; not measured
enqueue  -> seconds of enqueuing so many jobs
work     run a worker with a setting, until it is told to end
send     enqueue jobs one by one at an idle worker, each with the time of its enqueuing
pour     -> seconds of enqueuing so many jobs at a rate, each with the time of its enqueuing
hold     enqueue jobs that sleep until they are killed, and do nothing in their next run
fail     leave so many jobs as the peer leaves failed ones
retry    -> seconds of putting all of them back
list     -> seconds of reading the newest 100 of them a second time

The database's URL is in BENCH_DATABASE_URL.
"""

import asyncio
import json
import os
import platform
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

T = TypeVar("T")
URL = os.environ.get("BENCH_DATABASE_URL", "")
BATCH = 1000


def answer(**verbs: Callable[..., Any]) -> None:
    """Do what the command line asks for."""
    print(json.dumps(verbs[sys.argv[1]](**json.loads(sys.argv[2]))))


def versions(*packages: str) -> dict[str, str]:
    """Spell what is measured, and on which Python."""
    spelled = ", ".join(f"{package} {version(package)}" for package in packages)
    return {"versions": spelled, "python": platform.python_version()}


def in_batches(items: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """Cut into batches."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def gaps(count: int) -> Iterator[float]:
    """Yield so many pauses, in seconds, between jobs for an idle worker; the same ones for every peer."""
    dice = random.Random(1)  # noqa: S311
    for _ in range(count):
        yield dice.uniform(0.2, 0.4)


async def send_one_by_one(count: int, send: Callable[[float], Awaitable[object]]) -> None:
    """Enqueue one job after each pause."""
    for gap in gaps(count):
        await asyncio.sleep(gap)
        await send(time.time())
