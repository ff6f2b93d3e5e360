"""Long jobs whose process dies at a cursor, by their rows alone."""

import itertools
import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import jobs
from solidjq.database.times import ago, utcnow
from solidjq.processes import pruning
from support.continuations import continued
from support.processes import add_process
from support.queue import add_jobs, claim_all

PIDS = itertools.count(50_000)


def add_long_job(database: Database, *, class_name: str = "ImportJob", queue_name: str = "default") -> int:
    (job_id,) = add_jobs(database, NewJob(class_name=class_name, queue_name=queue_name))
    return job_id


def set_payload(database: Database, job_id: int, payload: str, *, saved: float = 9000) -> None:
    """Write a payload, ``saved`` seconds ago."""
    with database.write() as connection:
        row = update(jobs).where(jobs.c.id == job_id)
        connection.execute(row.values(arguments=payload, updated_at=ago(saved)))


def payload_of(database: Database, job_id: int) -> str:
    with database.read() as connection:
        return str(connection.scalar(select(jobs.c.arguments).where(jobs.c.id == job_id)))


def save(database: Database, job_id: int, step: str | None, cursor: Any = None, **marks: Any) -> None:
    """Save the progress of a job as its worker does; without a step it has begun none."""
    current = {} if step is None else {"current": [step, cursor]}
    payload = continued({"completed": [] if step is None else ["fetch"], **current}, 1)
    if marks:
        payload = json.dumps({**json.loads(payload), "solidjq": marks}, separators=(",", ":"))
    set_payload(database, job_id, payload)


def kill(database: Database, *, job_ids: Collection[int] | None = None, signal: int = 9) -> list[int]:
    """Let a worker claim all that is ready, or these jobs, and be killed; its supervisor reaps it.

    Returns the jobs that it held.
    """
    worker = add_process(database, f"worker-{next(PIDS)}")
    if job_ids is None:
        claim_all(database, worker)
    else:
        database.transact(_claim_these, worker, job_ids)
    return database.transact(pruning.fail_exited, worker, pid=next(PIDS), returncode=-signal)


def _claim_these(connection: Connection, worker: int, job_ids: Collection[int]) -> None:
    connection.execute(delete(tables.ready).where(tables.ready.c.job_id.in_(job_ids)))
    for job_id in job_ids:
        connection.execute(insert(tables.claimed).values(job_id=job_id, process_id=worker, created_at=utcnow()))


def kill_at(database: Database, job_id: int, step: str | None, cursor: Any = None, **marks: Any) -> None:
    """Let a worker be killed that runs this job, and others that are ready, when the job stands there."""
    save(database, job_id, step, cursor, **marks)
    assert job_id in kill(database)


def forget_newest_crash(database: Database) -> None:
    """Take back what our supervisor wrote beside the failure, as if Rails' own had reaped the worker."""
    with database.write() as connection:
        newest = connection.scalar(select(tables.crashes.c.failure_id).order_by(tables.crashes.c.failure_id.desc()))
        connection.execute(delete(tables.crashes).where(tables.crashes.c.failure_id == newest))
        last = connection.scalar(select(tables.deaths.c.id).order_by(tables.deaths.c.id.desc()))
        connection.execute(delete(tables.deaths).where(tables.deaths.c.id == last))
