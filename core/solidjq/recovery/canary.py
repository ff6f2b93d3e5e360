"""A canary: retry a few jobs first, wait until they have ended, and let the rest follow only if none died again."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select

from solidjq.database.transactions import Database
from solidjq.errors import RefusedError
from solidjq.ledger.operations import Operation
from solidjq.processes.attendance import Attendance
from solidjq.recovery.fates import fates_of
from solidjq.recovery.retry import plan
from solidjq.recovery.terms import RetryTerms, Selection
from solidjq.recovery.verdicts import Decision
from solidjq.settings.policy import BUILT_IN, Policy

POLL = 0.5  # seconds between two checks

Retry = Callable[[Selection, RetryTerms], Iterable[list[Decision]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the canary's jobs so far. ``failed`` counts those that failed with their own error."""

    waiting: int = 0
    died: int = 0
    failed: int = 0
    ended: int = 0  # finished, or removed since

    @property
    def jobs(self) -> int:
        """How many jobs the canary has."""
        return self.waiting + self.died + self.failed + self.ended

    @property
    def safe(self) -> bool:
        """Whether all jobs have ended and none died."""
        return not self.waiting and not self.died


def run(
    database: Database,
    selection: Selection,
    terms: RetryTerms,
    size: int,
    retry: Retry,
    operation: Operation,
    *,
    patience: float,
    began: Callable[[int], object] = lambda _: None,
    sleep: Callable[[float], object] = time.sleep,
) -> Outcome:
    """Retry at most ``size`` jobs of the selection, at once, and watch them; the rest may follow if it is ``safe``.

    ``retry`` carries the retry out, as this operation, which has moved nothing before. ``began`` is called with the
    number of jobs that were retried, unless that is 0. Waits at most ``patience`` seconds.
    """
    batches = retry(*_of_canary(selection, terms, size))
    count = sum(decision.verdict.moves for batch in batches for decision in batch)
    if not count or operation.id is None:
        return Outcome()
    began(count)
    return watch(database, operation.id, patience, sleep=sleep)


def refuse_if_vain(
    database: Database,
    selection: Selection,
    terms: RetryTerms,
    size: int,
    attendance: Attendance,
    *,
    policy: Policy = BUILT_IN,
) -> None:
    """Raise RefusedError if a job of the canary would not run: no worker polls its queue, it is paused, and so on."""
    destinations: Counter[str] = Counter()
    scheduled = 0
    for batch in plan(database, *_of_canary(selection, terms, size), policy=policy):
        for decision in batch:
            if (queue := decision.destination) is not None:
                destinations[queue] += decision.jobs
                scheduled += decision.jobs if decision.scheduled else 0
    if obstacles := attendance.obstacles(destinations, scheduled):
        raise RefusedError(f"the canary would not end: {'; '.join(obstacles)}; nothing was retried")


def _of_canary(selection: Selection, terms: RetryTerms, size: int) -> tuple[Selection, RetryTerms]:
    limit = size if selection.limit is None else min(size, selection.limit)
    return replace(selection, limit=limit), replace(terms, delay=None, interval=None)


def watch(
    database: Database, operation_id: int, patience: float, *, sleep: Callable[[float], object] = time.sleep
) -> Outcome:
    """Wait until every job of the operation has ended, one has died, or ``patience`` seconds are over."""
    deadline = time.monotonic() + patience
    while True:
        with database.read() as connection:
            outcome = count_outcomes(connection, operation_id)
        if outcome.died or not outcome.waiting or time.monotonic() >= deadline:
            return outcome
        sleep(min(POLL, max(0.0, deadline - time.monotonic())))


def count_outcomes(connection: Connection, operation_id: int) -> Outcome:
    """Count how many of the operation's jobs wait or run, died, failed and ended."""
    fates = fates_of(operation_id).subquery("fates")
    counts = connection.execute(select(fates.c.fate, func.count().label("jobs")).group_by(fates.c.fate))
    return Outcome(**{row.fate: row.jobs for row in counts})
