"""Which jobs were in flight at several deaths, and how much each death charges them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from solidjq.incidents.class_scores import ClassScore
from solidjq.incidents.death_cases import CLEARED, SUSPECT_AT, DeathCase, JobStanding, manner_reasons
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


def score_jobs(cases: list[DeathCase], classes: Iterable[ClassScore]) -> Iterator[JobScore]:
    """Yield the score of every job in flight at these deaths. ``suspects.rank`` says how a score is made."""
    class_scores = {score.name: score for score in classes}
    charging = [case for case in cases if not case.outside]
    deaths_of: dict[str, list[DeathCase]] = defaultdict(list)
    growth: dict[str, int] = defaultdict(int)
    for case in charging:
        for job in case.jobs:
            deaths_of[job.subject].append(case)
            growth[job.subject] = max(growth[job.subject], job.growth or 0)
    repeated = {subject for subject, deaths in deaths_of.items() if len(deaths) >= SUSPECT_AT}
    accused = {case.key: _accused(case, class_scores, repeated) for case in charging}
    for subject, name in {job.subject: job.class_name for case in cases for job in case.jobs}.items():
        deaths = deaths_of.get(subject, [])
        if not deaths:
            yield JobScore(subject, name, 0.0, JobStanding.BYSTANDER, 0, 0, (CLEARED,))
            continue
        standing, facts = _judge_job(subject, class_scores[name], deaths, accused)
        reasons = [f"in flight at {count_of(len(deaths), 'death')}", *facts, *manner_reasons(deaths)]
        if growth[subject] >= _MB:
            reasons.append(f"the process had grown by {growth[subject] / _MB:,.0f} MB since it started")
        score = sum(1 + _blame(subject, case, accused[case.key]) for case in deaths)
        score += _below_half(class_scores[name].score) + _below_half(growth[subject] / _GB)
        alone = sum(case.alone for case in deaths)
        at = tuple(case.key for case in deaths)
        yield JobScore(subject, name, score, standing, len(deaths), alone, tuple(reasons), at)


def _accused(case: DeathCase, class_scores: Mapping[str, ClassScore], repeated: AbstractSet[str]) -> AbstractSet[str]:
    """Return the jobs that share the blame for a death; those that better suspects explain are cleared."""
    for standing in (JobStanding.SUSPECT, JobStanding.TIED):
        if of_such_classes := {job.subject for job in case.jobs if class_scores[job.class_name].standing is standing}:
            return of_such_classes
    return {job.subject for job in case.jobs if job.subject in repeated} or {job.subject for job in case.jobs}


def _blame(subject: str, case: DeathCase, accused: AbstractSet[str]) -> float:
    return (2 if case.inside else 1) / len(accused) if subject in accused else 0.0


def _below_half(x: float) -> float:
    return x / (2 + 2 * x)


def _judge_job(
    subject: str, class_score: ClassScore, deaths: list[DeathCase], accused: Mapping[str, AbstractSet[str]]
) -> tuple[JobStanding, list[str]]:
    """Return standing and facts of a job that was in flight at a death that charges."""
    case = deaths[0]
    facts = [f"{class_score.name} is a suspect"] if class_score.standing is JobStanding.SUSPECT else []
    if len(deaths) >= SUSPECT_AT or facts:
        return JobStanding.SUSPECT, facts
    if class_score.standing is JobStanding.TIED:
        return JobStanding.TIED, [f"{class_score.name} {class_score.tied}"]
    blamed = accused[case.key]
    if subject not in blamed:
        return JobStanding.BYSTANDER, ["a suspect was in flight beside it"]
    if not case.inside:
        return JobStanding.UNDECIDED if case.single else JobStanding.BYSTANDER, []
    if len(blamed) == 1:
        return JobStanding.SUSPECT, []
    # One of them killed the process, and the evidence fits all: to put them all back would put the killer back.
    return JobStanding.TIED, [
        f"one of {len(blamed)} jobs that {JobStanding.TIED}; jq bisect {case.key} finds the killer"
    ]
