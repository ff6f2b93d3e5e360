"""Incidents: deaths of one moment, one manner and one cause."""

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Generic, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection, select

from solidjq.batching import in_batches
from solidjq.database.tables import processes as process_table
from solidjq.incidents import death_jobs, death_queries
from solidjq.incidents.cause_rules import find_cause
from solidjq.incidents.causes import Cause, CauseFinding
from solidjq.incidents.claimed_jobs import ClaimedJob
from solidjq.incidents.company import NO_COMPANY, Company, FleetCounts
from solidjq.incidents.death_records import DeathRecord, Manner
from solidjq.incidents.unrecorded import ErrorCount

LATE = timedelta(seconds=5)  # a heartbeat may be late by that; Rails writes it in whole seconds into an error
SEARCH_AROUND = timedelta(days=1)  # how far around one death the others of its incident are searched for
TOGETHER = 20  # incidents whose jobs are read together
LISTED_AROUND = timedelta(hours=1)  # as far beyond the times asked for: an incident keeps its name at their edge


class Neighbour(NamedTuple):
    """Another incident of the same moment and manner, whose processes died of another cause."""

    name: str
    words: str  # its cause and confidence
    processes: int


@dataclass(frozen=True, slots=True)
class Incident:
    """Deaths of one moment, manner and cause. ``findings`` has the finding of each death, in the order of ``deaths``.

    The findings have one cause, and all or none of them clear their jobs; they may differ in facts and confidence.
    """

    deaths: tuple[DeathRecord, ...]
    findings: tuple[CauseFinding, ...]
    beside: tuple[Neighbour, ...] = ()
    company: Company = NO_COMPANY  # the evidence beyond each death, from which the findings came

    @property
    def name(self) -> str:
        """The name of its first death: ``d17``, or ``f123`` if that was reconstructed from failures."""
        return min((death.name for death in self.deaths), key=lambda name: (name[0], int(name[1:])))

    @property
    def at(self) -> datetime:
        """When the first process was last known to live."""
        return min(death.silent_at for death in self.deaths)

    @property
    def noticed_at(self) -> datetime:
        """When the last of its deaths was noticed."""
        return max(death.noticed_at for death in self.deaths)

    @property
    def finding(self) -> CauseFinding:
        """The finding of all its deaths: their cause, the confidence of the least sure of them, the facts of all."""
        return CauseFinding(
            self.findings[0].cause,
            max((finding.confidence for finding in self.findings), key=lambda confidence: confidence.rank),
            tuple(dict.fromkeys(fact for finding in self.findings for fact in finding.used)),
            tuple(dict.fromkeys(fact for finding in self.findings for fact in finding.missing)),
        )

    @property
    def several(self) -> bool:
        """Whether more processes than ``deaths`` may have died: failures of some cannot be told apart."""
        return any(death.several for death in self.deaths)

    @property
    def hosts(self) -> list[str]:
        """The hosts that its processes ran on, sorted; without processes whose host was not recorded."""
        return sorted({death.hostname for death in self.deaths if death.hostname is not None})

    @property
    def jobs(self) -> list[ClaimedJob]:
        """The jobs that its processes had claimed."""
        return [job for death in self.deaths for job in death.jobs]

    @property
    def size(self) -> int:
        """How many jobs its processes had claimed."""
        return sum(death.size for death in self.deaths)

    @property
    def job_ids(self) -> list[int]:
        """The ids of its jobs; a job that was claimed at two of the deaths is listed twice."""
        return [job_id for death in self.deaths for job_id in death.jobs.job_ids]

    @property
    def failure_ids(self) -> list[int]:
        """The ids of the failures that it left, as far as they are known."""
        return [number for death in self.deaths for number in death.jobs.failure_ids]

    @property
    def by_class(self) -> Counter[str]:
        """How many of its jobs are of each class."""
        return sum((death.by_class for death in self.deaths), Counter[str]())

    @property
    def charged_jobs(self) -> list[ClaimedJob]:
        """The jobs that may have killed one of its processes, whatever its cause."""
        return [job for death in self.deaths for job in death.charged]

    @property
    def classes(self) -> list[str]:
        """The classes of its jobs, sorted."""
        return sorted(self.by_class)

    @property
    def charged(self) -> bool:
        """Whether its jobs are charged: not if a cause outside of the jobs is certain or likely."""
        return not self.finding.outside

    @property
    def pairs(self) -> Iterator[tuple[DeathRecord, CauseFinding]]:
        """Each death with the finding of its cause."""
        return zip(self.deaths, self.findings, strict=True)


