"""A job's way to a worker: enqueue, dispatch, claim; and discard, pause, resume. Exactly Solid Queue's table moves.

Each function is one move inside the caller's transaction (see database.py), and returns what it really moved.
How a claim ends is in endings.py.
"""

import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Executable,
    Exists,
    FromClause,
    Insert,
    Row,
    Select,
    String,
    Table,
    Text,
    any_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    insert,
    or_,
    select,
    true,
)
from sqlalchemy.sql.dml import ReturningInsert

from solidjq.batching import in_batches
from solidjq.database import notices
from solidjq.database.hot import array_of, execute_hot, given, written
from solidjq.database.statements import (
    among,
    distinct_values,
    insert_if_absent,
    insert_many,
    leaping,
    returns_changed,
    writes_in_with,
)
from solidjq.database.tables import blocked, claimed, failed, jobs, pauses, processes, ready, scheduled
from solidjq.database.times import clock, utcnow
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, ProcessGoneError, UsageError
from solidjq.queue.concurrency import UNKNOWN, Held, Limit, Limits, acquire, block, give_back
from solidjq.queue.endings import finish_in_with, make_ready
from solidjq.rails import active_job

ALL_QUEUES = ("*",)


# -- enqueue ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob:
    """A job to be enqueued: due at once, or ``delay`` seconds from now, or ``at`` a time."""

    class_name: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue_name: str = "default"
    priority: int | None = None  # smaller is sooner; None is 0, as in Active Job
    delay: float | None = None
    at: datetime | None = None
    concurrency_key: str | None = None
    limit: Limit | None = None  # required with a concurrency_key

    @property
    def at_once(self) -> bool:
        """Whether it is ready as soon as it is there: due whatever the clock says, and under no limit."""
        return self.at is None and not self.delay and (self.concurrency_key is None or self.limit is None)

    def due_at(self, now: datetime) -> datetime:
        """Return when the job is due; ``now`` if that is not in the future."""
        due_at = self.at if self.at is not None else now + timedelta(seconds=self.delay or 0)
        return max(due_at, now)


def enqueue(connection: Connection, new_jobs: Iterable[NewJob]) -> list[int]:
    """Insert jobs, ready, scheduled or blocked. Returns their ids in the given order.

    Raises ArgumentsError, before anything is inserted, if one of them has an argument that Active Job has no form for.
    """
    new_jobs = list(new_jobs)
    if len(new_jobs) == 1 and new_jobs[0].at_once and writes_in_with(connection):
        return [_enqueue_ready(partial(execute_hot, connection), new_jobs[0])]
    now = clock(connection)
    rows: list[dict[str, Any]] = []
    due: list[str] = []
    later: list[str] = []
    limited: dict[Held, list[str]] = defaultdict(list)
    for new in new_jobs:
        active_job_id = str(uuid.uuid4())
        due_at = new.due_at(now)
        rows.append(_row(new, active_job_id, now, due_at))
        if due_at > now:
            later.append(active_job_id)
        elif new.concurrency_key is not None and new.limit is not None:
            limited[new.concurrency_key, new.limit].append(active_job_id)
        else:
            due.append(active_job_id)
    if not rows:
        return []
    ids = _insert_jobs(connection, rows)
    for batch in in_batches([ids[key] for key in due]):
        make_ready(connection, batch)
    for batch in in_batches([ids[key] for key in later]):
        schedule(connection, batch)
    _admit(connection, {held: [ids[key] for key in active_job_ids] for held, active_job_ids in limited.items()})
    if due or limited:
        notices.send(connection)
    return [ids[row["active_job_id"]] for row in rows]


def enqueue_alone(database: Database, new: NewJob) -> int:
    """Enqueue one job in a transaction of its own, which is one round trip where the database can; return its id.

    Raises ArgumentsError likewise.
    """
    if new.at_once and database.writes_in_with:
        return _enqueue_ready(database.execute, new)
    (job_id,) = database.transact(enqueue, [new])
    return job_id


def _enqueue_ready(execute: Callable[..., Sequence[Row[Any]]], new: NewJob) -> int:
    # To ask for the database's clock would be a round trip. It gives the row its times all the same; those in the
    # payload decide nothing, and are of the enqueuer's host in Rails too.
    row = _row(new, str(uuid.uuid4()), now := datetime.now(UTC), now)
    job_id: int = execute(_ready_at_once, **{name: row[name] for name in row.keys() - _SERVER_TIMES})[0].id
    return job_id


