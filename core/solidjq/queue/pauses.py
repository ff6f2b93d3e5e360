"""Pause a queue, and resume it."""

from sqlalchemy import Connection, delete, select

from solidjq.database.statements import insert_if_absent
from solidjq.database.tables import pauses
from solidjq.database.times import utcnow


def pause(connection: Connection, queue_name: str) -> bool:
    """Stop claims from a queue; jobs still arrive. False if it was paused already."""
    before = connection.scalar(select(pauses.c.id).where(pauses.c.queue_name == queue_name))
    insert_if_absent(connection, pauses, queue_name=queue_name, created_at=utcnow())
    return before is None


def resume(connection: Connection, queue_name: str) -> bool:
    """Let a queue's jobs be claimed again. False if it was not paused."""
    return connection.execute(delete(pauses).where(pauses.c.queue_name == queue_name)).rowcount > 0