def find_incidents(
    connection: Connection, *, since: datetime | None = None, until: datetime | None = None
) -> list[Incident]:
    """Return the incidents noticed from ``since`` on and before ``until``, the oldest first, each with all deaths."""
    return sorted(each_with_jobs(connection, since=since, until=until), key=lambda incident: incident.at)


def each_with_jobs(
    connection: Connection, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator[Incident]:
    """Yield what ``find_incidents`` returns, a few at a time, as their first processes fell silent."""
    for batch in in_batches(each_incident(connection, since=since, until=until), TOGETHER):
        yield from with_jobs(connection, batch)


def each_incident(
    connection: Connection,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    waiting: bool = False,
    once: bool = False,
) -> Iterator[Incident]:
    """Yield what ``each_with_jobs`` does, but the jobs of the deaths are only counted, by class.

    With ``waiting`` it is counted, too, how many of them are failed still. With ``once`` the spans of unrecorded deaths
    have ``once``, which saves ``charges.find_suspects`` a search through all failures. Memory grows neither with the
    jobs nor with the recorded deaths, but with those of one moment.
    """
    deaths = death_queries.each_death(
        connection,
        since=None if since is None else since - LISTED_AROUND,
        until=None if until is None else until + LISTED_AROUND,
        waiting=waiting,
        once=once,
    )
    for incident in judge_each(connection, deaths):
        begins_before = until is None or min(death.noticed_at for death in incident.deaths) < until
        if begins_before and (since is None or incident.noticed_at >= since):
            yield incident


def with_jobs(connection: Connection, counted: Collection[Incident]) -> list[Incident]:
    """Return these incidents with the jobs of their deaths."""
    deaths = [death for incident in counted for death in incident.deaths]
    read = {death.name: death for death in death_jobs.with_jobs(connection, deaths)}
    return [replace(one, deaths=tuple(read[death.name] for death in one.deaths)) for one in counted]


def judge_all(
    connection: Connection, deaths: Iterable[DeathRecord], *, of: Collection[str] | None = None
) -> list[Incident]:
    """Return the incidents of these deaths, the oldest first; the processes that live now are part of the evidence.

    ``of``: only the incidents with a death of one of these names.
    """
    by_silence = sorted(deaths, key=lambda death: death.silent_at)
    return sorted(judge_each(connection, by_silence, of=of), key=lambda incident: incident.at)


def judge_each(
    connection: Connection, deaths: Iterable[DeathRecord], *, of: Collection[str] | None = None
) -> Iterator[Incident]:
    """Yield the incidents of deaths that come as they fell silent, each as soon as no more deaths can be of it.

    The processes that live now are part of the evidence. ``of``: as in ``judge_all``.
    """
    outages = death_queries.outages(connection)
    columns = process_table.c
    lives = connection.execute(select(columns.created_at, columns.last_heartbeat_at)).all()

    def company(moment: Sequence[DeathRecord]) -> Company:
        hosts = frozenset(death.hostname for death in moment if death.hostname is not None)
        at = max(death.silent_at for death in moment)
        later = at + max(death.interval for death in moment) + LATE
        # Processes that ran when these fell silent, and have beaten since.
        survivors = sum(1 for began, beat in lives if began and beat and began <= at and beat >= later)
        here: dict[str | None, list[DeathRecord]] = defaultdict(list)
        for death in moment:
            here[death.hostname].append(death)
        alive_here = {host: FleetCounts.of(deaths_there, "alive_here") for host, deaths_there in here.items()}
        return Company(hosts, len(moment), survivors, outages, FleetCounts.of(moment, "alive"), alive_here)

    for moment in group(deaths):
        if of is None or any(death.name in of for death in moment):
            beside = company(moment)
            parts = split(moment, [find_cause(death, beside) for death in moment], beside)
            yield from (one for one in parts if of is None or any(death.name in of for death in one.deaths))


def split(
    moment: Sequence[DeathRecord], findings: Sequence[CauseFinding], company: Company = NO_COMPANY
) -> list[Incident]:
    """Split the deaths of one moment into incidents of one cause each: then advice and charges fit all its deaths."""
    causes: dict[tuple[Cause, bool], list[tuple[DeathRecord, CauseFinding]]] = defaultdict(list)
    for death, finding in zip(moment, findings, strict=True):
        causes[finding.cause, finding.outside].append((death, finding))
    apart = [
        Incident(tuple(death for death, _ in pairs), tuple(finding for _, finding in pairs), company=company)
        for pairs in causes.values()
    ]
    neighbours = [Neighbour(one.name, one.finding.words, len(one.deaths)) for one in apart]
    return [replace(one, beside=tuple(other for other in neighbours if other.name != one.name)) for one in apart]


def judge_by_class(
    connection: Connection,
    since: datetime,
    *,
    once: bool = False,
    uncounted: Iterable[ErrorCount] | None = None,
) -> Iterator[tuple[DeathRecord, Counter[str], CauseFinding]]:
    """Yield the deaths noticed since then, each with how many jobs of which class it charges, and its cause.

    The deaths are without their jobs: it reads a row a class and death. Those of one moment come together. ``once``:
    as in ``each_incident``. ``uncounted``: the failures since then that are not counted, if they were read before.
    """
    charged: dict[str, Counter[str]] = {}

    def noted(pairs: Iterable[tuple[DeathRecord, Counter[str]]]) -> Iterator[DeathRecord]:
        for death, classes in pairs:
            charged[death.name] = classes
            yield death

    by_class = death_queries.each_by_class(connection, since, once=once, uncounted=uncounted)
    for incident in judge_each(connection, noted(by_class)):
        for death, finding in incident.pairs:
            yield death, charged.pop(death.name), finding


def find_incident(connection: Connection, name: str) -> Incident | None:
    """Return the incident with the death of this name, or with a job of the failure ``f123``; None if there is none.

    It reads the deaths around that one. All failures are searched only for one that is not among those: its host's
    clock was wrong by hours.
    """
    at = death_queries.noticed_at(connection, name)
    if at is None:
        return None
    name = death_queries.recorded_death(connection, name) or name
    since, until = at - SEARCH_AROUND, at + SEARCH_AROUND
    around = death_queries.each_around(connection, since - LISTED_AROUND, until + LISTED_AROUND)
    found = _named(connection, judge_each(connection, around), name)
    return found or _named(connection, each_incident(connection, since=since, until=until), name)


def _named(connection: Connection, incidents: Iterable[Incident], name: str) -> Incident | None:
    """Return, with its jobs, the one of these incidents with the death of this name, or with a job of the failure."""
    candidates = []
    for incident in incidents:
        if any(death.name == name for death in incident.deaths):
            return with_jobs(connection, [incident])[0]
        if any(death_jobs.may_be_of(name, death) for death in incident.deaths):
            candidates.append(incident)
    # A reconstructed death is named by its first failure, but may be searched for by any of its failures.
    for incident in sorted(candidates, key=lambda incident: incident.at):
        (whole,) = with_jobs(connection, [incident])
        if any(name == f"f{number}" for number in whole.failure_ids):
            return whole
    return None


class Grouped(Protocol):
    """What deaths are grouped by: a ``DeathRecord``, or less."""

    @property
    def silent_at(self) -> datetime:
        """When the process was last known to live."""

    @property
    def interval(self) -> timedelta:
        """It died at most so long after that."""

    @property
    def manner(self) -> Manner:
        """How it ended."""


D = TypeVar("D", bound=Grouped)


def group(deaths: Iterable[D]) -> Iterator[tuple[D, ...]]:
    """Yield groups of deaths of one manner that may have happened at one moment; the deaths come as they fell silent.

    A process died at most one heartbeat after it was last known to live, so deaths of one moment are at most one
    heartbeat apart. A group ends there, however dense the next deaths follow.

    PrunedProcess processes are grouped wherever they ran: a supervisor with its children, or all hosts at once. Reaped
    processes are grouped only if they ran on one host and ended with the same signal or status.
    """
    begun: deque[_Moment[D]] = deque()  # those not yielded, in the order of their first deaths
    last: dict[Manner, _Moment[D]] = {}  # of these, the last of each manner
    for death in deaths:
        while begun and death.silent_at > begun[0].until:
            moment = begun.popleft()
            if last.get(moment.manner) is moment:
                del last[moment.manner]
            yield tuple(moment.deaths)
        dead_by = death.silent_at + death.interval + LATE
        manner = death.manner
        current = last.get(manner)
        if current is not None and death.silent_at <= current.until:
            current.deaths.append(death)
            current.until = min(current.until, dead_by)
        else:
            begun.append(moment := _Moment(manner, [death], dead_by))
            last[manner] = moment
    yield from (tuple(moment.deaths) for moment in begun)


@dataclass(slots=True)
class _Moment(Generic[D]):
    """Deaths of one manner that may have happened at one moment; ``until``: when the last of them must have died."""

    manner: Manner
    deaths: list[D]
    until: datetime
