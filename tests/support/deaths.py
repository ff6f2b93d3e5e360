"""Workers that die with jobs in their hands, by their rows alone."""

import uuid

from sqlalchemy import select

from solidjq import Database
from solidjq.database.tables import jobs
from solidjq.ledger.crashes import crashes_of
from solidjq.processes import heartbeat, pruning
from solidjq.queue import endings
from solidjq.queue.failed import Filter
from solidjq.rails.error_text import Death, error_json
from solidjq.recovery.terms import Selection
from support.processes import add_process, silence
from support.queue import claim_all

DIED = Filter(deaths=frozenset(Death))
ALL = Selection(chosen=DIED)


def die(database: Database, *, silent: float = 1000, hostname: str = "elsewhere", pid: int = 4242) -> list[int]:
    """Let a worker claim all that is ready and die; prune it. Return the jobs that it held."""
    worker = database.transact(
        heartbeat.register, kind="Worker", name=f"worker-{uuid.uuid4()}", pid=pid, hostname=hostname, metadata={}
    )
    claim_all(database, worker, 5000)
    silence(database, worker, silent)
    return [job_id for pruned in pruning.prune(database, 300) for job_id in pruned.job_ids]


def raise_all(database: Database) -> None:
    worker = add_process(database, f"worker-{uuid.uuid4()}")
    claim_all(database, worker)
    database.transact(endings.fail, endings.claims_of(worker), error_json("ArgumentError", "boom"))


def crash_count(database: Database, job_id: int) -> int:
    name = crash_subject(database, job_id)
    with database.read() as connection:
        return len(crashes_of(connection, [name])[name])


def crash_subject(database: Database, job_id: int) -> str:
    with database.read() as connection:
        return str(connection.scalar(select(jobs.c.active_job_id).where(jobs.c.id == job_id)))
