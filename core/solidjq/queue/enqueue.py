"""Enqueue: the rows of new jobs, and their ready, scheduled or blocked rows."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, insert, select

from solidjq.batching import in_batches
from solidjq.database import notices
from solidjq.database.among import among
from solidjq.database.hot import HotStatement, hot
from solidjq.database.inserts import insert_many
from solidjq.database.statements import WriteStyle, writes_in_with
from solidjq.database.tables import jobs, ready
from solidjq.database.times import clock, utcnow
from solidjq.database.transactions import Database
from solidjq.queue.concurrency import KeyAndLimit, Limit, admit
from solidjq.queue.executions import make_ready, schedule
from solidjq.rails import active_job


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob:
    """A job to enqueue: due at once, ``delay`` seconds from now, or ``at`` a time."""

    class_name: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue_name: str = "default"
    priority: int | None = None  # smaller is sooner; None is 0, as in Active Job
    delay: float | None = None
    at: datetime | None = None
    concurrency_key: str | None = None
    limit: Limit | None = None  # of the key; None if only the dispatcher of the application knows it
    on_death: active_job.OnDeath | None = None  # is enqueued if the job dies with its process

    @property
    def at_once(self) -> bool:
        """Whether the job is ready as soon as it is inserted: it has no due time and no concurrency key."""
        return self.at is None and not self.delay and self.concurrency_key is None

    def due_at(self, now: datetime) -> datetime:
        """Return when the job is due, ``now`` at the earliest."""
        due_at = self.at if self.at is not None else now + timedelta(seconds=self.delay or 0)
        return max(due_at, now)


def enqueue(connection: Connection, new_jobs: Iterable[NewJob]) -> list[int]:
    """Insert jobs, ready, scheduled or blocked. Returns their ids, in the order of ``new_jobs``.

    A job with a concurrency key and no limit, one of a Ruby class, is scheduled, due now: the dispatcher that knows the
    class applies its limit.

    Raises ArgumentsError, before anything is inserted, if Active Job cannot serialize an argument.
    """
    new_jobs = list(new_jobs)
    if len(new_jobs) == 1 and new_jobs[0].at_once and writes_in_with(connection) and notices.may_call(connection):
        return [_enqueue_ready(connection, insert_ready_job, new_jobs[0])]
    return _enqueue_all(connection, new_jobs)


def _enqueue_all(connection: Connection, new_jobs: Sequence[NewJob]) -> list[int]:
    now = clock(connection)
    rows: list[dict[str, Any]] = []
    due: list[str] = []
    later: list[str] = []
    limited: dict[KeyAndLimit, list[str]] = defaultdict(list)
    for new in new_jobs:
        active_job_id = str(uuid.uuid4())
        due_at = new.due_at(now)
        rows.append(_row(new, active_job_id, now, due_at))
        if due_at > now or (new.concurrency_key is not None and new.limit is None):
            later.append(active_job_id)
        elif new.concurrency_key is not None and new.limit is not None:
            limited[new.concurrency_key, new.limit].append(active_job_id)
        else:
            due.append(active_job_id)
    if not rows:
        return []
    ids = _insert_jobs(connection, rows)
    for batch in in_batches([ids[active_job_id] for active_job_id in due]):
        make_ready(connection, batch)
    for batch in in_batches([ids[active_job_id] for active_job_id in later]):
        schedule(connection, batch)
    admit(connection, {key: [ids[active_job_id] for active_job_id in new] for key, new in limited.items()})
    if due or limited:
        notices.send(connection)
    return [ids[row["active_job_id"]] for row in rows]


def enqueue_alone(database: Database, new: NewJob) -> int:
    """Enqueue one job in a transaction of its own, on PostgreSQL in one round trip; return its id.

    Raises ArgumentsError if Active Job cannot serialize an argument.
    """
    if new.at_once and database.writes_in_with:
        job_id = database.each_alone(_enqueue_in_one, new)
        if job_id is not None:
            return job_id
    (job_id,) = database.transact(_enqueue_all, [new])
    return job_id


def _enqueue_in_one(connection: Connection, new: NewJob) -> int | None:
    """Enqueue a job that is ready at once by one statement; return its id, None if this role may send no notice."""
    return _enqueue_ready(connection, insert_ready_job_alone, new) if notices.may_call(connection) else None


def _enqueue_ready(connection: Connection, insertion: HotStatement[Any], new: NewJob) -> int:
    # Reading the database's clock would be a round trip. The statement sets the row's times by that clock; the times in
    # the payload decide nothing, and Rails takes them from the host's clock too.
    row = _row(new, str(uuid.uuid4()), now := datetime.now(UTC), now)
    job_id: int = insertion(connection, **{name: row[name] for name in row.keys() - _SERVER_TIMES})[0].id
    return job_id


def _insert_jobs(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Insert jobs; return their ids by their Active Job ids."""
    if len(rows) == 1:  # every driver returns the id of one inserted row
        inserted = connection.execute(insert(jobs), rows[0])
        return {rows[0]["active_job_id"]: next(iter(inserted.inserted_primary_key or ()))}
    insert_many(connection, jobs, rows)
    ids: dict[str, int] = {}
    for batch in in_batches([row["active_job_id"] for row in rows]):
        inserted = connection.execute(select(jobs.c.active_job_id, jobs.c.id).where(among(jobs.c.active_job_id, batch)))
        ids.update((row.active_job_id, row.id) for row in inserted)
    return ids


_SERVER_TIMES = {"scheduled_at", "created_at", "updated_at"}


@hot(WriteStyle.CHAINED)
def insert_ready_job() -> Select[Any]:
    """Insert a job and its ready row in the caller's transaction, and notify the workers that wait for one.

    No guard: the job is new, and nobody sees a part of it.
    """
    return _insertion(notices.notice())


@hot(WriteStyle.CHAINED)
def insert_ready_job_alone() -> Select[Any]:
    """Insert a job and its ready row in a transaction of its own; notify unless two others are about to.

    No guard: the job is new, and nobody sees a part of it. The two advisory locks, which nobody waits for, decide
    nothing but who notifies.
    """
    return _insertion(notices.notice_of_few())


def _insertion(notice: ColumnElement[Any]) -> Select[Any]:
    names = {column.name for column in jobs.c} - _SERVER_TIMES - {"id", "finished_at"}
    values: dict[str, Any] = {name: bindparam(name, type_=jobs.c[name].type) for name in sorted(names)}
    values.update(dict.fromkeys(_SERVER_TIMES, utcnow()))
    job = insert(jobs).values(values).returning(jobs.c.id, jobs.c.queue_name, jobs.c.priority).cte("job")
    rows = insert(ready).from_select(
        ["job_id", "queue_name", "priority", "created_at"], select(job.c.id, job.c.queue_name, job.c.priority, utcnow())
    )
    return select(job.c.id, notice).add_cte(rows.cte("rows"))


def _row(new: NewJob, active_job_id: str, now: datetime, due_at: datetime) -> dict[str, Any]:
    return {
        "queue_name": new.queue_name,
        "class_name": new.class_name,
        "arguments": active_job.payload(
            class_name=new.class_name,
            active_job_id=active_job_id,
            queue_name=new.queue_name,
            priority=new.priority,
            call=active_job.Call(list(new.args), dict(new.kwargs)),
            now=now,
            scheduled_at=due_at,
            on_death=new.on_death,
        ),
        "priority": new.priority or 0,
        "active_job_id": active_job_id,
        "scheduled_at": due_at,
        "concurrency_key": new.concurrency_key,
        "created_at": now,
        "updated_at": now,
    }
