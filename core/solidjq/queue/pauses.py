"""Pauses: a paused queue's jobs are not claimed."""

from sqlalchemy import Connection, delete, select

from solidjq.database import notices
from solidjq.database.inserts import insert_if_absent
from solidjq.database.tables import pauses
from solidjq.database.times import utcnow


def pause(connection: Connection, queue_name: str) -> bool:
    """Pause a queue: its jobs are not claimed, new ones are still enqueued. False if it was paused already."""
    before = connection.scalar(select(pauses.c.id).where(pauses.c.queue_name == queue_name))
    insert_if_absent(connection, pauses, queue_name=queue_name, created_at=utcnow())
    return before is None


def resume(connection: Connection, queue_name: str) -> bool:
    """Resume a queue: its jobs are claimed again, at once where workers listen. False if it was not paused."""
    notices.send(connection)
    return connection.execute(delete(pauses).where(pauses.c.queue_name == queue_name)).rowcount > 0
