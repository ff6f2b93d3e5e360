"""What a ranking of suspects is made from: deaths with the jobs in flight at them, and what runs while nobody dies.

A job in flight at a death is a bystander until evidence says otherwise. A death whose cause lies outside of the jobs
charges none of them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from solidjq.text import count_of

SUSPECT_AT = 2  # different deaths: a job in flight at so many of them is a suspect
CLEARED = "in flight only at deaths with a cause outside"


class JobStanding(StrEnum):
    """What the evidence makes of a job or a class."""

    SUSPECT = "suspect"
    UNDECIDED = "too few to tell"
    BYSTANDER = "bystander"


@dataclass(frozen=True, slots=True)
class InFlight:
    """A job that was executing at a death."""

    subject: str  # its Active Job id: all attempts share it
    class_name: str
    growth: int | None = None  # bytes that the process grew since the job started, None if not measured


@dataclass(frozen=True, slots=True)
class DeathCase:
    """One process's death, as evidence. Cases with the same ``key`` are parts of one death, see ``merge_cases``."""

    key: str
    outside: bool  # its cause lies outside of the jobs (deploy, host lost, fleet-wide stall): it charges nobody
    fatal: bool  # a fatal signal such as SIGSEGV, or memory ran out: a job did it
    jobs: tuple[InFlight, ...]

    @property
    def alone(self) -> bool:
        """Whether one job only was in flight."""
        return len(self.jobs) == 1


@dataclass(frozen=True, slots=True)
class Exposure:
    """What runs while nobody dies. One look: the job classes that one process executes at one heartbeat.

    Processes that execute no job are left out of both looks and cases, or counted in both: else p-values are wrong.
    """

    looks: int
    seen: Mapping[str, int]  # for each class, in how many looks a job of it was executing


def merge_cases(cases: Iterable[DeathCase]) -> list[DeathCase]:
    """Return one case for each key, with all its jobs; of a job's growths the largest counts."""
    merged: dict[str, DeathCase] = {}
    for case in cases:
        before = merged.get(case.key, replace(case, jobs=()))
        jobs = {job.subject: job for job in before.jobs}
        for job in case.jobs:
            twin = jobs.get(job.subject, job)
            jobs[job.subject] = max(twin, job, key=lambda job: -math.inf if job.growth is None else job.growth)
        merged[case.key] = DeathCase(
            case.key, before.outside or case.outside, before.fatal or case.fatal, tuple(jobs.values())
        )
    return list(merged.values())


def manner_reasons(deaths: Iterable[DeathCase]) -> Iterator[str]:
    """Yield, in words, at how many of these deaths one job only was in flight, and how many were fatal."""
    cases = list(deaths)
    if alone := sum(case.alone for case in cases):
        yield f"alone at {count_of(alone, 'death')}"
    if fatal := sum(case.fatal for case in cases):
        yield f"a fatal signal, or memory ran out, at {count_of(fatal, 'death')}"
