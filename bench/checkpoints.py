"""What checkpoints cost: a drain beside a thousand jobs that save their progress, and beside as many that do not."""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psycopg

import long_jobs
import ours
import watch
from solidjq import NewJob, enqueue
from stage import Stage

LONG_JOBS = 1000
LONG_QUEUE = "long"
NEVER = 1e9  # seconds
CLAIMED = f"SELECT count(*) >= {LONG_JOBS} FROM solid_queue_claimed_executions"
DONE = (
    "SELECT NOT EXISTS (SELECT 1 FROM solid_queue_ready_executions) AND (SELECT count(*) FROM "
    f"solid_queue_claimed_executions) <= {LONG_JOBS}"
)
TUPLES = (
    "SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup, pg_table_size(relid) FROM pg_stat_user_tables "
    "WHERE relname = 'solid_queue_jobs'"
)


class Tuples(NamedTuple):
    """What PostgreSQL counts of the table of jobs."""

    updated: int
    hot: int
    dead: int
    size: int  # bytes
    at: float  # seconds, by the monotonic clock


@dataclass
class Beside:
    """A drain of ``count`` no-op jobs beside jobs whose checkpoints are ``interval`` seconds apart."""

    stage: Stage
    count: int
    interval: float
    drains: list[tuple[Tuples, Tuples]] = field(default_factory=list)

    def __call__(self, url: str) -> watch.Drain:
        """Start the long jobs, then drain."""
        with ours.opened(url) as database:
            new = [NewJob(class_name="BenchLongJob", queue_name=LONG_QUEUE) for _ in range(LONG_JOBS)]
            database.transact(enqueue, new)
        options = ["--queues", LONG_QUEUE, "--threads", str(LONG_JOBS), "--shutdown-timeout", "8"]
        command = [sys.executable, "-m", "solidjq_cli", "work", "--import", "long_jobs", *options]
        environment = {**ours.environment(url), long_jobs.INTERVAL: str(self.interval)}
        with tempfile.TemporaryDirectory() as folder, watch.running(command, environment, Path(folder)) as alive:
            self._wait(alive, lambda: self.stage.settled(url, CLAIMED))
            time.sleep(2 * long_jobs.PACE)  # until each has saved at least once
            before = tuples(url)
            worker = ours.command("--queues default --threads 10")
            found = watch.drain(worker, ours.environment(url), lambda: self.stage.settled(url, DONE), self.count)
            self.drains.append((before, tuples(url)))
        return found

    def _wait(self, alive: Callable[[], None], condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + watch.START
        while not condition():
            alive()
            if time.monotonic() > deadline:
                raise watch.CrashedError("the long jobs did not all begin")
            time.sleep(watch.PACE)

    def notes(self) -> list[str]:
        """Say, of each drain, how many checkpoints there were and what the updates of the table of jobs left."""
        lines = []
        for before, after in self.drains:
            updated, hot = after.updated - before.updated, after.hot - before.hot
            rate = (updated - self.count) / (after.at - before.at)  # each no-op job is updated once, at its end
            lines.append(
                f"{rate:.0f} checkpoints a second; of {updated:,} updates of solid_queue_jobs {hot / updated:.0%} HOT; "
                f"dead tuples {before.dead:,} before, {after.dead:,} after; "
                f"its size {before.size / 2**20:.1f} MB before, {after.size / 2**20:.1f} MB after"
            )
        return lines


def tuples(url: str) -> Tuples:
    """Read the counts; sessions report theirs at most once a second."""
    time.sleep(1.5)
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(TUPLES).fetchone()
    if row is None:
        raise watch.CrashedError("PostgreSQL has no counts of the table of jobs")
    updated, hot, dead, size = row
    return Tuples(updated, hot, dead, size, time.monotonic())
