"""The rows: for each, who takes part, with which settings, from which database."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ours
import plain
import watch
from figures import Contender, Row
from rivals import Peer
from stage import Stage

ONE_BY_ONE = 10_000  # more jobs than this are not given to a peer that moves them one at a time
LIST_RUNS = 5  # of what takes milliseconds


@dataclass(frozen=True)
class Plan:
    """How much of it: jobs of a drain, sizes of what recovery moves, runs, and who takes part."""

    stage: Stage
    peers: Sequence[Peer]
    workers: Sequence[str]  # options of jq work, each a contender of its own
    jobs: int
    sizes: Sequence[int]
    runs: int
    latencies: int
    long: int

    def of(self, name: str) -> bool:
        """Tell whether the stage is this database."""
        return self.stage.name == name


# -- who takes part ---------------------------------------------------------------------------------------------------


def _jq(setting: str, jobs: int, start: Callable[[], str], work: Callable[[str], Any]) -> Contender:
    return Contender("jq", setting, jobs, start, work)


def _plain(
    plan: Plan, setting: str, jobs: int, start: Callable[[], str], work: Callable[[str], Any]
) -> list[Contender]:
    """Plain SQL is written for PostgreSQL."""
    return [Contender("plain SQL", setting, jobs, start, work)] if plan.of("PostgreSQL") else []


def _theirs(plan: Plan, verb: str, jobs: int, state: str) -> Iterator[Contender]:
    """Let each peer do a verb with each setting that it names, from its tables or from ``count`` jobs in a state."""
    for peer in plan.peers:
        try:
            settings, one_by_one = peer.about[verb], peer.about.get("one_by_one")
            count = int(jobs * peer.about.get("share", 1)) if verb == "drain" else jobs
        except watch.CrashedError as error:
            yield Contender(peer.name, "", jobs, str, float, error=f"crashed: {error}")
            continue
        for setting, given in settings:
            start = partial(_state, plan.stage, peer, state, count)
            if verb == "drain":
                yield Contender(peer.name, setting, count, start, partial(_drain, plan.stage, peer, given))
            elif one_by_one and count > ONE_BY_ONE:
                yield Contender(peer.name, setting, count, start, float, error="not run: one job at a time")
            else:
                counted = {"count": count} if verb == "enqueue" else {}
                yield Contender(peer.name, setting, count, start, partial(_ask, peer, verb, given | counted))


def _state(stage: Stage, peer: Peer, state: str, count: int) -> str:
    """Return the name of a peer's database: its tables alone, or with so many jobs."""
    tables = stage.prepared(peer.name, partial(peer.ask, "install"))
    if state == "empty":
        return tables
    return stage.prepared(f"{peer.name}_{state}_{count}", partial(peer.ask, state, count=count), tables)


def _ask(peer: Peer, verb: str, given: dict[str, Any], url: str) -> float:
    seconds: float = peer.ask(verb, url, **given)
    return seconds


def _drain(stage: Stage, peer: Peer, given: dict[str, Any], url: str) -> watch.Drain:
    settled = partial(stage.settled, url, peer.about["done"])
    return watch.drain(peer.command("work", **given), peer.environment(url), settled)


def _our_drain(stage: Stage, options: str, url: str) -> watch.Drain:
    return watch.drain(ours.command(options), ours.environment(url), partial(stage.settled, url, ours.DONE))


# -- the rows ---------------------------------------------------------------------------------------------------------


def enqueue(plan: Plan) -> Iterator[Row]:
    """Bulk enqueue."""
    empty = partial(ours.empty, plan.stage)
    yield Row(
        "enqueue",
        f"bulk enqueue of {plan.jobs:,} jobs",
        [
            _jq("1,000 a transaction", plan.jobs, empty, partial(ours.enqueue_many, count=plan.jobs)),
            *_plain(plan, "1,000 a statement", plan.jobs, empty, partial(plain.enqueue, count=plan.jobs, batch=1000)),
            *_theirs(plan, "enqueue", plan.jobs, "empty"),
        ],
        plan.runs,
        plan.jobs,
    )


