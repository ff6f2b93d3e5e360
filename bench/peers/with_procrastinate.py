"""Procrastinate, on psycopg's pool; its jobs are coroutines, which it runs without a thread."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import psycopg
from procrastinate import App, PsycopgConnector

import marks
import verbs

T = TypeVar("T")
app = App(connector=PsycopgConnector(conninfo=verbs.URL))


@app.task(name="noop")
async def noop(sent: float) -> None:
    marks.note(sent)


def about() -> dict[str, object]:
    unfinished = "FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
    return {
        **verbs.versions("procrastinate", "psycopg"),
        # The first part spares it a walk over all that is finished.
        "done": f"SELECT NOT EXISTS (SELECT {unfinished} AND id = (SELECT max(id) FROM procrastinate_jobs)) "
        f"AND NOT EXISTS (SELECT {unfinished})",
        "enqueue": [["batch_defer, 1,000 a call", {"batch": 1000}]],
        "drain": [["concurrency=10", {"concurrency": 10}], ["concurrency=30", {"concurrency": 30}]],
        "retry": [["one at a time", {}]],
        "latency": [["concurrency=10", {"concurrency": 10}]],
        "one_by_one": True,
    }


def opened(do: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        async with app.open_async():
            return await do()

    return asyncio.run(run())


def install() -> None:
    opened(app.schema_manager.apply_schema_async)


def enqueue(count: int, batch: int = verbs.BATCH) -> float:
    async def run() -> float:
        start = time.perf_counter()
        for numbers in verbs.in_batches(range(count), batch):
            await noop.batch_defer_async(*({"sent": 0} for _ in numbers))
        return time.perf_counter() - start

    return opened(run)


def work(concurrency: int) -> None:
    opened(lambda: app.run_worker_async(concurrency=concurrency))


def send(count: int) -> None:
    opened(lambda: verbs.send_one_by_one(count, lambda sent: noop.defer_async(sent=sent)))


def fail(count: int) -> None:
    """Leave jobs as a worker does that has run them once, in vain."""
    enqueue(count)
    with psycopg.connect(verbs.URL) as connection:
        connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")
        connection.execute("UPDATE procrastinate_jobs SET status = 'failed', attempts = attempts + 1")


def retry() -> float:
    with psycopg.connect(verbs.URL) as connection:
        failed = connection.execute("SELECT id FROM procrastinate_jobs WHERE status = 'failed' ORDER BY id").fetchall()

    async def run() -> float:
        start = time.perf_counter()
        for (job_id,) in failed:
            await app.job_manager.retry_job_by_id_async(job_id=job_id, retry_at=datetime.now(UTC))
        return time.perf_counter() - start

    return opened(run)


verbs.answer(
    about=about, install=install, fill=enqueue, enqueue=enqueue, work=work, send=send, fail=fail, retry=retry
)  # fmt: skip
