"""The rows: for each, who takes part, with which settings, from which database."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import ours
import plain
import plain_mysql
import watch
from checkpoints import LONG_JOBS, NEVER, Beside
from figures import Contender, Row
from rivals import Peer
from stage import Stage

ONE_BY_ONE = 10_000  # more jobs than this are not given to a peer that moves them one at a time
LIST_RUNS = 5  # of what takes milliseconds
PLAIN = {"PostgreSQL": plain, "MariaDB": plain_mysql}


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

    @property
    def recovered(self) -> Sequence[int]:
        """How many jobs prune and retry move; how that grows is shown on PostgreSQL."""
        return self.sizes if self.stage.name == "PostgreSQL" else self.sizes[:1]

    @property
    def sql(self) -> ModuleType | None:
        """The module of plain SQL for this database, if there is one."""
        return PLAIN.get(self.stage.name)


# -- who takes part ---------------------------------------------------------------------------------------------------


def _jq(setting: str, jobs: int, start: Callable[[], str], work: Callable[[str], Any]) -> Contender:
    return Contender("jq", setting, jobs, start, work)


def _plain(plan: Plan, setting: str, jobs: int, start: Callable[[], str], verb: str, **given: int) -> list[Contender]:
    """Let plain SQL do a verb where it is written for the database."""
    if plan.sql is None:
        return []
    return [Contender("plain SQL", setting, jobs, start, partial(getattr(plan.sql, verb), **given))]


def _theirs(plan: Plan, verb: str, jobs: int, state: str) -> Iterator[Contender]:
    """Let each peer do a verb with each setting that it names, from its tables or from so many jobs in a state."""
    for peer in plan.peers:
        count = int(jobs * peer.about.get("share", 1)) if verb == "drain" else jobs
        for setting, given in _settings(peer, verb):
            work: Callable[[str], Any] = partial(_ask, peer, verb, given)
            if verb == "drain":
                work = partial(_drain, plan.stage, peer, given, count)
            elif verb == "enqueue":
                work = partial(_ask, peer, verb, given | {"count": count})
            each = Contender(peer.name, setting, count, partial(_state, plan.stage, peer, state, count), work)
            if peer.about.get("one_by_one") and verb != "drain" and count > ONE_BY_ONE:
                each.error = "not run: one job at a time"
            yield each
        yield from _absent(peer, verb)


def _settings(peer: Peer, verb: str) -> list[tuple[str, dict[str, Any]]]:
    found = peer.settings(verb)
    return [] if isinstance(found, str) else found


def _absent(peer: Peer, verb: str) -> list[Contender]:
    """Say why a peer takes no part."""
    found = peer.settings(verb)
    return [Contender(peer.name, "", 1, str, float, error=found)] if isinstance(found, str) else []


def _state(stage: Stage, peer: Peer, state: str, count: int) -> str:
    """Return the name of a peer's database: its tables alone, or with so many jobs."""
    tables = stage.prepared(peer.name, partial(peer.ask, "install"))
    if state == "empty":
        return tables
    return stage.prepared(f"{peer.name}_{state}_{count}", partial(peer.ask, state, count=count), tables)


def _ask(peer: Peer, verb: str, given: dict[str, Any], url: str) -> float:
    seconds: float = peer.ask(verb, url, **given)
    return seconds


def _drain(stage: Stage, peer: Peer, given: dict[str, Any], count: int, url: str) -> watch.Drain:
    settled = partial(stage.settled, url, peer.about["done"])
    return watch.drain(peer.command("work", **given), peer.environment(url), settled, count)


def _our_drain(stage: Stage, options: str, count: int, url: str) -> watch.Drain:
    return watch.drain(ours.command(options), ours.environment(url), partial(stage.settled, url, ours.DONE), count)


# -- the rows ---------------------------------------------------------------------------------------------------------


def enqueue(plan: Plan) -> Iterator[Row]:
    """Bulk enqueue."""
    empty = partial(ours.empty, plan.stage)
    yield Row(
        "enqueue",
        f"bulk enqueue of {plan.jobs:,} jobs",
        [
            _jq("1,000 a transaction", plan.jobs, empty, partial(ours.enqueue_many, count=plan.jobs)),
            *_plain(plan, "1,000 a statement", plan.jobs, empty, "enqueue", count=plan.jobs, batch=1000),
            *_theirs(plan, "enqueue", plan.jobs, "empty"),
        ],
        plan.runs,
        plan.jobs,
    )


def drain(plan: Plan) -> Iterator[Row]:
    """Drain."""
    ready = partial(ours.enqueued, plan.stage, plan.jobs)
    mine = [
        _jq(options, plan.jobs, ready, partial(_our_drain, plan.stage, options, plan.jobs)) for options in plan.workers
    ]
    batches = [
        contender
        for batch in (100, 1000)
        for contender in _plain(plan, f"{batch:,} a batch", plan.jobs, ready, "drain", batch=batch)
    ]
    theirs = _theirs(plan, "drain", plan.jobs, "fill")
    yield Row(
        "drain", f"drain of {plan.jobs:,} no-op jobs by one worker", [*mine, *batches, *theirs], plan.runs, plan.jobs
    )