def _insert_jobs(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Insert jobs; return their ids by their Active Job ids."""
    if len(rows) == 1:  # every driver tells one row's id with its insertion
        inserted = connection.execute(insert(jobs), rows[0])
        return {rows[0]["active_job_id"]: next(iter(inserted.inserted_primary_key or ()))}
    insert_many(connection, jobs, rows)
    ids: dict[str, int] = {}
    for batch in in_batches([row["active_job_id"] for row in rows]):
        found = connection.execute(select(jobs.c.active_job_id, jobs.c.id).where(among(jobs.c.active_job_id, batch)))
        ids.update((row.active_job_id, row.id) for row in found)
    return ids


_SERVER_TIMES = {"scheduled_at", "created_at", "updated_at"}


def _ready_at_once() -> Select[Any]:
    """Insert a job and its ready row, and send word of it: all that an idle worker waits for."""
    names = {column.name for column in jobs.c} - _SERVER_TIMES - {"id", "finished_at"}
    values: dict[str, Any] = {name: bindparam(name, type_=jobs.c[name].type) for name in sorted(names)}
    values.update(dict.fromkeys(_SERVER_TIMES, utcnow()))
    job = insert(jobs).values(values).returning(jobs.c.id, jobs.c.queue_name, jobs.c.priority).cte("job")
    rows = insert(ready).from_select(
        ["job_id", "queue_name", "priority", "created_at"], select(job.c.id, job.c.queue_name, job.c.priority, utcnow())
    )
    return select(job.c.id, notices.sending()).add_cte(rows.cte("rows"))


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
        ),
        "priority": new.priority or 0,
        "active_job_id": active_job_id,
        "scheduled_at": due_at,
        "concurrency_key": new.concurrency_key,
        "created_at": now,
        "updated_at": now,
    }


def _admit(connection: Connection, limited: Mapping[Held, Sequence[int]]) -> None:
    """Let as many of each key's jobs as have a free slot be ready, and the rest wait."""
    granted = acquire(connection, {held: len(job_ids) for held, job_ids in limited.items()})
    free: list[int] = []
    waiting: dict[float, list[int]] = defaultdict(list)
    for held, job_ids in limited.items():
        free += job_ids[: granted[held]]
        waiting[held[1].duration] += job_ids[granted[held] :]
    for batch in in_batches(free):
        make_ready(connection, batch)
    for duration, job_ids in waiting.items():
        for batch in in_batches(job_ids):
            block(connection, batch, duration)


def schedule(connection: Connection, job_ids: Collection[int], at: ColumnElement[datetime] | None = None) -> None:
    """Insert the scheduled rows of these jobs, for ``at``, else for the time that each job itself names."""
    connection.execute(
        insert(scheduled).from_select(
            ["job_id", "queue_name", "priority", "scheduled_at", "created_at"],
            select(
                jobs.c.id,
                jobs.c.queue_name,
                jobs.c.priority,
                jobs.c.scheduled_at if at is None else at,
                utcnow(),
            )
            .where(among(jobs.c.id, job_ids))
            .order_by(jobs.c.id),
        )
    )


# -- dispatch ---------------------------------------------------------------------------------------------------------


def dispatch(connection: Connection, limit: int, limits: Limits = UNKNOWN) -> list[int]:
    """Make up to ``limit`` scheduled jobs that are due ready, or blocked where their concurrency limit is used up.

    A job with a concurrency key whose class is not in ``limits`` is left alone: its limit stands in Ruby code, and
    Rails' own dispatcher will take it. Returns the ids of the jobs moved.
    """
    # Asked row by row: a planner that makes a join of it may read all jobs there are, every second.
    ours = (
        select(case((or_(jobs.c.concurrency_key.is_(None), jobs.c.class_name.in_(list(limits))), 1), else_=0))
        .where(jobs.c.id == scheduled.c.job_id)
        .scalar_subquery()
    )
    due = connection.execute(
        select(scheduled.c.id, scheduled.c.job_id)
        .where(scheduled.c.scheduled_at <= utcnow(), ours == 1)
        .order_by(scheduled.c.scheduled_at, scheduled.c.priority, scheduled.c.job_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    if not due:
        return []
    job_ids = [row.job_id for row in due]
    limited: dict[Held, list[int]] = defaultdict(list)
    keyed = connection.execute(
        select(jobs.c.id, jobs.c.concurrency_key, jobs.c.class_name)
        .where(among(jobs.c.id, job_ids), jobs.c.concurrency_key.is_not(None))
        .order_by(jobs.c.priority, jobs.c.id)
    )
    for row in keyed:
        limited[row.concurrency_key, limits[row.class_name]].append(row.id)
    bound = {job_id for group in limited.values() for job_id in group}
    if free := [job_id for job_id in job_ids if job_id not in bound]:
        make_ready(connection, free)
    _admit(connection, limited)
    connection.execute(delete(scheduled).where(among(scheduled.c.id, [row.id for row in due])))
    return job_ids


# -- claim ------------------------------------------------------------------------------------------------------------


class Claim(NamedTuple):
    """A job in a worker's hands. ``id`` names this claim; a later claim of the same job has another."""

    id: int
    job_id: int
    active_job_id: str | None
    queue_name: str
    priority: int
    class_name: str
    arguments: str | None
    concurrency_key: str | None


def claim(connection: Connection, process_id: int, queues: Sequence[str], limit: int) -> list[Claim]:
    """Claim up to ``limit`` ready jobs for a process, by queue order, then priority, then age.

    ``queues`` are names and prefixes (``mail*``), polled in the order given; ``*`` is every queue. Paused queues are
    left out. Raises ProcessGoneError if the process was pruned: it must not claim any more.
    """
    if writes_in_with(connection):
        claims = _claim_in_one(partial(execute_hot, connection), process_id, queues, limit)
        if claims is not None:
            return claims
    # Shared lock: a prune of this process waits for this claim and sees it, or was first and this stops here.
    found = execute_hot(connection, _alive_and_paused, process_id=process_id)
    if not found:
        raise ProcessGoneError(f"process {process_id} was pruned")
    names = _to_poll(connection, queues, paused=bool(found[0].paused))
    taken: list[int] = []
    for name in names:
        taken += _take_ready(connection, process_id, limit - len(taken), name)
        if len(taken) >= limit:
            break
    if not taken:
        return []
    claims = [Claim._make(row) for row in execute_hot(connection, _claims_of_jobs, job_ids=taken)]
    turn = {name: number for number, name in enumerate(names)}
    return sorted(claims, key=lambda each: (turn.get(each.queue_name, 0), each.priority, each.job_id))


def _take_ready(connection: Connection, process_id: int, most: int, name: str | None) -> list[int]:
    """Turn the first ready rows, of all queues or of one, into claims; return their jobs' ids."""
    of_queue: dict[str, Any] = {} if name is None else {"queue_name": name}
    told = returns_changed(connection)
    if told:
        build: Callable[[], Executable] = _claiming_first_of_queue if of_queue else _claiming_first
        rows = execute_hot(connection, build, process_id=process_id, most=most, **of_queue)
    else:
        build = _candidates_of_queue if of_queue else _candidates
        rows = execute_hot(connection, build, most=most, **of_queue)
    job_ids = [row.job_id for row in rows]
    if job_ids and not told:
        execute_hot(connection, _claiming, process_id=process_id, job_ids=job_ids)
    if job_ids:
        execute_hot(connection, _leaving, job_ids=job_ids)
    return job_ids


def exchange(
    database: Database, process_id: int, claim_ids: Collection[int], queues: Sequence[str], limit: int
) -> list[Claim] | None:
    """Finish claims of jobs that hold no slot, and claim up to ``limit`` others, in one round trip.

    Queues that are named take one round trip each, and prefixes one more. None where the database has no such
    statement, or no queue that a prefix fits has a job: what of it is undone then is to be done as ever.
    Raises ProcessGoneError likewise.
    """
    if not database.writes_in_with:
        return None
    return _claim_in_one(database.execute, process_id, queues, limit, claim_ids=list(claim_ids))


def _claim_in_one(
    execute: Callable[..., Sequence[Row[Any]]], process_id: int, queues: Sequence[str], limit: int, **finish: list[int]
) -> list[Claim] | None:
    """Claim in one statement, or one for each queue; the first one also finishes what is given."""
    if "*" in queues:
        build: Callable[[], Executable] = _finish_and_claim if finish else _claim_from_all
        of_all = _read(process_id, execute(build, process_id=process_id, most=limit, **finish))
        if of_all is not None:
            return of_all
        queues, finish = ALL_QUEUES, {}  # one is paused: what that leaves out must not hide the rest
    if any(name.endswith("*") for name in queues):
        queues = select_queues(queues, [row.value for row in execute(_queues_with_jobs)])
        if not queues:
            return None
    claims: list[Claim] = []
    for name in dict.fromkeys(queues):
        build = _finish_and_claim_from_queue if finish else _claim_from_queue
        given_ = {"process_id": process_id, "queue_name": name, "most": limit - len(claims), **finish}
        try:
            claims += _read(process_id, execute(build, **given_)) or []
        except DatabaseError:
            if not claims:
                raise
            break  # each statement may be a transaction: what is claimed already must not be forgotten
        finish = {}
        if len(claims) >= limit:
            break
    return claims


def _alive() -> Select[Any]:
    process_id = bindparam("process_id", type_=BigInteger())
    return select(processes.c.id).where(processes.c.id == process_id).with_for_update(read=True, key_share=True)


def _alive_and_paused() -> Select[Any]:
    return _alive().add_columns(exists().select_from(pauses).label("paused"))


def _candidates() -> Select[Any]:
    return (
        select(ready.c.job_id)
        .order_by(ready.c.priority, ready.c.job_id)
        .limit(written("most"))
        .with_for_update(skip_locked=True)
    )


def _candidates_of_queue() -> Select[Any]:
    return _candidates().where(ready.c.queue_name == bindparam("queue_name", type_=String()))


def _queues_with_jobs() -> Select[Any]:
    return leaping(ready.c.queue_name)


def _claiming() -> Insert:
    return _claimed(select(ready.c.job_id).where(given(ready.c.job_id, "job_ids")).order_by(ready.c.job_id))


def _claiming_first() -> ReturningInsert[Any]:
    return _claimed(_candidates()).returning(claimed.c.job_id)


def _claiming_first_of_queue() -> ReturningInsert[Any]:
    return _claimed(_candidates_of_queue()).returning(claimed.c.job_id)


def _claimed(job_ids: Select[Any]) -> Insert:
    rows = job_ids.add_columns(bindparam("process_id", type_=BigInteger()), utcnow())
    return insert(claimed).from_select(["job_id", "process_id", "created_at"], rows)


def _leaving() -> Delete:
    return delete(ready).where(given(ready.c.job_id, "job_ids"))


def _claims_of_jobs() -> Select[Any]:
    return _claims_of(claimed).where(given(claimed.c.job_id, "job_ids"))


def _claims_of(taken: FromClause) -> Select[Any]:
    """Select what a Claim holds."""
    return select(
        taken.c.id,
        jobs.c.id.label("job_id"),
        jobs.c.active_job_id,
        jobs.c.queue_name,
        jobs.c.priority,
        jobs.c.class_name,
        cast(jobs.c.arguments, Text()).label("arguments"),
        jobs.c.concurrency_key,
    ).join(jobs, jobs.c.id == taken.c.job_id)


def _claim_from_all() -> Select[Any]:
    """Claim from every queue in one statement, where none is paused.

    It returns at least one row if the process lives: whether a queue is paused, and a claim or nothing.
    """
    return _claim_from(_candidates(), exists().select_from(pauses))


def _claim_from_queue() -> Select[Any]:
    """Do the same from one queue, where that one is not paused."""
    return _claim_from(
        _candidates_of_queue(), exists().where(pauses.c.queue_name == bindparam("queue_name", type_=String()))
    )


def _claim_from(candidates: Select[Any], paused: Exists) -> Select[Any]:
    alive = _alive().cte("alive")
    picked = candidates.where(exists().select_from(alive), ~paused).cte("picked")
    gone = delete(ready).where(ready.c.job_id == any_(array_of(picked.c.job_id))).returning(ready.c.job_id).cte("gone")
    taken = _claimed(select(gone.c.job_id)).returning(claimed.c.id, claimed.c.job_id).cte("taken")
    claims = _claims_of(taken).subquery("claims")
    return select(paused.label("paused"), claims).select_from(alive.outerjoin(claims, true()))


def _finish_and_claim() -> Select[Any]:
    return _claim_from_all().add_cte(*finish_in_with())


def _finish_and_claim_from_queue() -> Select[Any]:
    return _claim_from_queue().add_cte(*finish_in_with())


def _read(process_id: int, rows: Sequence[Row[Any]]) -> list[Claim] | None:
    """Read what such a statement returned; None where a queue is paused."""
    if not rows:
        raise ProcessGoneError(f"process {process_id} was pruned")
    if rows[0].paused:
        return None
    claims = [Claim._make(row[1:]) for row in rows if row.id is not None]
    return sorted(claims, key=lambda each: (each.priority, each.job_id))


def _to_poll(connection: Connection, queues: Sequence[str], *, paused: bool) -> Sequence[str | None]:
    """Return the queues to poll, in order; or nothing but None, which is all at once, where none is paused."""
    without = set(connection.scalars(select(pauses.c.queue_name))) if paused else set()
    if "*" in queues:
        if not without:
            return [None]
        queues = ALL_QUEUES
    wild = any(name.endswith("*") for name in queues)
    names = select_queues(queues, distinct_values(connection, ready.c.queue_name) if wild else [])
    return [name for name in names if name not in without]


def select_queues(patterns: Sequence[str], existing: Sequence[str]) -> list[str]:
    """Put queue names in the order of the patterns; a name that two patterns fit stands where the first is."""
    names: dict[str, None] = {}
    for pattern in patterns:
        if pattern.endswith("*"):
            names.update((name, None) for name in existing if name.startswith(pattern[:-1]))
        else:
            names[pattern] = None
    return list(names)


def parse_queues(text: str) -> tuple[str, ...]:
    """Read ``mailers,report*`` as an operator writes it.

    Raises UsageError for a star that is not at the end.
    """
    patterns = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for pattern in patterns:
        if "*" in pattern[:-1]:
            raise UsageError(f"a star can only end a queue's name, as in 'mail*'; got {pattern!r}")
    return patterns or ALL_QUEUES


# -- discard, pause, resume -------------------------------------------------------------------------------------------


def discard(connection: Connection, job_ids: Collection[int], limits: Limits = UNKNOWN) -> list[int]:
    """Delete those of these jobs that wait: ready, scheduled, blocked or failed. Claimed and finished ones stay.

    Returns the ids of the jobs deleted.
    """
    gone = withdraw(connection, job_ids, limits) + _take(connection, failed, job_ids)
    connection.execute(delete(jobs).where(among(jobs.c.id, gone)))
    return gone


def withdraw(connection: Connection, job_ids: Collection[int], limits: Limits = UNKNOWN) -> list[int]:
    """Take those of these jobs that are ready, scheduled or blocked out of their queues; return their ids.

    The caller gives them another state, or deletes them, in the same transaction.
    """
    of_ready = _take(connection, ready, job_ids)
    others = [job_id for table in (scheduled, blocked) for job_id in _take(connection, table, job_ids)]
    # Of the waiting states only ready holds a slot of a concurrency limit. Given back last, so that it goes to none of
    # the blocked jobs that are withdrawn here too.
    give_back(connection, of_ready, limits)
    return of_ready + others


def _take(connection: Connection, table: Table, job_ids: Collection[int]) -> list[int]:
    locked = select(table.c.job_id).where(among(table.c.job_id, job_ids)).order_by(table.c.id).with_for_update()
    taken = list(connection.scalars(locked))
    connection.execute(delete(table).where(among(table.c.job_id, taken)))
    return taken


def pause(connection: Connection, queue_name: str) -> bool:
    """Stop claims from a queue; jobs still arrive. False if it was paused already."""
    before = connection.scalar(select(pauses.c.id).where(pauses.c.queue_name == queue_name))
    insert_if_absent(connection, pauses, queue_name=queue_name, created_at=utcnow())
    return before is None


def resume(connection: Connection, queue_name: str) -> bool:
    """Let a queue's jobs be claimed again. False if it was not paused."""
    return connection.execute(delete(pauses).where(pauses.c.queue_name == queue_name)).rowcount > 0
