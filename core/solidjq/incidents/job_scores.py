"""Which jobs were in flight at several deaths, and how much each death charges them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from solidjq.incidents.class_scores import ClassScore
from solidjq.incidents.death_cases import (
    CLEARED,
    SUSPECT_AT,
    Crowd,
    DeathCase,
    InFlight,
    JobStanding,
    Proven,
    find_proven,
    manner_reasons,
)
from solidjq.rails.positions import Position
from solidjq.text import count_of

_MB = 1_000_000
_GB = 1_000_000_000


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


def score_jobs(cases: list[DeathCase], classes: Iterable[ClassScore]) -> Iterator[JobScore]:
    """Yield the score of every job in flight at these deaths. ``suspects.rank`` says how a score is made."""
    class_scores = {score.name: score for score in classes}
    charging = [case for case in cases if not case.outside]
    pairs_of: dict[str, list[tuple[DeathCase, InFlight]]] = defaultdict(list)
    for case in charging:
        for job in case.jobs:
            pairs_of[job.subject].append((case, job))
    proven = find_proven(charging)
    flights_of = {subject: _Flights(tuple(pairs), proven) for subject, pairs in pairs_of.items()}
    repeated = {subject for subject, flights in flights_of.items() if flights.repeated}
    accused = {case.key: _accused(case, class_scores, repeated) for case in charging}
    for subject, job in {job.subject: job for case in cases for job in case.jobs}.items():
        name = job.class_name
        flights = flights_of.get(subject)
        if flights is None:
            yield JobScore(subject, name, 0.0, JobStanding.BYSTANDER, 0, 0, (CLEARED,), crowd=job.crowd)
            continue
        deaths, stuck = flights.cases, flights.stuck
        standing, facts = _judge_job(subject, class_scores[name], flights, accused)
        reasons = [*([stuck] if stuck else []), f"in flight at {count_of(len(deaths), 'death')}", *facts]
        reasons += manner_reasons(deaths)
        if flights.growth >= _MB:
            reasons.append(f"the process had grown by {flights.growth / _MB:,.0f} MB since it started")
        score = sum(1 + _blame(subject, case, accused[case.key]) for case in deaths)
        score += _below_half(class_scores[name].score) + _below_half(flights.growth / _GB)
        alone = sum(case.alone for case in deaths)
        at = tuple(case.key for case in deaths)
        position = flights.position if stuck else None
        yield JobScore(subject, name, score, standing, len(deaths), alone, tuple(reasons), at, position, job.crowd)


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
        f"one of {blamed.size} jobs that {JobStanding.TIED}; jq bisect {case.key} finds the killer",
    ]
