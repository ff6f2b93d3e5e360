"""Which job classes are in flight at more deaths than chance allows: Fisher's exact test for each class."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from solidjq.chance import fisher
from solidjq.incidents.death_cases import (
    CLEARED,
    SUSPECT_AT,
    DeathCase,
    Exposure,
    JobStanding,
    manner_reasons,
)
from solidjq.text import count_of

FEWEST_DEATHS = 3  # with fewer deaths a class is never a suspect
FALSE_ALARMS = 0.01  # the chance of even one false positive among all classes of a ranking
UNUSUAL = 0.05  # p-value up to which a class that is no suspect is undecided, not a bystander
_LEAST = 1e-300  # keeps the logarithm of a p-value of 0 finite


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class in a ranking, with the reasons. ``deaths`` and ``alone`` count only deaths that charge."""

    name: str
    score: float
    standing: JobStanding
    deaths: int
    alone: int  # of these deaths, those at which one job only was in flight
    reasons: tuple[str, ...]


def score_classes(cases: list[DeathCase], exposure: Exposure | None) -> Iterator[ClassScore]:
    """Yield the score of every class in flight at these deaths. ``suspects.rank`` says how a score is made."""
    charging = [case for case in cases if not case.outside]
    deaths_of = _deaths_by_class(charging)
    trial = None
    if (controls := _controls(cases, exposure)) is not None:
        # A class that occurs less than FEWEST_DEATHS times in all could not become a suspect: it is no test, and does
        # not make the correction for many tests stricter.
        occurrences = Counter(controls.seen) + Counter({name: len(keys) for name, keys in deaths_of.items()})
        tested = sum(times >= FEWEST_DEATHS for times in occurrences.values())
        trial = _Trial(deaths_of, {case.key for case in charging}, controls, tested)
        trial.run()
    for name in _deaths_by_class(cases):
        deaths = [case for case in charging if case.key in deaths_of.get(name, ())]
        if not deaths:
            yield ClassScore(name, 0.0, JobStanding.BYSTANDER, 0, 0, (CLEARED,))
            continue
        score, standing, facts = 0.0, JobStanding.UNDECIDED, ["and how often it runs when nobody dies is unknown"]
        if trial is not None:
            score, standing, facts = _judge_class(name, trial)
        reasons = (f"in flight at {len(deaths)} of {count_of(len(charging), 'death')}, {facts[0]}", *facts[1:])
        reasons = (*reasons, *_repeated_job(name, deaths), *manner_reasons(deaths))
        yield ClassScore(name, score, standing, len(deaths), sum(case.alone for case in deaths), reasons)


@dataclass(frozen=True, slots=True)
class _Controls:
    """The control group: what runs usually. ``noun`` is what one of ``looks`` is called in a reason."""

    looks: int
    seen: Mapping[str, int]
    noun: str


def _controls(cases: Iterable[DeathCase], exposure: Exposure | None) -> _Controls | None:
    if exposure is not None and exposure.looks > 0:
        seen = {name: min(count, exposure.looks) for name, count in exposure.seen.items()}
        return _Controls(exposure.looks, seen, "looks at live processes")
    outside = [case for case in cases if case.outside]
    if not outside:
        return None
    seen = {name: len(keys) for name, keys in _deaths_by_class(outside).items()}
    return _Controls(len(outside), seen, "processes that were ended from outside")


def _deaths_by_class(cases: Iterable[DeathCase]) -> dict[str, set[str]]:
    keys: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        for job in case.jobs:
            keys[job.class_name].add(case.key)
    return dict(keys)


@dataclass(frozen=True, slots=True)
class _Test:
    """One class tested against the controls, at deaths that no better suspect explains."""

    deaths: AbstractSet[str]  # with a job of the class in flight
    all_deaths: int
    seen: int
    looks: int
    tested: int  # classes tested, for the Bonferroni correction
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
        """Whether the class would be a suspect if it had been in flight at every death."""
        return fisher(self.all_deaths, self.all_deaths, self.seen, self.looks) * self.tested <= FALSE_ALARMS

    def __str__(self) -> str:
        return f"p = {self.corrected:.2g}"


