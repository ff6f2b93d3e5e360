"""Concurrency limits: semaphores, and the blocked jobs that wait for a slot.

A class's limit is in its code, never in the database. For a Python class the limit is known. For a Ruby class it is
not, and two moves are right without it: passing a slot that was just given back to the next blocked job, and raising a
semaphore from 0 to 1. A semaphore that is left too low by that is right again once it expires.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Row, Select, case, delete, exists, func, insert, or_, select, update

from solidjq.batching import BATCH, in_batches
from solidjq.database.hot import hot, ids_in
from solidjq.database.statements import among, insert_if_absent, tells_apart
from solidjq.database.tables import blocked, jobs, ready, semaphores
from solidjq.database.times import ago, utcnow
from solidjq.errors import RefusedError
from solidjq.queue.executions import block, make_ready

T = TypeVar("T")

NEWEST = 100_000  # of the rows in jobs: a class's keys are looked for in these first
KEYS_NAMED = 3  # in a message
MOST_ROWS = 1_000  # of one class
DEFAULT_DURATION = 180.0  # seconds; Solid Queue's default_concurrency_control_period


class Limit(NamedTuple):
    """At most ``to`` jobs of one key at once; a slot that is not given back expires after ``duration`` seconds."""

    to: int
    duration: float = DEFAULT_DURATION


KeyAndLimit = tuple[str, Limit]  # a concurrency key, and the limit of the class whose job takes a slot
Limits = Mapping[str, Limit]  # by class name
NO_LIMITS: Limits = {}


def acquire(connection: Connection, wanted: Mapping[KeyAndLimit, int]) -> dict[KeyAndLimit, int]:
    """Take up to the wanted number of slots of each key; return how many were taken."""
    granted: dict[KeyAndLimit, int] = {}
    for keys in map(set, _together(connection, {key for key, _ in wanted})):
        granted |= _acquire(connection, {limited: slots for limited, slots in wanted.items() if limited[0] in keys})
    return granted


def _acquire(connection: Connection, wanted: Mapping[KeyAndLimit, int]) -> dict[KeyAndLimit, int]:
    for limit, keys in _grouped((limit, key) for key, limit in wanted):
        now, expires_at = utcnow(), ago(-limit.duration)
        insert_if_absent(
            connection,
            semaphores,
            [{"key": key} for key in keys],
            value=limit.to,
            expires_at=expires_at,
            created_at=now,
            updated_at=now,
        )
    free = _lock(connection, {key for key, _ in wanted})
    granted: dict[KeyAndLimit, int] = {}
    for (key, limit), slots in wanted.items():
        left = free.get(key, 0)
        granted[key, limit] = max(0, min(left, slots))
        free[key] = left - granted[key, limit]
    for (limit, slots), keys in _grouped(((limit, slots), key) for (key, limit), slots in granted.items() if slots):
        connection.execute(
            update(semaphores)
            .where(among(semaphores.c.key, keys))
            .values(value=semaphores.c.value - slots, expires_at=ago(-limit.duration))
        )
    return granted


def give_back(connection: Connection, job_ids: Collection[int], limits: Limits = NO_LIMITS) -> list[int]:
    """Give back the slots of these jobs: first to the next blocked jobs of the same keys, else to the semaphores.

    Call it in the transaction that ends the jobs. Returns the ids of the jobs that became ready.
    """
    slots = {row.concurrency_key: row for row in count_slots(connection, job_ids=list(job_ids))}
    unblocked: list[int] = []
    for keys in _together(connection, slots):
        unblocked += _give_back(connection, {key: slots[key] for key in keys}, limits)
    return unblocked


@hot
def count_slots() -> Select[Any]:
    """Count the slots that jobs hold, by concurrency key.

    No guard: a job's key never changes, and the caller has ended the jobs in the same transaction.
    """
    return (
        select(jobs.c.concurrency_key, func.min(jobs.c.class_name).label("class_name"), func.count().label("slots"))
        .where(ids_in(jobs.c.id, "job_ids"), jobs.c.concurrency_key.is_not(None))
        .group_by(jobs.c.concurrency_key)
    )


def _give_back(connection: Connection, returned: Mapping[str, Row[Any]], limits: Limits) -> list[int]:
    free = _lock(connection, returned)  # no semaphore of a key that expired: expired_keys finds its blocked jobs
    promoted = _promote(connection, {key: returned[key].slots for key in free})
    raised = []
    for key, value in free.items():
        limit = limits.get(returned[key].class_name)
        top, left = limit.to if limit else 1, returned[key].slots - len(promoted.get(key, ()))
        if left and value < top:
            raised.append((min(value + left, top), key))
    for value, keys in _grouped(raised):
        connection.execute(update(semaphores).where(among(semaphores.c.key, keys)).values(value=value))
    return [job_id for job_ids in promoted.values() for job_id in job_ids]


def _together(connection: Connection, keys: Collection[str]) -> Iterable[list[str]]:
    """Yield batches of keys for one statement each, sorted: every program takes the locks in this order.

    On a database that may treat two different keys as equal, a batch is one key, so that its row is certain.
    """
    return in_batches(sorted(keys), BATCH if tells_apart(connection) else 1)


def _grouped(pairs: Iterable[tuple[T, str]]) -> list[tuple[T, list[str]]]:
    groups: dict[T, list[str]] = defaultdict(list)
    for common, key in sorted(pairs):
        groups[common].append(key)
    return list(groups.items())


def _lock(connection: Connection, keys: Collection[str]) -> dict[str, int]:
    """Lock the semaphores of these keys; return the free slots of each key that has a semaphore."""
    rows = connection.execute(
        select(semaphores.c.key, semaphores.c.value)
        .where(among(semaphores.c.key, keys))
        .order_by(semaphores.c.key)
        .with_for_update()
    )
    if len(keys) == 1:  # the row may spell the key differently
        return {key: row.value for row in rows for key in keys}
    return {row.key: row.value for row in rows}


def _promote(connection: Connection, slots: Mapping[str, int]) -> dict[str, list[int]]:
    """Make up to this many blocked jobs of each key ready, in slots that the caller has taken; return jobs by key."""
    keys: Collection[str] = slots
    if len(slots) > 1:  # a CASE: planned as a join, EXISTS may read all blocked jobs
        waits = case((exists().where(blocked.c.concurrency_key == semaphores.c.key), 1), else_=0)
        keys = connection.scalars(select(semaphores.c.key).where(among(semaphores.c.key, slots), waits == 1)).all()
    waiting = {
        key: connection.execute(
            select(blocked.c.id, blocked.c.job_id, blocked.c.expires_at, blocked.c.created_at)
            .where(blocked.c.concurrency_key == key)
            .order_by(blocked.c.priority, blocked.c.job_id)
            .limit(slots[key])
            .with_for_update(skip_locked=True)
        ).all()
        for key in sorted(keys)
    }
    ids = [row.id for rows in waiting.values() for row in rows]
    if not ids:
        return {}
    connection.execute(
        insert(ready).from_select(
            ["job_id", "queue_name", "priority", "created_at"],
            select(blocked.c.job_id, blocked.c.queue_name, blocked.c.priority, utcnow()).where(
                among(blocked.c.id, ids)
            ),
        )
    )
    connection.execute(delete(blocked).where(among(blocked.c.id, ids)))
    for seconds, promoted_keys in _grouped((_duration(rows[-1]), key) for key, rows in waiting.items() if rows):
        connection.execute(
            update(semaphores).where(among(semaphores.c.key, promoted_keys)).values(expires_at=ago(-seconds))
        )
    return {key: [row.job_id for row in rows] for key, rows in waiting.items() if rows}


def _duration(waiting: Any) -> float:
    """Return a class's duration in seconds, from a blocked row: it has both times, for a Ruby class too."""
    duration = waiting.expires_at - waiting.created_at if waiting.expires_at and waiting.created_at else timedelta()
    return duration.total_seconds() if duration > timedelta() else DEFAULT_DURATION


