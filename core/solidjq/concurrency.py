"""Concurrency limits: semaphores, and the blocked jobs that wait for a free slot.

A class's limit lives in its code, never in the database. Where the code is ours the limit is known; for a Ruby class
it is not, and two things stay right without it: handing a slot that was just given up to the next blocked job, and
raising a semaphore from 0 to 1. What that leaves too low heals when the semaphore expires.
"""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, delete, func, insert, or_, select, update

from solidjq.dialects import ago, among, execute_hot, given, insert_if_absent, utcnow
from solidjq.schema import blocked, jobs, ready, semaphores

DEFAULT_DURATION = 180.0  # seconds; Solid Queue's default_concurrency_control_period


class Limit(NamedTuple):
    """At most ``to`` jobs of one key at once; a slot that is never given back is free after ``duration`` seconds."""

    to: int
    duration: float = DEFAULT_DURATION


Limits = Mapping[str, Limit]  # by class name
UNKNOWN: Limits = {}


def acquire(connection: Connection, key: str, limit: Limit, wanted: int) -> int:
    """Take up to ``wanted`` slots of ``key``; return how many were free."""
    now, expires_at = utcnow(), ago(-limit.duration)
    insert_if_absent(
        connection, semaphores, key=key, value=limit.to, expires_at=expires_at, created_at=now, updated_at=now
    )
    value = connection.scalar(select(semaphores.c.value).where(semaphores.c.key == key).with_for_update())
    granted = max(0, min(value or 0, wanted))
    if granted:
        connection.execute(
            update(semaphores)
            .where(semaphores.c.key == key)
            .values(value=semaphores.c.value - granted, expires_at=expires_at)
        )
    return granted


def give_back(connection: Connection, job_ids: Collection[int], limits: Limits = UNKNOWN) -> list[int]:
    """Give back the slots that these jobs held, to the next blocked jobs of the same keys first.

    Call it in the transaction that ends the jobs. Returns the ids of the jobs that became ready.
    """
    held = execute_hot(connection, _keys, job_ids=list(job_ids))
    unblocked: list[int] = []
    for each in held:
        unblocked += _give_back(connection, each.concurrency_key, each.slots, limits.get(each.class_name))
    return unblocked


def _keys() -> Select[Any]:
    return (
        select(jobs.c.concurrency_key, func.min(jobs.c.class_name).label("class_name"), func.count().label("slots"))
        .where(given(jobs.c.id, "job_ids"), jobs.c.concurrency_key.is_not(None))
        .group_by(jobs.c.concurrency_key)
        .order_by(jobs.c.concurrency_key)  # every program takes the locks in this order
    )


def _give_back(connection: Connection, key: str, count: int, limit: Limit | None) -> list[int]:
    semaphore = connection.execute(
        select(semaphores.c.id, semaphores.c.value).where(semaphores.c.key == key).with_for_update()
    ).one_or_none()
    if semaphore is None:  # it expired: unblock_expired finds those who wait
        return []
    promoted = _promote(connection, key, count)
    left = count - len(promoted)
    top = limit.to if limit else 1
    if left and semaphore.value < top:
        connection.execute(
            update(semaphores).where(semaphores.c.id == semaphore.id).values(value=min(semaphore.value + left, top))
        )
    return promoted


def _promote(connection: Connection, key: str, count: int) -> list[int]:
    """Make up to ``count`` blocked jobs of ``key`` ready; the caller has their slots."""
    waiting = connection.execute(
        select(blocked.c.id, blocked.c.job_id, blocked.c.expires_at, blocked.c.created_at)
        .where(blocked.c.concurrency_key == key)
        .order_by(blocked.c.priority, blocked.c.job_id)
        .limit(count)
        .with_for_update(skip_locked=True)
    ).all()
    if not waiting:
        return []
    # The row tells the class's own duration, whatever language the class is written in.
    last = waiting[-1]
    duration = (last.expires_at - last.created_at) if last.expires_at and last.created_at else timedelta()
    seconds = duration.total_seconds() if duration > timedelta() else DEFAULT_DURATION
    ids = [row.id for row in waiting]
    connection.execute(
        insert(ready).from_select(
            ["job_id", "queue_name", "priority", "created_at"],
            select(blocked.c.job_id, blocked.c.queue_name, blocked.c.priority, utcnow()).where(
                among(blocked.c.id, ids)
            ),
        )
    )
    connection.execute(delete(blocked).where(among(blocked.c.id, ids)))
    connection.execute(update(semaphores).where(semaphores.c.key == key).values(expires_at=ago(-seconds)))
    return [row.job_id for row in waiting]


def block(connection: Connection, job_ids: Collection[int], duration: float) -> None:
    """Let these jobs wait for a slot of their concurrency key."""
    connection.execute(
        insert(blocked).from_select(
            ["job_id", "queue_name", "priority", "concurrency_key", "expires_at", "created_at"],
            select(
                jobs.c.id, jobs.c.queue_name, jobs.c.priority, jobs.c.concurrency_key, ago(-duration), utcnow()
            ).where(among(jobs.c.id, job_ids)),
        )
    )


def expire_semaphores(connection: Connection) -> int:
    """Delete the semaphores whose time is over; return how many there were."""
    return connection.execute(delete(semaphores).where(semaphores.c.expires_at < utcnow())).rowcount


def expired_keys(connection: Connection, limit: int) -> list[str]:
    """Return up to ``limit`` keys whose blocked jobs waited longer than their duration while a slot is free."""
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


def unblock_one(connection: Connection, key: str, limits: Limits = UNKNOWN) -> list[int]:
    """Make the next blocked job of ``key`` ready if a slot is free; a semaphore that is gone counts as one slot."""
    class_name = connection.scalar(
        select(jobs.c.class_name)
        .join(blocked, blocked.c.job_id == jobs.c.id)
        .where(blocked.c.concurrency_key == key)
        .limit(1)
    )
    if class_name is None or not acquire(connection, key, limits.get(class_name, Limit(1)), 1):
        return []
    promoted = _promote(connection, key, 1)
    if not promoted:  # somebody else took it between the two statements
        connection.execute(update(semaphores).where(semaphores.c.key == key).values(value=semaphores.c.value + 1))
    return promoted
