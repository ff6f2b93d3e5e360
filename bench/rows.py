"""The rows: for each, who takes part, with which settings, from which database."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import failover
import idle
import interference
import load
import notifications
import ours
import watch
from checkpoints import LONG_JOBS, NEVER, Beside
from contenders import Plan, absent, ask, each_peer, jq, our_drain, peer_drain, plain_sql, prepared, settings_of, theirs
from figures import Contender, Row
from rivals import Peer

LIST_RUNS = 5  # of what takes milliseconds


def enqueue(plan: Plan) -> Iterator[Row]:
    """Bulk enqueue."""
    empty = partial(ours.empty, plan.stage)
    yield Row(
        "enqueue",
        f"bulk enqueue of {plan.jobs:,} jobs",
        [
            jq("1,000 a transaction", plan.jobs, empty, partial(ours.enqueue_many, count=plan.jobs)),
            *plain_sql(plan, "1,000 a statement", plan.jobs, empty, "enqueue", count=plan.jobs, batch=1000),
            *theirs(plan, "enqueue", plan.jobs, "empty"),
        ],
        plan.runs,
        plan.jobs,
    )


def drain(plan: Plan) -> Iterator[Row]:
    """Drain."""
    ready = partial(ours.enqueued, plan.stage, plan.jobs)
    mine = [
        jq(options, plan.jobs, ready, partial(our_drain, plan.stage, options, plan.jobs)) for options in plan.workers
    ]
    batches = [
        contender
        for batch in (100, 1000)
        for contender in plain_sql(plan, f"{batch:,} a batch", plan.jobs, ready, "drain", batch=batch)
    ]
    yield Row(
        "drain",
        f"drain of {plan.jobs:,} no-op jobs by one worker",
        [*mine, *batches, *theirs(plan, "drain", plan.jobs, "fill")],
        plan.runs,
        plan.jobs,
    )


def memory(plan: Plan) -> Iterator[Row]:
    """Drain for long, once, and look at the worker's memory."""
    ready = partial(ours.enqueued, plan.stage, plan.long)
    mine = [
        jq(options, plan.long, ready, partial(our_drain, plan.stage, options, plan.long)) for options in plan.workers
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
        work = partial(our_drain, plan.stage, options, plan.long)
        contenders += [jq(options, plan.long, ready, work)]
        contenders += [jq(f"{options}, held", plan.long, ready, partial(beside, work))]
    for batch in (100, 1000):
        plainly = partial(sql.drain, batch=batch)
        contenders += [Contender("plain SQL", f"{batch:,} a batch", plan.long, ready, plainly)]
        contenders += [Contender("plain SQL", f"{batch:,} a batch, held", plan.long, ready, partial(beside, plainly))]
    for peer in plan.peers:
        count = int(plan.long * peer.about.get("share", 1))
        ends = settings_of(peer, "drain")  # ten at once, and the best of those that were tried
        for setting, given in [*ends[:1], *ends[1:][-1:]]:
            start = partial(prepared, plan.stage, peer, "fill", count)
            theirs_alone = partial(peer_drain, plan.stage, peer, given, count)
            contenders += [Contender(peer.name, setting, count, start, theirs_alone)]
            contenders += [Contender(peer.name, f"{setting}, held", count, start, partial(beside, theirs_alone))]
        contenders += absent(peer, "drain")
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

    contenders = [jq(options, 1, partial(ours.empty, plan.stage), partial(mine, options)) for options in plan.workers]
    contenders += each_peer(plan, "latency", theirs)
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
    mine = [jq(setting, plan.long, ready, work) for setting, work in beside.items()]
    title = f"drain of {plan.long:,} no-op jobs beside {LONG_JOBS:,} running ones"
    row = Row("checkpoints", title, mine, plan.runs, plan.long)
    row.notes = [work.notes for work in beside.values()]
    yield row


def prune(plan: Plan) -> Iterator[Row]:
    """Prune one process with so many claims."""
    for size in plan.recovered:
        claimed = partial(ours.claimed, plan.stage, size)
        contenders = [
            jq("prune", size, claimed, ours.prune),
            *plain_sql(plan, "six statements", size, claimed, "prune"),
            *plain_sql(plan, "eight, that count crashes", size, claimed, "prune", counted=True),
        ]
        yield Row("prune", f"prune of {size:,} claims", contenders, plan.runs, size)


def retry(plan: Plan) -> Iterator[Row]:
    """Put failed jobs back: those that failed, and those that died."""
    for size in plan.recovered:
        failed, died = partial(ours.failed, plan.stage, size), partial(ours.died, plan.stage, size)
        contenders = [
            jq("retry", size, failed, ours.retry),
            jq("retry --safe", size, died, ours.retry_safely),
            *plain_sql(plan, "1,000 a batch", size, failed, "retry", batch=1000),
            *plain_sql(plan, "1,000 a batch, jobs that died", size, died, "retry", batch=1000),
            *theirs(plan, "retry", size, "fail"),
        ]
        yield Row("retry", f"retry of {size:,} failed jobs", contenders, plan.runs, size)


def discard(plan: Plan) -> Iterator[Row]:
    """Delete failed jobs, of which the archive keeps all."""
    for size in plan.recovered:
        failed = partial(ours.failed, plan.stage, size)
        contenders = [
            jq("discard", size, failed, ours.discard),
            *plain_sql(plan, "1,000 a batch", size, failed, "discard", batch=1000),
        ]
        yield Row("discard", f"discard of {size:,} failed jobs", contenders, plan.runs, size)


def undo(plan: Plan) -> Iterator[Row]:
    """Take a retry back, beside the retry itself."""
    for size in plan.recovered:
        failed, retried = partial(ours.failed, plan.stage, size), partial(ours.retried, plan.stage, size)
        contenders = [
            jq("undo", size, retried, ours.undo),
            jq("retry", size, failed, ours.retry),
            *plain_sql(plan, "1,000 a batch", size, retried, "undo", batch=1000),
        ]
        yield Row("undo", f"undo of a retry of {size:,} jobs", contenders, plan.runs, size)


def first_page(plan: Plan) -> Iterator[Row]:
    """Read the newest 100 failures of a large table."""
    for size in plan.recovered:
        failed = partial(ours.failed, plan.stage, size)
        contenders = [
            jq("failed list --limit 100", 1, failed, ours.first_page),
            *plain_sql(plan, "one statement", 1, failed, "first_page"),
        ]
        contenders += each_peer(plan, "list", lambda peer, given, url: ask(peer, "list", given, url), "fail", size)
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
    "discard": discard,
    "undo": undo,
    "list": first_page,
    "load": load.rows,
    "interference": interference.rows,
    "idle": idle.rows,
    "notify": notifications.rows,
    "recovery-time": failover.rows,
}
ON_SQLITE = ("enqueue", "drain", "prune", "retry", "discard", "undo")
ON_MARIADB = (
    "enqueue",
    "drain",
    "memory",
    "held",
    "latency",
    "prune",
    "retry",
    "discard",
    "undo",
    "list",
    "load",
    "interference",
    "recovery-time",
)