def recent_keys(connection: Connection, class_name: str, limit: int) -> list[str]:
    """Return up to ``limit`` concurrency keys of a class's recent jobs; empty if they have none.

    Only these keys show that a Ruby class has a concurrency limit. Both statements are bounded on a table of any size:
    the first by the ids of the newest rows, the second, for a class that has none among them, by the class's index.
    """
    of_class = select(jobs.c.concurrency_key).where(jobs.c.class_name == class_name).limit(MOST_ROWS)
    newest = connection.scalar(select(func.max(jobs.c.id))) or 0
    recent = of_class.where(jobs.c.id > newest - NEWEST).order_by(jobs.c.id.desc())
    keys = connection.scalars(recent).all() or connection.scalars(of_class).all()
    return list(dict.fromkeys(filter(None, keys)))[:limit]


def find_unlike(connection: Connection, class_name: str, key: str) -> list[str]:
    """Return recent keys of a class if all of them begin otherwise than ``key``, which is then probably mistyped.

    A key is a group, the class's name if Ruby's code gives none, and perhaps a slash and the job's own part.
    """
    keys = recent_keys(connection, class_name, MOST_ROWS)
    return [] if key.partition("/")[0] in {other.partition("/")[0] for other in keys} else keys[:KEYS_NAMED]


