"""A made-up fleet: what runs on it, how its processes die, and one class that kills them if asked for.

Threads are looked at while they are in balance: a look at a process samples what each of its threads then executes.
Only runs that were interrupted and are retried are followed through time, so that one may be met by a second death.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, count
from random import Random

from solidjq.incidents.death_cases import Blame, DeathCase, Exposure, InFlight, JobStanding
from solidjq.incidents.suspects import rank

PROCESSES = 200
THREADS = (1, 3, 5)
POOLS = 3  # queues with processes of their own, among which the classes are divided
HOURS = 30 * 24.0
CLASSES = 40
ENDLESS = 3  # classes that are in flight nearly always, somewhere in every process of their pool
LOOKS = 4000  # out of those that the heartbeats took
LATER = 800
BESIDE = 0.7  # how often company is in flight beside the class that it keeps
RETRIED = 0.6
TWICE = 0.1  # how often a kill that nothing explains takes two processes at once
PATIENCE = 25 / 3600  # a deploy waits so long for jobs to end
MB = 1_000_000


@dataclass(slots=True)
class JobClass:
    name: str
    pool: int
    rate: float  # runs an hour
    median: float  # hours that a run takes
    spread: float  # of the logarithm of that
    hours: range = range(24)  # of the day in which it runs
    company: "JobClass | None" = None
    beside: float = BESIDE  # how often its company is in flight beside it

    @property
    def load(self) -> float:
        """Threads that it keeps busy, on average."""
        return self.rate * self.median * math.exp(self.spread**2 / 2)

    def met(self, rng: Random) -> float:
        """How long a run takes that is met in flight: long ones are met oftener."""
        return self.median * math.exp(self.spread**2 + rng.gauss(0, self.spread))


@dataclass(frozen=True, slots=True)
class Process:
    pool: int
    threads: int


@dataclass(frozen=True, slots=True)
class Run:
    job_class: JobClass
    subject: str
    takes: float
    process: int = -1
    begins: float = -1.0


@dataclass(frozen=True, slots=True)
class Fleet:
    cases: tuple[DeathCase, ...]
    exposure: Exposure
    later: Exposure  # some minutes and LATER looks later, without another death
    planted: str | None
    twin: str | None  # a class that is in flight wherever the planted one is, if there is room
    kills: int  # deaths that the planted class caused


@dataclass(slots=True)
class World:
    rng: Random
    classes: list[JobClass]
    processes: list[Process]
    names: Iterator[int] = field(default_factory=count)
    order: Iterator[int] = field(default_factory=count)
    events: list[tuple[float, int, str, Run | None]] = field(default_factory=list)  # a heap
    tables: dict[tuple[int, int], tuple[list[JobClass | None], list[float]]] = field(default_factory=dict)
    retried: list[Run] = field(default_factory=list)

    def table(self, pool: int, hour: int) -> tuple[list[JobClass | None], list[float]]:
        """Return what a thread of the pool may execute at that hour of the day, None for nothing."""
        if (pool, hour) not in self.tables:
            threads = sum(process.threads for process in self.processes if process.pool == pool)
            here = [each for each in self.classes if each.pool == pool and hour in each.hours]
            shares = [each.load * 24 / len(each.hours) / threads for each in here]
            idle = max(1 - sum(shares), 0.1)
            self.tables[pool, hour] = ([*here, None], list(accumulate([*shares, idle])))
        return self.tables[pool, hour]

    def executing(self, process: Process, time: float, *first: JobClass) -> list[JobClass]:
        """Sample what the threads of a process execute; ``first`` are known already."""
        choices, weights = self.table(process.pool, int(time) % 24)
        drawn = self.rng.choices(choices, cum_weights=weights, k=process.threads - len(first))
        found = [*first, *(each for each in drawn if each is not None)]
        for each in tuple(found):
            if each.company is not None and len(found) < process.threads and self.rng.random() < each.beside:
                found.append(each.company)
        return found

    def run(self, job_class: JobClass) -> Run:
        return Run(job_class, f"{job_class.name}-{next(self.names)}", job_class.met(self.rng))

    def process_of(self, pool: int) -> int:
        return self.rng.choice([index for index, each in enumerate(self.processes) if each.pool == pool])

    def running(self, index: int, time: float, *known: Run) -> list[Run]:
        """Say what a process executes: retried runs that are on it now, the known ones, and others."""
        again = [run for run in self.retried if run.process == index and run.begins <= time < run.begins + run.takes]
        runs = [*known, *again][: self.processes[index].threads]
        drawn = self.executing(self.processes[index], time, *(run.job_class for run in runs))
        return runs + [self.run(each) for each in drawn[len(runs) :]]

    def plan(self, time: float, how: str, run: Run | None = None) -> None:
        heapq.heappush(self.events, (time, next(self.order), how, run))


def log_uniform(rng: Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def job_classes(rng: Random, threads: list[int]) -> list[JobClass]:
    """Make classes of very different rates and run times; each pool is busy for at most 90% of its threads' time."""
    classes = []
    for number in range(CLASSES):
        pool = number % POOLS
        if number < ENDLESS:
            load = rng.uniform(0.25, 0.45) * threads[pool]
            classes.append(JobClass(f"Endless{number}", pool, load / 4, 4 / math.exp(0.5), 1.0))
            continue
        rate, median = log_uniform(rng, 0.05, 300), log_uniform(rng, 3 / 3600, 1.5)
        start = rng.randrange(22)
        hours = range(start, start + 3) if rng.random() < 1 / 4 else range(24)
        classes.append(JobClass(f"Job{number}", pool, rate, median, rng.uniform(0.3, 1.5), hours))
    for pool in range(POOLS):
        here = [each for each in classes[ENDLESS:] if each.pool == pool]
        most = max(sum(each.load * 24 / len(each.hours) for each in here if hour in each.hours) for hour in range(24))
        for each in here:
            each.rate *= min(1.0, 0.45 * threads[pool] / most)
    return classes


