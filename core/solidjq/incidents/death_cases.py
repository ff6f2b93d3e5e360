"""What a ranking of suspects is made from: deaths with the jobs in flight at them, and what runs while nobody dies.

A job in flight at a death is a bystander until evidence says otherwise. A death whose cause lies outside of the jobs
charges none of them.
"""

import math
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from solidjq.incidents.death_records import DeathRecord
from solidjq.rails.positions import Position
from solidjq.text import count_of

SUSPECT_AT = 2  # different deaths: a job in flight at so many of them is a suspect
CLEARED = "in flight only at deaths with a cause outside"
PROVEN_AT = 2  # jobs of one class, each alone at a crash or an exit: enough to suspect the class


class JobStanding(StrEnum):
    """What the evidence makes of a job or a class. A safe retry holds the jobs of the first two back."""

    SUSPECT = "suspect"
    TIED = "cannot be told apart"  # it or another is the killer: neither is picked, both are held back
    UNDECIDED = "too few to tell"
    BYSTANDER = "bystander"

    @property
    def held_back(self) -> bool:
        """Whether a safe retry holds such a job back, or sends it to quarantine."""
        return self in {JobStanding.SUSPECT, JobStanding.TIED}

    @property
    def rank(self) -> int:
        """The place in a ranking: suspects first, then those that cannot be told apart, then all others."""
        return {JobStanding.SUSPECT: 0, JobStanding.TIED: 1}.get(self, 2)


class Blame(StrEnum):
    """Where the cause of a death lies, as far as that is certain or likely."""

    OUTSIDE = "outside"  # a deployment, a lost host, a database that was away: it charges nobody
    UNKNOWN = "unknown"
    MEMORY = "memory"  # memory ran out: a job took it
    CODE = "code"  # a crash or an exit: the code of a job did it


INSIDE = frozenset({Blame.MEMORY, Blame.CODE})  # one of the jobs in flight killed the process


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """Several jobs of one class that were in flight at one death and at no other, and of which nothing more is known.

    The evidence is the same for all, so they are scored once, and only counted: ``charges.each_job`` reads them.
    """

    count: int
    lowest: int  # of their ids
    death: DeathRecord  # that charges them, and maybe others of their class
    known: Container[str] = frozenset()  # the subjects of those others, which have a score of their own


@dataclass(frozen=True, slots=True)
class InFlight:
    """A job that was executing at a death, or a crowd of such jobs under a made-up subject."""

    subject: str  # its Active Job id: all attempts share it
    class_name: str
    growth: int | None = None  # bytes that the process grew since the job started, None if not measured
    failure_id: int | None = None  # the failure that it left; a later death of the job has a higher one
    position: Position | None = None  # where the long job stood; None if nobody noted it, or it has no checkpoints
    crowd: Crowd | None = None

    @property
    def count(self) -> int:
        """How many jobs it is."""
        return 1 if self.crowd is None else self.crowd.count


@dataclass(frozen=True, slots=True)
class DeathCase:
    """One process's death, as evidence. Cases with the same ``key`` are parts of one death, see ``merge_cases``."""

    key: str
    blame: Blame
    jobs: tuple[InFlight, ...]  # that it charges
    named: bool = False  # the stack of the thread that crashed cleared the others, so ``jobs`` is one

    @property
    def outside(self) -> bool:
        """Whether its cause lies outside of the jobs."""
        return self.blame is Blame.OUTSIDE

    @property
    def inside(self) -> bool:
        """Whether its cause lies inside of the jobs: one of them killed the process."""
        return self.blame in INSIDE

    @property
    def alone(self) -> bool:
        """Whether one job only was in flight."""
        return self.single and not self.named

    @property
    def single(self) -> bool:
        """Whether it charges one job only."""
        return len(self.jobs) == 1 and self.jobs[0].count == 1


@dataclass(frozen=True, slots=True)
class Exposure:
    """What runs while no process dies. One sample: the job classes that one process executes at one heartbeat.

    Processes that execute no job are left out of both samples and cases, or counted in both: else p-values are wrong.
    """

    samples: int
    running: Mapping[str, int]  # for each class, in how many samples a job of it was executing


class Proven(NamedTuple):
    """The jobs in flight at a death that killed another process alone: they explain it."""

    subjects: frozenset[str]
    classes: frozenset[str]

    def clears(self, subject: str, class_name: str) -> bool:
        """Whether they clear this job of the death. Jobs of their own classes may kill as they do."""
        return subject not in self.subjects and class_name not in self.classes


def find_proven(cases: Collection[DeathCase]) -> dict[str, Proven]:
    """Return, by key, the deaths with a cause from inside that a proven killer explains.

    A job is proven if it alone was in flight at a death from inside, or a stack names it, as after the last round of a
    bisect. It explains only deaths of the same blame: what crashes need not be what takes the memory.
    """
    proven = {(case.blame, case.jobs[0].subject) for case in cases if case.inside and case.single}
    return {
        case.key: Proven(frozenset(job.subject for job in of), frozenset(job.class_name for job in of))
        for case in cases
        if case.inside and (of := [job for job in case.jobs if (case.blame, job.subject) in proven])
    }


_STRENGTH = [Blame.UNKNOWN, Blame.MEMORY, Blame.CODE]


def merge_cases(cases: Iterable[DeathCase]) -> list[DeathCase]:
    """Return one case for each key, with all its jobs; of a job's growths the largest counts."""
    merged: dict[str, DeathCase] = {}
    for case in cases:
        before = merged.get(case.key, replace(case, jobs=()))
        # One word of a cause outside clears the jobs, whatever else is said of the death.
        blame = Blame.OUTSIDE if before.outside or case.outside else max(before.blame, case.blame, key=_STRENGTH.index)
        jobs = {job.subject: job for job in before.jobs}
        for job in case.jobs:
            twin = jobs.get(job.subject, job)
            jobs[job.subject] = max(twin, job, key=lambda job: -math.inf if job.growth is None else job.growth)
        merged[case.key] = DeathCase(case.key, blame, tuple(jobs.values()), before.named or case.named)
    return list(merged.values())


@dataclass(slots=True)
class DeathTally:
    """Deaths that charge a job or a class, counted: all, those where a stack names the job, where it was alone, ..."""

    all: int = 0
    named: int = 0
    alone: int = 0
    inside: int = 0

    def add(self, case: DeathCase) -> None:
        """Count a death."""
        self.all += 1
        self.named += case.named
        self.alone += case.alone
        self.inside += case.inside

    @property
    def reasons(self) -> Iterator[str]:
        """At how many deaths a stack names the job, at how many it was alone, and how many came from inside."""
        if self.named:
            yield f"named by the stack of the thread that crashed at {count_of(self.named, 'death')}"
        if self.alone:
            yield f"alone at {count_of(self.alone, 'death')}"
        if self.inside:
            yield f"a crash, an exit or no memory left at {count_of(self.inside, 'death')}"
