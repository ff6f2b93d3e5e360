"""The same rows moved by hand-written SQL over psycopg: what the database itself takes for the work.

It runs nothing, decides nothing and knows nothing of concurrency limits; every move is one transaction a batch.
"""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

ERROR = json.dumps(
    {"exception_class": "SolidQueue::Processes::ProcessPrunedError", "message": "silent", "backtrace": []}
)
EVIDENCE = json.dumps({"threshold": 300, "fleet": {"alive": 0, "silent": 1, "hosts_alive": 0, "hosts_silent": 1}})
DEATHS = """
    INSERT INTO jq_deaths (process_id, kind, name, hostname, pid, supervisor_id, started_at, last_heartbeat_at,
        noticed_at, noticed_by, evidence)
    SELECT id, kind, name, hostname, pid, supervisor_id, created_at, last_heartbeat_at, {now}, 'prune', %s
    FROM solid_queue_processes WHERE id IN ({dead})
    """
CRASHES = """
    INSERT INTO jq_crashes (subject, failure_id, job_id, class_name, evidence, death_id, hostname, pid,
        last_heartbeat_at, crashed_at)
    SELECT j.active_job_id, f.id, j.id, j.class_name, substr(f.error, 1, 255), d.id, d.hostname, d.pid,
        d.last_heartbeat_at, f.created_at
    FROM solid_queue_claimed_executions c
        JOIN jq_deaths d ON d.process_id = c.process_id
        JOIN solid_queue_jobs j ON j.id = c.job_id
        JOIN solid_queue_failed_executions f ON f.job_id = c.job_id
    WHERE c.process_id IN ({dead})
    ORDER BY f.id
    """
LIMITED = """
    SELECT DISTINCT j.concurrency_key
    FROM solid_queue_claimed_executions c JOIN solid_queue_jobs j ON j.id = c.job_id
    WHERE c.process_id IN ({dead}) AND j.concurrency_key IS NOT NULL
    """


def payload(active_job_id: str) -> str:
    """Write what Active Job writes for a job."""
    return json.dumps(
        {
            "job_class": "BenchJob",
            "job_id": active_job_id,
            "provider_job_id": None,
            "queue_name": "default",
            "priority": None,
            "arguments": [0],
            "executions": 0,
            "exception_executions": {},
            "locale": "en",
            "timezone": "UTC",
            "enqueued_at": "2026-01-01T00:00:00.000000000Z",
            "scheduled_at": None,
        },
        separators=(",", ":"),
    )


def enqueue(url: str, count: int, batch: int) -> float:
    """Insert jobs and their ready rows, one statement a batch."""
    with psycopg.connect(url) as connection:
        start = time.perf_counter()
        for low in range(0, count, batch):
            ids = [str(uuid.uuid4()) for _ in range(low, min(low + batch, count))]
            connection.execute(
                """
                WITH new AS (
                    INSERT INTO solid_queue_jobs (queue_name, class_name, arguments, priority, active_job_id,
                        scheduled_at, created_at, updated_at)
                    SELECT 'default', 'BenchJob', payload, 0, active_job_id, now.utc, now.utc, now.utc
                    FROM unnest(%s::text[], %s::text[]) AS given (active_job_id, payload),
                        (SELECT timezone('UTC', now())) AS now (utc)
                    RETURNING id, queue_name, priority, created_at)
                INSERT INTO solid_queue_ready_executions (job_id, queue_name, priority, created_at)
                SELECT id, queue_name, priority, created_at FROM new ORDER BY id
                """,
                [ids, [payload(active_job_id) for active_job_id in ids]],
            )
            connection.commit()
        return time.perf_counter() - start


