"""What new rows mean: deaths with their jobs, the incidents they belong to, failure groups; and silences with theirs.

``find_events`` reads what it needs for the new deaths alone, and moves on what the position remembers.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.statements import streamed
from solidjq.database.tables import claimed, jobs
from solidjq.diff.folding import FOLD_AT
from solidjq.diff.signatures import Signature
from solidjq.incidents import incidents
from solidjq.incidents.causes import CauseFinding
from solidjq.incidents.claimed_jobs import ClaimedJob, ClaimedJobs
from solidjq.incidents.death_jobs import jobs_among
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.incidents import Incident
from solidjq.incidents.reconstruction import LONGEST_FAILING, SAME_DEATH_WITHIN, death_of, reconstruct
from solidjq.ledger import operations
from solidjq.queue.patterns import fits_any
from solidjq.watching.news import NewFailure, News, UnrecordedFailure, place_of
from solidjq.watching.position import GroupSeen, Position, Remembered
from solidjq.watching.recent_deaths import RecentDeaths
from solidjq.watching.silence import SilentGroup, reporting_message

AROUND = timedelta(minutes=10)  # deaths noticed so long before a new one may be of its incident
REMEMBERED_FOR = 3600.0  # seconds, of deaths that nobody recorded
GROUP_GONE = 7 * 86400.0  # seconds without a failure after which a group is new again


@dataclass(frozen=True, slots=True)
class Choice:
    """Which jobs a watch is about: classes and queues by pattern; none named means all."""

    classes: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether every job is meant, and with them deaths without any job."""
        return not self.classes and not self.queues

    def takes(self, class_name: str, queue_name: str | None) -> bool:
        """Whether a job is meant; one that is gone has no queue any more, and is meant whatever that was."""
        of_class = not self.classes or fits_any(self.classes, class_name)
        return of_class and (not self.queues or queue_name is None or fits_any(self.queues, queue_name))


class JobRef(NamedTuple):
    """A job as messages name it; its arguments are nobody's business."""

    job_id: int
    active_job_id: str | None
    class_name: str
    queue_name: str | None
    failure_id: int | None


@dataclass(frozen=True, slots=True)
class NewDeath:
    """A death that was not reported before, or jobs that turned out to belong to one that was."""

    death: DeathRecord
    finding: CauseFinding
    incident: str
    jobs: Sequence[JobRef]
    continued: bool = False
    follows: str | None = None  # the id of the message that reported its silence


@dataclass(frozen=True, slots=True)
class IncidentNews:
    """An incident with its new deaths; ``first`` if none of its deaths was reported before."""

    incident: Incident
    first: bool
    new: Sequence[NewDeath]

    @property
    def jobs(self) -> list[JobRef]:
        """The jobs of the new deaths."""
        return [job for one in self.new for job in one.jobs]

    @property
    def follows(self) -> str | None:
        """The id of a message that reported the silence of one of its processes; None unless all were reported."""
        messages = [one.follows for one in self.new]
        return messages[0] if all(messages) else None


@dataclass(frozen=True, slots=True)
class GroupNews:
    """New failures of one group; ``first`` if the group was not seen before."""

    signature: Signature
    first: bool
    failures: Sequence[NewFailure]


@dataclass(frozen=True, slots=True)
class SilenceNews:
    """Processes that have been silent for ``threshold`` seconds, and the jobs that they have claimed."""

    group: SilentGroup
    jobs: Sequence[JobRef]
    threshold: float


Event = NewDeath | IncidentNews | GroupNews | SilenceNews


def silence_events(
    connection: Connection, groups: Iterable[SilentGroup], choice: Choice, threshold: float
) -> list[SilenceNews]:
    """Return what is to be reported of these silences: with a choice, those of processes that hold a job of it."""
    events = [SilenceNews(group, tuple(_claimed(connection, group, choice)), threshold) for group in groups]
    return [event for event in events if event.jobs or choice.everything]


def _claimed(connection: Connection, group: SilentGroup, choice: Choice) -> Iterator[JobRef]:
    columns = claimed.c.job_id, jobs.c.active_job_id, jobs.c.class_name, jobs.c.queue_name
    query = select(*columns).join_from(claimed, jobs, jobs.c.id == claimed.c.job_id).order_by(claimed.c.id)
    for batch in in_batches([process.id for process in group.processes]):
        for row in streamed(connection, query.where(among(claimed.c.process_id, batch))):
            if choice.takes(row.class_name, row.queue_name):
                yield JobRef(row.job_id, row.active_job_id, row.class_name, row.queue_name, None)


def find_events(
    connection: Connection, news: News, position: Position, choice: Choice, recent: RecentDeaths, now: float
) -> list[Event]:
    """Return what the news mean, deaths before their incidents; what the position remembers moves on.

    ``now``: the database's clock, in seconds since 1970.
    """
    deaths, continued = _all_deaths(news, position, now)
    events: list[Event] = []
    if deaths:
        for incident in _incidents_of(connection, deaths, position, recent):
            new = [
                NewDeath(
                    death,
                    finding,
                    _name_of(incident, position),
                    tuple(jobs),
                    death.name in continued,
                    reporting_message(position, death),
                )
                for death, finding in incident.pairs
                if death.name in deaths and ((jobs := _chosen(connection, death.jobs, choice)) or choice.everything)
            ]
            first = not any(death.name in position.announced for death in incident.deaths)
            name = _name_of(incident, position)
            position.announced.update((death.name, name) for death in incident.deaths)
            if new:
                events += [*new, IncidentNews(incident, first, new)]
    return [*events, *_groups(news.failures, position, choice, now)]


