"""What is measured of ours: the moves, and the databases from which they start."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import sqlalchemy
from sqlalchemy import func

import pouring
import watch
from solidjq import Database, NewJob, enqueue, open_database
from solidjq.batching import in_batches
from solidjq.database import notices, tables
from solidjq.database.setup import initialize
from solidjq.database.times import ago
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat, pruning
from solidjq.queue import claim, endings
from solidjq.queue import enqueue as queue_enqueue
from solidjq.queue import failed as queue_failed
from solidjq.queue.failed import Filter
from solidjq.queue.patterns import ALL_QUEUES
from solidjq.rails.error_text import Death, error_json
from solidjq.recovery import retry as recovery_retry
from solidjq.recovery import undo as recovery_undo
from solidjq.recovery.details import Detail
from solidjq.recovery.rests import Rests
from solidjq.recovery.terms import DEFAULT_TERMS, RetryTerms, Selection
from stage import Stage

# The last row is looked for first: it is drained last, and the first rows may be dead ones that are still there.
DONE = (
    "SELECT (SELECT id FROM solid_queue_ready_executions ORDER BY id DESC LIMIT 1) IS NULL "
    "AND (SELECT id FROM solid_queue_claimed_executions ORDER BY id DESC LIMIT 1) IS NULL"
)
PAGE = 100


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """Open a queue for a block."""
    database = open_database(url)
    try:
        yield database
    finally:
        database.close()


# -- where a measurement starts: the name of a prepared database ------------------------------------------------------


def empty(stage: Stage) -> str:
    """Start from the tables alone."""
    return stage.prepared("jq", lambda url: _with(url, initialize))


def with_trigger(stage: Stage) -> str:
    """Start from the tables and the trigger that notifies workers of every new job."""
    return stage.prepared("jq_notify", lambda url: _with(url, notices.install), empty(stage))


def enqueued(stage: Stage, count: int) -> str:
    """Start from ready jobs."""
    return stage.prepared(f"jq_enqueued_{count}", lambda url: enqueue_many(url, count), empty(stage))


def claimed(stage: Stage, count: int) -> str:
    """Start from jobs in the hands of one process that has been silent for long."""
    return stage.prepared(f"jq_claimed_{count}", lambda url: _with(url, _claim_all), enqueued(stage, count))


def failed(stage: Stage, count: int) -> str:
    """Start from jobs that failed with one error."""
    return stage.prepared(f"jq_failed_{count}", lambda url: _with(url, _fail_all), claimed(stage, count))


def died(stage: Stage, count: int) -> str:
    """Start from jobs that died with one process."""
    return stage.prepared(f"jq_died_{count}", prune, claimed(stage, count))


def retried(stage: Stage, count: int) -> str:
    """Start from jobs that failed with one error and were put back."""
    return stage.prepared(f"jq_retried_{count}", retry, failed(stage, count))


def failed_differently(stage: Stage, count: int) -> str:
    """Start from failed jobs of which no two have the same error."""
    return stage.prepared(f"jq_different_{count}", lambda url: _with(url, _tell_apart), failed(stage, count))


def _with(url: str, prepare: object) -> None:
    with opened(url) as database:
        prepare(database)  # type: ignore[operator]


def _claim_all(database: Database) -> None:
    ours = {"runtime": heartbeat.RUNTIME}  # a worker of Rails would keep jq work from starting
    process = database.transact(heartbeat.register, kind="Worker", name="w", pid=1, hostname="bench", metadata=ours)
    while database.transact(claim.claim, process, ALL_QUEUES, 1000):
        pass
    with database.write() as connection:
        connection.execute(tables.processes.update().values(last_heartbeat_at=ago(1000)))


def _fail_all(database: Database) -> None:
    with database.write() as connection:
        process = connection.scalars(sqlalchemy.select(tables.processes.c.id)).one()
    database.transact(endings.fail, endings.claims_of(process), error_json("ValueError", "boom"))


def _tell_apart(database: Database) -> None:
    with database.write() as connection:
        named = sqlalchemy.literal("record ") + sqlalchemy.cast(tables.failed.c.job_id, sqlalchemy.String(20))
        connection.execute(tables.failed.update().values(error=func.replace(tables.failed.c.error, "boom", named)))


# -- the moves: each returns its seconds ------------------------------------------------------------------------------


@contextmanager
def _ready(url: str) -> Iterator[Database]:
    """Open a queue that is connected already: no measurement is of connecting."""
    with opened(url) as database:
        database.now()
        yield database


def enqueue_many(url: str, count: int) -> float:
    """Enqueue in transactions of 1,000."""
    with _ready(url) as database:
        start = time.perf_counter()
        for batch in in_batches(NewJob(class_name="BenchJob", args=[0]) for _ in range(count)):
            database.transact(enqueue, batch)
        return time.perf_counter() - start


def enqueue_one_by_one(url: str, clients: int, count: int) -> float:
    """Enqueue each job in a transaction of its own, over so many connections."""
    return _enqueue_at_once(url, clients, count, queue_enqueue.enqueue_alone)


def enqueue_in_transactions(url: str, clients: int, count: int) -> float:
    """Enqueue as ``enqueue_one_by_one``, each job in a transaction that might do more."""
    return _enqueue_at_once(url, clients, count, lambda database, new: database.transact(enqueue, [new]))


def _enqueue_at_once(url: str, clients: int, count: int, enqueue_one: Callable[[Database, NewJob], object]) -> float:
    with ExitStack() as stack, ThreadPoolExecutor(clients) as pool:
        databases = [stack.enter_context(_ready(url)) for _ in range(clients)]

        def run(database: Database) -> None:
            for _ in range(count // clients):
                enqueue_one(database, NewJob(class_name="BenchJob", args=[0]))

        start = time.perf_counter()
        list(pool.map(run, databases))
        return time.perf_counter() - start


def prune(url: str) -> float:
    """Prune the silent process."""
    with _ready(url) as database:
        start = time.perf_counter()
        list(pruning.prune(database, 300))
        return time.perf_counter() - start


def retry(url: str) -> float:
    """Retry all that failed, with the archive, in transactions of 1,000."""
    return _retry(url, Selection(), DEFAULT_TERMS)


def retry_safely(url: str) -> float:
    """Retry all that died, asking every question."""
    return _retry(url, Selection(chosen=Filter(deaths=frozenset(Death))), RetryTerms(safe=True))


def retry_beside_a_drain(url: str) -> float:
    """Retry all that failed as ``retry`` does; other programs claim meanwhile."""
    return _retry(url, Selection(), DEFAULT_TERMS, alone=False)


def retry_fast_beside_a_drain(url: str) -> float:
    """Retry as ``retry_beside_a_drain`` does, without rests."""
    return _retry(url, Selection(), DEFAULT_TERMS, alone=False, fast=True)


def _retry(url: str, selection: Selection, terms: RetryTerms, *, alone: bool = True, fast: bool = False) -> float:
    with _ready(url) as database:
        start = time.perf_counter()
        moved = 0
        rests = Rests(database, fast=fast)
        for batch in recovery_retry.retry(
            database, selection, Operation("retry"), terms, detail=Detail.COUNTS, rests=rests
        ):
            moved += sum(decision.jobs for decision in batch if decision.verdict.moves)
        seconds = time.perf_counter() - start
        with database.read() as connection:
            ready = connection.scalar(sqlalchemy.select(func.count()).select_from(tables.ready))
    if not moved or (alone and moved != ready):
        raise watch.CrashedError(f"{moved} were retried, {ready} are ready")
    return seconds


def discard(url: str) -> float:
    """Discard all that failed, with the archive, in transactions of 1,000."""
    terms = RetryTerms(discard=True)
    with _ready(url) as database:
        start = time.perf_counter()
        for _ in recovery_retry.retry(database, Selection(), Operation("discard"), terms, detail=Detail.COUNTS):
            pass
        seconds = time.perf_counter() - start
        _require_none(database, tables.jobs)
    return seconds


def undo(url: str) -> float:
    """Take the last retry back, in transactions of 1,000."""
    with _ready(url) as database:
        with database.read() as connection:
            last = connection.scalar(sqlalchemy.select(func.max(tables.operations.c.id))) or 0
        start = time.perf_counter()
        for _ in recovery_undo.undo_batches(database, last, Operation("undo"), by_job=False):
            pass
        seconds = time.perf_counter() - start
        _require_none(database, tables.ready)
    return seconds


def _require_none(database: Database, table: sqlalchemy.Table) -> None:
    with database.read() as connection:
        left = connection.scalar(sqlalchemy.select(func.count()).select_from(table))
    if left:
        raise watch.CrashedError(f"{left} rows are left in {table.name}")


def first_page(url: str) -> float:
    """Read the first page of ``jq failed list``, a second time: the first one finds its pages on the disk."""
    with _ready(url) as database:
        list(queue_failed.list_failures(database, Filter(), limit=PAGE))
        start = time.perf_counter()
        found = list(queue_failed.list_failures(database, Filter(), limit=PAGE))
        seconds = time.perf_counter() - start
    if len(found) != PAGE:
        raise watch.CrashedError(f"{len(found)} of {PAGE} failures were listed")
    return seconds


def send(url: str, gaps: Iterator[float]) -> None:
    """Enqueue a job after each pause, with the time of its enqueuing."""
    with _ready(url) as database:
        for gap in gaps:
            time.sleep(gap)
            queue_enqueue.enqueue_alone(database, NewJob(class_name="BenchJob", args=[time.time()]))


def hold(url: str, count: int) -> None:
    """Enqueue jobs that sleep until they are killed, and do nothing in their next run."""
    with opened(url) as database:
        database.transact(enqueue, [NewJob(class_name="BenchHeldJob", args=[-n]) for n in range(1, count + 1)])


def pour(url: str, count: int, rate: float) -> float:
    """Enqueue jobs at a rate, each with the time of its enqueuing; return the seconds."""
    with _ready(url) as database:

        def send(times: list[float]) -> None:
            new = [NewJob(class_name="BenchJob", args=[sent]) for sent in times]
            if len(new) == 1:
                queue_enqueue.enqueue_alone(database, new[0])
            else:
                database.transact(enqueue, new)

        return pouring.by_threads(count, rate, send)


# -- programs ---------------------------------------------------------------------------------------------------------


def command(options: str) -> list[str]:
    """Spell the command line of a worker."""
    return [sys.executable, "-m", "solidjq_cli", "work", "--import", "noop_jobs", *shlex.split(options)]


def environment(url: str) -> dict[str, str]:
    """Say where the database is."""
    return {"JQ_DATABASE_URL": url}


def prefetches() -> bool:
    """Tell whether this version's worker can claim ahead."""
    shown = subprocess.run(command("--help"), capture_output=True, text=True, check=True)  # noqa: S603
    return "--prefetch" in shown.stdout


def diff(url: str) -> tuple[float, float]:
    """Run ``jq failed diff`` as a program; return its seconds and its peak of memory in MB."""
    start = time.perf_counter()
    program = subprocess.Popen(
        [sys.executable, "-m", "solidjq_cli", "failed", "diff", "-o", "json"],
        env={**os.environ, "JQ_DATABASE_URL": url},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        raise watch.CrashedError("jq failed diff failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024