def drain(url: str, batch: int) -> float:
    """Claim a batch and read its jobs in one transaction, finish it in another, until nothing is ready."""
    with psycopg.connect(url) as connection:
        start = time.perf_counter()
        while True:
            claimed = connection.execute(
                """
                WITH taken AS (
                    DELETE FROM solid_queue_ready_executions WHERE id IN (
                        SELECT id FROM solid_queue_ready_executions ORDER BY priority, job_id LIMIT %s
                        FOR UPDATE SKIP LOCKED)
                    RETURNING job_id)
                INSERT INTO solid_queue_claimed_executions (job_id, process_id, created_at)
                SELECT job_id, 1, timezone('UTC', now()) FROM taken ORDER BY job_id RETURNING job_id
                """,
                [batch],
            ).fetchall()
            job_ids = [job_id for (job_id,) in claimed]
            connection.execute("SELECT id, class_name, arguments FROM solid_queue_jobs WHERE id = ANY(%s)", [job_ids])
            connection.commit()
            if not job_ids:
                return time.perf_counter() - start
            connection.execute(
                "UPDATE solid_queue_jobs SET finished_at = timezone('UTC', now()), updated_at = timezone('UTC', now()) "
                "WHERE id = ANY(%s)",
                [job_ids],
            )
            connection.execute("DELETE FROM solid_queue_claimed_executions WHERE job_id = ANY(%s)", [job_ids])
            connection.commit()


def prune(url: str, *, counted: bool = False) -> float:
    """Fail all claims of the silent processes in one transaction of six statements.

    It locks the silent processes and their claims, so that no job can finish meanwhile and fail as well, and looks for
    jobs that hold a slot of a concurrency limit; there is none. With ``counted``, two more statements record the deaths
    and count a crash of each job, as ``jq`` does.
    """
    with psycopg.connect(url) as connection:
        start = time.perf_counter()
        silent = connection.execute(
            "SELECT id FROM solid_queue_processes "
            "WHERE last_heartbeat_at <= timezone('UTC', now()) - interval '5 minutes' ORDER BY id FOR UPDATE"
        ).fetchall()
        dead = ",".join(str(process_id) for (process_id,) in silent)
        claims = f"solid_queue_claimed_executions WHERE process_id IN ({dead})"
        connection.execute(f"SELECT count(*) FROM (SELECT id FROM {claims} ORDER BY id FOR UPDATE) AS locked")
        connection.execute(
            "INSERT INTO solid_queue_failed_executions (job_id, error, created_at) "
            f"SELECT job_id, %s, timezone('UTC', now()) FROM {claims} ORDER BY id",
            [ERROR],
        )
        if counted:
            connection.execute(DEATHS.format(now="timezone('UTC', now())", dead=dead), [EVIDENCE])
            connection.execute(CRASHES.format(dead=dead))
        require_unlimited(connection.execute(LIMITED.format(dead=dead)).fetchall())
        connection.execute(f"DELETE FROM {claims}")
        connection.execute(f"DELETE FROM solid_queue_processes WHERE id IN ({dead})")
        connection.commit()
        return time.perf_counter() - start


def require_unlimited(keys: Sequence[object]) -> None:
    """Raise if there is a job of a concurrency limit."""
    if keys:
        raise AssertionError("plain SQL gives back no slot")


def retry(url: str, batch: int) -> float:
    """Archive failures, remove them and make their jobs ready, a batch a transaction, the oldest first."""
    return _move(
        url,
        batch,
        "INSERT INTO solid_queue_ready_executions (job_id, queue_name, priority, created_at) SELECT id, "
        "queue_name, priority, timezone('UTC', now()) FROM solid_queue_jobs WHERE id = ANY(%s) ORDER BY id",
    )


def discard(url: str, batch: int) -> float:
    """Archive failures and remove them with their jobs, a batch a transaction, the oldest first."""
    return _move(url, batch, "DELETE FROM solid_queue_jobs WHERE id = ANY(%s)")


