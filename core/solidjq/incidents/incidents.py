"""Incidents: deaths of one moment and one manner, each with its cause."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from solidjq.database.tables import processes as process_table
from solidjq.incidents import death_records
from solidjq.incidents.causes import CauseFinding, Company, find_cause
from solidjq.incidents.death_records import ClaimedJob, DeathRecord
from solidjq.processes.heartbeat import HEARTBEAT_INTERVAL
from solidjq.rails.error_text import Death

SAME_INCIDENT_WITHIN = timedelta(seconds=HEARTBEAT_INTERVAL)  # between two deaths of one incident, at most
INCIDENT_NAME = re.compile(r"[df]\d+", re.ASCII)
SEARCH_AROUND = timedelta(days=1)  # how far around one death the others of its incident are searched for


@dataclass(frozen=True, slots=True)
class Incident:
    """Deaths of one moment and one manner. ``findings`` has the cause of each death, in the order of ``deaths``."""

    deaths: tuple[DeathRecord, ...]
    findings: tuple[CauseFinding, ...]

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
        """The most confident of its deaths' findings; among equally confident ones, the most frequent cause."""
        counts = Counter(finding.cause for finding in self.findings)
        return min(self.findings, key=lambda finding: (finding.confidence.rank, -counts[finding.cause]))

    @property
    def hosts(self) -> list[str]:
        """The hosts that its processes ran on, sorted; without processes whose host was not recorded."""
        return sorted({death.hostname for death in self.deaths if death.hostname is not None})

    @property
    def jobs(self) -> list[ClaimedJob]:
        """The jobs that its processes had claimed."""
        return [job for death in self.deaths for job in death.jobs]

    @property
    def job_ids(self) -> list[int]:
        """The ids of its jobs; a job that was claimed at two of the deaths is listed twice."""
        return [job.job_id for job in self.jobs]

    @property
    def classes(self) -> list[str]:
        """The classes of its jobs, sorted."""
        return sorted({job.class_name for job in self.jobs})

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
    """Return the incidents noticed from ``since`` on and before ``until``, the oldest first."""
    return judge_all(connection, death_records.list_deaths(connection, since=since, until=until))


def judge_all(connection: Connection, deaths: Iterable[DeathRecord]) -> list[Incident]:
    """Group deaths into incidents and find their causes; the processes that live now are part of the evidence."""
    outages = death_records.outages(connection)
    columns = process_table.c
    lives = connection.execute(select(columns.created_at, columns.last_heartbeat_at)).all()

    def company(together: Sequence[DeathRecord]) -> Company:
        hosts = frozenset(death.hostname for death in together if death.hostname is not None)
        at = max(death.silent_at for death in together)
        # Processes that ran when these fell silent, and were still beating a minute later.
        survivors = sum(
            1 for began, beat in lives if began and beat and began <= at and beat >= at + SAME_INCIDENT_WITHIN
        )
        return Company(hosts, len(together), survivors, outages)

    judged = []
    for together in group(deaths):
        beside = company(together)
        judged.append(Incident(together, tuple(find_cause(death, beside) for death in together)))
    return judged


def judge_by_class(connection: Connection, since: datetime) -> list[tuple[DeathRecord, Counter[str], CauseFinding]]:
    """Return the deaths noticed since then, each with how many jobs of which class it charges, and its cause.

    The deaths are without their jobs: it reads a row a class and death.
    """
    by_class = death_records.list_by_class(connection, since)
    judged = judge_all(connection, [death for death, _ in by_class])
    findings = {death.name: finding for incident in judged for death, finding in incident.pairs}
    return [(death, classes, findings[death.name]) for death, classes in by_class]


def find_incident(connection: Connection, name: str) -> Incident | None:
    """Return the incident with the death of this name, or with a job of the failure ``f123``; None if there is none."""
    at = death_records.noticed_at(connection, name)
    if at is None:
        return None
    nearby = find_incidents(connection, since=at - SEARCH_AROUND, until=at + SEARCH_AROUND)
    by_name = (incident for incident in nearby if any(death.name == name for death in incident.deaths))
    # A reconstructed death is named by its first failure, but may be searched for by any of its failures.
    by_job = (incident for incident in nearby if any(f"f{job.failure_id}" == name for job in incident.jobs))
    return next(by_name, None) or next(by_job, None)


def group(deaths: Iterable[DeathRecord]) -> list[tuple[DeathRecord, ...]]:
    """Group deaths of one manner, each at most a minute after the one before.

    Pruned processes that fell silent together are one incident wherever they ran: a supervisor with its children, or
    all hosts at once. Reaped processes are one only if they ran on one host and ended with the same signal or status.
    """
    groups: list[list[DeathRecord]] = []
    recent: list[list[DeathRecord]] = []
    for death in sorted(deaths, key=lambda death: death.silent_at):
        recent = [other for other in recent if death.silent_at - other[-1].silent_at <= SAME_INCIDENT_WITHIN]
        for together in recent:
            if _belong_together(death, together[-1]):
                together.append(death)
                break
        else:
            recent.append([death])
            groups.append(recent[-1])
    return [tuple(together) for together in groups]


def _belong_together(one: DeathRecord, other: DeathRecord) -> bool:
    if one.how is not other.how:
        return False
    if one.how is Death.PRUNED:
        return True
    return (one.hostname, one.signal, one.exit_status) == (other.hostname, other.signal, other.exit_status)
