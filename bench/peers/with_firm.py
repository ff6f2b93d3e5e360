"""firm-queue, another port of Solid Queue, with its own supervisor in fork mode, as its own command runs it."""

import time

import firm.queue as firm
import psycopg
from firm.queue import maintenance, schema
from firm.queue.supervisor import ForkSupervisor, SupervisorConfig, WorkerConfig

import marks
import verbs


@firm.job()
def noop(sent: float) -> None:
    marks.note(sent)


def about() -> dict[str, object]:
    workers = [
        ["threads=10, poll_interval=0.1 (default)", {"poll_interval": 0.1}],
        ["threads=10, poll_interval=0.001", {"poll_interval": 0.001}],
    ]
    return {
        **verbs.versions("firm-queue", "SQLAlchemy", "psycopg"),
        "done": "SELECT NOT EXISTS (SELECT FROM firm_queue_ready_executions) "
        "AND NOT EXISTS (SELECT FROM firm_queue_claimed_executions)",
        "enqueue": [["one at a time", {}]],
        "drain": workers,
        "latency": workers,
        "retry": [["retry_all_failed", {}]],
        "one_by_one": True,
        "share": 0.1,
    }


def install() -> None:
    schema.create_all(firm.configure(verbs.URL).engine)


def enqueue(count: int) -> float:
    firm.configure(verbs.URL)
    noop.enqueue(0)  # so that it is connected
    start = time.perf_counter()
    for _ in range(count - 1):
        noop.enqueue(0)
    return time.perf_counter() - start


def fill(count: int) -> None:
    """Copy one job, since there is no bulk enqueue."""
    enqueue(1)
    jobs = (
        "firm_queue_jobs (queue_name, class_name, arguments, priority, scheduled_at, attempts, created_at, updated_at)"
    )
    ready = "firm_queue_ready_executions (job_id, queue_name, priority, created_at)"
    with psycopg.connect(verbs.URL) as connection:
        connection.execute(
            f"INSERT INTO {jobs} SELECT queue_name, class_name, arguments, priority, scheduled_at, attempts, "
            "created_at, updated_at FROM firm_queue_jobs, generate_series(2, %s)",
            [count],
        )
        connection.execute(
            f"INSERT INTO {ready} SELECT id, queue_name, priority, created_at FROM firm_queue_jobs "
            "WHERE id NOT IN (SELECT job_id FROM firm_queue_ready_executions) ORDER BY id"
        )


def work(poll_interval: float) -> None:
    runtime = firm.configure(verbs.URL)
    workers = [WorkerConfig(threads=10, poll_interval=poll_interval)]
    ForkSupervisor(runtime, SupervisorConfig(workers=workers)).start()


def send(count: int) -> None:
    firm.configure(verbs.URL)
    for gap in verbs.gaps(count):
        time.sleep(gap)
        noop.enqueue(time.time())


def fail(count: int) -> None:
    """Leave jobs as a worker does that has run them."""
    fill(count)
    with psycopg.connect(verbs.URL) as connection:
        connection.execute(
            "INSERT INTO firm_queue_failed_executions (job_id, error, created_at) "
            "SELECT job_id, 'ValueError: boom', now() FROM firm_queue_ready_executions ORDER BY id"
        )
        connection.execute("DELETE FROM firm_queue_ready_executions")


def retry() -> float:
    runtime = firm.configure(verbs.URL)
    start = time.perf_counter()
    maintenance.retry_all_failed(runtime)
    return time.perf_counter() - start


verbs.answer(about=about, install=install, fill=fill, enqueue=enqueue, work=work, send=send, fail=fail, retry=retry)
