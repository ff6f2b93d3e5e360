"""Which jobs the deaths charge: reads deaths and live processes, and ranks the jobs and classes in flight."""

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from solidjq.database.tables import claimed, jobs
from solidjq.database.transactions import Database
from solidjq.incidents import death_jobs, incidents
from solidjq.incidents.causes import CauseFinding
from solidjq.incidents.claimed_jobs import UNREAD, ClaimedJob, ClassCount
from solidjq.incidents.class_scores import ClassScore
from solidjq.incidents.death_cases import (
    INSIDE,
    SUSPECT_AT,
    Crowd,
    DeathCase,
    Exposure,
    InFlight,
    JobStanding,
    find_proven,
)
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.incidents import Incident
from solidjq.incidents.job_scores import JobScore
from solidjq.incidents.suspects import Ranking, Suspicion, rank
from solidjq.ledger import crashes, operations, positions
from solidjq.ledger.positions import DeathPosition
from solidjq.processes.heartbeat import list_processes
from solidjq.processes.samples import sample_of
from solidjq.untrusted import number

JOBS_AT_ONCE = 50_000  # of crowds, that are read together


def find_suspects(connection: Connection, charged: Iterable[Incident]) -> Ranking:
    """Rank the jobs and classes that were in flight at the deaths of these incidents.

    Jobs of one death and class that were in flight at no other have one score, with a crowd: ``each_job`` reads them.
    """
    of = list(charged)
    deaths = [death for incident in of for death in incident.deaths]
    read = _with_jobs_apart(connection, deaths)
    ids_of = _ids_of_repeated(read.values())
    stood = _positions(connection, read.values(), ids_of)
    pairs = ((read.get(death.name, death), finding) for incident in of for death, finding in incident.pairs)
    ranking = rank(_cases(pairs, ids_of, stood), _exposure(connection, (death.sample for death in deaths)))
    return replace(
        ranking,
        jobs=tuple(
            score if score.crowd is not None else replace(score, job_ids=tuple(ids_of.get(score.name, ())))
            for score in ranking.jobs
        ),
    )


def each_job(database: Database, scores: Iterable[JobScore]) -> Iterator[JobScore]:
    """Yield the score of each job: that of a crowd for each of its jobs, which are read in batches.

    The batches begin small: who wants only the first jobs waits for no others.
    """
    rest, most = iter(scores), 1
    while batch := list(_up_to(most, rest)):
        most = min(2 * most, JOBS_AT_ONCE)
        crowds: dict[str, dict[str, DeathRecord]] = defaultdict(dict)  # by class
        for score in batch:
            if score.crowd is not None:
                crowds[score.class_name][score.crowd.death.name] = score.crowd.death
        read: dict[tuple[str, str], DeathRecord] = {}
        if crowds:
            with database.read() as connection:
                for name, deaths in crowds.items():
                    for death in death_jobs.with_jobs(connection, deaths.values(), name):
                        read[name, death.name] = death
        for score in batch:
            if (crowd := score.crowd) is None:
                yield score
                continue
            for subject, job_id in _members(read[score.class_name, crowd.death.name], crowd.known):
                yield replace(score, name=subject, crowd=None, job_ids=(job_id,))


def _up_to(most: int, scores: Iterator[JobScore]) -> Iterator[JobScore]:
    """Yield scores until they are those of ``most`` jobs; at least one, if there is one."""
    count = 0
    while count < most and (score := next(scores, None)) is not None:
        count += score.count
        yield score


def _with_jobs_apart(connection: Connection, deaths: Collection[DeathRecord]) -> dict[str, DeathRecord]:
    """Return, by name and with their jobs, the deaths that charge jobs of which more is known than that one death.

    Such jobs crashed at other deaths too, or have a growth or a start of their own.
    """
    if not deaths:
        return {}
    since = min(death.noticed_at for death in deaths) - incidents.LISTED_AROUND
    apart = death_jobs.find_apart(connection, since, deaths)
    some = [death for death in deaths if death.name in apart or not death.charges_all]
    return {death.name: death for death in death_jobs.with_jobs(connection, some)}


