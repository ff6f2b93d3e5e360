"""Which jobs were in flight at several deaths, and how much each death charges them."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from heapq import merge
from typing import NamedTuple

from solidjq.batching import in_batches
from solidjq.incidents.class_scores import ClassScore
from solidjq.incidents.death_cases import (
    CLEARED,
    SUSPECT_AT,
    Crowd,
    DeathCase,
    DeathTally,
    InFlight,
    JobStanding,
    Proven,
    find_proven,
)
from solidjq.incidents.packed_cases import PackedCases
from solidjq.rails.positions import Position
from solidjq.text import count_of

_MB = 1_000_000
_GB = 1_000_000_000
_MOST_JOBS = 1 << 32  # of one case
_RUN = 10_000  # jobs that are sorted together


@dataclass(frozen=True, slots=True)
class JobScore:
    """One job in a ranking, with the reasons. ``deaths`` and ``alone`` count only deaths that charge."""

    name: str  # the job's subject: its Active Job id
    class_name: str
    score: float
    standing: JobStanding
    deaths: int
    alone: int  # of these deaths, those at which no other job was in flight
    reasons: tuple[str, ...]
    at: tuple[str, ...] = ()  # the names of the deaths that charge it
    position: Position | None = None  # where a long job stood at the last of them, if it died there at least twice
    crowd: Crowd | None = None  # the jobs that it is the score of, if it is that of several
    job_ids: tuple[int, ...] = ()  # its jobs, as far as they were looked up

    @property
    def count(self) -> int:
        """How many jobs it is the score of."""
        return 1 if self.crowd is None else self.crowd.count

    def of_member(self, subject: str, job_id: int) -> "JobScore":
        """Return the score of one job of the crowd."""
        facts = (self.class_name, self.score, self.standing, self.deaths, self.alone, self.reasons, self.at)
        return JobScore(subject, *facts, self.position, None, (job_id,))


@dataclass(frozen=True, slots=True)
class _Flights:
    """The deaths that charge one job, and the job as it was at each."""

    pairs: tuple[tuple[DeathCase, InFlight], ...]
    proven: Mapping[str, Proven]  # by the keys of cases: who else is known to have killed the process

    @property
    def cases(self) -> list[DeathCase]:
        return [case for case, _ in self.pairs]

    @property
    def last(self) -> DeathCase:
        return max(self.pairs, key=lambda pair: pair[1].failure_id or 0)[0]

    @property
    def growth(self) -> int:
        return max(job.growth or 0 for _, job in self.pairs)

    @property
    def position(self) -> Position | None:
        """Where a long job stood at its last death."""
        _, last = max(self.pairs, key=lambda pair: pair[1].failure_id or 0)
        return last.position

    @property
    def here(self) -> list[tuple[DeathCase, InFlight]]:
        """The deaths after which the job made no progress; without checkpoints all."""
        position = self.position
        return [
            (case, job)
            for case, job in self.pairs
            if position is None or job.position is None or job.position.key == position.key
        ]

    @property
    def stuck(self) -> str | None:
        """How often processes died at the record where a long job stands, in words; None if fewer than two did."""
        position = self.position
        if position is None or not position.in_step:
            return None
        count = sum(job.position is not None or position.follows_unsaved_death for _, job in self.here)
        return position.died(count) if count >= SUSPECT_AT else None

    @property
    def repeated(self) -> bool:
        """Whether it was in flight at several deaths without progress between them, and without a proven killer."""
        return sum(not self._is_cleared(case, job) for case, job in self.here) >= SUSPECT_AT

    def _is_cleared(self, case: DeathCase, job: InFlight) -> bool:
        return case.key in self.proven and self.proven[case.key].clears(job.subject, job.class_name)

    @property
    def progressed(self) -> bool:
        """Whether it made progress between its deaths, and died but once since."""
        return len(self.here) < SUSPECT_AT and len(self.pairs) > 1


class _Accused(NamedTuple):
    """The jobs that share the blame for a death, by subject, and how many they are."""

    subjects: AbstractSet[str]
    size: int


class JobRanking(Iterable[JobScore]):
    """The scores of every job in flight at some deaths, suspects first, then by score.

    They are made whenever they are read, and a crowd takes 8 bytes. ``suspects.rank`` says how a score is made.
    ``ids_of``: the ids of jobs that are known by name.
    """

    def __init__(
        self, cases: PackedCases, classes: Iterable[ClassScore], ids_of: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self._cases = cases
        self._class_scores = {score.name: score for score in classes}
        self._ids_of = ids_of or {}
        self.proven = find_proven(cases)
        self._jobs: dict[str, InFlight] = {}  # those that are known by name
        pairs_of: dict[str, list[tuple[DeathCase, InFlight]]] = defaultdict(list)
        for place in cases.named:
            case = cases.at(place)
            for job in case.jobs:
                if job.crowd is None:
                    self._jobs[job.subject] = job
                    if not case.outside:
                        pairs_of[job.subject].append((case, job))
        self._flights = {subject: _Flights(tuple(pairs), self.proven) for subject, pairs in pairs_of.items()}
        self._repeated = {subject for subject, flights in self._flights.items() if flights.repeated}
        self._of_crowds: dict[tuple[object, ...], JobScore] = {}  # scores that crowds of many deaths have

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterable) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of any list

    def __iter__(self) -> Iterator[JobScore]:
        return self.standing(*JobStanding)

    def count(self, *standings: JobStanding) -> int:
        """Return how many jobs have one of these standings."""
        return sum(self._counts[standing] for standing in standings)

    def standing(self, *standings: JobStanding) -> Iterator[JobScore]:
        """Yield the scores of the jobs with these standings, in their order."""
        by_rank: dict[tuple[int, float], array[int]] = defaultdict(lambda: array("Q"))
        for (standing, score), members in self._members.items():
            if standing in standings:
                by_rank[standing.rank, -score].extend(members)
        for _, members in sorted(by_rank.items()):
            yield from map(self._score_at, self._by_name(members))

    def named(self) -> Iterator[JobScore]:
        """Yield the scores of the jobs that are known by name, in no order."""
        return map(self._score, self._jobs.values())

    def of_crowd(self, place: int, class_name: str) -> JobScore | None:
        """Return the score of the crowd of a class at the case with this place; None if there is no such crowd.

        That of a crowd is kept for a while.
        """
        return self._of_crowd(place, class_name)

    @cached_property
    def _of_crowd(self) -> Callable[[int, str], JobScore | None]:
        def of_crowd(place: int, class_name: str) -> JobScore | None:
            case = self._case_at(place)
            job = next((job for job in case.jobs if job.crowd is not None and job.class_name == class_name), None)
            if job is None:
                return None
            return self._score_in(case, job, _accused(case, self._class_scores, self._repeated))

        return lru_cache(1000)(of_crowd)

    @cached_property
    def _counts(self) -> Counter[JobStanding]:
        counts: Counter[JobStanding] = Counter()
        for (standing, _), members in self._members.items():
            counts[standing] += sum(self._job_at(member)[1].count for member in members)
        return counts

    @cached_property
    def _members(self) -> "dict[tuple[JobStanding, float], array[int]]":
        """Which jobs have which standing and score: in one number the place of a case and that of the job there."""
        members: dict[tuple[JobStanding, float], array[int]] = defaultdict(lambda: array("Q"))
        for place, case in enumerate(self._cases):
            accused = _accused(case, self._class_scores, self._repeated)
            for at, job in enumerate(case.jobs):
                if job.crowd is not None:
                    score = self._score_in(case, job, accused)
                    members[score.standing, score.score].append(place * _MOST_JOBS + at)
        for at, score in enumerate(self.named()):
            members[score.standing, score.score].append(len(self._cases) * _MOST_JOBS + at)
        return members

    @cached_property
    def _names(self) -> list[str]:
        return list(self._jobs)

    def _job_at(self, member: int) -> tuple[DeathCase | None, InFlight]:
        """Return a member's job, and the case of its death; None if it is known by name."""
        place, at = divmod(member, _MOST_JOBS)
        if place == len(self._cases):
            return None, self._jobs[self._names[at]]
        case = self._case_at(place)
        return case, case.jobs[at]

    @cached_property
    def _case_at(self) -> Callable[[int], DeathCase]:
        return lru_cache(4)(self._cases.at)

    def _by_name(self, members: Iterable[int]) -> Iterator[int]:
        """Yield members by their subjects, of which those of one run are held at a time."""
        runs = [array("Q", sorted(run, key=self._name_at)) for run in in_batches(members, _RUN)]
        return merge(*runs, key=self._name_at)

    def _name_at(self, member: int) -> str:
        place, at = divmod(member, _MOST_JOBS)
        return self._names[at] if place == len(self._cases) else self._cases.subject_at(place, at)

    def _score_at(self, member: int) -> JobScore:
        case, job = self._job_at(member)
        if case is None:
            return self._score(job)
        return self._score_in(case, job, _accused(case, self._class_scores, self._repeated))

    def _score_in(self, case: DeathCase, job: InFlight, accused: _Accused) -> JobScore:
        """Return the score of a crowd; that of crowds that are alike is made once."""
        flights = _Flights(((case, job),), self.proven)
        if case.outside:
            return _cleared(job)
        blamed = accused.size if job.subject in accused.subjects else 0
        if case.inside and blamed > 1:  # its reason names the death
            return self._judged(job, flights, {case.key: accused})
        alike = (job.class_name, case.inside, case.single, case.named, blamed)
        if (score := self._of_crowds.get(alike)) is None:
            score = self._of_crowds[alike] = self._judged(job, flights, {case.key: accused})
        return replace(score, name=job.subject, at=(case.key,), crowd=job.crowd)

    def _score(self, job: InFlight) -> JobScore:
        """Return the score of a job that is known by name."""
        flights = self._flights.get(job.subject)
        if flights is None:
            score = _cleared(job)
        else:
            accused = {case.key: _accused(case, self._class_scores, self._repeated) for case in flights.cases}
            score = self._judged(job, flights, accused)
        return replace(score, job_ids=tuple(self._ids_of.get(job.subject, ())))

    def _judged(self, job: InFlight, flights: _Flights, accused: Mapping[str, _Accused]) -> JobScore:
        """Return the score of a job that was in flight at deaths that charge."""
        subject, name = job.subject, job.class_name
        class_score = self._class_scores[name]
        stuck, deaths = flights.stuck, DeathTally()
        for case in flights.cases:
            deaths.add(case)
        standing, facts = _judge_job(subject, class_score, flights, accused)
        reasons = [*([stuck] if stuck else []), f"in flight at {count_of(deaths.all, 'death')}", *facts]
        reasons += deaths.reasons
        if flights.growth >= _MB:
            reasons.append(f"the process had grown by {flights.growth / _MB:,.0f} MB since it started")
        score = sum(1 + _blame(subject, case, accused[case.key]) for case in flights.cases)
        score += _below_half(class_score.score) + _below_half(flights.growth / _GB)
        at = tuple(case.key for case in flights.cases)
        position = flights.position if stuck else None
        return JobScore(
            subject, name, score, standing, deaths.all, deaths.alone, tuple(reasons), at, position, job.crowd
        )