@dataclass(slots=True)
class _Trial:
    """The search for suspects: the best class explains its deaths, and the rest are tested at the others."""

    deaths_of: Mapping[str, AbstractSet[str]]
    unexplained: AbstractSet[str]  # deaths without a suspect in flight
    controls: _Controls
    tested: int
    first: dict[str, _Test] = field(init=False)  # the tests at all deaths
    suspects: dict[str, _Test] = field(default_factory=dict)
    inseparable: dict[str, tuple[str, _Test]] = field(default_factory=dict)  # by class: the suspect, the test beside it

    def __post_init__(self) -> None:
        self.first = {name: self.test(name) for name in self.deaths_of}

    def test(self, class_name: str, *, without: str | None = None) -> _Test:
        """Test a class at the unexplained deaths, leaving out those of the class ``without``."""
        left = self.unexplained if without is None else self.unexplained - self.deaths_of[without]
        seen = self.controls.seen.get(class_name, 0)
        deaths, looks = self.deaths_of[class_name] & left, self.controls.looks
        return _Test(deaths, len(left), seen, looks, self.tested, fisher(len(deaths), len(left), seen, looks))

    def run(self) -> None:
        """Make the class with the least p-value a suspect and its deaths explained, until no class passes."""
        rest = sorted(name for name, test in self.first.items() if test.passed)
        while passed := {name: test for name in rest if (test := self.test(name)).passed}:
            best = min(passed, key=lambda name: (passed[name].p, -len(passed[name].deaths)))
            rest.remove(best)
            self.suspects[best] = passed.pop(best)
            for name, test in passed.items():
                # The suspect explains the classes beside it. One that would explain the suspect as well is not cleared.
                if not self.test(name, without=best).passed and not self.test(best, without=name).passed:
                    self.inseparable.setdefault(name, (best, test))
            self.unexplained = self.unexplained - self.deaths_of[best]


def _judge_class(name: str, trial: _Trial) -> tuple[float, JobStanding, list[str]]:
    """Return score, standing and facts of a class that was in flight at a death that charges."""
    first = trial.first[name]
    suspect, last = trial.inseparable.get(name, (None, trial.suspects.get(name) or trial.test(name)))
    score = min(first.score, last.score)
    facts = [
        f"in {first.seen} of {first.looks} {trial.controls.noun}; {first} ({count_of(trial.tested, 'class')} tested)"
    ]
    if explained := first.deaths - last.deaths:
        company = [other for other in trial.suspects if other != name and explained & trial.deaths_of[other]]
        facts.append(f"beside {' or '.join(company)} at {len(explained)} of these; {last} without them")
    if suspect is not None:
        return score, JobStanding.UNDECIDED, [*facts, f"so often beside {suspect} that deaths cannot separate the two"]
    if name in trial.suspects:
        return score, JobStanding.SUSPECT, facts
    if len(first.deaths) < FEWEST_DEATHS:
        return score, JobStanding.UNDECIDED, [*facts, f"fewer than {FEWEST_DEATHS} deaths"]
    if not first.could_pass:
        return score, JobStanding.UNDECIDED, [*facts, "it runs so often that even every death could be chance"]
    return score, JobStanding.UNDECIDED if max(first.p, last.p) <= UNUSUAL else JobStanding.BYSTANDER, facts


def _repeated_job(class_name: str, deaths: Iterable[DeathCase]) -> Iterator[str]:
    """Yield a reason if one job was in flight again and again: then it may be that job, and not its class."""
    times = Counter(job.subject for case in deaths for job in case.jobs if job.class_name == class_name)
    subject, most = max(times.items(), key=lambda item: (item[1], item[0]))
    if most >= SUSPECT_AT:
        yield f"at {most} of these with one and the same job, {subject}"
