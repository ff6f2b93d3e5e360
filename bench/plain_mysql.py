"""What plain.py does, by SQL written for MySQL and MariaDB over PyMySQL; one transaction a batch."""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from plain import CRASHES, DEATHS, ERROR, EVIDENCE, LIMITED, payload, require_unlimited
from stage_mariadb import connect

NOW = "UTC_TIMESTAMP(6)"


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def enqueue(url: str, count: int, batch: int) -> float:
    """Insert jobs and their ready rows, two statements a batch; nobody else inserts, so the ids follow each other."""
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        start = time.perf_counter()
        for low in range(0, count, batch):
            ids = [str(uuid.uuid4()) for _ in range(low, min(low + batch, count))]
            cursor.executemany(
                "INSERT INTO solid_queue_jobs (queue_name, class_name, arguments, priority, active_job_id, "
                f"scheduled_at, created_at, updated_at) VALUES ('default', 'BenchJob', %s, 0, %s, {NOW}, {NOW}, {NOW})",
                [(payload(active_job_id), active_job_id) for active_job_id in ids],
            )
            cursor.execute(
                "INSERT INTO solid_queue_ready_executions (job_id, queue_name, priority, created_at) SELECT id, "
                "queue_name, priority, created_at FROM solid_queue_jobs WHERE id >= LAST_INSERT_ID() ORDER BY id"
            )
            connection.commit()
        return time.perf_counter() - start


def drain(url: str, batch: int) -> float:
    """Claim a batch and read its jobs in one transaction, finish it in another, until nothing is ready."""
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        start = time.perf_counter()
        while True:
            cursor.execute(
                "SELECT job_id FROM solid_queue_ready_executions ORDER BY priority, job_id LIMIT %s "
                "FOR UPDATE SKIP LOCKED",
                [batch],
            )
            job_ids = _list([row[0] for row in cursor.fetchall()])
            if not job_ids:
                return time.perf_counter() - start
            cursor.execute(
                "INSERT INTO solid_queue_claimed_executions (job_id, process_id, created_at) SELECT job_id, 1, "
                f"{NOW} FROM solid_queue_ready_executions WHERE job_id IN ({job_ids}) ORDER BY job_id"
            )
            cursor.execute(f"DELETE FROM solid_queue_ready_executions WHERE job_id IN ({job_ids})")
            cursor.execute(f"SELECT id, class_name, arguments FROM solid_queue_jobs WHERE id IN ({job_ids})")
            cursor.fetchall()
            connection.commit()
            cursor.execute(
                f"UPDATE solid_queue_jobs SET finished_at = {NOW}, updated_at = {NOW} WHERE id IN ({job_ids})"
            )
            cursor.execute(f"DELETE FROM solid_queue_claimed_executions WHERE job_id IN ({job_ids})")
            connection.commit()


def prune(url: str, *, counted: bool = False) -> float:
    """Fail all claims of the silent processes in one transaction of six statements; two more if ``counted``."""
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        start = time.perf_counter()
        cursor.execute(
            "SELECT id FROM solid_queue_processes "
            f"WHERE last_heartbeat_at <= {NOW} - INTERVAL 5 MINUTE ORDER BY id FOR UPDATE"
        )
        dead = _list([row[0] for row in cursor.fetchall()])
        claims = f"solid_queue_claimed_executions WHERE process_id IN ({dead})"
        cursor.execute(f"SELECT COUNT(*) FROM {claims} FOR UPDATE")
        cursor.execute(
            "INSERT INTO solid_queue_failed_executions (job_id, error, created_at) "
            f"SELECT job_id, %s, {NOW} FROM {claims} ORDER BY id",
            [ERROR],
        )
        if counted:
            cursor.execute(DEATHS.format(now=NOW, dead=dead), [EVIDENCE])
            cursor.execute(CRASHES.format(dead=dead))
        cursor.execute(LIMITED.format(dead=dead))
        require_unlimited(cursor.fetchall())
        cursor.execute(f"DELETE FROM {claims}")
        cursor.execute(f"DELETE FROM solid_queue_processes WHERE id IN ({dead})")
        connection.commit()
        return time.perf_counter() - start


def retry(url: str, batch: int) -> float:
    """Archive failures, remove them and make their jobs ready, a batch a transaction, the oldest first."""
    return _move(
        url,
        batch,
        "INSERT INTO solid_queue_ready_executions (job_id, queue_name, priority, created_at) SELECT id, queue_name, "
        f"priority, {NOW} FROM solid_queue_jobs WHERE id IN ({{}}) ORDER BY id",
    )