def _ids_of_repeated(deaths: Collection[DeathRecord]) -> dict[str, list[int]]:
    """Return the ids of the jobs of each subject that was claimed at several deaths, or has a growth of its own."""
    times = Counter(job.subject for death in deaths for job in death.jobs)
    found: dict[str, set[int]] = defaultdict(set)
    for death in deaths:
        for job in death.jobs:
            if job.growth is not None or times[job.subject] > 1:
                found[job.subject].add(job.job_id)
    return {subject: sorted(job_ids) for subject, job_ids in found.items()}


def find_suspicion(connection: Connection, since: datetime) -> Suspicion:
    """Return what a retry needs to decide on suspects, from the deaths since then.

    It reads a row a death and class, not a row a job: its cost does not grow with the jobs of a death.
    """
    judged = incidents.judge_by_class(connection, since)
    deaths = {death.key: death for death, _, _ in judged}
    inside = death_jobs.with_jobs(connection, [death for death, _, finding in judged if finding.blame in INSIDE])
    by_stack = {death.key for death in inside if death.named_by_stack}
    named = _named_jobs(connection, deaths, inside)
    cases = [
        DeathCase(
            death.name,
            finding.blame,
            tuple(_jobs_of(death.name, classes, named.get(death.key, ()))),
            named=death.key in by_stack,
        )
        for death, classes, finding in judged
        if classes
    ]
    ranking = rank(cases, _exposure(connection, (death.sample for death, _, _ in judged)))
    proven = find_proven(cases)
    subjects = {job.subject for jobs in named.values() for job in jobs}
    return Suspicion(
        outside=frozenset(death.key for death, _, finding in judged if finding.outside),
        partial={key: death for key, death in deaths.items() if death.ahead or death.faulting is not None},
        classes={score.name: _reason(score) for score in ranking.classes if score.standing.held_back},
        jobs={
            score.name: _reason(score) for score in ranking.jobs if score.standing.held_back and score.name in subjects
        },
        proven={key: proven[death.name] for key, death in deaths.items() if death.name in proven},
        errors=frozenset(death.error for death in inside),
    )


def _named_jobs(
    connection: Connection, deaths: Mapping[int | str, DeathRecord], inside: Collection[DeathRecord]
) -> Mapping[int | str, list[InFlight]]:
    """Return, by death, the jobs that a death from inside charges, and which other deaths charge them."""
    charged = [job.failure_id for death in inside for job in death.charged if job.failure_id is not None]
    present = positions.find_present(connection, charged)
    named: dict[int | str, dict[str, InFlight]] = defaultdict(dict)
    for death in inside:
        named[death.key] = {job.subject: _in_flight(job, present) for job in death.charged}
    classes = {job.subject: job.class_name for jobs in tuple(named.values()) for job in jobs.values()}
    counted = crashes.crashes_of(connection, classes) if operations.exists(connection) else {}
    for subject, all_crashes in counted.items():
        for crash in all_crashes:
            other = deaths.get(crash.key)
            if other is not None and other.charges(crash.job_id, crash.started_at):
                known = InFlight(subject, classes[subject], failure_id=crash.failure_id, position=crash.position)
                before = named[crash.key].setdefault(subject, known)
                if before.position is None:
                    named[crash.key][subject] = replace(before, position=crash.position)
    return {key: list(jobs.values()) for key, jobs in named.items()}


def _jobs_of(death: str, classes: Mapping[str, int], named: Collection[InFlight]) -> Iterator[InFlight]:
    """Yield the jobs that are known by name, and for the rest of each class made-up ones.

    Up to two of a class are enough to score classes, and to see that a job was not alone.
    """
    yield from named
    known = Counter(job.class_name for job in named)
    for name, count in classes.items():
        yield from (InFlight(f"{death} {name} {n}", name) for n in range(min(count - known[name], 2)))


def _reason(score: ClassScore | JobScore) -> str:
    """Return, in one sentence, why a safe retry holds such jobs."""
    return next((reason for reason in score.reasons if JobStanding.TIED in reason), "; ".join(score.reasons[:2]))


