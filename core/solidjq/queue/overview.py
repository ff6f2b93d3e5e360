"""The overview of queues: counts by state, the oldest ready job, and which queues are paused."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from solidjq.database.statements import distinct_values
from solidjq.database.tables import blocked, claimed, jobs, pauses, ready, scheduled
from solidjq.database.times import clock


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue's counts by state."""

    name: str
    paused: bool
    ready: int
    claimed: int
    scheduled: int
    blocked: int
    oldest_ready_at: datetime | None
    latency: float | None  # seconds that the oldest ready job has waited


class ReadyQueue(NamedTuple):
    """A queue with jobs that are ready."""

    name: str
    ready: int
    oldest_at: datetime | None
    latency: float | None  # seconds that the oldest one has waited


def list_ready(connection: Connection) -> list[ReadyQueue]:
    """Return the queues with ready jobs, by name."""
    now = clock(connection)
    waiting = select(ready.c.queue_name, func.count(), func.min(ready.c.created_at)).group_by(ready.c.queue_name)
    rows = connection.execute(waiting.order_by(ready.c.queue_name))
    return [
        ReadyQueue(name, count, at, None if at is None else max(0.0, (now - at).total_seconds()))
        for name, count, at in rows
    ]


def list_queues(connection: Connection) -> list[Queue]:
    """Return every queue that is paused or in any job's row, by name."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    waiting = {queue.name: queue for queue in list_ready(connection)}
    for queue in waiting.values():
        counts[queue.name]["ready"] = queue.ready
    for state, table in (("scheduled", scheduled), ("blocked", blocked)):
        for name, count in connection.execute(select(table.c.queue_name, func.count()).group_by(table.c.queue_name)):
            counts[name][state] = count
    running = (
        select(jobs.c.queue_name, func.count()).join(claimed, claimed.c.job_id == jobs.c.id).group_by(jobs.c.queue_name)
    )
    for name, count in connection.execute(running):
        counts[name]["claimed"] = count
    paused = set(connection.scalars(select(pauses.c.queue_name)))
    names = {*counts, *paused, *distinct_values(connection, jobs.c.queue_name)}
    queues = []
    for name in sorted(names):
        oldest = waiting.get(name)
        queues.append(
            Queue(
                name=name,
                paused=name in paused,
                ready=counts[name].get("ready", 0),
                claimed=counts[name].get("claimed", 0),
                scheduled=counts[name].get("scheduled", 0),
                blocked=counts[name].get("blocked", 0),
                oldest_ready_at=None if oldest is None else oldest.oldest_at,
                latency=None if oldest is None else oldest.latency,
            )
        )
    return queues
