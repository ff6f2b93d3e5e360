"""Incidents without the evidence of their deaths: what lists and counts of many incidents need."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from sys import intern

from sqlalchemy import Connection

from solidjq.incidents import death_jobs, death_queries
from solidjq.incidents.causes import Cause, CauseFinding, Confidence
from solidjq.incidents.claimed_jobs import ClassCount
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.incidents import Incident, Neighbour, judge_each
from solidjq.incidents.packed_deaths import IncidentDeaths
from solidjq.queue import failure_counts


@dataclass(frozen=True, slots=True)
class IncidentSummary:
    """An incident without the evidence of its deaths, in a few hundred bytes: a bad month leaves thousands."""

    name: str
    at: datetime
    noticed_at: datetime
    finding: CauseFinding  # without the facts
    several: bool
    hosts: Sequence[str]
    by_class: Counter[str]
    beside: tuple[Neighbour, ...]
    deaths: Sequence[DeathRecord]  # with what their jobs are found by, and nothing else
    waiting: int  # jobs that are failed still; 0 if that was not counted

    @classmethod
    def of(cls, incident: Incident) -> "IncidentSummary":
        """Summarise an incident whose jobs are counted."""
        finding = incident.finding
        return cls(
            incident.name,
            incident.at,
            incident.noticed_at,
            _without_facts(finding.cause, finding.confidence),
            incident.several,
            list(map(intern, incident.hosts)),
            incident.by_class,
            incident.beside,
            IncidentDeaths(death.slim for death in incident.deaths),
            sum(count.waiting for death in incident.deaths for count in (death.counted or {}).values()),
        )

    @property
    def job_ids(self) -> list[int]:
        """The ids of its jobs, which ``with_jobs`` has read; a job that was claimed at two of the deaths twice."""
        return [job_id for death in self.deaths for job_id in death.jobs.job_ids]

    @property
    def size(self) -> int:
        """How many jobs its processes had claimed."""
        return self.by_class.total()

    @property
    def classes(self) -> list[str]:
        """The classes of its jobs, sorted."""
        return sorted(self.by_class)

    @property
    def charged(self) -> bool:
        """Whether its jobs are charged: not if a cause outside of the jobs is certain or likely."""
        return not self.finding.outside


@cache
def _without_facts(cause: Cause, confidence: Confidence) -> CauseFinding:
    return CauseFinding(cause, confidence)


def summarize(incidents: Iterable[Incident]) -> list[IncidentSummary]:
    """Return the summaries of incidents that come as their first processes fell silent, the oldest first."""
    return sorted(map(IncidentSummary.of, incidents), key=lambda incident: incident.at)


def with_jobs(connection: Connection, summary: IncidentSummary) -> IncidentSummary:
    """Return the summary with the jobs of its deaths."""
    return replace(summary, deaths=tuple(death_jobs.with_jobs(connection, summary.deaths)))


def find_recent(connection: Connection, since: datetime, *, most: int | None = 20_000) -> list[IncidentSummary]:
    """Return the incidents noticed since then, only charged jobs counted, in a time that failures do not lengthen.

    Deaths that nobody recorded are searched for among the newest ``most`` failures; None: among all.
    """
    above = None if most is None else failure_counts.lowest_of_newest(connection, most)
    counted = (
        replace(death, counted={name: ClassCount(count) for name, count in classes.items()})
        for death, classes in death_queries.each_by_class(connection, since, above=above)
    )
    return summarize(judge_each(connection, counted))
