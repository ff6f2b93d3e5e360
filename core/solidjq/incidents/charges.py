"""Which jobs the deaths charge: reads deaths and live processes, and ranks the jobs and classes in flight."""

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, select

from solidjq.database.tables import claimed, jobs
from solidjq.database.transactions import Database
from solidjq.incidents import death_jobs, incidents
from solidjq.incidents.claimed_jobs import ClaimedJob, ClaimedJobs, ClassCount
from solidjq.incidents.death_cases import (
    INSIDE,
    SUSPECT_AT,
    Blame,
    Crowd,
    DeathCase,
    Exposure,
    InFlight,
)
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.incidents import Incident
from solidjq.incidents.job_scores import JobScore
from solidjq.incidents.packed_cases import PackedCases
from solidjq.incidents.suspects import Ranking, Suspicion, rank_packed, reason_of
from solidjq.ledger import crashes, operations, positions
from solidjq.ledger.positions import DeathPosition
from solidjq.processes.heartbeat import list_processes
from solidjq.processes.samples import sample_of
from solidjq.untrusted import number

JOBS_AT_ONCE = 10_000  # of crowds, that are read together
MOST_KEPT = 200_000  # jobs of other classes, of some sixty bytes each


def find_suspects(connection: Connection, charged: Iterable[Incident]) -> Ranking:
    """Rank the jobs and classes that were in flight at the deaths of these incidents.

    Jobs of one death and class that were in flight at no other have one score, with a crowd: ``each_job`` reads them.
    The incidents are read once; of a death some hundred bytes are kept. It takes least with those of
    ``incidents.each_incident(..., once=True)``.
    """
    samples, counted, begins = _Samples(), PackedCases(), []
    for incident in charged:
        for death, finding in incident.pairs:
            samples.add(death.sample)
            slim = death.slim
            counts = death.counted if death.counted is not None else _apart(death, frozenset(), {})[1]
            counted.add(DeathCase(death.name, finding.blame, tuple(_crowds(slim, counts))), slim)
            begins.append(incident.at)
    read = _with_jobs_apart(connection, counted.deaths)
    ids_of = _ids_of_repeated(read.values())
    stood = _positions(connection, read.values(), ids_of)
    cases = PackedCases(known=ids_of)
    for place in sorted(range(len(begins)), key=begins.__getitem__):
        case, death = counted.at(place), counted.deaths[place]
        if death.name in read:
            case = _case_of(read[death.name], case.blame, ids_of, stood)
        if case.jobs:  # processes that ran no job are left out, as they are of the samples
            cases.add(case, death)
    return rank_packed(cases, _exposure(connection, samples), ids_of)


def each_job(database: Database, scores: Iterable[JobScore]) -> Iterator[JobScore]:
    """Yield the score of each job: that of a crowd for each of its jobs, which are read in batches.

    The batches begin small: who wants only the first jobs waits for no others.
    """
    rest, most = iter(scores), 1
    reader = _ClassReader()
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
                    for death in reader.with_jobs(connection, deaths.values(), name):
                        read[name, death.name] = death
        for score in batch:
            if (crowd := score.crowd) is None:
                yield score
                continue
            for subject, job_id in _members(read[score.class_name, crowd.death.name], score.class_name, crowd.known):
                yield score.of_member(subject, job_id)


