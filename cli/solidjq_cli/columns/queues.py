"""Columns of queues and concurrency keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solidjq_cli.columns.column import Column, Fields, with_fields

if TYPE_CHECKING:
    from solidjq.processes.attendance import Attendance
    from solidjq.queue.keys import ConcurrencyKey
    from solidjq.queue.overview import Queue


def queue_fields() -> Fields[Queue]:
    """Fields of a queue."""
    return Fields(
        (
            Column("queue_name", lambda q: q.name, "QUEUE", wide=True),
            Column("paused", lambda q: q.paused, "PAUSED"),
            Column("ready", lambda q: q.ready, "READY", counts=True),
            Column("claimed", lambda q: q.claimed, "CLAIMED", counts=True),
            Column("scheduled", lambda q: q.scheduled, "SCHEDULED", counts=True),
            Column("blocked", lambda q: q.blocked, "BLOCKED", counts=True),
            Column("oldest_ready_at", lambda q: q.oldest_ready_at, "OLDEST"),
            Column("latency", lambda q: q.latency),
        ),
        lambda _: [],
    )


def queue_columns(attendance: Attendance) -> Fields[Queue]:
    """Return the columns of queues; whether it is paused or has no worker is one word."""

    def state(queue: Queue) -> str | None:
        return "paused" if queue.paused else None if attendance.takers(queue.name) else "no worker"

    def style(queue: Queue) -> str | None:
        return "warning" if queue.paused else "error" if state(queue) and queue.ready else None

    fields = queue_fields()
    of = {column.name: column for column in fields.columns}
    counts = (("ready", 0), ("claimed", 0), ("scheduled", 2), ("blocked", 1))
    return with_fields(
        (
            of["queue_name"],
            *(of[name]._replace(leaves=leaves) for name, leaves in counts),
            of["oldest_ready_at"],
            Column("state", state, "STATE", style=style, optional=True),
        ),
        fields,
        lambda queue: queue,
    )


def concurrency_key_fields() -> Fields[ConcurrencyKey]:
    """Fields of a concurrency key."""
    return Fields(
        (
            Column("concurrency_key", lambda k: k.key, "KEY", wide=True),
            Column("blocked", lambda k: k.blocked, "BLOCKED", counts=True),
            Column("claimed", lambda k: k.claimed, "CLAIMED", counts=True),
            Column("ready", lambda k: k.ready, "READY", counts=True),
            Column("free", lambda k: k.free, "FREE", counts=True),
            Column("limit", lambda k: k.limit, "LIMIT", counts=True),
            Column("oldest_blocked_at", lambda k: k.oldest_blocked_at, "OLDEST"),
            Column("expires_at", lambda k: k.expires_at),
        ),
        lambda _: [],
    )
