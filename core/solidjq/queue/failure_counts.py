"""Counts of failed jobs by reason and queue, in a time that does not grow with their number.

Why jobs failed is in their errors, and their queues are in their jobs: only those of the newest ``MOST_READ`` failures
are read, along the primary keys. How many there are beyond them is the server's own estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Subquery, case, func, select

from solidjq.database.statements import estimated_rows
from solidjq.database.tables import failed, jobs
from solidjq.database.times import boundary
from solidjq.queue.failed import is_death

MOST_READ = 10_000  # failures whose errors are read
NEAR = 15  # failures whose times say together when the ids of their place were given out


@dataclass(frozen=True, slots=True)
class RecentFailures:
    """The failures since a time. If ``complete`` is false there are more: only the newest were looked at."""

    failed: int
    died: int  # with their process
    complete: bool = True

    @property
    def errors(self) -> int:
        """How many failed with an error of their own."""
        return self.failed - self.died


class QueueFailures(NamedTuple):
    """How many jobs of a queue failed, those that died with their process apart."""

    queue: str
    died: bool
    jobs: int


def count_recent(connection: Connection, since: datetime | None, *, most: int = MOST_READ) -> RecentFailures:
    """Count the failures since then, among the newest ``most``; None for all times."""
    newest = _newest(most).c
    recent = case((newest.failed_at >= boundary(since), 1), else_=0) if since else case((newest.id > 0, 1), else_=0)
    died = recent * newest.died
    read, counted, dead = connection.execute(select(func.count(), func.sum(recent), func.sum(died))).one()
    return RecentFailures(int(counted or 0), int(dead or 0), complete=read < most or counted < most)


def count_by_queue(connection: Connection, *, most: int = MOST_READ) -> tuple[int, Sequence[QueueFailures]]:
    """Return the newest ``most`` failures by queue and reason, and about how many older ones there are."""
    newest = _newest(most)
    # A join would let the planner read the whole jobs table; this reads one row a failure.
    queue = select(jobs.c.queue_name).where(jobs.c.id == newest.c.job_id).scalar_subquery()
    each = select(queue.label("queue"), newest.c.died).select_from(newest).subquery().c
    grouped = select(each.queue, each.died, func.count()).group_by(each.queue, each.died)
    found = [QueueFailures(name, bool(died), count) for name, died, count in connection.execute(grouped) if name]
    read = sum(one.jobs for one in found)
    return max(0, estimated_rows(connection, failed) - read) if read >= most else 0, found


def lowest_of_newest(connection: Connection, most: int) -> int:
    """Return the failure_id of the last of the newest ``most`` failures, or 0 if there are not so many."""
    ids = select(failed.c.id).order_by(failed.c.id.desc()).offset(most - 1).limit(1)
    return connection.scalar(ids) or 0


def last_before(connection: Connection, time: datetime, *, near: int = 1) -> int | None:
    """Return the failure_id of the last failure written before a time, about; None if there is none.

    No index has the time, but ids rise with it. ``near``: how many failures at a place are looked at; the middle one
    of them counts, so that a few of a host with a wrong clock do not mislead.
    """
    lowest, highest = connection.execute(select(func.min(failed.c.id), func.max(failed.c.id))).one()
    if lowest is None:
        return None
    low, high = lowest - 1, highest  # low: the last id that is too old
    query = select(failed.c.id, failed.c.created_at).order_by(failed.c.id).limit(near)
    while low < high:
        middle = (low + high) // 2
        rows = connection.execute(query.where(failed.c.id > middle)).all()
        times = sorted(row.created_at for row in rows if row.created_at is not None)
        if not times or times[len(times) // 2] >= time:
            high = middle
        else:
            low = rows[0].id
    return None if low < lowest else int(low)


def ids_between(connection: Connection, since: datetime, until: datetime) -> tuple[int, int | None]:
    """Return the first and the last failure_id that were given out from ``since`` on and before ``until``, about.

    The last is None if there is no failure after it. A failure that is gone by now had its id in its order, too.
    """
    before, last = (last_before(connection, time, near=NEAR) for time in (since, until))
    after = connection.scalar(select(func.min(failed.c.id)).where(failed.c.id > (last or 0)))
    return (before or 0) + 1, None if after is None else after - 1


def _newest(most: int) -> Subquery:
    died = case((is_death(), 1), else_=0).label("died")
    columns = (failed.c.id, failed.c.job_id, failed.c.created_at.label("failed_at"), died)
    return select(*columns).order_by(failed.c.id.desc()).limit(most).subquery("newest")
