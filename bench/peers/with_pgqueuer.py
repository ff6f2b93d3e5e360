"""PgQueuer, on asyncpg and uvloop, as its own command runs it."""

import asyncio
import json
import time
from datetime import timedelta
from functools import partial

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

import marks
import pouring
import verbs


def about() -> dict[str, object]:
    return {
        **verbs.versions("pgqueuer", "asyncpg"),
        "done": "SELECT NOT EXISTS (SELECT FROM pgqueuer)",
        "enqueue": [["1,000 a call", {"batch": 1000}], ["all in one call", {"batch": 10**9}]],
        "drain": [
            ["batch_size=10 (default)", {"batch_size": 10}],
            ["batch_size=100", {"batch_size": 100}],
            ["batch_size=500", {"batch_size": 500}],
            ["batch_size=1000", {"batch_size": 1000}],
        ],
        "retry": [["1,000 a call", {"batch": 1000}], ["all in one call", {"batch": 10**9}]],
        "latency": [["batch_size=10 (default)", {"batch_size": 10}]],
        "load": [["batch_size=10 (default)", {"batch_size": 10}], ["batch_size=1000", {"batch_size": 1000}]],
        "idle": [["batch_size=10 (default)", {"batch_size": 10}]],
        "recovery-time": [
            ["heartbeat_timeout=30 s (default)", {}, "default"],
            ["heartbeat_timeout=5 s", {"heartbeat_timeout": 5.0}, "short"],
        ],
        "list": [["list_failed_jobs(limit=100)", {}]],
    }


async def connect() -> AsyncpgDriver:
    return AsyncpgDriver(await asyncpg.connect(verbs.URL))


async def _enqueue(queries: Queries, count: int, batch: int) -> float:
    start = time.perf_counter()
    for numbers in verbs.in_batches(range(count), batch):
        size = len(numbers)
        await queries.enqueue(["noop"] * size, [json.dumps([0]).encode() for _ in numbers], [0] * size)
    return time.perf_counter() - start


def install() -> None:
    async def run() -> None:
        await Queries(await connect()).install()

    uvloop.run(run())


def enqueue(count: int, batch: int = verbs.BATCH) -> float:
    async def run() -> float:
        return await _enqueue(Queries(await connect()), count, batch)

    return uvloop.run(run())


def work(batch_size: int = 10, heartbeat_timeout: float = 30.0) -> None:
    async def run() -> None:
        pgq = PgQueuer(await connect())

        @pgq.entrypoint("noop")
        async def noop(job: Job) -> None:
            (sent,) = json.loads(job.payload or b"")
            if sent < 0:
                await asyncio.sleep(marks.hold(sent))
            else:
                marks.note(sent)

        await pgq.run(batch_size=batch_size, heartbeat_timeout=timedelta(seconds=heartbeat_timeout))

    uvloop.run(run())


def send(count: int) -> None:
    async def run() -> None:
        queries = Queries(await connect())
        await verbs.send_one_by_one(count, lambda sent: queries.enqueue("noop", json.dumps([sent]).encode()))

    uvloop.run(run())


async def _send(queries: Queries, times: list[float]) -> None:
    size = len(times)
    await queries.enqueue(["noop"] * size, [json.dumps([sent]).encode() for sent in times], [0] * size)


def pour(count: int, rate: float) -> float:
    async def run() -> float:
        queries = [Queries(await connect()) for _ in range(pouring.SENDERS)]
        return await pouring.by_tasks(count, rate, [partial(_send, each) for each in queries])

    return uvloop.run(run())


def hold(count: int) -> None:
    async def run() -> None:
        queries = Queries(await connect())
        await queries.enqueue(["noop"] * count, [json.dumps([-n]).encode() for n in range(1, count + 1)], [0] * count)

    uvloop.run(run())


def fail(count: int) -> None:
    """Leave jobs as on_failure="hold" does."""

    async def run() -> None:
        driver = await connect()
        await _enqueue(Queries(driver), count, verbs.BATCH)
        await driver.execute("UPDATE pgqueuer SET status = 'failed', attempts = 1, updated = now()")

    uvloop.run(run())


def retry(batch: int) -> float:
    async def run() -> float:
        driver = await connect()
        queries = Queries(driver)
        ids = [row["id"] for row in await driver.fetch("SELECT id FROM pgqueuer WHERE status = 'failed' ORDER BY id")]
        start = time.perf_counter()
        for some in verbs.in_batches(ids, batch):
            await queries.requeue_jobs(list(some))
        return time.perf_counter() - start

    return uvloop.run(run())


def list_failed() -> float:
    async def run() -> float:
        queries = Queries(await connect())
        await queries.list_failed_jobs(limit=100)
        start = time.perf_counter()
        await queries.list_failed_jobs(limit=100)
        return time.perf_counter() - start

    return uvloop.run(run())


verbs.answer(
    about=about, install=install, fill=enqueue, enqueue=enqueue, work=work, send=send, fail=fail, retry=retry,
    list=list_failed, pour=pour, hold=hold,
)  # fmt: skip