def _cleared(job: InFlight) -> JobScore:
    return JobScore(job.subject, job.class_name, 0.0, JobStanding.BYSTANDER, 0, 0, (CLEARED,), crowd=job.crowd)


def _accused(case: DeathCase, class_scores: Mapping[str, ClassScore], repeated: AbstractSet[str]) -> _Accused:
    """Return the jobs that share the blame for a death; those that better suspects explain are cleared."""
    for standing in (JobStanding.SUSPECT, JobStanding.TIED):
        if of_such_classes := [job for job in case.jobs if class_scores[job.class_name].standing is standing]:
            return _together(of_such_classes)
    return _together([job for job in case.jobs if job.subject in repeated] or case.jobs)


def _together(jobs: Sequence[InFlight]) -> _Accused:
    return _Accused({job.subject for job in jobs}, sum(job.count for job in jobs))


def _blame(subject: str, case: DeathCase, accused: _Accused) -> float:
    return (2 if case.inside else 1) / accused.size if subject in accused.subjects else 0.0


def _below_half(x: float) -> float:
    return x / (2 + 2 * x)


def _judge_job(
    subject: str, class_score: ClassScore, flights: _Flights, accused: Mapping[str, _Accused]
) -> tuple[JobStanding, list[str]]:
    """Return standing and facts of a job that was in flight at a death that charges."""
    case = flights.last
    facts = [f"{class_score.name} is a suspect"] if class_score.standing is JobStanding.SUSPECT else []
    if flights.progressed:
        facts = ["it made progress between them"]
    elif flights.repeated or facts:
        return JobStanding.SUSPECT, facts
    elif class_score.standing is JobStanding.TIED:
        return JobStanding.TIED, [f"{class_score.name} {class_score.tied}"]
    blamed = accused[case.key]
    if subject not in blamed.subjects:
        return JobStanding.BYSTANDER, [*facts, "a suspect was in flight beside it"]
    if not case.inside:
        return JobStanding.UNDECIDED if case.single else JobStanding.BYSTANDER, facts
    if blamed.size == 1:
        return JobStanding.SUSPECT, facts
    # One of them killed the process, and the evidence fits all: to put them all back would put the killer back.
    return JobStanding.TIED, [
        *facts,
        f"one of {blamed.size:,} jobs that {JobStanding.TIED}; jq bisect {case.key} finds the killer",
    ]
