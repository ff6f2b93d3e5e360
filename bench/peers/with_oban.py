"""Oban for Python, on psycopg's pool, uvloop and orjson, as its own command runs it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson
import psycopg
import uvloop
from oban import Oban, job
from oban.schema import install as install_tables
from psycopg.types.json import set_json_dumps, set_json_loads

import marks
import pouring
import verbs

T = TypeVar("T")
set_json_dumps(orjson.dumps)
set_json_loads(orjson.loads)


@job(queue="default")
async def noop(sent: float) -> None:
    if sent < 0:
        await asyncio.sleep(marks.hold(sent))
    else:
        marks.note(sent)


def about() -> dict[str, object]:
    unfinished = "FROM oban_jobs WHERE state IN ('available', 'executing')"
    return {
        **verbs.versions("oban", "psycopg"),
        "done": f"SELECT NOT EXISTS (SELECT {unfinished} AND id = (SELECT max(id) FROM oban_jobs)) "
        f"AND NOT EXISTS (SELECT {unfinished})",
        "enqueue": [["enqueue_many, 1,000 a call", {"batch": 1000}]],
        "drain": [["limit=10", {"limit": 10}], ["limit=100", {"limit": 100}], ["limit=500", {"limit": 500}]],
        "latency": [["limit=10", {"limit": 10}]],
        "load": [["limit=10", {"limit": 10}], ["limit=500", {"limit": 500}]],
        "idle": [["limit=10", {"limit": 10}]],
        "recovery-time": [
            ["rescue_after=300 s (default)", {}, "default"],
            ["rescue_after=10 s, each second", {"lifeline": {"rescue_after": 10.0, "interval": 1.0}}, "short"],
        ],
        "retry": [["1,000 a call", {"batch": 1000}], ["all in one call", {"batch": 10**9}]],
    }


def opened(do: Callable[[Oban], Awaitable[T]], **options: object) -> T:
    async def run() -> T:
        pool = await Oban.create_pool(verbs.URL)
        try:
            return await do(Oban(pool=pool, **options))
        finally:
            await pool.close()

    return uvloop.run(run())


def install() -> None:
    async def run() -> None:
        pool = await Oban.create_pool(verbs.URL)
        await install_tables(pool)
        await pool.close()

    uvloop.run(run())


def enqueue(count: int, batch: int = verbs.BATCH) -> float:
    async def run(oban: Oban) -> float:
        start = time.perf_counter()
        for numbers in verbs.in_batches(range(count), batch):
            await oban.enqueue_many(noop.new(0) for _ in numbers)
        return time.perf_counter() - start

    return opened(run)


def work(limit: int = 10, **options: object) -> None:
    async def run(oban: Oban) -> None:
        async with oban:
            await asyncio.Event().wait()

    opened(run, queues={"default": limit}, **options)


def send(count: int) -> None:
    opened(lambda oban: verbs.send_one_by_one(count, lambda sent: oban.enqueue(noop.new(sent))))


def pour(count: int, rate: float) -> float:
    async def run(oban: Oban) -> float:
        sends = [lambda times: oban.enqueue_many(map(noop.new, times))] * pouring.SENDERS
        return await pouring.by_tasks(count, rate, sends)

    return opened(run)


def hold(count: int) -> None:
    opened(lambda oban: oban.enqueue_many(noop.new(-number) for number in range(1, count + 1)))


def fail(count: int) -> None:
    """Leave jobs as a worker does that has run out of attempts."""
    enqueue(count)
    with psycopg.connect(verbs.URL) as connection:
        connection.execute(
            "UPDATE oban_jobs SET state = 'discarded', attempt = max_attempts, attempted_at = timezone('UTC', now()), "
            'discarded_at = timezone(\'UTC\', now()), errors = \'[{"attempt": 20, "error": "ValueError: boom"}]\''
        )


def retry(batch: int) -> float:
    with psycopg.connect(verbs.URL) as connection:
        rows = connection.execute("SELECT id FROM oban_jobs WHERE state = 'discarded' ORDER BY id").fetchall()

    async def run(oban: Oban) -> float:
        start = time.perf_counter()
        for some in verbs.in_batches([job_id for (job_id,) in rows], batch):
            await oban.retry_many_jobs(list(some))
        return time.perf_counter() - start

    return opened(run)


verbs.answer(
    about=about, install=install, fill=enqueue, enqueue=enqueue, work=work, send=send, fail=fail, retry=retry,
    pour=pour, hold=hold,
)  # fmt: skip
