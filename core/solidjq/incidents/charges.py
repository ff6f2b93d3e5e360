"""Whom the deaths charge: what the database holds, as cases for suspects.py and as what a retry has to know."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from solidjq.database.tables import claimed, jobs
from solidjq.incidents import incidents
from solidjq.incidents.incidents import Incident
from solidjq.incidents.suspects import DeathCase, Exposure, InFlight, JobStanding, Ranking, Suspicion, rank
from solidjq.processes.heartbeat import list_processes
from solidjq.processes.samples import number, sample_of


def find_suspects(connection: Connection, found: Iterable[Incident]) -> Ranking:
    """Rank the jobs and classes that were in flight at these incidents' deaths."""
    known = list(found)
    return rank(_cases(known), _exposure(connection, (death.sample for each in known for death in each.deaths)))


def find_suspicion(connection: Connection, since: datetime) -> Suspicion:
    """Return what a retry must know of the deaths since then, without reading the jobs of each.

    That is which deaths charge nobody, at which ones a job was alone, and which classes are suspects.
    """
    held = incidents.judge_by_class(connection, since)
    cases = [
        DeathCase(death.name, finding.outside, finding.cause.fatal, tuple(_unnamed(death.name, classes)))
        for death, classes, finding in held
        if classes
    ]
    ranking = rank(cases, _exposure(connection, (death.sample for death, _, _ in held)))
    return Suspicion(
        outside=frozenset(death.key for death, _, finding in held if finding.outside),
        ahead=frozenset(death.key for death, _, _ in held if death.ahead),
        alone=frozenset(death.key for death, classes, _ in held if classes.total() == 1),
        classes={each.name: each.reasons[0] for each in ranking.classes if each.standing is JobStanding.SUSPECT},
    )


def _unnamed(death: str, classes: Mapping[str, int]) -> Iterator[InFlight]:
    """Stand in for the jobs of a death where only their classes are asked for."""
    return (InFlight(f"{death} {name} {n}", name) for name, count in classes.items() for n in range(min(count, 2)))


def _cases(found: Iterable[Incident]) -> Iterator[DeathCase]:
    for incident in found:
        for death, finding in incident.pairs:
            if death.charged:  # who ran nothing tells nothing, and is not looked at either
                held = tuple(InFlight(job.subject, job.class_name, job.growth) for job in death.charged)
                yield DeathCase(death.name, finding.outside, finding.cause.fatal, held)


def _exposure(connection: Connection, of_the_dead: Iterable[Mapping[str, Any]]) -> Exposure:
    """Return what runs while nobody dies: the looks that our processes took at themselves, one look at each other."""
    looks, seen = 0, Counter[str]()
    now: dict[int, set[str]] = defaultdict(set)
    held = select(claimed.c.process_id, jobs.c.class_name).join(jobs, jobs.c.id == claimed.c.job_id).distinct()
    for process_id, class_name in connection.execute(held):
        now[process_id].add(class_name)
    living = {process.id: sample_of(process.metadata) for process in list_processes(connection)}
    for process_id, classes in now.items():
        if not living.get(process_id):
            looks += 1
            seen.update(classes)
    for sample in (*living.values(), *of_the_dead):
        looks += int(number(sample, "looks") or 0)
        told = sample.get("seen")
        seen.update({k: v for k, v in told.items() if isinstance(v, int)} if isinstance(told, dict) else {})
    return Exposure(looks, seen)