def discard(url: str, batch: int) -> float:
    """Archive failures and remove them with their jobs, a batch a transaction, the oldest first."""
    return _move(url, batch, "DELETE FROM solid_queue_jobs WHERE id IN ({})")


def _move(url: str, batch: int, jobs: str) -> float:
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        start = time.perf_counter()
        cursor.execute(f"INSERT INTO jq_operations (verb, actor, jobs, created_at) VALUES ('retry', 'bench', 0, {NOW})")
        operation, above = cursor.lastrowid, 0
        while True:
            cursor.execute(
                "SELECT id, job_id FROM solid_queue_failed_executions WHERE id > %s ORDER BY id LIMIT %s FOR UPDATE",
                [above, batch],
            )
            page = cursor.fetchall()
            if not page:
                connection.commit()
                return time.perf_counter() - start
            above = page[-1][0]
            failure_ids, job_ids = _list([row[0] for row in page]), _list([row[1] for row in page])
            cursor.execute(
                "INSERT INTO jq_failures (failure_id, job_id, active_job_id, queue_name, class_name, error, failed_at, "
                "archived_at, operation_id, arguments, priority, concurrency_key, scheduled_at, enqueued_at, "
                "updated_at) SELECT f.id, f.job_id, j.active_job_id, j.queue_name, j.class_name, f.error, "
                f"f.created_at, {NOW}, %s, j.arguments, j.priority, j.concurrency_key, j.scheduled_at, j.created_at, "
                "j.updated_at FROM solid_queue_failed_executions f JOIN solid_queue_jobs j ON j.id = f.job_id "
                f"WHERE f.id IN ({failure_ids}) ORDER BY f.id",
                [operation],
            )
            cursor.execute(f"DELETE FROM solid_queue_failed_executions WHERE id IN ({failure_ids})")
            cursor.execute(jobs.format(job_ids))
            cursor.execute("UPDATE jq_operations SET jobs = jobs + %s WHERE id = %s", [len(page), operation])
            connection.commit()


def undo(url: str, batch: int) -> float:
    """Take the jobs of the last operation out of their queue and restore their failures, a batch a transaction."""
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        start = time.perf_counter()
        cursor.execute("SELECT max(id) FROM jq_operations")
        ((last,),) = cursor.fetchall()
        cursor.execute(f"INSERT INTO jq_operations (verb, actor, jobs, created_at) VALUES ('undo', 'bench', 0, {NOW})")
        operation, above = cursor.lastrowid, 0
        while True:
            cursor.execute(
                "SELECT id, job_id FROM jq_failures WHERE operation_id = %s AND restored_by IS NULL AND id > %s "
                "ORDER BY id LIMIT %s FOR UPDATE",
                [last, above, batch],
            )
            page = cursor.fetchall()
            if not page:
                connection.commit()
                return time.perf_counter() - start
            above = page[-1][0]
            ids, job_ids = _list([row[0] for row in page]), _list([row[1] for row in page])
            cursor.execute(f"DELETE FROM solid_queue_ready_executions WHERE job_id IN ({job_ids})")
            cursor.execute(
                "INSERT INTO solid_queue_failed_executions (id, job_id, error, created_at) SELECT failure_id, job_id, "
                f"error, failed_at FROM jq_failures WHERE id IN ({ids}) ORDER BY failure_id"
            )
            cursor.execute(f"UPDATE jq_failures SET restored_by = %s WHERE id IN ({ids})", [operation])
            cursor.execute("UPDATE jq_operations SET jobs = jobs + %s WHERE id = %s", [len(page), operation])
            connection.commit()


def first_page(url: str) -> float:
    """Read the newest failures with their jobs, a second time."""
    page = (
        "SELECT f.id, f.job_id, f.error, f.created_at, j.active_job_id, j.queue_name, j.class_name, j.priority, "
        "j.arguments, j.created_at FROM solid_queue_failed_executions f JOIN solid_queue_jobs j ON j.id = f.job_id "
        "ORDER BY f.id DESC LIMIT 100"
    )
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(page)
        cursor.fetchall()
        start = time.perf_counter()
        cursor.execute(page)
        cursor.fetchall()
        return time.perf_counter() - start


@contextmanager
def snapshot(url: str) -> Iterator[None]:
    """Keep a transaction open that has read: until it ends, InnoDB purges no row that was there when it began."""
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        yield
