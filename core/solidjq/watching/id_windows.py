"""Which rows of a table are new, by their ids.

Ids are given out in order, but rows commit in any order: a row may appear below one that was read before. So the ids
that were missing between those read are remembered, as gaps, and looked for again until no transaction can still hold
them. That costs a few bytes a gap, where a set of the ids that were seen would grow with the number of rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, or_

from solidjq.batching import in_batches
from solidjq.watching.typed import LATER

LATEST = 600.0  # seconds after which a missing id is no longer expected: a transaction that was open for so long
MOST_GAPS = 1_000  # the youngest are kept
GAPS_AT_ONCE = 100  # gaps that one statement looks for


class Gap(NamedTuple):
    """Ids from ``first`` to ``last`` that had no row at ``noticed_at``, in seconds since 1970."""

    first: int
    last: int
    noticed_at: float


@dataclass(slots=True)
class IdWindow:
    """All ids up to ``high`` have been read, but for those in the gaps. Times are the database's, in s since 1970."""

    high: int = 0
    gaps: list[Gap] = field(default_factory=list)
    # No row that was read was written later than this; None if that is unknown.
    high_at: float | None = field(default=None, metadata=LATER)

    def late(self, column: ColumnElement[int]) -> Iterator[ColumnElement[bool]]:
        """Yield conditions for the rows in the gaps, one a statement."""
        for batch in in_batches(self.gaps, GAPS_AT_ONCE):
            yield or_(*(column.between(gap.first, gap.last) for gap in batch))

    def add(self, ids: Iterable[int], now: float) -> None:
        """Note that the rows with these ids have been read, above ``high`` or in a gap."""
        for number in sorted(ids):
            if number > self.high:
                if number > self.high + 1:
                    self.gaps.append(Gap(self.high + 1, number - 1, now))
                self.high, self.high_at = number, max(now, self.high_at or now)
            else:
                self._fill(number)
        del self.gaps[:-MOST_GAPS]

    def note_times(self, written_at: Iterable[datetime | None]) -> None:
        """Note when rows that were read were written, by the clocks of applications: one may be ahead."""
        times = [time.timestamp() for time in written_at if time is not None]
        self.high_at = max([*times, *(() if self.high_at is None else (self.high_at,))], default=None)

    def forget(self, now: float) -> None:
        """Forget the gaps that are older than any transaction. Call it after all gaps have been looked for."""
        self.gaps = [gap for gap in self.gaps if gap.noticed_at > now - LATEST]

    def _fill(self, number: int) -> None:
        for at, gap in enumerate(self.gaps):
            if gap.first <= number <= gap.last:
                parts = (Gap(gap.first, number - 1, gap.noticed_at), Gap(number + 1, gap.last, gap.noticed_at))
                self.gaps[at : at + 1] = [part for part in parts if part.first <= part.last]
                return

    def begins_again(self, written_at: float | None) -> bool:
        """Whether ids were given out again from a lower one on, as after a restore.

        ``written_at``: when the row with the highest id up to ``high`` was written. It was read, or is older than what
        was read, so it is not younger: not even if newer ids are far above ``high`` again.
        """
        return self.high_at is not None and written_at is not None and written_at > self.high_at

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"high": self.high, "gaps": [list(gap) for gap in self.gaps], "high_at": self.high_at}


def window_at(newest: Sequence[int], now: float) -> IdWindow:
    """Return the window of a watch that begins after the row with the highest of these ids.

    ``newest`` are the highest ids up to there: what is missing between them may still be in an open transaction.
    """
    window = IdWindow(min(newest, default=0), high_at=now)
    window.add(newest, now)
    return window
