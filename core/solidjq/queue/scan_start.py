"""Where a worker's scans for ready jobs begin: at the first entry of the index, or at the job that it claimed last.

Until a transaction that stays open ends, the database cleans away no entry of a ready row that was deleted since it
began, and each scan from the first entry passes over all of them. A worker that measures that such scans are dear
begins most of them at the job that it claimed last: the bound. It may be wrong at any time: a ready row can come before
it whenever a job has a better priority, is retried, resumed or due, or was inserted by a transaction that commits late.
So two rules hold, whatever the bound is:

- A scan from the first entry comes every ``interval`` seconds, a tenth of a second as a rule: a row before the bound
  waits no longer than a job that an idle worker finds when it polls.
- A turn that began at a bound, or looked only in the queues that had jobs before, and found fewer jobs than were wanted
  is followed at once by one from the first entry of all: a worker never sleeps while a job is ready.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

LEAST_INTERVAL = 0.1  # seconds between two scans from the first entry, if scans are dear
LEAST_COST = 0.0005  # seconds from which on the entries of deleted rows make a scan dear
LARGEST_SHARE = 0.1  # of the time, for scans from the first entry
LARGEST_PART = 0.02  # of the time, for each scan of a measurement
MEASURE_INTERVAL = 1.0  # seconds between two measurements


class Bound(NamedTuple):
    """The place of a ready row in the index: rows before it are passed over unread."""

    priority: int
    job_id: int


class _Placed(Protocol):
    @property
    def priority(self) -> int: ...
    @property
    def job_id(self) -> int: ...


class ScanStart:
    """The bounds of one worker's scans, by queue; None is all queues. One that measures nothing has none."""

    def __init__(self) -> None:
        self._bounds: dict[str | None, Bound] = {}
        self._until = -math.inf  # by the monotonic clock: when the next scan must be from the first entry
        self._cost = 0.0  # seconds; 0 if a scan is not dear
        self._measure_at = -math.inf
        self._is_whole = True  # whether this turn sees every ready row, in whatever queue
        self.queues: Sequence[str] | None = None  # the names of the queues that had ready jobs at the last scan of all

    @property
    def interval(self) -> float:
        """Seconds between two scans from the first entry; 0 if all are."""
        return max(LEAST_INTERVAL, self._cost / LARGEST_SHARE) if self._cost else 0.0

    def begin(self, now: float) -> None:
        """Begin a turn."""
        if now >= self._until:
            self._bounds.clear()
            self.queues = None
            self._until = now + self.interval
        self._is_whole = not self._bounds and self.queues is None

    def bound(self, queue: str | None) -> Bound | None:
        """Return where this turn's scan of a queue begins; None is the first entry."""
        return self._bounds.get(queue)

    def note(self, queue: str | None, claims: Sequence[_Placed]) -> None:
        """Note the jobs that a scan of a queue found, in the order of the index."""
        if claims:
            self._bounds[queue] = Bound(claims[-1].priority, claims[-1].job_id)

    def must_look_again(self, *, found: int, wanted: int) -> bool:
        """End a turn; return whether the next one must follow at once, and scan from the first entry."""
        if found >= wanted or self._is_whole:
            return False
        self._until = -math.inf
        return True

    def measure_if_due(self, cost: Callable[[str | None, Bound], float], now: float) -> None:
        """Measure once a second what a scan costs. ``cost(queue, bound)`` returns how many seconds a bound saves."""
        if now < self._measure_at or not self._bounds:
            return
        seconds = cost(*next(reversed(self._bounds.items())))
        self._cost = seconds if seconds >= LEAST_COST else 0.0
        if not self._cost:
            self._until = -math.inf
        self._measure_at = now + max(MEASURE_INTERVAL, self._cost / LARGEST_PART)
