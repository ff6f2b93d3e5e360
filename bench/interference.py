"""How much a drain suffers while ``jq prune`` or ``jq retry`` moves many jobs of the same queue."""

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import sqlalchemy
from sqlalchemy import func

import ours
import watch
from contenders import Plan, jq
from figures import Contender, Row
from solidjq import Database
from solidjq.database import tables
from stage import Stage

ALONE = 4.0  # seconds of the drain by itself
NOTHING = 4.0  # seconds
READY = 250_000  # jobs; more than any worker drains meanwhile
PRUNED, RETRIED = 10_000, 100_000
PATIENT = "--alive-threshold 1000000"  # so that the drain's own supervisor leaves the dead process to the prune


def rows(plan: Plan) -> Iterator[Row]:
    """Nothing, prune and retry beside a drain; plain SQL retries the same rows: what the database itself takes."""
    claimed = partial(_ready_beside, plan.stage, ours.claimed, PRUNED)
    failed = partial(_ready_beside, plan.stage, ours.failed, RETRIED)
    contenders = []
    for options in plan.workers:
        # Its rate changes by itself, as dead rows pile up: this is what a ratio is to be compared with.
        nothing = f"nothing for {NOTHING:.0f} s beside {options}"
        contenders.append(jq(nothing, 1, failed, partial(_beside, options, _nothing)))
        prune, retry = f"prune of {PRUNED:,} beside {options}", f"retry of {RETRIED:,} beside {options}"
        contenders.append(jq(prune, 1, claimed, partial(_beside, options, ours.prune)))
        contenders.append(jq(retry, 1, failed, partial(_beside, options, ours.retry_beside_a_drain)))
        fast = f"retry --fast of {RETRIED:,} beside {options}"
        contenders.append(jq(fast, 1, failed, partial(_beside, options, ours.retry_fast_beside_a_drain)))
        if plan.sql is not None:
            plainly = partial(_beside, options, partial(plan.sql.retry, batch=1000))
            contenders.append(Contender("plain SQL", retry, 1, failed, plainly))
    title = "a drain by one worker, alone and while jobs are recovered"
    yield Row("interference", title, contenders, plan.runs, READY, "")


def _ready_beside(stage: Stage, other: Callable[[Stage, int], str], size: int) -> str:
    source = other(stage, size)
    return stage.prepared(f"{source}_and_ready", lambda url: ours.enqueue_many(url, READY), source)


def _nothing(_url: str) -> float:
    time.sleep(NOTHING)
    return NOTHING


def _beside(options: str, move: Callable[[str], float], url: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, ours.opened(url) as database:
        marks = Path(folder) / "first"
        with watch.running(ours.command(f"{options} {PATIENT}"), ours.environment(url), marks) as alive:
            give_up = time.monotonic() + watch.START
            while not marks.exists():
                watch.pause(alive, give_up)
            time.sleep(2.0)  # until its statements are prepared
            start = database.now()
            time.sleep(ALONE)
            middle = database.now()
            move(url)
            end = database.now()
            alive()
        alone, beside = _rate(database, start, middle), _rate(database, middle, end)
    return {
        "drain alone, jobs/s": alone,
        "drain beside, jobs/s": beside,
        "beside ÷ alone": beside / alone,
        "moved in s": (end - middle).total_seconds(),
    }


def _rate(database: Database, start: datetime, end: datetime) -> float:
    finished = tables.jobs.c.finished_at
    with database.read() as connection:
        count = connection.scalar(
            sqlalchemy.select(func.count()).select_from(tables.jobs).where(finished >= start, finished < end)
        )
    return (count or 0) / (end - start).total_seconds()
