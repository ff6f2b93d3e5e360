"""The jobs that a process had claimed when it died, kept in a few bytes each: a bad night leaves a million of them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import Any, NamedTuple, overload

_JOB = Struct("<qqII")  # its id, that of its failure, the place of its class, the length of its subject in bytes
_NONE = -(2**63)  # stands for an id that is unknown, or no number in the database
# The names of classes, each once: few, and the same at all deaths.
_CLASSES: list[str] = []
_PLACES: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that a process had claimed when it died.

    ``started_at``, and ``growth`` of the process since then in bytes, are None if no sample recorded them.
    """

    job_id: int
    subject: str  # its Active Job id; else "job 42"
    class_name: str
    failure_id: int | None = None
    started_at: datetime | None = None
    growth: int | None = None


class ClassCount(NamedTuple):
    """The jobs of one class that a process had claimed when it died, counted by the database."""

    claimed: int
    begun: int = 0  # of them those whose start was recorded
    waiting: int = 0  # failed still, by the very failure that the death left; 0 if that was not asked for
    subject: str = ""  # of one of them; may be empty if they are several
    job_id: int | None = None  # the lowest of them; None if no id is known

    def plus(self, claimed: int, waiting: int, subject: str, job_id: int | None) -> "ClassCount":
        """Return the count with more jobs; ``subject`` and ``job_id`` are as in a count of those alone.

        A subject is kept only if it is one job.
        """
        lowest = min((one for one in (self.job_id, job_id) if one is not None), default=None)
        total = self.claimed + claimed
        kept = subject if total == 1 else ""
        return ClassCount(total, self.begun, self.waiting + waiting, kept, lowest)


class ClaimedJobs(Sequence[ClaimedJob]):
    """The jobs of one death, in order, packed into bytes: 24 a job and the characters of its subject."""

    __slots__ = ("_count", "_packed", "_samples")

    def __init__(self, jobs: Iterable[ClaimedJob] = ()) -> None:
        self._packed = bytearray()
        self._count = 0
        self._samples: dict[int, tuple[datetime | None, int | None]] | None = None  # started_at and growth, by place
        for job in jobs:
            self.add(job.job_id, job.subject, job.class_name, job.failure_id, job.started_at, job.growth)

    def add(
        self,
        job_id: int | None,
        subject: str,
        class_name: str,
        failure_id: int | None,
        started_at: datetime | None = None,
        growth: int | None = None,
    ) -> None:
        """Add a job at the end."""
        if started_at is not None or growth is not None:
            self._samples = self._samples or {}
            self._samples[self._count] = started_at, growth
        written = subject.encode("utf-8", "surrogatepass")
        ids = _NONE if job_id is None else job_id, _NONE if failure_id is None else failure_id
        place = _PLACES.setdefault(class_name, len(_PLACES))
        if place == len(_CLASSES):
            _CLASSES.append(class_name)
        self._packed += _JOB.pack(*ids, place, len(written)) + written
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ClaimedJob]:
        samples = self._samples or {}
        for at, (job_id, failure_id, place, start, end) in enumerate(self._parts()):
            subject = self._packed[start:end].decode("utf-8", "surrogatepass")
            started_at, growth = samples.get(at, (None, None))
            yield ClaimedJob(job_id, subject, _CLASSES[place], failure_id, started_at, growth)

    def _parts(self) -> Iterator[tuple[Any, int | None, int, int, int]]:
        """Yield of each job its id, that of its failure, the place of its class, and where its subject is."""
        end = 0
        for _ in range(self._count):
            job_id, failure_id, place, length = _JOB.unpack_from(self._packed, end)
            start = end + _JOB.size
            end = start + length
            known = None if failure_id == _NONE else failure_id
            yield None if job_id == _NONE else job_id, known, place, start, end

    @overload
    def __getitem__(self, at: int) -> ClaimedJob: ...
    @overload
    def __getitem__(self, at: slice) -> list[ClaimedJob]: ...
    def __getitem__(self, at: int | slice) -> ClaimedJob | list[ClaimedJob]:
        return list(self)[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClaimedJobs) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of any list

    def __repr__(self) -> str:
        return f"ClaimedJobs({list(self)!r})"

    @property
    def job_ids(self) -> Iterator[int]:
        """The ids of the jobs, as far as they are known."""
        return (job_id for job_id, *_ in self._parts() if job_id is not None)

    @property
    def failure_ids(self) -> Iterator[int]:
        """The ids of their failures, as far as they are known."""
        return (number for _, number, *_ in self._parts() if number is not None)

    @property
    def starts(self) -> Iterator[datetime]:
        """When those jobs began whose start was recorded."""
        return (started_at for started_at, _ in (self._samples or {}).values() if started_at is not None)

    def apart(self) -> dict[str, "ClaimedJobs"]:
        """Return the jobs of each class by themselves, in order."""
        apart: dict[int, ClaimedJobs] = {}
        for at, (*_, place, start, end) in enumerate(self._parts()):
            if (jobs := apart.get(place)) is None:
                jobs = apart[place] = ClaimedJobs()
            if self._samples is not None and at in self._samples:
                jobs._samples = jobs._samples or {}
                jobs._samples[jobs._count] = self._samples[at]
            jobs._packed += self._packed[start - _JOB.size : end]
            jobs._count += 1
        return {_CLASSES[place]: jobs for place, jobs in apart.items()}

    def by_class(self) -> Counter[str]:
        """Count the jobs of each class, in the order in which the classes come first."""
        counts = Counter(place for _, _, place, *_ in self._parts())
        return Counter({_CLASSES[place]: count for place, count in counts.items()})


class _UnreadJobs(ClaimedJobs):
    """Stands for jobs that were only counted: to look at them is a mistake in the program."""

    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError("the jobs of this death were counted, not read: see death_jobs.with_jobs")

    def _parts(self) -> Iterator[tuple[Any, int | None, int, int, int]]:
        raise RuntimeError("the jobs of this death were counted, not read: see death_jobs.with_jobs")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _UnreadJobs)

    __hash__ = None  # as of any list

    def __repr__(self) -> str:
        return "UNREAD"


UNREAD = _UnreadJobs()
