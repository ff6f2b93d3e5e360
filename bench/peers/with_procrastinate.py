"""Procrastinate, on psycopg's pool; its jobs are coroutines, which it runs without a thread."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import psycopg
from procrastinate import App, JobContext, PsycopgConnector

import marks
import pouring
import verbs

T = TypeVar("T")
app = App(connector=PsycopgConnector(conninfo=verbs.URL))
stalled_after = 30.0  # seconds without a heartbeat


@app.task(name="noop")
async def noop(sent: float) -> None:
    if sent < 0:
        await asyncio.sleep(marks.hold(sent))
    else:
        marks.note(sent)


@app.task(queueing_lock="retry_stalled", pass_context=True)
async def retry_stalled(_context: JobContext, timestamp: int) -> None:  # noqa: ARG001  (procrastinate passes it)
    """Put the jobs of dead workers back, as a periodic task: nothing else does."""
    for stalled in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=stalled_after):
        await app.job_manager.retry_job(stalled)


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
        "load": [["concurrency=10", {"concurrency": 10}]],
        "idle": [["concurrency=10", {"concurrency": 10}]],
        "recovery-time": [
            ["periodic task, each minute", {"every": "* * * * *"}, "default"],
            [
                "periodic task, each 5 s; heartbeats 1 s, stalled after 5 s",
                {"every": "* * * * * */5", "heartbeat": 1.0, "stalled": 5.0},
                "short",
            ],
        ],
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


def work(concurrency: int = 10, every: str = "", heartbeat: float = 10.0, stalled: float = 30.0) -> None:
    global stalled_after  # noqa: PLW0603  (once a process)
    stalled_after = stalled
    if every:
        app.periodic(cron=every)(retry_stalled)
    options = {"update_heartbeat_interval": heartbeat, "stalled_worker_timeout": stalled}
    opened(lambda: app.run_worker_async(concurrency=concurrency, **options))


def send(count: int) -> None:
    opened(lambda: verbs.send_one_by_one(count, lambda sent: noop.defer_async(sent=sent)))


def pour(count: int, rate: float) -> float:
    def send(times: list[float]) -> Awaitable[object]:
        return noop.batch_defer_async(*({"sent": sent} for sent in times))

    return opened(lambda: pouring.by_tasks(count, rate, [send] * pouring.SENDERS))


def hold(count: int) -> None:
    opened(lambda: noop.batch_defer_async(*({"sent": -number} for number in range(1, count + 1))))


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
    about=about, install=install, fill=enqueue, enqueue=enqueue, work=work, send=send, fail=fail, retry=retry,
    pour=pour, hold=hold,
)  # fmt: skip