def require_key(connection: Connection, class_name: str) -> None:
    """Raise RefusedError if recent jobs of this class have concurrency keys: a job without one escapes their limit."""
    if keys := recent_keys(connection, class_name, KEYS_NAMED):
        raise RefusedError(
            f"{class_name} has a concurrency limit, which would not hold for this job: recent jobs have the keys "
            f"{', '.join(keys)}; give --concurrency-key KEY, --import MODULE if Python has the class, or --no-limit"
        )


def expire_semaphores(connection: Connection) -> int:
    """Delete the semaphores that have expired; return how many."""
    return connection.execute(delete(semaphores).where(semaphores.c.expires_at < utcnow())).rowcount


def expired_keys(connection: Connection, limit: int) -> list[str]:
    """Return up to ``limit`` keys that have a free slot and blocked jobs whose wait has expired."""
    return list(
        connection.scalars(
            select(blocked.c.concurrency_key)
            .distinct()
            .outerjoin(semaphores, semaphores.c.key == blocked.c.concurrency_key)
            .where(blocked.c.expires_at < utcnow(), or_(semaphores.c.id.is_(None), semaphores.c.value > 0))
            .order_by(blocked.c.concurrency_key)
            .limit(limit)
        )
    )


def unblock_one(connection: Connection, key: str, limits: Limits = NO_LIMITS) -> list[int]:
    """Make the next blocked job of ``key`` ready if a slot is free; a missing semaphore counts as one free slot."""
    class_name = connection.scalar(
        select(jobs.c.class_name)
        .join(blocked, blocked.c.job_id == jobs.c.id)
        .where(blocked.c.concurrency_key == key)
        .limit(1)
    )
    if class_name is None:
        return []
    limited = (key, limits.get(class_name, Limit(1)))
    if not acquire(connection, {limited: 1})[limited]:
        return []
    promoted = _promote(connection, {key: 1}).get(key, [])
    if not promoted:  # another program took it between the two statements
        connection.execute(update(semaphores).where(semaphores.c.key == key).values(value=semaphores.c.value + 1))
    return promoted


def admit(connection: Connection, limited: Mapping[KeyAndLimit, Sequence[int]]) -> None:
    """Make as many jobs of each key ready as there are free slots, and block the rest."""
    granted = acquire(connection, {key: len(job_ids) for key, job_ids in limited.items()})
    free: list[int] = []
    waiting: dict[float, list[int]] = defaultdict(list)
    for key, job_ids in limited.items():
        _, limit = key
        free += job_ids[: granted[key]]
        waiting[limit.duration] += job_ids[granted[key] :]
    for batch in in_batches(free):
        make_ready(connection, batch)
    for duration, job_ids in waiting.items():
        for batch in in_batches(job_ids):
            block(connection, batch, duration)