def _cases(
    pairs: Iterable[tuple[DeathRecord, CauseFinding]], known: Container[str], stood: Mapping[int, DeathPosition]
) -> Iterator[DeathCase]:
    """Yield the deaths as evidence. The jobs of the subjects ``known`` are named, the others are in crowds.

    ``stood``: by failure, where long jobs stood.
    """
    for death, finding in pairs:
        named, crowds = ([], dict(death.counted)) if death.counted is not None else _apart(death, known, stood)
        counted = replace(death, jobs=UNREAD, counted={})
        for name, count in crowds.items():
            crowd = Crowd(count.claimed, count.job_id or 0, counted, known)
            named.append(InFlight(count.subject if count.claimed == 1 else f"{death.name} {name}", name, crowd=crowd))
        if named:  # processes that ran no job are left out, as they are of the samples
            yield DeathCase(death.name, finding.blame, tuple(named), named=death.named_by_stack)


def _apart(
    death: DeathRecord, known: Container[str], stood: Mapping[int, DeathPosition]
) -> tuple[list[InFlight], dict[str, ClassCount]]:
    """Return the jobs of the subjects ``known`` that a death charges, and the others counted by class."""
    named: list[InFlight] = []
    others: dict[str, ClassCount] = {}
    for job in death.charged:
        if job.subject in known:
            named.append(_in_flight(job, stood))
        else:
            before = others.get(job.class_name, ClassCount(0))
            others[job.class_name] = before.plus(1, 0, job.subject, job.job_id)
    return named, others


def _members(death: DeathRecord, known: Container[str]) -> list[tuple[str, int]]:
    """Return the subjects and ids of the jobs that a death charges, without the subjects ``known``."""
    return sorted(
        (job.subject, job.job_id)
        for job in death.jobs
        if job.subject not in known and death.charges(job.job_id, job.started_at)
    )


def _in_flight(job: ClaimedJob, known: Mapping[int, DeathPosition]) -> InFlight:
    stood = None if job.failure_id is None else known.get(job.failure_id)
    return InFlight(job.subject, job.class_name, job.growth, job.failure_id, None if stood is None else stood.position)


def _positions(
    connection: Connection, deaths: Iterable[DeathRecord], known: Container[str]
) -> dict[int, DeathPosition]:
    """Return where the jobs stood that were in flight at several deaths, by failure: of others it changes nothing.

    The subjects of such jobs are among ``known``.
    """
    deaths_of: dict[str, list[int]] = defaultdict(list)
    for death in deaths:
        for job in death.charged:
            if job.subject in known and job.failure_id is not None:
                deaths_of[job.subject].append(job.failure_id)
    repeated = [ids for ids in deaths_of.values() if len(ids) >= SUSPECT_AT]
    return positions.find(connection, [failure_id for ids in repeated for failure_id in ids])


def _exposure(connection: Connection, last_samples: Iterable[Mapping[str, Any]]) -> Exposure:
    """Return what runs while no process dies.

    Processes of ``jq work`` count their samples; ``last_samples`` are those of the dead. Any other process, such as
    Rails' own, is sampled once: the jobs that it has claimed now.
    """
    count, by_class = 0, Counter[str]()
    running: dict[int, set[str]] = defaultdict(set)
    classes_now = select(claimed.c.process_id, jobs.c.class_name).join(jobs, jobs.c.id == claimed.c.job_id).distinct()
    for process_id, class_name in connection.execute(classes_now):
        running[process_id].add(class_name)
    samples = {process.id: sample_of(process.metadata) for process in list_processes(connection)}
    for process_id, classes in running.items():
        if not samples.get(process_id):
            count += 1
            by_class.update(classes)
    for sample in (*samples.values(), *last_samples):
        count += int(number(sample, "looks") or 0)
        counts = sample.get("seen")
        by_class.update({k: v for k, v in counts.items() if isinstance(v, int)} if isinstance(counts, dict) else {})
    return Exposure(count, by_class)