def _move(url: str, batch: int, jobs: str) -> float:
    with psycopg.connect(url) as connection:
        start = time.perf_counter()
        ((operation,),) = connection.execute(
            "INSERT INTO jq_operations (verb, actor, jobs, created_at) VALUES ('retry', 'bench', 0, "
            "timezone('UTC', now())) RETURNING id"
        ).fetchall()
        above = 0
        while True:
            page = connection.execute(
                "SELECT id, job_id FROM solid_queue_failed_executions WHERE id > %s ORDER BY id LIMIT %s FOR UPDATE",
                [above, batch],
            ).fetchall()
            if not page:
                connection.commit()
                return time.perf_counter() - start
            above = page[-1][0]
            failure_ids, job_ids = [row[0] for row in page], [row[1] for row in page]
            connection.execute(
                """
                INSERT INTO jq_failures (failure_id, job_id, active_job_id, queue_name, class_name, error, failed_at,
                    archived_at, operation_id, arguments, priority, concurrency_key, scheduled_at, enqueued_at,
                    updated_at)
                SELECT f.id, f.job_id, j.active_job_id, j.queue_name, j.class_name, f.error, f.created_at,
                    timezone('UTC', now()), %s, j.arguments, j.priority, j.concurrency_key, j.scheduled_at,
                    j.created_at, j.updated_at
                FROM solid_queue_failed_executions f JOIN solid_queue_jobs j ON j.id = f.job_id
                WHERE f.id = ANY(%s) ORDER BY f.id
                """,
                [operation, failure_ids],
            )
            connection.execute("DELETE FROM solid_queue_failed_executions WHERE id = ANY(%s)", [failure_ids])
            connection.execute(jobs, [job_ids])
            connection.execute("UPDATE jq_operations SET jobs = jobs + %s WHERE id = %s", [len(page), operation])
            connection.commit()


def undo(url: str, batch: int) -> float:
    """Take the jobs of the last operation out of their queue and restore their failures, a batch a transaction."""
    with psycopg.connect(url) as connection:
        start = time.perf_counter()
        ((last,),) = connection.execute("SELECT max(id) FROM jq_operations").fetchall()
        ((operation,),) = connection.execute(
            "INSERT INTO jq_operations (verb, actor, jobs, created_at) VALUES ('undo', 'bench', 0, "
            "timezone('UTC', now())) RETURNING id"
        ).fetchall()
        above = 0
        while True:
            page = connection.execute(
                "SELECT id, job_id FROM jq_failures WHERE operation_id = %s AND restored_by IS NULL AND id > %s "
                "ORDER BY id LIMIT %s FOR UPDATE",
                [last, above, batch],
            ).fetchall()
            if not page:
                connection.commit()
                return time.perf_counter() - start
            above = page[-1][0]
            ids, job_ids = [row[0] for row in page], [row[1] for row in page]
            connection.execute("DELETE FROM solid_queue_ready_executions WHERE job_id = ANY(%s)", [job_ids])
            connection.execute(
                "INSERT INTO solid_queue_failed_executions (id, job_id, error, created_at) SELECT failure_id, job_id, "
                "error, failed_at FROM jq_failures WHERE id = ANY(%s) ORDER BY failure_id",
                [ids],
            )
            connection.execute("UPDATE jq_failures SET restored_by = %s WHERE id = ANY(%s)", [operation, ids])
            connection.execute("UPDATE jq_operations SET jobs = jobs + %s WHERE id = %s", [len(page), operation])
            connection.commit()


def first_page(url: str) -> float:
    """Read the newest failures with their jobs, a second time."""
    page = (
        "SELECT f.id, f.job_id, f.error, f.created_at, j.active_job_id, j.queue_name, j.class_name, j.priority, "
        "j.arguments, j.created_at FROM solid_queue_failed_executions f JOIN solid_queue_jobs j ON j.id = f.job_id "
        "ORDER BY f.id DESC LIMIT 100"
    )
    with psycopg.connect(url) as connection:
        connection.execute(page).fetchall()
        start = time.perf_counter()
        connection.execute(page).fetchall()
        return time.perf_counter() - start


@contextmanager
def snapshot(url: str) -> Iterator[None]:
    """Keep a transaction open that has read: until it ends, no row that was there when it began can be cleaned away."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1 FROM pg_class LIMIT 1").fetchall()  # a peer's database has other tables
        yield
        connection.rollback()
