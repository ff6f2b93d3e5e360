"""Two windows of time compared: which groups of failures are new, gone, grown or shrunk."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from solidjq.chance import log_comb
from solidjq.database.transactions import Database
from solidjq.diff.failure_groups import FailureGroup
from solidjq.diff.groups import group_windows
from solidjq.ledger import operations
from solidjq.queue.failed import Filter

SIGNIFICANCE = 0.01  # a change with a p-value from here on may be chance, and is not shown
FACTOR = 1.5  # nor is a change of the rate by less
_EXACT = 1000  # up to so many failures the test is exact; above, a normal approximation


class ChangeKind(Enum):
    """How a group's rate has changed; the value is what ``jq`` prints."""

    NEW = "new"  # it did not occur in the earlier window
    GROWN = "grown"
    SHRUNK = "shrunk"
    GONE = "gone"  # it does not occur in the later window

    @property
    def mark(self) -> str:
        """The character that marks such a change in a table."""
        return {ChangeKind.NEW: "+", ChangeKind.GROWN: ">", ChangeKind.SHRUNK: "<", ChangeKind.GONE: "-"}[self]


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time: from ``since`` on, before ``until``."""

    since: datetime
    until: datetime

    @property
    def length(self) -> timedelta:
        """The time from ``since`` to ``until``."""
        return self.until - self.since


@dataclass(frozen=True, slots=True)
class Change:
    """A group whose rate of failures has changed."""

    kind: ChangeKind
    group: FailureGroup  # of the later window; of the earlier one if it is gone
    now: int  # failures in the later window
    before: int  # failures in the earlier window
    factor: float | None  # the later rate divided by the earlier one; None if the group is new


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two windows compared."""

    changes: list[Change]
    same: int  # groups without a change, or with one that may be chance
    archive: bool  # whether failures that jq retried or discarded since are counted: the ledger exists


def compare_windows(database: Database, chosen: Filter, now: Window, before: Window) -> Comparison:
    """Compare the failures of two windows, also those that ``jq`` retried or discarded since."""
    with database.read() as connection:
        archive = operations.exists(connection)
    windows = [replace(chosen, since=window.since, until=window.until) for window in (now, before)]
    grouped = group_windows(database, windows)
    changes = compare_groups(grouped[0], grouped[1], now.length, before.length)
    names = {group.name for groups in grouped for group in groups}
    return Comparison(changes, len(names) - len(changes), archive)


def compare_groups(
    now: Iterable[FailureGroup], before: Iterable[FailureGroup], now_length: timedelta, before_length: timedelta
) -> list[Change]:
    """Return the groups whose rate has changed by ``FACTOR`` and by more than chance, and all new ones.

    They are sorted by kind in the order of ``ChangeKind``, then the largest first.
    """
    later, earlier = ({group.name: group for group in groups} for groups in (now, before))
    share = now_length / (now_length + before_length)
    changes = [
        change for name in later | earlier if (change := _change(later.get(name), earlier.get(name), share)) is not None
    ]
    order = list(ChangeKind)
    return sorted(changes, key=lambda change: (order.index(change.kind), -max(change.now, change.before)))


def _change(later: FailureGroup | None, earlier: FailureGroup | None, share: float) -> Change | None:
    now, before = (0 if group is None else group.count for group in (later, earlier))
    if earlier is None:
        return None if later is None else Change(ChangeKind.NEW, later, now, 0, None)
    factor = now / before * (1 - share) / share
    if 1 / FACTOR < factor < FACTOR or two_sided_p(now, before, share) >= SIGNIFICANCE:
        return None
    if later is None:
        return Change(ChangeKind.GONE, earlier, 0, before, 0.0)
    return Change(ChangeKind.GROWN if factor > 1 else ChangeKind.SHRUNK, later, now, before, factor)


def two_sided_p(now: int, before: int, share: float) -> float:
    """Return the two-sided p-value of a binomial test: each failure is in the later window with chance ``share``.

    It is the chance of a division of ``now + before`` failures that is as unequal as this one.
    """
    total = now + before
    if total > _EXACT:
        spread = math.sqrt(total * share * (1 - share))
        distance = max(0.0, abs(now - total * share) - 0.5) / spread
        return math.erfc(distance / math.sqrt(2))
    rising = now >= total * share
    tail = range(now, total + 1) if rising else range(now + 1)
    return min(1.0, 2 * math.fsum(math.exp(_log_binomial(total, count, share)) for count in tail))


def _log_binomial(total: int, count: int, share: float) -> float:
    return log_comb(total, count) + count * math.log(share) + (total - count) * math.log1p(-share)