def _name_of(incident: Incident, position: Position) -> str:
    """Return the name that it was reported by; a death that comes later may have a smaller number."""
    names = [position.announced[death.name] for death in incident.deaths if death.name in position.announced]
    return names[0] if names else incident.name


def _chosen(connection: Connection, claimed: ClaimedJobs, choice: Choice) -> list[JobRef]:
    found = []
    for batch in in_batches(claimed):
        query = select(jobs.c.id, jobs.c.active_job_id, jobs.c.queue_name)
        rows = {row.id: row for row in connection.execute(query.where(among(jobs.c.id, [one.job_id for one in batch])))}
        found += [_ref(one, rows.get(one.job_id)) for one in batch]
    return [job for job in found if choice.takes(job.class_name, job.queue_name)]


def _ref(job: ClaimedJob, row: Any) -> JobRef:
    active_job_id = None if job.subject.startswith("job ") else job.subject
    return JobRef(
        job.job_id,
        active_job_id if row is None else row.active_job_id,
        job.class_name,
        None if row is None else row.queue_name,
        job.failure_id,
    )


# -- deaths and incidents ---------------------------------------------------------------------------------------------


def _all_deaths(news: News, position: Position, now: float) -> tuple[dict[str, DeathRecord], set[str]]:
    """Return the new deaths by name, and the names of those that were reported before and have more jobs now."""
    deaths = {death.name: death for death in news.deaths}
    continued: set[str] = set()
    position.remembered = [one for one in position.remembered if one.last_at > now - REMEMBERED_FOR]
    by_time = sorted(news.died, key=lambda row: (row.crashed_at, row.failure_id))
    last_at = {row.evidence: row.crashed_at for row in by_time}
    counted = list(reconstruct(cast("Iterable[Any]", by_time)))
    claimed = jobs_among(by_time, counted)
    for death in (replace(death, counted=None, jobs=claimed[death.name]) for death in counted):
        last = last_at.get(death.error, death.noticed_at)
        before = _remembered(position, death)
        if before is None:
            position.remembered.append(
                Remembered(
                    int(death.name[1:]),
                    death.error,
                    death.noticed_at.timestamp(),
                    last.timestamp(),
                    death.hostname,
                    death.pid,
                )
            )
            deaths[death.name] = death
        else:
            before.last_at = max(before.last_at, last.timestamp())
            name = f"f{before.failure_id}"
            continued.add(name)
            deaths[name] = replace(death, name=name)
    return deaths, continued


def _remembered(position: Position, death: DeathRecord) -> Remembered | None:
    """Return the death that was reported before to which these jobs belong."""
    at = death.noticed_at.timestamp()
    for one in position.remembered:
        near = at - one.last_at <= SAME_DEATH_WITHIN.total_seconds()
        if one.error == death.error and near and at - one.first_at <= LONGEST_FAILING.total_seconds():
            return one
    return None


def _incidents_of(
    connection: Connection, deaths: dict[str, DeathRecord], position: Position, recent: RecentDeaths
) -> Collection[Incident]:
    """Return the incidents that these deaths belong to, with the other deaths of theirs."""
    since = min(death.noticed_at for death in deaths.values()) - AROUND
    around = {death.name: death for death in _reported_before(position, since)}
    if operations.exists(connection):
        around |= recent.beside(connection, {**around, **deaths}.values(), deaths.keys(), since)
    return incidents.judge_all(connection, {**around, **deaths}.values(), of=deaths.keys())


def _reported_before(position: Position, since: datetime) -> Iterable[DeathRecord]:
    for one in position.remembered:
        first_at = datetime.fromtimestamp(one.first_at, UTC)
        row = UnrecordedFailure(one.failure_id, 0, "", "", one.error, first_at, one.hostname, one.pid)
        death = death_of(cast("Any", row))
        if death is not None and first_at >= since:
            yield death


# -- failure groups ---------------------------------------------------------------------------------------------------


def _groups(failures: Iterable[NewFailure], position: Position, choice: Choice, now: float) -> list[GroupNews]:
    """Return a record for each group with new failures, in the order in which they came.

    Of groups that come from one place in the code, and differ in a word, only the first few are new.
    """
    by_name: dict[str, list[NewFailure]] = {}
    for failure in failures:
        if choice.takes(failure.class_name, failure.queue_name):
            by_name.setdefault(failure.signature.name, []).append(failure)
    events = []
    for name, members in by_name.items():
        place = place_of(members[0].signature)
        before = position.groups.pop(name, None)
        groups_here = sum(1 for group in position.groups.values() if group.place == place)
        first = groups_here < FOLD_AT and (before is None or before.last_at < now - GROUP_GONE)
        position.groups[name] = GroupSeen(place, now)
        events.append(GroupNews(members[0].signature, first, members))
    return events