class _ClassReader:
    """Reads the jobs of deaths class by class.

    The failures of a death that nobody recorded are searched by their error, which takes as long for one class as for
    all. So all are read, and those of other classes kept in a few bytes until they are asked for.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], ClaimedJobs] = {}  # by class and death
        self._room = MOST_KEPT
        self._has_ledger: bool | None = None

    def with_jobs(
        self, connection: Connection, deaths: Collection[DeathRecord], class_name: str
    ) -> Iterator[DeathRecord]:
        """Yield these deaths with their jobs of a class."""
        if self._has_ledger is None:
            self._has_ledger = operations.exists(connection)
        read = partial(death_jobs.with_jobs, connection, has_ledger=self._has_ledger)
        left = []
        for death in deaths:
            if (jobs := self._kept.pop((class_name, death.name), None)) is None:
                left.append(death)
            else:
                self._room += len(jobs)
                yield replace(death, counted=None, jobs=jobs)
        whole = [death for death in left if death.span is not None] if self._room > 0 else []
        yield from read([death for death in left if death.span is None or not whole], class_name)
        for death in read(whole):
            apart = death.jobs.apart()
            yield replace(death, jobs=apart.pop(class_name, ClaimedJobs()))
            for name, jobs in apart.items():
                self._kept[name, death.name] = jobs
                self._room -= len(jobs)


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

    It reads a row a death and class, not a row a job: its cost does not grow with the jobs of a death. Only jobs that
    were in flight at a death from inside and at another one are read.
    """
    samples, counted = _Samples(), PackedCases()
    outside: set[int | str] = set()
    by_stack: set[int | str] = set()
    inside: dict[int | str, DeathRecord] = {}
    for death, classes, finding in incidents.judge_by_class(connection, since, once=True):
        samples.add(death.sample)
        slim = death.slim
        counts = {name: ClassCount(count) for name, count in classes.items()}
        counted.add(DeathCase(death.name, finding.blame, tuple(_crowds(slim, counts))), slim)
        if finding.outside:
            outside.add(death.key)
        elif finding.blame in INSIDE:
            inside[death.key] = slim
            if death.named_by_stack:
                by_stack.add(death.key)
    deaths = {death.key: death for death in counted.deaths}
    repeated = death_jobs.with_jobs(connection, inside.values(), repeated=True)
    named = _named_jobs(connection, deaths, repeated)
    cases = PackedCases()
    places: dict[int | str, int] = {}
    for case, death in zip(counted, counted.deaths, strict=True):
        if case.jobs:
            if death.key in inside:
                places[death.key] = len(cases)
            jobs = tuple(_jobs_of(case, named.get(death.key, ())))
            cases.add(DeathCase(case.key, case.blame, jobs, named=death.key in by_stack), death)
    ranking = rank_packed(cases, _exposure(connection, samples))
    proven = ranking.jobs.proven
    return Suspicion(
        outside=outside,
        partial={key: death for key, death in deaths.items() if not death.charges_all},
        classes={score.name: reason_of(score) for score in ranking.classes if score.standing.held_back},
        jobs={score.name: reason_of(score) if score.standing.held_back else None for score in ranking.jobs.named()},
        failures={job.failure_id for jobs in named.values() for job in jobs if job.failure_id is not None},
        inside=places,
        ranking=ranking.jobs,
        proven={key: proven[death.name] for key, death in deaths.items() if death.name in proven},
    )


def _named_jobs(
    connection: Connection, deaths: Mapping[int | str, DeathRecord], inside: Collection[DeathRecord]
) -> Mapping[int | str, list[InFlight]]:
    """Return, by death, the jobs of ``inside`` that a death from inside charges, and which other deaths charge them."""
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


def _jobs_of(case: DeathCase, named: Collection[InFlight]) -> Iterator[InFlight]:
    """Yield the jobs of a case that are known by name, and the rest of each class as a crowd."""
    yield from named
    known = Counter(job.class_name for job in named)
    for job in case.jobs:
        if job.crowd is not None and (rest := job.count - known[job.class_name]) > 0:
            yield replace(job, crowd=replace(job.crowd, count=rest))


def _case_of(death: DeathRecord, blame: Blame, known: Container[str], stood: Mapping[int, DeathPosition]) -> DeathCase:
    """Return a death as evidence. The jobs of the subjects ``known`` are named, the others are in crowds.

    ``stood``: by failure, where long jobs stood.
    """
    named, counts = _apart(death, known, stood)
    return DeathCase(death.name, blame, (*named, *_crowds(death, counts)), named=death.named_by_stack)


def _crowds(death: DeathRecord, counts: Mapping[str, ClassCount]) -> Iterator[InFlight]:
    for name, count in counts.items():
        subject = count.subject if count.claimed == 1 and count.subject else f"{death.name} {name}"
        yield InFlight(subject, name, crowd=Crowd(count.claimed, count.job_id or 0, death))


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


def _members(death: DeathRecord, class_name: str, known: Container[str]) -> list[tuple[str, int]]:
    """Return the subjects and ids of the jobs of a class that a death charges, without the subjects ``known``."""
    return sorted(
        (job.subject, job.job_id)
        for job in death.jobs
        if job.class_name == class_name  # MySQL also read those whose class differs in case
        and job.subject not in known
        and death.charges(job.job_id, job.started_at)
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


class _Samples:
    """What the last samples of processes counted."""

    def __init__(self) -> None:
        self.count = 0
        self.by_class: Counter[str] = Counter()

    def add(self, sample: Mapping[str, Any]) -> None:
        """Add those of one process."""
        self.count += int(number(sample, "looks") or 0)
        if isinstance(seen := sample.get("seen"), dict):
            self.by_class.update({name: count for name, count in seen.items() if isinstance(count, int)})


def _exposure(connection: Connection, samples: _Samples) -> Exposure:
    """Return what runs while no process dies; ``samples`` has those of the dead.

    Processes of ``jq work`` count their samples. Any other process, such as Rails' own, is sampled once: the jobs that
    it has claimed now.
    """
    running: dict[int, set[str]] = defaultdict(set)
    classes_now = select(claimed.c.process_id, jobs.c.class_name).join(jobs, jobs.c.id == claimed.c.job_id).distinct()
    for process_id, class_name in connection.execute(classes_now):
        running[process_id].add(class_name)
    living = {process.id: sample_of(process.metadata) for process in list_processes(connection)}
    for process_id, classes in running.items():
        if not living.get(process_id):
            samples.count += 1
            samples.by_class.update(classes)
    for sample in living.values():
        samples.add(sample)
    return Exposure(samples.count, samples.by_class)
