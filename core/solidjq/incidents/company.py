"""The evidence beyond one death: the other deaths of its moment, and the processes that went on."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from solidjq.incidents.death_records import DeathRecord
from solidjq.untrusted import number


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """How many processes still beat, each time that a prune removed a process; in the order of time."""

    times: Sequence[datetime] = ()
    counts: Sequence[float] = ()

    @classmethod
    def of(cls, deaths: Iterable[DeathRecord], count: str) -> "FleetCounts":
        """Collect what the prunes of these deaths counted under this name."""
        counted = [(death.noticed_at, number(death.evidence, "fleet", count)) for death in deaths]
        pairs = sorted((at, found) for at, found in counted if found is not None)
        return cls([at for at, _ in pairs], [found for _, found in pairs])

    def least(self, start: datetime, end: datetime) -> float | None:
        """Return the least count between two times, both included; None if there is none."""
        return min(self.counts[bisect_left(self.times, start) : bisect_right(self.times, end)], default=None)


NO_COUNTS = FleetCounts()


@dataclass(frozen=True, slots=True)
class Company:
    """The evidence beyond one death: the other deaths of its moment, and the processes that live now."""

    hosts: frozenset[str] = frozenset()  # of all deaths of the moment
    deaths: int = 1  # at that moment
    survivors: int | None = None  # processes that ran when it fell silent and still beat later; None if unknown
    outages: Sequence[tuple[datetime, datetime | None]] = ()  # when other processes could not send heartbeats
    alive: FleetCounts = NO_COUNTS  # by the prunes of its moment: of all processes
    alive_here: Mapping[str | None, FleetCounts] = field(default_factory=dict)  # by host: of those of the host


NO_COMPANY = Company()
