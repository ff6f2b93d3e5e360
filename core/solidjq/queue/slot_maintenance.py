"""Maintenance of concurrency limits: expired semaphores, jobs blocked past their expiry, and slots that were lost.

Dispatchers do it at an interval; ``jq doctor`` finds what nobody maintained.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, func, literal, or_, select, update

from solidjq.batching import BATCH
from solidjq.database.among import among
from solidjq.database.deletions import delete_by_id
from solidjq.database.tables import blocked, jobs, semaphores
from solidjq.database.times import utcnow
from solidjq.database.transactions import Database
from solidjq.errors import Stays
from solidjq.queue.attempts import Attempt, passing_over
from solidjq.queue.concurrency import (
    NO_LIMITS,
    Limit,
    Limits,
    acquire,
    as_requested,
    group_keys,
    holders,
    in_safe_batches,
    lock_semaphores,
    promote,
)

STAYS_KEY = Stays("stays as it was", "stay as they were", "key")


def expire_semaphores(database: Database, record: Callable[[Connection], None] | None = None) -> Iterator[int]:
    """Delete the semaphores that have expired, in batches; yield how many each transaction deleted.

    Those that another transaction has locked are left, since it may renew them. One that the database refuses to delete
    keeps no other: RowsRefusedError names the keys of such at the end. ``record`` is called in each transaction that
    deletes some.
    """
    for keys in passing_over(
        database, lambda attempt: database.transact(_expire_some, record, attempt), BATCH, what="key", stays=STAYS_KEY
    ):
        yield len(keys)


def _expire_some(
    connection: Connection, record: Callable[[Connection], None] | None, attempt: Attempt
) -> list[int] | None:
    query = attempt.of(select(semaphores.c.id, semaphores.c.key), semaphores.c.id)
    expired = query.where(semaphores.c.expires_at < utcnow()).with_for_update(skip_locked=True)
    key_of: dict[int, str] = dict(connection.execute(expired).all())
    attempt.tried = list(key_of)

    def expire(ids: Sequence[int]) -> list[int]:
        connection.execute(delete_by_id(semaphores, ids))
        return list(ids)

    gone = attempt.act(connection, key_of, expire)
    if gone and record is not None:
        record(connection)
    return gone if key_of else None


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


def find_short(connection: Connection, limits: Limits, limit: int) -> list[str]:
    """Return up to ``limit`` keys of these classes that have fewer free slots than their jobs leave."""
    return list(connection.scalars(_short(limits).order_by(semaphores.c.key).limit(limit))) if limits else []


def _short(limits: Limits) -> Select[Any]:
    """Select the semaphores with fewer free slots than they should have: key, and the right number as ``free``.

    A key of these classes begins with the class's name and a slash.
    """
    held = holders()
    top: ColumnElement[int] = case(
        *((semaphores.c.key.startswith(f"{name}/", autoescape=True), limit.to) for name, limit in limits.items()),
        else_=literal(0),
    )
    free = top - func.coalesce(held.c.slots, 0)
    return (
        select(semaphores.c.key, free.label("free"))
        .outerjoin(held, held.c.concurrency_key == semaphores.c.key)
        .where(semaphores.c.value < free)
    )


def find_short_some(connection: Connection, limits: Limits, attempt: Attempt) -> dict[int, str]:
    """Return the keys that ``find_short`` finds, by the ids of their semaphores, of those that an attempt may take."""
    query = _short(limits).with_only_columns(semaphores.c.id, semaphores.c.key)
    return dict(connection.execute(attempt.of(query, semaphores.c.id)).all()) if limits else {}


def refill(connection: Connection, keys: Collection[str], limits: Limits) -> list[int]:
    """Give these keys the free slots that their jobs leave, and pass them to blocked jobs first.

    Exact among our own moves: who takes or gives back a slot changes the job and the semaphore in one transaction,
    under the lock that this move takes first. Rails gives a slot back in a transaction after the one that ends the job:
    call this for keys that were short for longer than that takes. Returns the ids of the jobs that became ready.
    """
    unblocked: list[int] = []
    for batch in in_safe_batches(connection, keys):
        locked = lock_semaphores(connection, batch)
        short = connection.execute(_short(limits).where(among(semaphores.c.key, batch))).all()
        free = {as_requested(row.key, batch): row.free for row in short}
        promoted = promote(connection, {key: slots - max(locked[key].value, 0) for key, slots in free.items()})
        left = ((slots - len(promoted.get(key, ())), key) for key, slots in free.items())
        for value, alike in group_keys(left):
            connection.execute(
                update(semaphores).where(among(semaphores.c.key, alike)).values(value=value, updated_at=utcnow())
            )
        unblocked += [job_id for ids in promoted.values() for job_id in ids]
    return unblocked


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
    promoted = promote(connection, {key: 1}).get(key, [])
    if not promoted:  # another program took it between the two statements
        connection.execute(update(semaphores).where(semaphores.c.key == key).values(value=semaphores.c.value + 1))
    return promoted
