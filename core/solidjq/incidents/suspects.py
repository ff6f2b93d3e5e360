"""Which jobs and job classes may have killed their process: pure decisions over deaths and over what usually runs.

A job in flight at a death is a bystander until evidence says otherwise. Deaths with a cause outside charge nobody; they
show, as looks at live processes do, what usually runs.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import StrEnum

from solidjq.chance import fisher

SUSPECT_AT = 2  # different deaths: a job in flight at so many of them is a suspect
FEWEST_DEATHS = 3  # deaths: fewer say nothing of a class
FALSE_ALARMS = 0.01  # how probable it may be that any class at all is suspected without cause
UNUSUAL = 0.05  # p of a class that is more often in flight at deaths than it should be, but is no suspect
_LEAST = 1e-300  # a probability's logarithm has to exist
_OUTSIDE = "in flight only at deaths with a cause outside"
_MB = 1_000_000
_GB = 1_000_000_000


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
    growth: int | None = None  # bytes that the process grew since the job started, where known


@dataclass(frozen=True, slots=True)
class DeathCase:
    """One process's death. What is told of the same ``key`` in several cases is put together."""

    key: str
    outside: bool  # its cause lies outside (deploy, host lost, fleet-wide stall): it charges nobody
    fatal: bool  # a fatal signal such as SIGSEGV, or memory ran out: the work itself did it
    jobs: tuple[InFlight, ...]


@dataclass(frozen=True, slots=True)
class Exposure:
    """What runs while nobody dies: one look at each process per heartbeat.

    Looks and cases must count processes that execute nothing alike: both or neither.
    """

    looks: int
    seen: Mapping[str, int]  # in how many looks a job of the class was executing


@dataclass(frozen=True, slots=True)
class JobScore:
    """How one job stands, with the facts. ``deaths`` and ``alone`` count those that charge."""

    name: str
    class_name: str
    score: float
    standing: JobStanding
    deaths: int
    alone: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one class stands, with the facts. ``deaths`` and ``alone`` count those that charge."""

    name: str
    score: float
    standing: JobStanding
    deaths: int
    alone: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What decides whether a failed job is a suspect. A death's key is jq_deaths.id, else its jobs' error text."""

    outside: AbstractSet[int | str] = frozenset()  # deaths that charge nobody
    ahead: AbstractSet[int | str] = frozenset()  # deaths that charge only jobs known to have begun
    alone: AbstractSet[int | str] = frozenset()  # deaths at which one job only was in flight
    classes: Mapping[str, str] = field(default_factory=dict)  # the suspect ones, each with the fact that counts most


