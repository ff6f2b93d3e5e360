"""Concurrency keys: how many jobs of each hold a slot or wait for one, and which jobs hold them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, literal, select, union_all

from solidjq.database.among import among
from solidjq.database.tables import blocked, claimed, jobs, processes, ready, semaphores
from solidjq.queue.states import State


@dataclass(frozen=True, slots=True)
class ConcurrencyKey:
    """A concurrency key with jobs that hold its slots or wait for them."""

    key: str
    blocked: int  # jobs that wait for a slot
    ready: int  # jobs that hold a slot and wait for a worker
    claimed: int  # jobs that hold a slot and run
    free: int | None  # slots in the semaphore; None if there is none: it has expired, or none was taken
    oldest_blocked_at: datetime | None
    expires_at: datetime | None  # when the semaphore expires, unless a slot is taken or given back before

    @property
    def limit(self) -> int | None:
        """The limit, as far as it can be seen: free slots and those that jobs hold; None without a semaphore."""
        return None if self.free is None else max(self.free, 0) + self.ready + self.claimed


class SlotHolder(NamedTuple):
    """A job that holds a slot of a concurrency key; ``hostname`` and ``pid`` are of the process that runs it."""

    key: str
    job_id: int
    class_name: str
    state: State
    since: datetime | None
    hostname: str | None = None
    pid: int | None = None


def hottest_keys(connection: Connection, limit: int) -> list[ConcurrencyKey]:
    """Return the keys for whose slots the most jobs wait, then those of which the most jobs hold one.

    The database counts; what is read is a row a key.
    """
    each = union_all(
        select(
            blocked.c.concurrency_key.label("key"),
            literal(State.BLOCKED.value).label("state"),
            blocked.c.created_at.label("at"),
        ),
        *(
            select(jobs.c.concurrency_key, literal(state.value), table.c.created_at)
            .join(jobs, jobs.c.id == table.c.job_id)
            .where(jobs.c.concurrency_key.is_not(None))
            for state, table in ((State.READY, ready), (State.CLAIMED, claimed))
        ),
    ).subquery("each")

    def count(state: State) -> ColumnElement[Any]:
        return func.sum(case((each.c.state == state.value, 1), else_=0))

    waiting, held = count(State.BLOCKED), func.count() - count(State.BLOCKED)
    counted = (
        select(
            each.c.key,
            waiting.label("blocked"),
            count(State.READY).label("ready"),
            count(State.CLAIMED).label("claimed"),
            func.min(case((each.c.state == State.BLOCKED.value, each.c.at))).label("oldest"),
        )
        .group_by(each.c.key)
        .order_by(waiting.desc(), held.desc(), each.c.key)
        .limit(limit)
        .subquery("counted")
    )
    rows = connection.execute(
        select(counted, semaphores.c.value, semaphores.c.expires_at)
        .outerjoin(semaphores, semaphores.c.key == counted.c.key)
        .order_by(counted.c.blocked.desc(), (counted.c.ready + counted.c.claimed).desc(), counted.c.key)
    )
    return [
        ConcurrencyKey(
            row.key, int(row.blocked), int(row.ready), int(row.claimed), row.value, row.oldest, row.expires_at
        )
        for row in rows
    ]


def holders_of(connection: Connection, keys: Collection[str], most: int) -> list[SlotHolder]:
    """Return jobs that hold slots of these keys, those that run first; ``most`` of each state."""
    found: list[SlotHolder] = []
    running = (
        select(
            jobs.c.concurrency_key,
            jobs.c.id,
            jobs.c.class_name,
            claimed.c.created_at,
            processes.c.hostname,
            processes.c.pid,
        )
        .join(claimed, claimed.c.job_id == jobs.c.id)
        .outerjoin(processes, processes.c.id == claimed.c.process_id)
    )
    waiting = select(jobs.c.concurrency_key, jobs.c.id, jobs.c.class_name, ready.c.created_at).join(
        ready, ready.c.job_id == jobs.c.id
    )
    for state, query in ((State.CLAIMED, running), (State.READY, waiting)):
        of_keys = query.where(among(jobs.c.concurrency_key, keys)).order_by(jobs.c.id).limit(most)
        found += [
            SlotHolder(key, job_id, name, state, *rest) for key, job_id, name, *rest in connection.execute(of_keys)
        ]
    return found
