"""Concurrency limits: semaphores, and the blocked jobs that wait for a slot.

A class's limit is in its code, never in the database. For a Python class the limit is known to the programs that
import it. Where it is not known, as for every Ruby class, a slot goes back to the semaphore that it was taken from:
its free slots and the jobs that hold one are together the limit. A semaphore that was made after a job took its slot
is another one, because the job's own had expired; it gets nothing back beyond the first slot, which no limit forbids.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Row, Select, Subquery, case, delete, exists, func, insert, select, union_all, update

from solidjq.batching import BATCH, in_batches
from solidjq.database.among import among
from solidjq.database.deletions import delete_by_id
from solidjq.database.hot import hot, ids_in
from solidjq.database.inserts import insert_if_absent
from solidjq.database.statements import compares_exactly
from solidjq.database.tables import blocked, claimed, jobs, ready, semaphores
from solidjq.database.times import ago, utcnow
from solidjq.errors import RefusedError
from solidjq.queue.executions import block, make_ready

T = TypeVar("T")

NEWEST = 100_000  # of the rows in jobs: a class's keys are looked for in these first
KEYS_NAMED = 3  # in a message
MOST_ROWS = 1_000  # of one class
DEFAULT_DURATION = 180.0  # seconds; Solid Queue's default_concurrency_control_period
SAME_MOVE = timedelta(seconds=5)  # at most, between the row of a due job and the semaphore that is made for it
MOST_READY = 10_000  # ready jobs, up to which the holders of a key are looked for in the transaction that ends jobs
ATTEMPTS = 3  # at a semaphore that other programs delete as soon as it is there


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
    for keys in map(set, in_safe_batches(connection, {key for key, _ in wanted})):
        granted |= _acquire(connection, {limited: slots for limited, slots in wanted.items() if limited[0] in keys})
    return granted


def _acquire(connection: Connection, wanted: Mapping[KeyAndLimit, int]) -> dict[KeyAndLimit, int]:
    free = _make_and_lock(connection, wanted)
    granted: dict[KeyAndLimit, int] = {}
    for (key, limit), slots in wanted.items():
        left = free.get(key, 0)
        granted[key, limit] = max(0, min(left, slots))
        free[key] = left - granted[key, limit]
    for (limit, slots), keys in group_keys(((limit, slots), key) for (key, limit), slots in granted.items() if slots):
        connection.execute(
            update(semaphores)
            .where(among(semaphores.c.key, keys))
            .values(value=semaphores.c.value - slots, expires_at=ago(-limit.duration))
        )
    return granted


def _make_and_lock(connection: Connection, wanted: Collection[KeyAndLimit]) -> dict[str, int]:
    """Lock the semaphores of these keys, and make those that are missing; return each key's free slots.

    A semaphore may be deleted between the statement that finds it there and the one that locks it: then once more.
    """
    free: dict[str, int] = {}
    for _ in range(ATTEMPTS):
        missing = [(limit, key) for key, limit in wanted if key not in free]
        if not missing:
            break
        for limit, keys in group_keys(missing):
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
        free |= {key: row.value for key, row in lock_semaphores(connection, {key for _, key in missing}).items()}
    return free


def give_back(connection: Connection, job_ids: Collection[int], limits: Limits = NO_LIMITS) -> list[int]:
    """Give back the slots of these jobs: first to the next blocked jobs of the same keys, else to the semaphores.

    Call it in the transaction that ends the jobs. Returns the ids of the jobs that became ready.
    """
    slots = {row.concurrency_key: row for row in count_slots(connection, job_ids=list(job_ids))}
    unblocked: list[int] = []
    for keys in in_safe_batches(connection, slots):
        unblocked += _give_back(connection, {key: slots[key] for key in keys}, job_ids, limits)
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


def _give_back(
    connection: Connection, returned: Mapping[str, Row[Any]], job_ids: Collection[int], limits: Limits
) -> list[int]:
    # A key whose semaphore expired is not among these; maintenance finds its blocked jobs.
    locked = lock_semaphores(connection, returned)
    promoted = promote(connection, {key: returned[key].slots for key in locked})
    left = {key: returned[key].slots - len(promoted.get(key, ())) for key in locked}
    unknown = {key: row for key, row in locked.items() if left[key] and returned[key].class_name not in limits}
    certain = _count_certain(connection, unknown, job_ids) if unknown else Counter()
    raised = []
    for key, row in locked.items():
        limit = limits.get(returned[key].class_name)
        value = _raise_to(row.value, left[key], limit.to if limit else None, certain[key])
        if value > row.value:
            raised.append((value, key))
    for value, keys in group_keys(raised):
        connection.execute(update(semaphores).where(among(semaphores.c.key, keys)).values(value=value))
    _delete_unheld(connection, [key for key in unknown if certain[key] < left[key]])
    return [job_id for ids in promoted.values() for job_id in ids]


def _raise_to(value: int, left: int, limit: int | None, certain: int) -> int:
    """Return the free slots of a semaphore to which ``left`` slots go back; never fewer than it has.

    Of an unknown limit, ``certain`` slots were taken from this very semaphore.
    """
    if limit is not None:
        return max(value, min(value + left, limit))
    return max(value, value + min(left, certain), min(value + left, 1))


def _count_certain(connection: Connection, locked: Mapping[str, Row[Any]], job_ids: Collection[int]) -> Counter[str]:
    """Count, by key, those of these jobs whose slot was certainly taken from the semaphore that is there now."""
    ended = connection.execute(
        select(jobs.c.concurrency_key, jobs.c.created_at, jobs.c.scheduled_at).where(
            among(jobs.c.id, job_ids), among(jobs.c.concurrency_key, locked)
        )
    )
    counts: Counter[str] = Counter()
    for key, created, due in ended:
        requested = as_requested(key, locked)
        due_at = max(filter(None, (created, due)), default=None)
        counts[requested] += _is_older(locked[requested].created_at, than=due_at)
    return counts


def _is_older(semaphore: datetime | None, *, than: datetime | None) -> bool:
    """Tell whether a semaphore was there, or was made in the same move, when a job became due."""
    return semaphore is not None and than is not None and semaphore <= than + SAME_MOVE


def _delete_unheld(connection: Connection, keys: Collection[str]) -> None:
    """Delete the semaphores of those locked keys of which no job holds a slot: the next enqueue makes them anew.

    Not where so many jobs are ready that this would keep the locks for long: those semaphores are right once they
    expire.
    """
    if not keys or connection.scalar(select(ready.c.id).offset(MOST_READY).limit(1)) is not None:
        return
    held = holders()
    connection.execute(
        delete(semaphores).where(among(semaphores.c.key, keys), semaphores.c.key.not_in(select(held.c.concurrency_key)))
    )


def holders() -> Subquery:
    """Select the concurrency keys of which jobs hold slots, and how many ``slots``: those of ready and claimed jobs."""
    each = union_all(
        *(
            select(jobs.c.concurrency_key).join(table, table.c.job_id == jobs.c.id).where(jobs.c.concurrency_key != "")
            for table in (claimed, ready)
        )
    ).subquery()
    counted = select(each.c.concurrency_key, func.count().label("slots")).group_by(each.c.concurrency_key)
    return counted.subquery("holders")


def in_safe_batches(connection: Connection, keys: Collection[str]) -> Iterable[list[str]]:
    """Yield batches of keys for one statement each, sorted: every program takes the locks in this order.

    On a database that may treat two different keys as equal, a batch is one key, so that its row is certain.
    """
    return in_batches(sorted(keys), BATCH if compares_exactly(connection) else 1)


def group_keys(pairs: Iterable[tuple[T, str]]) -> list[tuple[T, list[str]]]:
    """Group keys by what they have in common, so that one statement serves each group; all of it sorted."""
    groups: dict[T, list[str]] = defaultdict(list)
    for common, key in sorted(pairs):
        groups[common].append(key)
    return list(groups.items())


def lock_semaphores(connection: Connection, keys: Collection[str], *, skip_locked: bool = False) -> dict[str, Row[Any]]:
    """Lock the semaphores of these keys; return the free slots of each that there is, and when it was made.

    With ``skip_locked``, those that another transaction has locked are left out.
    """
    query: Select[Any] = select(semaphores.c.key, semaphores.c.value, semaphores.c.created_at)
    in_order = query.where(among(semaphores.c.key, keys)).order_by(semaphores.c.key)
    rows = connection.execute(in_order.with_for_update(skip_locked=skip_locked)).all()
    return {as_requested(row.key, keys): row for row in rows}


def locked_keys(connection: Connection, keys: Collection[str]) -> set[str]:
    """Lock the semaphores of these keys but those that another transaction has locked; return the keys of those."""
    left: set[str] = set()
    for batch in in_safe_batches(connection, keys):
        locked = lock_semaphores(connection, batch, skip_locked=True)
        there = connection.scalars(select(semaphores.c.key).where(among(semaphores.c.key, batch)))
        left |= {as_requested(key, batch) for key in there} - locked.keys()
    return left


def as_requested(key: str, keys: Collection[str]) -> str:
    """Return the key of a row as the caller spells it in ``keys``, a batch of ``in_safe_batches``.

    A row may spell it otherwise where a database treats both as equal; there a batch is one key.
    """
    return next(iter(keys)) if len(keys) == 1 else key


def promote(connection: Connection, slots: Mapping[str, int]) -> dict[str, list[int]]:
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
    connection.execute(delete_by_id(blocked, ids))
    for seconds, promoted_keys in group_keys((_duration(rows[-1]), key) for key, rows in waiting.items() if rows):
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
