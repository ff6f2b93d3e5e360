"""Deaths that nobody recorded packed into bytes, and built again when they are read: a bad month leaves 50,000 of them.

The bytes of deaths sort as the deaths fell silent.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple, overload

from solidjq.database.times import micros_of, time_of
from solidjq.incidents.claimed_jobs import ClassCount
from solidjq.incidents.death_records import DeathRecord, FailureSpan
from solidjq.incidents.reconstruction import death_from

# When it fell silent, when it was noticed and its number, so that bytes sort by them; then the span's first and last
# failure_id and last time, the pid, flags, how many times of others follow, and the lengths in bytes of host and error.
_DEATH = Struct(">QQQqqqqBIII")
_TIME = Struct(">q")
# The place of the class, the jobs claimed, begun and waiting, the lowest job id, the length of its subject in bytes.
_COUNT = Struct(">IIIIqI")
_NONE = -(2**63)  # stands for an id or a time that is unknown
_SIGN = 2**63  # added to times, which may lie before 1970: their bytes sort only without a sign
_AT_ONCE, _SEVERAL, _COUNTED, _HOST, _ONCE = 1, 2, 4, 8, 16
# The names of classes, each once: few, and the same at all deaths.
_CLASSES: list[str] = []
_PLACES: dict[str, int] = {}


def in_order(deaths: Iterable[DeathRecord]) -> Iterator[DeathRecord]:
    """Yield reconstructed deaths as they fell silent; they are held as bytes, and let go as they are yielded."""
    packed = sorted(map(pack, deaths), reverse=True)
    while packed:
        yield unpack(packed.pop())


class IncidentDeaths(Sequence[DeathRecord]):
    """The deaths of an incident without their jobs: those that were reconstructed as bytes."""

    __slots__ = ("_deaths",)

    def __init__(self, deaths: Iterable[DeathRecord]) -> None:
        self._deaths = tuple(death if death.span is None else pack(death) for death in deaths)

    def __len__(self) -> int:
        return len(self._deaths)

    @overload
    def __getitem__(self, at: int) -> DeathRecord: ...
    @overload
    def __getitem__(self, at: slice) -> list[DeathRecord]: ...
    def __getitem__(self, at: int | slice) -> DeathRecord | list[DeathRecord]:
        return list(map(_record, self._deaths[at])) if isinstance(at, slice) else _record(self._deaths[at])


def _record(death: DeathRecord | bytes) -> DeathRecord:
    return unpack(death) if isinstance(death, bytes) else death


def pack(death: DeathRecord) -> bytes:
    """Return a death that was reconstructed from failures as bytes; its jobs, if they were read, are left out."""
    if death.span is None:
        raise ValueError(f"{death.name} was recorded")
    first_id, last_id, last_at, at_once, others_at, once = death.span
    host, error = _bytes(death.hostname or ""), _bytes(death.error)
    flags = _AT_ONCE * at_once + _SEVERAL * death.several + _ONCE * once
    flags += _COUNTED * (death.counted is not None) + _HOST * (death.hostname is not None)
    head = _DEATH.pack(
        micros_of(death.silent_at) + _SIGN,
        micros_of(death.noticed_at) + _SIGN,
        int(death.name[1:]) + _SIGN,
        first_id,
        last_id,
        _NONE if last_at is None else micros_of(last_at),
        _NONE if death.pid is None else death.pid,
        flags,
        len(others_at),
        len(host),
        len(error),
    )
    times = (_TIME.pack(micros_of(at)) for at in others_at)
    return b"".join((head, *times, host, error, *_packed_counts(death)))


def _packed_counts(death: DeathRecord) -> Iterator[bytes]:
    for name, count in (death.counted or {}).items():
        place = _PLACES.setdefault(name, len(_PLACES))
        if place == len(_CLASSES):
            _CLASSES.append(name)
        subject = _bytes(count.subject)
        lowest = _NONE if count.job_id is None else count.job_id
        yield _COUNT.pack(place, count.claimed, count.begun, count.waiting, lowest, len(subject)) + subject


def unpack(packed: bytes) -> DeathRecord:
    """Return the death that ``pack`` was called with, its jobs unread."""
    parts = _Parts(packed)
    head = _Head._make(parts.take(_DEATH))
    others_at = tuple(time_of(parts.take(_TIME)[0]) for _ in range(head.others))
    host, error = parts.text(head.host), parts.text(head.error)
    counted: dict[str, ClassCount] = {}
    while parts.left:
        place, claimed, begun, waiting, lowest, length = parts.take(_COUNT)
        job_id = None if lowest == _NONE else lowest
        counted[_CLASSES[place]] = ClassCount(claimed, begun, waiting, parts.text(length), job_id)
    last_at = None if head.last_at == _NONE else time_of(head.last_at)
    death = death_from(
        head.number - _SIGN,
        error,
        time_of(head.noticed_at - _SIGN),
        host if head.flags & _HOST else None,
        None if head.pid == _NONE else head.pid,
        counted=counted if head.flags & _COUNTED else None,
        span=FailureSpan(
            head.first_id, head.last_id, last_at, bool(head.flags & _AT_ONCE), others_at, bool(head.flags & _ONCE)
        ),
        several=bool(head.flags & _SEVERAL),
    )
    if death is None:
        raise ValueError("these bytes are no death")
    return death


class _Head(NamedTuple):
    silent_at: int
    noticed_at: int
    number: int
    first_id: int
    last_id: int
    last_at: int
    pid: int
    flags: int
    others: int
    host: int
    error: int


class _Parts:
    """Takes bytes apart, from the first to the last."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there are more."""
        return self._at < len(self._packed)

    def take(self, layout: Struct) -> tuple[int, ...]:
        """Return the next numbers."""
        numbers = layout.unpack_from(self._packed, self._at)
        self._at += layout.size
        return numbers

    def text(self, length: int) -> str:
        """Return the next text, of so many bytes."""
        start, self._at = self._at, self._at + length
        return self._packed[start : self._at].decode("utf-8", "surrogatepass")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
