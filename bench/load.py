"""How long jobs wait for one worker while others are enqueued all the time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import ours
import watch
from contenders import Plan, each_peer, jq
from figures import Row, percentile
from rivals import Peer

SECONDS = 10  # of enqueuing


def rows(plan: Plan) -> Iterator[Row]:
    """Enqueue at a rate beside one worker."""
    for rate in plan.rates:
        count = rate * SECONDS
        contenders = [
            jq(options, 1, partial(ours.empty, plan.stage), partial(_our_waits, options, count, rate))
            for options in plan.workers
        ]
        contenders += each_peer(plan, "load", partial(_their_waits, count, rate))
        title = f"from enqueue to start, one worker, {rate:,} enqueues a second wanted, for {SECONDS} seconds"
        yield Row("load", title, contenders, plan.runs, rate, "")


def _our_waits(options: str, count: int, rate: int, url: str) -> dict[str, float]:
    return _waits(ours.command(options), ours.environment(url), partial(ours.pour, url, count, rate), count)


def _their_waits(count: int, rate: int, peer: Peer, given: dict[str, Any], url: str) -> dict[str, float]:
    pour = partial(peer.ask, "pour", url, count=count, rate=rate)
    return _waits(peer.command("work", **given), peer.environment(url), pour, count)


def _waits(
    command: Sequence[str], environment: Mapping[str, str], pour: Callable[[], float], count: int
) -> dict[str, float]:
    took: list[float] = []
    waits = watch.latencies(command, environment, lambda: took.append(pour()), count)
    return {
        "enqueued/s": count / took[0],
        "p50 ms": percentile(waits, 0.5) * 1000,
        "p99 ms": percentile(waits, 0.99) * 1000,
    }
