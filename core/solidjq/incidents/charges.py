"""Which jobs the deaths charge: reads deaths and live processes, and ranks the jobs and classes in flight."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from solidjq.database.tables import claimed, jobs
from solidjq.incidents import incidents
from solidjq.incidents.death_cases import DeathCase, Exposure, InFlight, JobStanding
from solidjq.incidents.incidents import Incident
from solidjq.incidents.suspects import Ranking, Suspicion, rank
from solidjq.processes.heartbeat import list_processes
from solidjq.processes.samples import number, sample_of


def find_suspects(connection: Connection, charged: Iterable[Incident]) -> Ranking:
    """Rank the jobs and classes that were in flight at the deaths of these incidents."""
    of = list(charged)
    samples = (death.sample for incident in of for death in incident.deaths)
    return rank(_cases(of), _exposure(connection, samples))


def find_suspicion(connection: Connection, since: datetime) -> Suspicion:
    """Return what a retry needs to decide on suspects, from the deaths since then.

    It reads a row a death and class, not a row a job: its cost does not grow with the jobs of a death.
    """
    judged = incidents.judge_by_class(connection, since)
    cases = [
        DeathCase(death.name, finding.outside, finding.cause.fatal, tuple(_anonymous_jobs(death.name, classes)))
        for death, classes, finding in judged
        if classes
    ]
    ranking = rank(cases, _exposure(connection, (death.sample for death, _, _ in judged)))
    return Suspicion(
        outside=frozenset(death.key for death, _, finding in judged if finding.outside),
        ahead=frozenset(death.key for death, _, _ in judged if death.ahead),
        alone=frozenset(death.key for death, classes, _ in judged if classes.total() == 1),
        classes={score.name: score.reasons[0] for score in ranking.classes if score.standing is JobStanding.SUSPECT},
    )


def _anonymous_jobs(death: str, classes: Mapping[str, int]) -> Iterator[InFlight]:
    """Return up to two made-up jobs of each class: enough to score classes, and to see that a job was not alone."""
    return (InFlight(f"{death} {name} {n}", name) for name, count in classes.items() for n in range(min(count, 2)))


def _cases(charged: Iterable[Incident]) -> Iterator[DeathCase]:
    for incident in charged:
        for death, finding in incident.pairs:
            if death.charged:  # processes that ran no job are left out, as they are of the looks
                in_flight = tuple(InFlight(job.subject, job.class_name, job.growth) for job in death.charged)
                yield DeathCase(death.name, finding.outside, finding.cause.fatal, in_flight)


def _exposure(connection: Connection, last_samples: Iterable[Mapping[str, Any]]) -> Exposure:
    """Return what runs while nobody dies.

    Processes of ``jq work`` count their looks in their samples; ``last_samples`` are those of the dead. Any other
    process, such as Rails' own, gets one look: the jobs that it has claimed now.
    """
    looks, seen = 0, Counter[str]()
    running: dict[int, set[str]] = defaultdict(set)
    classes_now = select(claimed.c.process_id, jobs.c.class_name).join(jobs, jobs.c.id == claimed.c.job_id).distinct()
    for process_id, class_name in connection.execute(classes_now):
        running[process_id].add(class_name)
    samples = {process.id: sample_of(process.metadata) for process in list_processes(connection)}
    for process_id, classes in running.items():
        if not samples.get(process_id):
            looks += 1
            seen.update(classes)
    for sample in (*samples.values(), *last_samples):
        looks += int(number(sample, "looks") or 0)
        counts = sample.get("seen")
        seen.update({k: v for k, v in counts.items() if isinstance(v, int)} if isinstance(counts, dict) else {})
    return Exposure(looks, seen)
