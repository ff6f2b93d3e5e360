"""Watch a few retried jobs before the rest follow: none may die again."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from solidjq.batching import in_batches
from solidjq.database.statements import among
from solidjq.database.tables import failed, jobs
from solidjq.database.transactions import Database
from solidjq.queue.failed import is_death

POLL = 0.5  # seconds between two looks


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the jobs so far. ``failed`` counts those that ended with their own error."""

    waiting: int = 0
    died: int = 0
    failed: int = 0
    ended: int = 0  # well, or cleared away since

    @property
    def safe(self) -> bool:
        """Tell whether all have ended and none died."""
        return not self.waiting and not self.died


def watch(
    database: Database, job_ids: Collection[int], patience: float, *, sleep: Callable[[float], object] = time.sleep
) -> Outcome:
    """Wait until every job has ended, one has died, or ``patience`` seconds are over; say how it stands."""
    deadline = time.monotonic() + patience
    while True:
        with database.read() as connection:
            outcome = look(connection, job_ids)
        if outcome.died or not outcome.waiting or time.monotonic() >= deadline:
            return outcome
        sleep(min(POLL, max(0.0, deadline - time.monotonic())))


def look(connection: Connection, job_ids: Collection[int]) -> Outcome:
    """Say how these jobs stand now."""
    died = lost = unfinished = 0
    for batch in in_batches(job_ids):
        deaths = select(func.count()).where(among(failed.c.job_id, batch))
        died += connection.scalar(deaths.where(is_death())) or 0
        lost += connection.scalar(deaths) or 0
        unfinished += (
            connection.scalar(select(func.count()).where(among(jobs.c.id, batch), jobs.c.finished_at.is_(None))) or 0
        )
    waiting = unfinished - lost
    return Outcome(waiting, died, lost - died, len(job_ids) - waiting - lost)
