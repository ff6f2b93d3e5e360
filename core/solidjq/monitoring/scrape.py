"""The metrics of a queue: read anew for each scrape, within about a second however many jobs have failed.

Each part is a glance of its own: what takes longer than a second, or is refused, is left out, and
``jq_scrape_success`` says so. The jobs table is never counted. Ready, scheduled, blocked and claimed jobs are counted
in the tables of their states, by the index on the queue's name; of failed jobs the newest along the primary key, the
others by the server's estimate. What is beyond a bound has the label ``other``.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Connection, func, select

from solidjq.database.standby import find_standby
from solidjq.database.tables import blocked, deaths, operations, scheduled, semaphores
from solidjq.database.times import clock, utcnow
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, DatabaseUnreachableError
from solidjq.incidents.summaries import find_recent
from solidjq.ledger.operations import exists as has_ledger
from solidjq.monitoring.families import OTHER, Family, bounded, label_of, named
from solidjq.processes.heartbeat import ALIVE_THRESHOLD, list_processes
from solidjq.queue.failure_counts import count_by_queue
from solidjq.queue.overview import list_queues
from solidjq.queue.recurring import list_recurring
from solidjq.settings.promises import Promises

MOST_QUEUES = 100
MOST_TASKS = 200
MOST_KINDS = 20  # kinds of processes, verbs of operations
RECENT = timedelta(hours=1)  # deaths of so long ago and later are counted by cause
NEWEST = 5_000  # failures among which deaths that nobody recorded are searched for
UP = "solid_queue_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeTerms:
    """What is scraped, and by which bounds."""

    threshold: float = ALIVE_THRESHOLD  # seconds of silence from which on a process is dead
    promises: Promises = field(default_factory=Promises)
    most_queues: int = MOST_QUEUES


def scrape(database: Database, terms: ScrapeTerms) -> list[Family]:
    """Return the metrics of a queue. If it cannot be read, ``solid_queue_up`` is 0 and there are no others of it."""
    began = time.monotonic()
    up = Family(UP, "Whether the database could be read and is a queue")
    success = Family("jq_scrape_success", "Whether a part of the metrics could be read within a second")
    families = [up]
    is_up = _is_up(database)
    up.add(is_up)
    for name, part in PARTS.items() if is_up else ():
        read = database.glance(_read, part, terms)
        success.add(read is not None, part=name)
        families += read or ()
    families += [success, *_promised(terms.promises)]
    duration = Family("jq_scrape_duration_seconds", "How long this scrape took", unit="seconds")
    duration.add(time.monotonic() - began)
    return [*families, duration]


def is_up(families: Sequence[Family]) -> bool:
    """Whether the queue could be read."""
    return named(families, UP).samples[()] == 1


def _is_up(database: Database) -> bool:
    """Read the processes, once more if the connection broke: that of the last scrape may be long gone."""
    for _ in range(2):
        try:
            with database.read() as connection:
                connection.execute(select(scheduled.c.id).limit(1))
        except DatabaseUnreachableError:
            continue
        except DatabaseError:
            return False
        return True
    return False


def _read(connection: Connection, part: "Part", terms: ScrapeTerms) -> list[Family]:
    return list(part(connection, terms))


Part = Callable[[Connection, ScrapeTerms], Iterator[Family]]


def _queues(connection: Connection, terms: ScrapeTerms) -> Iterator[Family]:
    count = Family("solid_queue_jobs", "Jobs by queue and state: ready, claimed, scheduled, blocked")
    oldest = Family("solid_queue_oldest_ready_age_seconds", "How long the oldest ready job has waited", unit="seconds")
    paused = Family("solid_queue_paused", "Whether the queue is paused; of other queues, how many are")
    queues = list_queues(connection)
    weights = {each.name: each.ready + each.claimed + each.scheduled + each.blocked for each in queues}
    labels = bounded(weights, terms.most_queues)
    for each in queues:
        queue = label_of(labels, each.name)
        for state in ("ready", "claimed", "scheduled", "blocked"):
            count.add(getattr(each, state), queue=queue, state=state)
        oldest.keep_highest(each.latency or 0.0, queue=queue)
        paused.add(each.paused, queue=queue)
    yield from (count, oldest, paused)
    promised = Family("jq_latency_promise_seconds", "How long a job of the queue may wait, as promised", unit="seconds")
    for name in labels:
        if (seconds := terms.promises.latency(name)) is not None:
            promised.add(seconds, queue=name)
    yield promised


def _processes(connection: Connection, terms: ScrapeTerms) -> Iterator[Family]:
    count = Family("solid_queue_processes", "Processes by kind and status: alive, silent")
    held = Family("solid_queue_silent_process_jobs", "Jobs claimed by processes that are silent")
    oldest = Family("solid_queue_oldest_heartbeat_age_seconds", "Age of the oldest heartbeat", unit="seconds")
    standby = find_standby(connection)
    found = list_processes(connection)
    labels = bounded(Counter(process.kind for process in found), MOST_KINDS)
    held.add(0)
    for kind in {*labels, "Worker", "Dispatcher"}:
        for status in ("alive", "silent"):
            count.add(0, kind=kind, status=status)
    for process in found:
        is_silent = process.life(terms.threshold, standby) is False
        count.add(1, kind=label_of(labels, process.kind), status="silent" if is_silent else "alive")
        held.add(process.claimed if is_silent else 0)
        if process.silence is not None:
            oldest.keep_highest(process.silence)
    yield from (count, held, oldest)


def _failures(connection: Connection, terms: ScrapeTerms) -> Iterator[Family]:
    older, by_queue = count_by_queue(connection)
    family = Family(
        "solid_queue_failed_jobs",
        "Failed jobs by queue and reason: died with their process, error. Those beyond the newest 10000 are estimated: "
        'queue="other", reason="unread"',
    )
    weights: Counter[str] = Counter()
    for queue, _, count in by_queue:
        weights[queue] += count
    labels = bounded(weights, terms.most_queues)
    for queue, died, count in by_queue:
        family.add(count, queue=label_of(labels, queue), reason="died" if died else "error")
    if older or not weights:
        family.add(older, queue=OTHER, reason="unread")
    yield family


def _waiting(connection: Connection, _terms: ScrapeTerms) -> Iterator[Family]:
    due = Family("solid_queue_oldest_due_age_seconds", "How long the oldest due scheduled job waits", unit="seconds")
    overdue = Family(
        "solid_queue_oldest_blocked_overdue_seconds",
        "How long the longest blocked job has waited beyond the end of its limit's duration",
        unit="seconds",
    )
    expired = Family("solid_queue_expired_semaphores", "Semaphores that have expired; at most 10000 are counted")
    now = clock(connection)
    for family, column in ((due, scheduled.c.scheduled_at), (overdue, blocked.c.expires_at)):
        first = connection.scalar(select(func.min(column)).where(column <= utcnow()))
        family.add(0.0 if first is None else max(0.0, (now - first).total_seconds()))
    some = select(semaphores.c.id).where(semaphores.c.expires_at < utcnow()).limit(10_000).subquery()
    expired.add(connection.scalar(select(func.count()).select_from(some)) or 0)
    yield from (due, overdue, expired)


def _recurring(connection: Connection, _terms: ScrapeTerms) -> Iterator[Family]:
    age = Family("solid_queue_recurring_age_seconds", "How long ago a recurring task ran last", unit="seconds")
    period = Family("solid_queue_recurring_period_seconds", "The longest time between two ticks of it", unit="seconds")
    missed = Family("jq_recurring_missed_ticks", "Ticks of it that were missed, as far as that can be known")
    for task in list_recurring(connection)[:MOST_TASKS]:
        if task.age is not None:
            age.add(task.age, task=task.key)
        if task.schedule is not None and task.schedule.period is not None:
            period.add(task.schedule.period, task=task.key)
        if task.missed is not None:
            missed.add(task.missed, task=task.key)
    yield from (age, period, missed)


def _deaths(connection: Connection, _terms: ScrapeTerms) -> Iterator[Family]:
    recent = Family("jq_recent_deaths", "Processes that died within the last hour, by cause")
    incidents = find_recent(connection, clock(connection) - RECENT, most=NEWEST)
    for incident in incidents:
        recent.add(len(incident.deaths), cause=str(incident.finding.cause))
    if not incidents:
        recent.add(0, cause="none")
    yield recent
    if has_ledger(connection):
        every = Family("jq_deaths", "Deaths in jq's record", counter=True)
        every.add(connection.scalar(select(func.count()).select_from(deaths)) or 0)
        yield every


def _operations(connection: Connection, _terms: ScrapeTerms) -> Iterator[Family]:
    if not has_ledger(connection):
        return
    family = Family("jq_operations", "Operations in jq's record, by verb", counter=True)
    rows = connection.execute(select(operations.c.verb, func.count().label("jobs")).group_by(operations.c.verb))
    counts: dict[str, int] = {row.verb: row.jobs for row in rows}
    labels = bounded(counts, MOST_KINDS)
    for verb, count in counts.items():
        family.add(count, verb=label_of(labels, verb))
    yield family


def _promised(promises: Promises) -> Iterator[Family]:
    expected = Family("jq_expected_workers", "How many workers are expected to live")
    if promises.workers is not None:
        expected.add(promises.workers)
    yield expected


PARTS: dict[str, Part] = {
    "queues": _queues,
    "processes": _processes,
    "failures": _failures,
    "waiting": _waiting,
    "recurring": _recurring,
    "deaths": _deaths,
    "operations": _operations,
}