def drain(plan: Plan) -> Iterator[Row]:
    """Drain."""
    ready = partial(ours.enqueued, plan.stage, plan.jobs)
    mine = [_jq(options, plan.jobs, ready, partial(_our_drain, plan.stage, options)) for options in plan.workers]
    batches = [
        contender
        for batch in (100, 1000)
        for contender in _plain(plan, f"{batch:,} a batch", plan.jobs, ready, partial(plain.drain, batch=batch))
    ]
    theirs = _theirs(plan, "drain", plan.jobs, "fill")
    yield Row(
        "drain", f"drain of {plan.jobs:,} no-op jobs by one worker", [*mine, *batches, *theirs], plan.runs, plan.jobs
    )


def memory(plan: Plan) -> Iterator[Row]:
    """Drain for long, once, and look at the worker's memory."""
    ready = partial(ours.enqueued, plan.stage, plan.long)
    mine = [_jq(options, plan.long, ready, partial(_our_drain, plan.stage, options)) for options in plan.workers]
    yield Row("memory", f"long drain of {plan.long:,} no-op jobs", mine, 1, plan.long)


def latency(plan: Plan) -> Iterator[Row]:
    """Send jobs to an idle worker one by one."""

    def gaps() -> Iterator[float]:  # those of bench/peers/verbs.py
        dice = random.Random(1)  # noqa: S311
        return (dice.uniform(0.2, 0.4) for _ in range(plan.latencies))

    def mine(options: str, url: str) -> list[float]:
        send = partial(ours.send, url, gaps())
        return watch.latencies(ours.command(options), ours.environment(url), send, plan.latencies)

    def theirs(peer: Peer, given: dict[str, Any], url: str) -> list[float]:
        send = partial(peer.ask, "send", url, count=plan.latencies)
        return watch.latencies(peer.command("work", **given), peer.environment(url), send, plan.latencies)

    contenders = [_jq(options, 1, partial(ours.empty, plan.stage), partial(mine, options)) for options in plan.workers]
    for each in _theirs(plan, "drain", 1, "empty"):
        peer = next(peer for peer in plan.peers if peer.name == each.who)
        if each.error is None:
            given = next(given for setting, given in peer.about["drain"] if setting == each.setting)
            each.work = partial(theirs, peer, given)
        contenders.append(each)
    yield Row("latency", "from enqueue to start, idle worker", contenders, 1, 0, "ms each")


def prune(plan: Plan) -> Iterator[Row]:
    """Prune one process with so many claims."""
    for size in plan.sizes:
        claimed = partial(ours.claimed, plan.stage, size)
        contenders = [
            _jq("prune", size, claimed, ours.prune),
            *_plain(plan, "three statements", size, claimed, plain.prune),
        ]
        yield Row("prune", f"prune of {size:,} claims", contenders, plan.runs, size)


def retry(plan: Plan) -> Iterator[Row]:
    """Put failed jobs back: those that failed, and those that died."""
    for size in plan.sizes:
        failed, died = partial(ours.failed, plan.stage, size), partial(ours.died, plan.stage, size)
        contenders = [
            _jq("retry", size, failed, ours.retry),
            _jq("retry --safe", size, died, ours.retry_safely),
            *_plain(plan, "1,000 a batch", size, failed, partial(plain.retry, batch=1000)),
            *_theirs(plan, "retry", size, "fail"),
        ]
        yield Row("retry", f"retry of {size:,} failed jobs", contenders, plan.runs, size)


def first_page(plan: Plan) -> Iterator[Row]:
    """Read the newest 100 failures of a large table."""
    for size in plan.sizes:
        failed = partial(ours.failed, plan.stage, size)
        contenders = [
            _jq("failed list --limit 100", 1, failed, ours.first_page),
            *_plain(plan, "one statement", 1, failed, plain.first_page),
        ]
        for peer in plan.peers:
            if peer.about.get("list"):
                start = partial(_state, plan.stage, peer, "fail", size)
                work = partial(_ask, peer, "list", {})
                contenders.append(Contender(peer.name, peer.about["list"], 1, start, work))
        yield Row("list", f"first page of {size:,} failures", contenders, max(plan.runs, LIST_RUNS), size, "ms")


ROWS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "enqueue": enqueue,
    "drain": drain,
    "memory": memory,
    "latency": latency,
    "prune": prune,
    "retry": retry,
    "list": first_page,
}
ON_SQLITE = ("enqueue", "drain", "prune", "retry")
