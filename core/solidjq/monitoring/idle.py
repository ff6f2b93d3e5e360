"""Whether queues are idle: the gate of a deployment, which waits until no job runs any more."""

import time
from collections.abc import Callable, Sequence

from solidjq.database.transactions import Database
from solidjq.errors import DatabaseUnreachableError
from solidjq.queue.jobs import JobView
from solidjq.queue.listing import JobFilter, list_jobs
from solidjq.queue.states import State

MOST_NAMED = 100  # running jobs that are named
MOMENT = 0.2  # seconds between the two looks that must find nothing


def wait_until_idle(
    database: Database,
    queues: Sequence[str] = (),
    *,
    timeout: float,
    poll: float,
    said: Callable[[Sequence[JobView]], None],
    sleep: Callable[[float], None] = time.sleep,
) -> list[JobView]:
    """Wait until no job of these queues is claimed, of all queues if none is named.

    Returns the jobs that still run after ``timeout`` seconds, at most ``MOST_NAMED``; none if the queues are idle. It
    looks every ``poll`` seconds and calls ``said`` with the running jobs. Two looks in a row must find nothing: a
    worker ends a job and claims the next one in two steps. A database that is away is asked again until the time is
    over; then DatabaseUnreachableError is raised.
    """
    running = JobFilter(states=(State.CLAIMED,), queues=tuple(queues))
    deadline = time.monotonic() + timeout
    is_idle = False
    while True:
        is_last = time.monotonic() >= deadline
        try:
            found = list(list_jobs(database, running, limit=MOST_NAMED))
        except DatabaseUnreachableError:
            if is_last:
                raise
            is_idle = False
        else:
            said(found)
            if (is_idle and not found) or (is_last and found):
                return found
            is_idle = not found
        sleep(MOMENT if is_idle else min(poll, max(MOMENT, deadline - time.monotonic())))
