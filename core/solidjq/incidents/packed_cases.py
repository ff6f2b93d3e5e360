"""Death cases packed into bytes, and built again whenever they are read: a bad month leaves 50,000 of them."""

from array import array
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from itertools import islice
from struct import Struct
from types import MappingProxyType
from typing import Any, overload

from solidjq.database.times import micros_of, time_of
from solidjq.incidents.claimed_jobs import UNREAD
from solidjq.incidents.death_cases import Blame, Crowd, DeathCase, InFlight
from solidjq.incidents.death_records import DeathRecord
from solidjq.ledger.deaths import DeathSource
from solidjq.rails.error_text import Death

_DEATH = Struct("<qqBB")  # jq_deaths.id, when it was noticed in microseconds, the places of its source and manner
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_SOURCES, _MANNERS = tuple(DeathSource), tuple(Death)
_CROWD = Struct("<IIqI")  # the place of its class, its count, the lowest id, the length of its subject in bytes
_BLAMES = tuple(Blame)


class PackedDeaths(Sequence[DeathRecord]):
    """Slim records of deaths, see ``DeathRecord.slim``, in order.

    A recorded death that charges all its jobs takes 18 bytes, and is built again whenever it is read.
    """

    def __init__(self) -> None:
        self._packed = bytearray()
        self._others: dict[int, DeathRecord] = {}  # by place: those that are kept as they are

    def append(self, death: DeathRecord) -> None:
        """Add a death at the end."""
        plain = death.span is None and not death.evidence and death.noticed_at.tzinfo is UTC
        if not plain or death.jobs is not UNREAD or death.source is DeathSource.FAILURES:
            self._others[len(self)] = death
            self._packed += bytes(_DEATH.size)
            return
        places = _SOURCES.index(death.source), _MANNERS.index(death.how)
        self._packed += _DEATH.pack(int(death.name[1:]), micros_of(death.noticed_at), *places)

    def __len__(self) -> int:
        return len(self._packed) // _DEATH.size

    @overload
    def __getitem__(self, at: int) -> DeathRecord: ...
    @overload
    def __getitem__(self, at: slice) -> list[DeathRecord]: ...
    def __getitem__(self, at: int | slice) -> DeathRecord | list[DeathRecord]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        if (other := self._others.get(place)) is not None:
            return other
        number, noticed, source, how = _DEATH.unpack_from(self._packed, place * _DEATH.size)
        return DeathRecord(
            name=f"d{number}",
            source=_SOURCES[source],
            how=_MANNERS[how],
            noticed_at=time_of(noticed),
            evidence=_NOTHING,
            jobs=UNREAD,
            counted=_NOTHING,
        )


class PackedCases(Collection[DeathCase]):
    """Cases of which no two have one key, in order. ``known``: the subjects of jobs that are in no crowd.

    A crowd takes 20 bytes, and the characters of its subject if it is one job. Jobs that are known by name are kept as
    they are, and come first when a case is read.
    """

    def __init__(self, cases: Iterable[DeathCase] = (), known: Container[str] = frozenset()) -> None:
        self.deaths = PackedDeaths()  # of each case, as far as they were added
        self._keys: list[str] = []
        self._flags = bytearray()  # twice the place of the blame, and 1 more if a stack names the job
        self._ends = array("Q", [0])  # where the crowds of each case end
        self._crowds = bytearray()
        self._named: dict[int, tuple[InFlight, ...]] = {}  # by place: the jobs that are no crowds
        self._known = known
        self._places: dict[str, int] = {}  # of classes
        self._classes: list[str] = []
        for case in cases:
            self.add(case)

    def add(self, case: DeathCase, death: DeathRecord | None = None) -> None:
        """Add a case at the end; of one with crowds also the death."""
        named = tuple(job for job in case.jobs if job.crowd is None)
        if named:
            self._named[len(self._keys)] = named
        for job in case.jobs:
            if (crowd := job.crowd) is not None:
                place = self._places.setdefault(job.class_name, len(self._places))
                if place == len(self._classes):
                    self._classes.append(job.class_name)
                subject = job.subject.encode("utf-8", "surrogatepass") if crowd.count == 1 else b""
                self._crowds += _CROWD.pack(place, crowd.count, crowd.lowest, len(subject)) + subject
        self._keys.append(case.key)
        self._flags.append(2 * _BLAMES.index(case.blame) + case.named)
        self._ends.append(len(self._crowds))
        if death is not None:
            self.deaths.append(death)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[DeathCase]:
        return map(self.at, range(len(self._keys)))

    def __contains__(self, case: object) -> bool:
        return any(case == one for one in self)

    @property
    def named(self) -> Collection[int]:
        """The places of the cases with jobs that are known by name, in their order."""
        return self._named.keys()

    def key_at(self, place: int) -> str:
        """Return the key of the case at this place, from 0 on."""
        return self._keys[place]

    def at(self, place: int) -> DeathCase:
        """Return the case at this place, from 0 on."""
        flags = self._flags[place]
        jobs = (*self._named.get(place, ()), *self._crowds_at(place))
        return DeathCase(self._keys[place], _BLAMES[flags >> 1], jobs, named=bool(flags & 1))

    def subject_at(self, place: int, at: int) -> str:
        """Return the subject of the job ``at`` of the case at this place, without building the case."""
        named = self._named.get(place, ())
        if at < len(named):
            return named[at].subject
        return next(islice(self._parts_at(place), at - len(named), None))[0]

    def _crowds_at(self, place: int) -> Iterator[InFlight]:
        for subject, name, count, lowest in self._parts_at(place):
            yield InFlight(subject, name, crowd=Crowd(count, lowest, self.deaths[place], self._known))

    def _parts_at(self, place: int) -> Iterator[tuple[str, str, int, int]]:
        """Yield of each crowd of a case its subject, its class, its count and the lowest id."""
        at, end = self._ends[place], self._ends[place + 1]
        while at < end:
            of_class, count, lowest, length = _CROWD.unpack_from(self._crowds, at)
            start, at = at + _CROWD.size, at + _CROWD.size + length
            name = self._classes[of_class]
            if count == 1:
                subject = self._crowds[start:at].decode("utf-8", "surrogatepass")
            else:
                subject = f"{self.deaths[place].name} {name}"
            yield subject, name, count, lowest
