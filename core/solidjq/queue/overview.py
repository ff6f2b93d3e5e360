"""The overview of queues: counts by state, the oldest ready job, and which queues are paused."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

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


def list_queues(connection: Connection) -> list[Queue]:
    """Return every queue that is paused or in any job's row, by name."""
    now = clock(connection)
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    oldest: dict[str, datetime | None] = {}
    waiting = select(ready.c.queue_name, func.count(), func.min(ready.c.created_at)).group_by(ready.c.queue_name)
    for name, count, created_at in connection.execute(waiting):
        counts[name]["ready"] = count
        oldest[name] = created_at
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
        since = oldest.get(name)
        queues.append(
            Queue(
                name=name,
                paused=name in paused,
                ready=counts[name].get("ready", 0),
                claimed=counts[name].get("claimed", 0),
                scheduled=counts[name].get("scheduled", 0),
                blocked=counts[name].get("blocked", 0),
                oldest_ready_at=since,
                latency=None if since is None else max(0.0, (now - since).total_seconds()),
            )
        )
    return queues
