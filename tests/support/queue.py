"""Jobs of a test's own: enqueue, claim, fail, and the law that a job is in exactly one state."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, literal, select, union_all

from solidjq import Database, NewJob, enqueue
from solidjq.database import tables as database_tables
from solidjq.database.tables import jobs
from solidjq.database.tables import processes as process_table
from solidjq.queue import claim, endings
from solidjq.queue.claim import Claim
from solidjq.queue.executions import EXECUTIONS
from solidjq.queue.states import State
from support.processes import add_process


def states(connection: Connection) -> dict[int, set[State]]:
    """Return the states of every job, in one statement: workers may be at it while a test looks."""
    each = [select(literal(state.value).label("state"), table.c.job_id) for state, table in EXECUTIONS.items()]
    finished = select(literal(State.FINISHED.value), jobs.c.id).where(jobs.c.finished_at.is_not(None))
    held = union_all(*each, finished).subquery()
    found: dict[int, set[State]] = defaultdict(set)
    for job_id, state in connection.execute(
        select(jobs.c.id, held.c.state).outerjoin(held, held.c.job_id == jobs.c.id)
    ):
        found[job_id] |= set() if state is None else {State(state)}
    return found


def state_of_each(database: Database) -> dict[int, State]:
    """Return each job's state, in the order of the ids; fail if a job is in none or in several."""
    with database.read() as connection:
        found = states(connection)
    damaged = {job_id: held for job_id, held in found.items() if len(held) != 1}
    assert not damaged, f"jobs in no state or in several: {damaged}"
    return {job_id: next(iter(held)) for job_id, held in sorted(found.items())}


def add_jobs(database: Database, *new_jobs: NewJob) -> list[int]:
    """Enqueue jobs."""
    return database.transact(enqueue, new_jobs)


def plain_jobs(count: int, **settings: Any) -> list[NewJob]:
    """Describe jobs that nobody will run."""
    return [NewJob(class_name="PlainJob", args=[number], **settings) for number in range(count)]


def claim_all(database: Database, process_id: int, limit: int = 1000) -> list[Claim]:
    """Claim whatever is ready."""
    return database.transact(claim.claim, process_id, claim.ALL_QUEUES, limit)


def take_turn(
    database: Database,
    process_id: int,
    claims: Sequence[Claim],
    queues: Sequence[str],
    limit: int,
    excepted: Sequence[str] = (),
) -> list[Claim]:
    """Finish claims and claim others, as a worker does: in one statement where there is one."""

    def exchange(connection: Connection) -> list[Claim]:
        paused = claim.lock_process(connection, process_id)
        endings.finish_claims(connection, process_id, held)
        return claim.claim(connection, process_id, queues, limit, excepted, paused=paused)

    held = {ended.id: ended.job_id for ended in claims}
    others = claim.exchange(database, process_id, held, queues, limit, excepted)
    return database.transact(exchange) if others is None else others


def rows(database: Database, table: Any) -> list[dict[str, Any]]:
    """Return a table's rows in id order."""
    with database.read() as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]


def fail(database: Database, *new_jobs: NewJob, error: str | list[str]) -> list[int]:
    """Enqueue jobs and let them fail, with one error for all or one for each."""
    ids = add_jobs(database, *new_jobs)
    process = add_process(database, "worker-that-failed")
    claims = claim_all(database, process, 10_000)
    errors = error if isinstance(error, str) else dict(zip([claim.id for claim in claims], error, strict=True))
    database.transact(endings.fail, endings.claims_of(process), errors)
    with database.write() as connection:
        connection.execute(process_table.delete().where(process_table.c.id == process))
    return ids


def clear(database: Database) -> None:
    tables = [*reversed(database_tables.solid_queue.sorted_tables), *database_tables.LEDGER]
    with database.write() as connection:
        for table in tables:
            connection.execute(delete(table))