def pair(rng: Random, classes: list[JobClass], lead: JobClass) -> None:
    """Give a class the company of one in its pool that keeps none itself."""
    free = [each for each in classes[ENDLESS:] if each.pool == lead.pool and each is not lead and each.company is None]
    lead.company = rng.choice([each for each in free if each.load < 5] or free)


def simulate(seed: int, *, killer: bool, twin: bool = False) -> Fleet:
    """Let the fleet run for 30 days. With ``twin`` a class that runs nowhere else keeps the killer company."""
    rng = Random(2 * seed + killer)  # noqa: S311  (no secret)
    processes = [Process(index % POOLS, rng.choice(THREADS)) for index in range(PROCESSES)]
    threads = [sum(each.threads for each in processes if each.pool == pool) for pool in range(POOLS)]
    classes = job_classes(rng, threads)
    planted = rng.choice(classes[ENDLESS:]) if killer else None
    for lead in rng.sample(classes[ENDLESS:], 3):
        if lead is not planted:
            pair(rng, classes, lead)
    if planted is not None and rng.random() < 0.5:
        pair(rng, classes, planted)
    if planted is not None and twin:
        planted.company, planted.beside = JobClass("Twin", planted.pool, 0.0, planted.median, planted.spread), 1.0
    world = World(rng, classes, processes)
    cases, kills = deaths(world, planted)
    first = exposure(world, LOOKS)
    more = exposure(world, LATER)
    later = Exposure(LOOKS + LATER, Counter(first.running) + Counter(more.running))
    return Fleet(tuple(cases), first, later, None if planted is None else planted.name, "Twin" if twin else None, kills)


def exposure(world: World, looks: int) -> Exposure:
    seen: Counter[str] = Counter()
    for _ in range(looks):
        found = world.executing(world.rng.choice(world.processes), world.rng.uniform(0, HOURS))
        seen.update({each.name for each in found})
    return Exposure(looks, seen)


def deaths(world: World, planted: JobClass | None) -> tuple[list[DeathCase], int]:
    """Let processes die in the order of time. Returns the deaths, and how many the planted class caused."""
    rng = world.rng
    for how, times in (
        ("killed", 5 + int(rng.expovariate(1 / 8))),
        ("memory", 2 + int(rng.expovariate(1 / 3))),
        ("deploy", rng.randrange(4, 9)),
        ("host", rng.randrange(4)),
    ):
        for _ in range(times):
            world.plan(rng.uniform(0, HOURS), how)
    chance = 0.0  # that a retried run kills again
    if planted is not None:
        times = 5 + int(rng.expovariate(1 / 4))
        chance = min(0.9, times / (planted.rate * HOURS))
        for _ in range(times):
            start = rng.choice(planted.hours) + 24 * rng.randrange(30)
            world.plan(start + rng.random(), "killer", world.run(planted))

    cases: list[DeathCase] = []
    kills = 0
    while world.events and world.events[0][0] < HOURS:
        time, _, how, run = heapq.heappop(world.events)
        kills += how == "killer"
        for index in victims(world, how, time, run):
            runs = world.running(index, time, *(() if run is None else (run,)))
            if how == "memory" and len(runs) == 1:
                continue  # only several jobs together run out of memory: a lone one would be the killer
            if how == "deploy":
                runs = [each for each in runs if each.takes * rng.random() > PATIENCE]
            cases.append(DeathCase(f"d{len(cases)}", blame(rng, how), tuple(told(rng, each, how) for each in runs)))
            world.retried = [each for each in world.retried if each not in runs and each.begins + each.takes > time]
            retry(world, runs, time, planted, chance)
    return cases, kills