NO_SUSPICION = Suspicion()


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best suspects first; every job and class that was in flight at a death is in it."""

    jobs: tuple[JobScore, ...]
    classes: tuple[ClassScore, ...]


def rank(cases: Iterable[DeathCase], exposure: Exposure | None) -> Ranking:
    """Score the jobs and classes in flight at these deaths.

    A class scores -log10(p). p is the probability that it is in flight at so many deaths if it is in flight at them as
    often as elsewhere (Fisher's exact test, one-sided): with all deaths, and without those that better suspects
    explain; the larger counts. With nothing to compare with, it is 1. A class is a suspect if p times the number of
    classes is at most CHANCE.

    A job scores 1 for each death, and its share of the blame: 1 / the number of accused, twice that if the death was
    fatal. Accused are the jobs of suspect classes; if there are none, those in flight at several deaths; if none, all.
    Two more terms x / (2 + 2x) add less than 1/2 each: x is its class's score, and by how many GB its process grew.
    """
    known = _merged(cases)
    charging = [case for case in known if not case.outside]
    controls = _controls(known, exposure)
    classes = tuple(sorted(_rank_classes(known, charging, controls), key=_class_order))
    jobs = tuple(sorted(_rank_jobs(known, charging, classes), key=_job_order))
    return Ranking(jobs, classes)


def _class_order(found: ClassScore) -> tuple[bool, float, int, int, str]:
    return found.standing is not JobStanding.SUSPECT, -found.score, -found.deaths, -found.alone, found.name


def _job_order(found: JobScore) -> tuple[bool, float, str]:
    return found.standing is not JobStanding.SUSPECT, -found.score, found.name


def _merged(cases: Iterable[DeathCase]) -> list[DeathCase]:
    found: dict[str, DeathCase] = {}
    for case in cases:
        before = found.get(case.key, replace(case, jobs=()))
        jobs = {job.subject: job for job in before.jobs}
        for job in case.jobs:
            twin = jobs.get(job.subject, job)
            jobs[job.subject] = max(twin, job, key=lambda each: -math.inf if each.growth is None else each.growth)
        found[case.key] = DeathCase(
            case.key, before.outside or case.outside, before.fatal or case.fatal, tuple(jobs.values())
        )
    return list(found.values())


# -- classes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Controls:
    """What usually runs, and how to call a look at it."""

    looks: int
    seen: Mapping[str, int]
    called: str


def _controls(cases: Iterable[DeathCase], exposure: Exposure | None) -> _Controls | None:
    if exposure is not None and exposure.looks > 0:
        seen = {name: min(count, exposure.looks) for name, count in exposure.seen.items()}
        return _Controls(exposure.looks, seen, "looks at live processes")
    outside = [case for case in cases if case.outside]
    if not outside:
        return None
    at = _by_class(outside)
    return _Controls(
        len(outside), {name: len(keys) for name, keys in at.items()}, "processes that were ended from outside"
    )


def _by_class(cases: Iterable[DeathCase]) -> dict[str, set[str]]:
    at: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        for job in case.jobs:
            at[job.class_name].add(case.key)
    return dict(at)


@dataclass(frozen=True, slots=True)
class _Test:
    """One class against the controls, at the deaths that are left."""

    deaths: AbstractSet[str]  # those with it in flight
    all_deaths: int
    seen: int
    looks: int
    tested: int  # how many classes there are to be wrong about
    p: float

    @property
    def score(self) -> float:
        return max(0.0, -math.log10(max(self.p, _LEAST)))

    @property
    def corrected(self) -> float:
        return min(1.0, self.p * self.tested)

    @property
    def passed(self) -> bool:
        return len(self.deaths) >= FEWEST_DEATHS and self.corrected <= FALSE_ALARMS

    @property
    def could_pass(self) -> bool:
        """Tell whether it would have, had the class been in flight at every death."""
        return fisher(self.all_deaths, self.all_deaths, self.seen, self.looks) * self.tested <= FALSE_ALARMS

    def __str__(self) -> str:
        return f"p = {self.corrected:.2g}"


@dataclass(slots=True)
class _Trial:
    """The classes at the deaths that no suspect explains yet."""

    at: Mapping[str, AbstractSet[str]]  # the deaths of each class
    left: AbstractSet[str]  # the deaths that no suspect explains
    controls: _Controls
    tested: int
    first: dict[str, _Test] = field(init=False)  # with all deaths
    suspects: dict[str, _Test] = field(default_factory=dict)
    twins: dict[str, tuple[str, _Test]] = field(default_factory=dict)  # from which suspect each cannot be told

    def __post_init__(self) -> None:
        self.first = {name: self.test(name) for name in self.at}

    def test(self, class_name: str, *, without: str | None = None) -> _Test:
        """Test a class; ``without`` takes another class's deaths away."""
        left = self.left if without is None else self.left - self.at[without]
        seen = self.controls.seen.get(class_name, 0)
        deaths, looks = self.at[class_name] & left, self.controls.looks
        return _Test(deaths, len(left), seen, looks, self.tested, fisher(len(deaths), len(left), seen, looks))

    def run(self) -> None:
        """Take the best suspect, and with it the deaths that it explains, until none is left."""
        rest = sorted(name for name, test in self.first.items() if test.passed)
        while passed := {name: test for name in rest if (test := self.test(name)).passed}:
            best = min(passed, key=lambda name: (passed[name].p, -len(passed[name].deaths)))
            rest.remove(best)
            self.suspects[best] = passed.pop(best)
            for name, test in passed.items():
                # The suspect explains its company. But if that would explain the suspect as well, it is not cleared.
                if not self.test(name, without=best).passed and not self.test(best, without=name).passed:
                    self.twins.setdefault(name, (best, test))
            self.left = self.left - self.at[best]


def _rank_classes(
    known: list[DeathCase], charging: list[DeathCase], controls: _Controls | None
) -> Iterator[ClassScore]:
    at, everywhere = _by_class(charging), _by_class(known)
    trial = None
    if controls is not None:
        # A class met less than FEWEST times in all could not become a suspect, and costs the others nothing.
        met = Counter(controls.seen) + Counter({name: len(keys) for name, keys in at.items()})
        tested = sum(times >= FEWEST_DEATHS for times in met.values())
        trial = _Trial(at, {case.key for case in charging}, controls, tested)
        trial.run()
    for name in everywhere:
        deaths = [case for case in charging if case.key in at.get(name, ())]
        if not deaths:
            yield ClassScore(name, 0.0, JobStanding.BYSTANDER, 0, 0, (_OUTSIDE,))
            continue
        score, standing, facts = 0.0, JobStanding.UNDECIDED, ["and nothing tells how often it runs when nobody dies"]
        if trial is not None:
            score, standing, facts = _stand(name, trial)
        alone = sum(map(_alone, deaths))
        reasons = (f"in flight at {len(deaths)} of {_counted(len(charging), 'death')}, {facts[0]}", *facts[1:])
        yield ClassScore(
            name, score, standing, len(deaths), alone, (*reasons, *_same(name, deaths), *_manner(alone, deaths))
        )


def _stand(name: str, trial: _Trial) -> tuple[float, JobStanding, list[str]]:
    """Return score, standing and facts of a class that was in flight at a death that charges."""
    first = trial.first[name]
    suspect, last = trial.twins.get(name, (None, trial.suspects.get(name) or trial.test(name)))
    score = min(first.score, last.score)
    facts = [
        f"in {first.seen} of {first.looks} {trial.controls.called}; {first} ({_counted(trial.tested, 'class')} tested)"
    ]
    if explained := first.deaths - last.deaths:
        company = [each for each in trial.suspects if each != name and explained & trial.at[each]]
        facts.append(f"beside {' or '.join(company)} at {len(explained)} of these; {last} without them")
    if suspect is not None:
        return score, JobStanding.UNDECIDED, [*facts, f"so often beside {suspect} that deaths do not tell them apart"]
    if name in trial.suspects:
        return score, JobStanding.SUSPECT, facts
    if len(first.deaths) < FEWEST_DEATHS:
        return score, JobStanding.UNDECIDED, [*facts, f"fewer than {FEWEST_DEATHS} deaths"]
    if not first.could_pass:
        return score, JobStanding.UNDECIDED, [*facts, "being in flight at every death would not tell either"]
    return score, JobStanding.UNDECIDED if max(first.p, last.p) <= UNUSUAL else JobStanding.BYSTANDER, facts


def _same(class_name: str, deaths: Iterable[DeathCase]) -> Iterator[str]:
    """Say it where one job comes back again and again: it may be the job, and not its class."""
    times = Counter(job.subject for case in deaths for job in case.jobs if job.class_name == class_name)
    subject, most = max(times.items(), key=lambda item: (item[1], item[0]))
    if most >= SUSPECT_AT:
        yield f"at {most} of these with one and the same job, {subject}"


def _alone(case: DeathCase) -> bool:
    return len(case.jobs) == 1


def _manner(alone: int, deaths: Iterable[DeathCase]) -> Iterator[str]:
    if alone:
        yield f"alone at {_counted(alone, 'death')}"
    if fatal := sum(case.fatal for case in deaths):
        yield f"a fatal signal, or memory ran out, at {_counted(fatal, 'death')}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 'es' if what.endswith('s') else 's'}"


# -- jobs -------------------------------------------------------------------------------------------------------------


def _rank_jobs(known: list[DeathCase], charging: list[DeathCase], classes: Iterable[ClassScore]) -> Iterator[JobScore]:
    ranked = {found.name: found for found in classes}
    suspects = {name for name, found in ranked.items() if found.standing is JobStanding.SUSPECT}
    deaths: dict[str, list[DeathCase]] = defaultdict(list)
    growth: dict[str, int] = defaultdict(int)
    for case in charging:
        for job in case.jobs:
            deaths[job.subject].append(case)
            growth[job.subject] = max(growth[job.subject], job.growth or 0)
    repeated = {subject for subject, found in deaths.items() if len(found) >= SUSPECT_AT}
    accused = {case.key: _accused(case, suspects, repeated) for case in charging}
    for subject, name in {job.subject: job.class_name for case in known for job in case.jobs}.items():
        found = deaths.get(subject, [])
        if not found:
            yield JobScore(subject, name, 0.0, JobStanding.BYSTANDER, 0, 0, (_OUTSIDE,))
            continue
        standing, facts = _stand_job(subject, name, found, suspects, accused)
        alone = sum(map(_alone, found))
        reasons = [f"in flight at {_counted(len(found), 'death')}", *facts, *_manner(alone, found)]
        if growth[subject] >= _MB:
            reasons.append(f"the process had grown by {growth[subject] / _MB:,.0f} MB since it started")
        score = sum(1 + _blame(subject, case, accused[case.key]) for case in found)
        score += _below_half(ranked[name].score) + _below_half(growth[subject] / _GB)
        yield JobScore(subject, name, score, standing, len(found), alone, tuple(reasons))


def _accused(case: DeathCase, suspects: AbstractSet[str], repeated: AbstractSet[str]) -> AbstractSet[str]:
    return (
        {job.subject for job in case.jobs if job.class_name in suspects}
        or {job.subject for job in case.jobs if job.subject in repeated}
        or {job.subject for job in case.jobs}
    )


def _blame(subject: str, case: DeathCase, accused: AbstractSet[str]) -> float:
    return (2 if case.fatal else 1) / len(accused) if subject in accused else 0.0


def _below_half(x: float) -> float:
    return x / (2 + 2 * x)


def _stand_job(
    subject: str,
    class_name: str,
    deaths: list[DeathCase],
    suspects: AbstractSet[str],
    accused: Mapping[str, AbstractSet[str]],
) -> tuple[JobStanding, list[str]]:
    case = deaths[0]
    of_suspects = [f"{class_name} is a suspect"] if class_name in suspects else []
    if len(deaths) >= SUSPECT_AT:
        return JobStanding.SUSPECT, of_suspects
    if subject not in accused[case.key]:
        return JobStanding.BYSTANDER, ["a suspect was in flight beside it"]
    if of_suspects:
        return JobStanding.SUSPECT if _alone(case) else JobStanding.UNDECIDED, of_suspects
    # Not even a fatal end makes a suspect of who was alone: memory that others filled kills whoever runs then.
    return JobStanding.UNDECIDED if _alone(case) or case.fatal else JobStanding.BYSTANDER, []