def memory(plan: Plan) -> Iterator[Row]:
    """Drain for long, once, and look at the worker's memory."""
    ready = partial(ours.enqueued, plan.stage, plan.long)
    mine = [
        _jq(options, plan.long, ready, partial(_our_drain, plan.stage, options, plan.long)) for options in plan.workers
    ]
    yield Row("memory", f"long drain of {plan.long:,} no-op jobs", mine, 1, plan.long)


def held(plan: Plan) -> Iterator[Row]:
    """Drain while another transaction stays open, so that the dead rows of all turns pile up."""
    sql = plan.sql
    if sql is None:
        return
    ready = partial(ours.enqueued, plan.stage, plan.long)
    beside: Callable[[Callable[[str], Any], str], Any] = partial(_beside_a_snapshot, sql)
    contenders = []
    for options in plan.workers:
        work = partial(_our_drain, plan.stage, options, plan.long)
        contenders += [_jq(options, plan.long, ready, work)]
        contenders += [_jq(f"{options}, held", plan.long, ready, partial(beside, work))]
    for batch in (100, 1000):
        plainly = partial(sql.drain, batch=batch)
        contenders += [Contender("plain SQL", f"{batch:,} a batch", plan.long, ready, plainly)]
        contenders += [Contender("plain SQL", f"{batch:,} a batch, held", plan.long, ready, partial(beside, plainly))]
    title = f"drain of {plan.long:,} no-op jobs, alone and while another transaction is held open"
    yield Row("held", title, contenders, plan.runs, plan.long)


def _beside_a_snapshot(sql: ModuleType, work: Callable[[str], Any], url: str) -> Any:
    with sql.snapshot(url):
        return work(url)


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
    for peer in plan.peers:
        for setting, given in _settings(peer, "latency"):
            start = partial(_state, plan.stage, peer, "empty", 0)
            contenders.append(Contender(peer.name, setting, 1, start, partial(theirs, peer, given)))
        contenders += _absent(peer, "latency")
    yield Row("latency", "from enqueue to start, idle worker", contenders, 1, 0, "ms each")


def checkpoints(plan: Plan) -> Iterator[Row]:
    """Drain beside a thousand running jobs: they save their progress, or only move their cursors."""
    if plan.stage.name != "PostgreSQL":
        return
    ready = partial(ours.enqueued, plan.stage, plan.long)
    beside = {
        "no checkpoints": Beside(plan.stage, plan.long, NEVER),
        "200 checkpoints a second": Beside(plan.stage, plan.long, 0.0),
    }
    mine = [_jq(setting, plan.long, ready, work) for setting, work in beside.items()]
    title = f"drain of {plan.long:,} no-op jobs beside {LONG_JOBS:,} running ones"
    row = Row("checkpoints", title, mine, plan.runs, plan.long)
    row.notes = [work.notes for work in beside.values()]
    yield row


def prune(plan: Plan) -> Iterator[Row]:
    """Prune one process with so many claims."""
    for size in plan.recovered:
        claimed = partial(ours.claimed, plan.stage, size)
        contenders = [
            _jq("prune", size, claimed, ours.prune),
            *_plain(plan, "three statements", size, claimed, "prune"),
        ]
        yield Row("prune", f"prune of {size:,} claims", contenders, plan.runs, size)


def retry(plan: Plan) -> Iterator[Row]:
    """Put failed jobs back: those that failed, and those that died."""
    for size in plan.recovered:
        failed, died = partial(ours.failed, plan.stage, size), partial(ours.died, plan.stage, size)
        contenders = [
            _jq("retry", size, failed, ours.retry),
            _jq("retry --safe", size, died, ours.retry_safely),
            *_plain(plan, "1,000 a batch", size, failed, "retry", batch=1000),
            *_plain(plan, "1,000 a batch, jobs that died", size, died, "retry", batch=1000),
            *_theirs(plan, "retry", size, "fail"),
        ]
        yield Row("retry", f"retry of {size:,} failed jobs", contenders, plan.runs, size)


def first_page(plan: Plan) -> Iterator[Row]:
    """Read the newest 100 failures of a large table."""
    for size in plan.recovered:
        failed = partial(ours.failed, plan.stage, size)
        contenders = [
            _jq("failed list --limit 100", 1, failed, ours.first_page),
            *_plain(plan, "one statement", 1, failed, "first_page"),
        ]
        for peer in plan.peers:
            for setting, given in _settings(peer, "list"):
                start = partial(_state, plan.stage, peer, "fail", size)
                contenders.append(Contender(peer.name, setting, 1, start, partial(_ask, peer, "list", given)))
            contenders += _absent(peer, "list")
        yield Row("list", f"first page of {size:,} failures", contenders, max(plan.runs, LIST_RUNS), size, "ms")


ROWS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "enqueue": enqueue,
    "drain": drain,
    "memory": memory,
    "held": held,
    "latency": latency,
    "checkpoints": checkpoints,
    "prune": prune,
    "retry": retry,
    "list": first_page,
}
ON_SQLITE = ("enqueue", "drain", "prune", "retry")
ON_MARIADB = ("enqueue", "drain", "memory", "held", "latency", "prune", "retry", "list")