def retry(world: World, runs: list[Run], time: float, planted: JobClass | None, chance: float) -> None:
    """Let some of the interrupted runs begin anew in other processes; the killer's kill again by ``chance``."""
    for run in runs:
        if world.rng.random() < RETRIED:
            begins = time + world.rng.expovariate(2)
            again = replace(run, process=world.process_of(run.job_class.pool), begins=begins)
            if run.job_class is planted and world.rng.random() < chance:
                world.plan(begins + run.takes * world.rng.random(), "killer", again)
            else:
                world.retried.append(again)


def victims(world: World, how: str, time: float, run: Run | None) -> list[int]:
    """Choose who dies."""
    rng = world.rng
    match how:
        case "deploy":
            return rng.sample(range(PROCESSES), rng.randrange(5, 41))
        case "host":
            return rng.sample(range(PROCESSES), 8)
        case "killer" if run is not None:
            return [run.process if run.process >= 0 else world.process_of(run.job_class.pool)]
        case "memory":  # it runs out where much is going on
            some = rng.sample(range(PROCESSES), 2)
            return [max(some, key=lambda index: len(world.executing(world.processes[index], time)))]
    return rng.sample(range(PROCESSES), 2 if rng.random() < TWICE else 1)


def blame(rng: Random, how: str) -> Blame:
    """Say what a death shows of its cause; a killer often leaves no trace."""
    match how:
        case "deploy" | "host":
            return Blame.OUTSIDE
        case "memory":
            return Blame.MEMORY
        case "killer":
            roll = rng.random()
            return Blame.CODE if roll < 0.15 else Blame.MEMORY if roll < 0.3 else Blame.UNKNOWN
    return Blame.UNKNOWN


def told(rng: Random, run: Run, how: str) -> InFlight:
    """Tell of a job in flight what a death tells; of memory only sometimes."""
    growth = int(rng.lognormvariate(2, 1.5) * (10 if how == "memory" else 1)) * MB if rng.random() < 0.5 else None
    return InFlight(run.subject, run.job_class.name, growth)


@dataclass(frozen=True, slots=True)
class Figures:
    """Out of so many seeds, in how many ..."""

    seeds: int
    found: int  # the planted class is among the first three, as a suspect or tied with others
    alone: int  # of these, as a suspect
    clean: int  # without a killer, no class and no job is a suspect
    twins: int  # with a twin, which nothing tells from the killer, the twin alone is never accused
    swapped: int  # a few more looks, without another death, put one accused in another's place
    outnumbered: int  # the killer caused half of the deaths, or fewer


def figures(seeds: int = 100) -> Figures:
    """Rank the fleets of these many seeds."""
    found = alone = clean = twins = swapped = outnumbered = 0
    for seed in range(seeds):
        fleet = simulate(seed, killer=True)
        first = {each.name: each.standing for each in rank(fleet.cases, fleet.exposure).classes[:3]}
        found += fleet.planted in first and first[fleet.planted].held_back
        alone += first.get(fleet.planted) is JobStanding.SUSPECT
        before, after = _suspects(fleet.cases, fleet.exposure), _suspects(fleet.cases, fleet.later)
        outnumbered += sum(not each.outside for each in fleet.cases) >= 2 * fleet.kills
        swapped += bool(before - after and after - before)
        fleet = simulate(seed, killer=True, twin=True)
        twins += fleet.twin not in _suspects(fleet.cases, fleet.exposure)
        fleet = simulate(seed, killer=False)
        clean += not _suspects(fleet.cases, fleet.exposure)
    return Figures(seeds, found, alone, clean, twins, swapped, outnumbered)


def _suspects(cases: Iterable[DeathCase], exposure: Exposure) -> set[str]:
    ranking = rank(cases, exposure)
    return {each.name for each in (*ranking.classes, *ranking.jobs) if each.standing is JobStanding.SUSPECT}
