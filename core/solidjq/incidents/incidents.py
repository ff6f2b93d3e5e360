"""Incidents: deaths that belong together, each death with its cause."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from solidjq.database.tables import processes as process_table
from solidjq.incidents import death_records
from solidjq.incidents.causes import CauseFinding, Company, find_cause
from solidjq.incidents.death_records import DeathRecord, HeldJob
from solidjq.processes.heartbeat import HEARTBEAT_INTERVAL
from solidjq.rails.error_text import Death

SAME_INCIDENT_WITHIN = timedelta(seconds=HEARTBEAT_INTERVAL)  # deaths this close may be one incident
INCIDENT_NAME = re.compile(r"[df]\d{1,19}", re.ASCII)
SEARCH_AROUND = timedelta(days=1)  # an incident is looked for so far around one of its deaths


@dataclass(frozen=True, slots=True)
class Incident:
    """Deaths of one moment and one manner. ``findings`` has each death's cause, in the same order."""

    deaths: tuple[DeathRecord, ...]
    findings: tuple[CauseFinding, ...]

    @property
    def name(self) -> str:
        """The name of its first death: ``d17``, or ``f123`` where it is put together from failures."""
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
        """The surest of its deaths' findings; of several the most frequent."""
        counts = Counter(finding.cause for finding in self.findings)
        return min(self.findings, key=lambda finding: (finding.confidence.rank, -counts[finding.cause]))

    @property
    def hosts(self) -> list[str]:
        """Where its processes ran, as far as that is known."""
        return sorted({death.hostname for death in self.deaths if death.hostname is not None})

    @property
    def jobs(self) -> list[HeldJob]:
        """The jobs that were failed with its processes."""
        return [job for death in self.deaths for job in death.jobs]

    @property
    def job_ids(self) -> list[int]:
        """Their ids; a job that died twice stands there twice."""
        return [job.job_id for job in self.jobs]

    @property
    def classes(self) -> list[str]:
        """Their classes."""
        return sorted({job.class_name for job in self.jobs})

    @property
    def charged(self) -> bool:
        """Tell whether a job may have done it: a cause from outside, unless it is only possible, charges nobody."""
        return not self.finding.outside

    @property
    def pairs(self) -> Iterator[tuple[DeathRecord, CauseFinding]]:
        """Each death with its cause."""
        return zip(self.deaths, self.findings, strict=True)


def find_incidents(
    connection: Connection, *, since: datetime | None = None, until: datetime | None = None
) -> list[Incident]:
    """Return the incidents noticed from ``since`` on and before ``until``, the oldest first."""
    return judge_all(connection, death_records.list_deaths(connection, since=since, until=until))


def judge_all(connection: Connection, found: Iterable[DeathRecord]) -> list[Incident]:
    """Group deaths into incidents and find their causes, in the light of the processes that live now."""
    known = death_records.outages(connection)
    columns = process_table.c
    lives = connection.execute(select(columns.created_at, columns.last_heartbeat_at)).all()

    def company(together: Sequence[DeathRecord]) -> Company:
        hosts = frozenset(death.hostname for death in together if death.hostname is not None)
        at = max(death.silent_at for death in together)
        # Processes of now that ran when these fell silent, and beat long after.
        survivors = sum(
            1 for began, beat in lives if began and beat and began <= at and beat >= at + SAME_INCIDENT_WITHIN
        )
        return Company(hosts, len(together), survivors, known)

    judged = []
    for together in group(found):
        beside = company(together)
        judged.append(Incident(together, tuple(find_cause(death, beside) for death in together)))
    return judged


def judge_by_class(connection: Connection, since: datetime) -> list[tuple[DeathRecord, Counter[str], CauseFinding]]:
    """Return the deaths since then, each with how many jobs of which class were in flight, and its cause."""
    held = death_records.list_by_class(connection, since)
    judged = judge_all(connection, [death for death, _ in held])
    findings = {death.name: finding for incident in judged for death, finding in incident.pairs}
    return [(death, classes, findings[death.name]) for death, classes in held]


def find_incident(connection: Connection, name: str) -> Incident | None:
    """Return the incident that the death of this name belongs to; None if there is no such death."""
    at = death_records.noticed_at(connection, name)
    if at is None:
        return None
    found = find_incidents(connection, since=at - SEARCH_AROUND, until=at + SEARCH_AROUND)
    by_name = (incident for incident in found if any(death.name == name for death in incident.deaths))
    # A failure that is not the first of its death names it too.
    by_job = (each for each in found if any(f"f{job.failure_id}" == name for job in each.jobs))
    return next(by_name, None) or next(by_job, None)


def group(found: Iterable[DeathRecord]) -> list[tuple[DeathRecord, ...]]:
    """Put deaths together: those of one manner, each at most a minute after the one before.

    Processes that fell silent together, a supervisor with its children or all hosts at once, are one incident wherever
    they ran; those whose end a supervisor saw only if they ran on one host and ended with the same signal or status.
    """
    groups: list[list[DeathRecord]] = []
    recent: list[list[DeathRecord]] = []
    for death in sorted(found, key=lambda death: death.silent_at):
        recent = [each for each in recent if death.silent_at - each[-1].silent_at <= SAME_INCIDENT_WITHIN]
        for together in recent:
            if _belong_together(death, together[-1]):
                together.append(death)
                break
        else:
            recent.append([death])
            groups.append(recent[-1])
    return [tuple(each) for each in groups]


def _belong_together(one: DeathRecord, other: DeathRecord) -> bool:
    if one.how is not other.how:
        return False
    if one.how is Death.PRUNED:
        return True
    return (one.hostname, one.signal, one.exit_status) == (other.hostname, other.signal, other.exit_status)
