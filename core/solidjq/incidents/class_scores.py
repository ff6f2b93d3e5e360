"""Which job classes are in flight at more deaths than chance allows: Fisher's exact test for each class."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import NamedTuple

from solidjq.chance import fisher
from solidjq.incidents.death_cases import (
    CLEARED,
    PROVEN_AT,
    SUSPECT_AT,
    Blame,
    DeathTally,
    Exposure,
    JobStanding,
)
from solidjq.incidents.packed_cases import PackedCases
from solidjq.text import count_of

FEWEST_DEATHS = 3  # with fewer deaths a class is never a suspect
FALSE_ALARMS = 0.03  # the chance of even one false positive among all classes of a ranking
UNUSUAL = 0.05  # p-value up to which a class that is no suspect is undecided, not a bystander
CLEARLY = 100  # to one: with shorter odds, of two classes at the same deaths neither is picked
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
    tied: str = ""  # with whom it cannot be told apart, in words
    at: tuple[str, ...] = ()  # the names of the deaths that charge it


def score_classes(cases: PackedCases, exposure: Exposure | None) -> Iterator[ClassScore]:
    """Yield the score of every class in flight at these deaths. ``suspects.rank`` says how a score is made."""
    counted = _count(cases)
    charging = counted.charging.bit_count()
    deaths_of = {name: tally.deaths for name, tally in counted.classes.items() if tally.deaths}
    proven = {name: jobs for name in deaths_of if len(jobs := counted.classes[name].proven) >= PROVEN_AT}
    trial = None
    if (controls := _controls(counted, exposure)) is not None:
        # A class that occurs less than FEWEST_DEATHS times in all could not become a suspect: it is no test, and does
        # not make the correction for many tests stricter.
        occurrences = Counter(controls.running) + Counter({name: of.bit_count() for name, of in deaths_of.items()})
        tested = sum(times >= FEWEST_DEATHS for times in occurrences.values())
        trial = _Trial(deaths_of, counted.charging, controls, tested, cases)
        trial.run(proven)
    for name, tally in counted.classes.items():
        deaths = tally.manners
        if not deaths.all:
            yield ClassScore(name, 0.0, JobStanding.BYSTANDER, 0, 0, (CLEARED,))
            continue
        score, standing, facts = 0.0, JobStanding.UNDECIDED, ["and how often it runs when nobody dies is unknown"]
        if trial is not None:
            score, standing, facts = _judge_class(name, trial)
        if name in proven:
            standing = JobStanding.SUSPECT
            how = "alone, or named by the stack," if deaths.named else "alone"
            facts.append(f"{len(proven[name])} of its jobs were {how} when their process crashed or exited")
        tied = facts[-1] if standing is JobStanding.TIED else ""
        reasons = (f"in flight at {deaths.all} of {count_of(charging, 'death')}, {facts[0]}", *facts[1:])
        reasons = (*reasons, *_repeated_job(tally.times), *deaths.reasons)
        at = tuple(_keys(tally.deaths, cases))
        yield ClassScore(name, score, standing, deaths.all, deaths.alone, reasons, tied, at)


@dataclass(slots=True)
class _ClassTally:
    """The deaths at which a class was in flight. ``deaths`` are those that charge: a bit for the place of each case."""

    deaths: int = 0
    outside: int = 0  # how many charge nobody
    manners: DeathTally = field(default_factory=DeathTally)
    proven: set[str] = field(default_factory=set)  # jobs that were alone or named by the stack at a crash or an exit
    times: Counter[str] = field(default_factory=Counter)  # of each job that is known by name


class _Counted(NamedTuple):
    """All cases, counted by class; ``charging`` has a bit for the place of each case that charges."""

    classes: Mapping[str, _ClassTally]
    charging: int
    outside: int


def _count(cases: PackedCases) -> _Counted:
    classes: dict[str, _ClassTally] = defaultdict(_ClassTally)
    bits: dict[str, bytearray] = defaultdict(lambda: bytearray(len(cases) // 8 + 1))
    charging = bytearray(len(cases) // 8 + 1)
    for place, case in enumerate(cases):
        byte, bit = place >> 3, 1 << (place & 7)
        names = {job.class_name for job in case.jobs}
        if case.outside:
            for name in names:
                classes[name].outside += 1
            continue
        charging[byte] |= bit
        for name in names:
            classes[name].manners.add(case)
            bits[name][byte] |= bit
        if case.single and case.blame is Blame.CODE:  # memory proves less: what others filled kills who runs then
            classes[case.jobs[0].class_name].proven.add(case.jobs[0].subject)
        for job in case.jobs:
            if job.crowd is None:  # a job of a crowd was at one death
                classes[job.class_name].times[job.subject] += 1
    for name, of_class in bits.items():
        classes[name].deaths = int.from_bytes(of_class, "little")
    all_charging = int.from_bytes(charging, "little")
    # By name: the set above has another order in every process, and the facts name classes in this one.
    return _Counted(dict(sorted(classes.items())), all_charging, len(cases) - all_charging.bit_count())


def _keys(places: int, cases: PackedCases) -> Iterator[str]:
    """Yield the keys of the cases at whose places there is a bit, in their order."""
    for byte, bits in enumerate(places.to_bytes(places.bit_length() // 8 + 1, "little")):
        if bits:
            yield from (cases.key_at(8 * byte + bit) for bit in range(8) if bits >> bit & 1)


@dataclass(frozen=True, slots=True)
class _Controls:
    """The control group: what runs usually. ``noun`` is what one of ``samples`` is called in a reason."""

    samples: int
    running: Mapping[str, int]
    noun: str


def _controls(counted: _Counted, exposure: Exposure | None) -> _Controls | None:
    if exposure is not None and exposure.samples > 0:
        running = {name: min(count, exposure.samples) for name, count in exposure.running.items()}
        return _Controls(exposure.samples, running, "samples of live processes")
    if not counted.outside:
        return None
    running = {name: tally.outside for name, tally in counted.classes.items() if tally.outside}
    return _Controls(counted.outside, running, "processes that were ended from outside")


@dataclass(frozen=True, slots=True)
class _Test:
    """One class tested against the controls, at deaths that no better suspect explains."""

    places: int  # a bit for each death with a job of the class in flight
    all_deaths: int
    running: int
    samples: int
    tested: int  # classes tested, for the Bonferroni correction
    p: float

    @property
    def deaths(self) -> int:
        return self.places.bit_count()

    @property
    def score(self) -> float:
        return max(0.0, -math.log10(max(self.p, _LEAST)))

    @property
    def corrected(self) -> float:
        return min(1.0, self.p * self.tested)

    @property
    def passed(self) -> bool:
        return self.deaths >= FEWEST_DEATHS and self.corrected <= FALSE_ALARMS

    @property
    def could_pass(self) -> bool:
        """Whether the class would be a suspect if it had been in flight at every death."""
        return fisher(self.all_deaths, self.all_deaths, self.running, self.samples) * self.tested <= FALSE_ALARMS

    def __str__(self) -> str:
        return f"p = {self.corrected:.2g}"


@dataclass(slots=True)
class _Trial:
    """The search for suspects: the best class explains its deaths, and the rest are tested at the others."""

    deaths_of: Mapping[str, int]  # a bit for the place of each death
    unexplained: int  # the same of deaths without a suspect in flight
    controls: _Controls
    tested: int
    cases: PackedCases
    first: dict[str, _Test] = field(init=False)  # the tests at all deaths
    suspects: dict[str, _Test] = field(default_factory=dict)
    tied: dict[str, tuple[tuple[str, ...], _Test]] = field(default_factory=dict)  # by class: its rivals, its test

    def __post_init__(self) -> None:
        self.first = {name: self.test(name) for name in self.deaths_of}

    def test(self, class_name: str, *, without: str | None = None) -> _Test:
        """Test a class at the unexplained deaths, leaving out those of the class ``without``."""
        left = self.unexplained if without is None else self.unexplained & ~self.deaths_of[without]
        running = self.controls.running.get(class_name, 0)
        deaths, samples = self.deaths_of[class_name] & left, self.controls.samples
        of, among = deaths.bit_count(), left.bit_count()
        return _Test(deaths, among, running, samples, self.tested, fisher(of, among, running, samples))

    def run(self, proven: Iterable[str]) -> None:
        """Make the class with the least p-value a suspect and its deaths explained, until no class passes.

        If others explain these deaths nearly as well, nobody is picked: they are tied. The deaths of classes that are
        ``proven`` killers are explained from the start.
        """
        for name in proven:
            self.suspects[name] = self.first[name]
            self.unexplained &= ~self.deaths_of[name]
        rest = sorted(name for name, test in self.first.items() if test.passed and name not in self.suspects)
        while passed := {name: test for name in rest if (test := self.test(name)).passed}:
            best = min(passed, key=lambda name: (passed[name].p, -passed[name].deaths))
            group = (best, *(name for name in passed if name != best and self._rivals(best, name)))
            if len(group) == 1:
                self.suspects[best] = passed[best]
            for name in group:
                rest.remove(name)
                if len(group) > 1:
                    self.tied[name] = (tuple(other for other in group if other != name), passed[name])
                self.unexplained &= ~self.deaths_of[name]

    def _rivals(self, best: str, other: str) -> bool:
        """Whether the other class may as well be the one that killed the processes that ``best`` was in.

        Not if it is a suspect by itself, at deaths without ``best``. Else the deaths that only one of the two was in
        decide: each is as unlikely, if the other is the killer, as the class is seldom in flight. Deaths of both weigh
        the same for both, so a few samples more or less, which move every p-value, cannot turn the verdict round.
        """
        if self.test(other, without=best).passed:
            return False
        odds = self._surprise(best, without=other) - self._surprise(other, without=best)
        return odds < math.log10(CLEARLY)

    def _surprise(self, class_name: str, *, without: str) -> float:
        """Return -log10 of the chance that the class was by chance at its deaths without the other."""
        alone = self.deaths_of[class_name] & ~self.deaths_of[without] & self.unexplained
        share = (self.controls.running.get(class_name, 0) + 1) / (self.controls.samples + 2)
        return -math.log10(share) * alone.bit_count()


def _judge_class(name: str, trial: _Trial) -> tuple[float, JobStanding, list[str]]:
    """Return score, standing and facts of a class that was in flight at a death that charges."""
    first = trial.first[name]
    rivals, last = trial.tied.get(name, ((), trial.suspects.get(name) or trial.test(name)))
    score = min(first.score, last.score)
    controls = f"in {first.running:,} of {first.samples:,} {trial.controls.noun}"
    facts = [f"{controls}; {first} ({count_of(trial.tested, 'class')} tested)"]
    if explained := first.places & ~last.places:
        company = [other for other in trial.suspects if other != name and explained & trial.deaths_of[other]]
        facts.append(f"beside {' or '.join(company)} at {explained.bit_count()} of these; {last} without them")
    if rivals:
        together = reduce(and_, (trial.deaths_of[other] for other in rivals), first.places) or first.places
        named = latest(_keys(together, trial.cases))
        return score, JobStanding.TIED, [*facts, tie(sorted((name, *rivals)), named)]
    if name in trial.suspects:
        return score, JobStanding.SUSPECT, facts
    if first.deaths < FEWEST_DEATHS:
        return score, JobStanding.UNDECIDED, [*facts, f"fewer than {FEWEST_DEATHS} deaths"]
    if not first.could_pass:
        return score, JobStanding.UNDECIDED, [*facts, "it runs so often that even every death could be chance"]
    return score, JobStanding.UNDECIDED if max(first.p, last.p) <= UNUSUAL else JobStanding.BYSTANDER, facts


def tie(names: Sequence[str], death: str) -> str:
    """Return in words that one of several is the killer, and the command that finds out which."""
    return f"cannot be told apart: {', '.join(names[:-1])} or {names[-1]}; jq bisect {death} finds the killer"


def latest(deaths: Iterable[str]) -> str:
    """Return the latest of these deaths: names such as d17 count upwards."""
    return max(deaths, key=lambda name: (len(name), name))


def _repeated_job(times: Mapping[str, int]) -> Iterator[str]:
    """Yield a reason if one job was in flight again and again: then it may be that job, and not its class."""
    subject, most = max(times.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    if most >= SUSPECT_AT:
        yield f"at {most} of these with one and the same job, {subject}"
