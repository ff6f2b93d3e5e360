"""The checks of a queue: failures, deaths, latency, processes, dispatcher, recurring tasks, concurrency slots.

Each reads in a transaction of its own and within a time limit; one that the database refuses, or that takes too long,
is unknown with the reason, and hides no other. If the database cannot be reached, that is critical: nothing runs then.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Connection, func, select

from solidjq.database.engines import time_limit
from solidjq.database.standby import find_standby
from solidjq.database.tables import blocked, pauses, ready, scheduled
from solidjq.database.times import clock, utcnow
from solidjq.database.transactions import Database
from solidjq.durations import spell_duration
from solidjq.errors import DatabaseError, DatabaseUnreachableError, TookTooLongError
from solidjq.incidents.summaries import IncidentSummary, find_recent
from solidjq.monitoring.levels import AlertRange, Bounds, CheckReport, Level, Measure, above, measure, unknown
from solidjq.processes.attendance import polled_by
from solidjq.processes.heartbeat import ALIVE_THRESHOLD, Process, list_processes
from solidjq.processes.queue_names import explain_unknown, unknown_patterns
from solidjq.queue.failure_counts import count_recent
from solidjq.queue.overview import list_ready
from solidjq.queue.patterns import fits_any
from solidjq.queue.recurring import RecurringTask, list_recurring
from solidjq.settings.promises import Promises
from solidjq.text import count_of, first_of

MOST_NAMED = 5  # in a sentence
NEARLY = 0.8  # of a promised latency: from there on it is a warning
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTerms:
    """What the operator considers normal. ``warn`` and ``crit`` are those of the one check that is made."""

    warn: AlertRange | None = None
    crit: AlertRange | None = None
    threshold: float = ALIVE_THRESHOLD  # seconds of silence from which on a process is dead
    window: timedelta = HOUR  # failures and deaths of so long ago and later count
    queues: Sequence[str] = ("*",)  # whose latency is judged
    promises: Promises = field(default_factory=Promises)
    patience: float = 10.0  # seconds that each statement may take

    def bounds(self, warn: float, crit: float) -> Bounds:
        """Return the ranges that were given, else these limits."""
        return Bounds(self.warn or above(warn), self.crit or above(crit))


def make_checks(database: Database, names: Sequence[str], terms: CheckTerms) -> list[CheckReport]:
    """Make some of ``CHECKS``. Database errors become levels; one that is away is not tried again for each check.

    Raises UsageError for a table prefix that is not that of this process.
    """
    reports: list[CheckReport] = []
    for name in names:
        try:
            reports.append(_make(database, name, terms))
        except DatabaseUnreachableError as error:
            words = str(error)
            reports += [
                CheckReport(left, [Measure(left, Level.CRITICAL, words)], words) for left in names[len(reports) :]
            ]
            break
    return reports


def _make(database: Database, name: str, terms: CheckTerms) -> CheckReport:
    with suppress(DatabaseUnreachableError):  # one session that was killed is no outage
        return _attempt(database, name, terms)
    return _attempt(database, name, terms)


def _attempt(database: Database, name: str, terms: CheckTerms) -> CheckReport:
    try:
        with database.read() as connection, time_limit(connection, terms.patience):
            return CHECKS[name](connection, terms)
    except DatabaseUnreachableError:
        raise
    except TookTooLongError:
        return unknown(name, f"it took longer than {terms.patience:g} s; to allow more: --patience")
    except DatabaseError as error:
        return unknown(name, str(error))


# -- failures and deaths ----------------------------------------------------------------------------------------------


def check_failures(connection: Connection, terms: CheckTerms) -> CheckReport:
    """Count the jobs that failed within the window and are still failed; by default one is a warning."""
    recent = count_recent(connection, clock(connection) - terms.window)
    more = "" if recent.complete else " or more"
    span = spell_duration(terms.window)
    failed = f"{count_of(recent.failed, 'job')}{more} failed within {span}"
    text = f"{failed}: {recent.died:,} died, {recent.errors:,} errors"
    return CheckReport(
        "failures",
        [
            measure("failed", recent.failed, text, terms.bounds(0, 100)),
            measure("died", recent.died, text),
        ],
        f"no job failed within {span}" if not recent.failed else text,
    )


def check_deaths(connection: Connection, terms: CheckTerms) -> CheckReport:
    """Count the processes that died within the window; by default one is a warning, more than five are critical."""
    incidents = find_recent(connection, clock(connection) - terms.window)
    deaths = sum(len(incident.deaths) for incident in incidents)
    span = spell_duration(terms.window)
    named = first_of([_incident(incident) for incident in reversed(incidents)], MOST_NAMED)
    text = f"{count_of(deaths, 'process')} died within {span}: {named}" if deaths else f"no process died within {span}"
    return CheckReport("deaths", [measure("died", deaths, text, terms.bounds(0, 5))], text)


def _incident(incident: IncidentSummary) -> str:
    hosts = f" on {first_of(incident.hosts, 2)}" if incident.hosts else ""
    return f"{incident.name} {incident.finding.words}{hosts} ({len(incident.deaths)})"


# -- waiting ----------------------------------------------------------------------------------------------------------


def check_latency(connection: Connection, terms: CheckTerms) -> CheckReport:
    """Judge how long the oldest ready job of each queue has waited.

    A promised latency that is exceeded is critical, and a warning from ``NEARLY`` of it on; a queue without a promise
    is judged by ``warn`` and ``crit``, by default 5 and 30 minutes. A name in ``queues`` that neither a queue nor a
    promise has is unknown: it may be a typing error, and would be OK for ever.
    """
    paused = set(connection.scalars(select(pauses.c.queue_name)))
    waiting = {one.name: one.latency or 0.0 for one in list_ready(connection) if fits_any(terms.queues, one.name)}
    promised = [name for name in terms.promises.latencies if "*" not in name and fits_any(terms.queues, name)]
    asked = unknown_patterns(connection, [pattern for pattern in terms.queues if pattern not in promised])
    measures = [Measure(name, Level.UNKNOWN, text) for name, text in explain_unknown(connection, asked).items()]
    for queue in sorted({*waiting, *promised}):
        latency, promise = waiting.get(queue, 0.0), terms.promises.latency(queue)
        bounds = terms.bounds(300, 1800) if promise is None else Bounds(above(NEARLY * promise), above(promise))
        words = f"{queue}: the oldest ready job waits for {spell_duration(timedelta(seconds=latency))}"
        promised_words = "" if promise is None else f", {promise:g} s are promised"
        text = f"{words}{promised_words}{' (paused)' if queue in paused else ''}"
        measures.append(measure(queue, round(latency, 3), text, bounds, unit="s"))
    longest = max((one.value or 0.0 for one in measures), default=0.0)
    summary = f"{count_of(len(waiting), 'queue')} with ready jobs, the oldest waits for {longest:.0f} s"
    return CheckReport("latency", measures, summary if waiting else "no job is ready")


def check_dispatcher(connection: Connection, terms: CheckTerms) -> CheckReport:
    """Judge how long due scheduled jobs wait, by default 1 and 5 minutes; without a dispatcher any is critical."""
    first = connection.scalar(select(func.min(scheduled.c.scheduled_at)).where(scheduled.c.scheduled_at <= utcnow()))
    late = 0.0 if first is None else max(0.0, (clock(connection) - first).total_seconds())
    standby = find_standby(connection)
    dispatchers = [p for p in list_processes(connection) if p.kind == "Dispatcher" and p.life(terms.threshold, standby)]
    text = f"the oldest due scheduled job waits for {spell_duration(timedelta(seconds=late))}"
    overdue = measure("overdue", round(late, 3), text, terms.bounds(60, 300), unit="s")
    alive = count_of(len(dispatchers), "dispatcher")
    level = Level.OK
    if not dispatchers:
        needed = first is not None or connection.scalar(select(blocked.c.id).limit(1)) is not None
        level = Level.UNKNOWN if standby else Level.CRITICAL if needed else Level.WARNING
    what = f"no dispatcher lives, {text}" if first is not None else "no dispatcher lives"
    lives = Measure("dispatchers", level, what, len(dispatchers))
    return CheckReport(
        "dispatcher", [lives, overdue], f"{alive}, no job is overdue" if not late else f"{alive}, {text}"
    )


def check_slots(connection: Connection, terms: CheckTerms) -> CheckReport:
    """Judge how long blocked jobs wait beyond the end of their limit's duration, by default 15 minutes and an hour.

    A dispatcher's maintenance frees them, every 10 minutes.
    """
    first = connection.scalar(select(func.min(blocked.c.expires_at)).where(blocked.c.expires_at <= utcnow()))
    late = 0.0 if first is None else max(0.0, (clock(connection) - first).total_seconds())
    text = f"a blocked job waits for {spell_duration(timedelta(seconds=late))} beyond the end of its limit's duration"
    overdue = measure("overdue", round(late, 3), text, terms.bounds(900, 3600), unit="s")
    return CheckReport("slots", [overdue], text if late else "no blocked job waits for longer than its limit lasts")


# -- processes --------------------------------------------------------------------------------------------------------


def check_processes(connection: Connection, terms: CheckTerms) -> CheckReport:
    """Judge the processes: those that are silent, that none lives, and how many workers are missing.

    By default a silent process is a warning, one with jobs is critical. Fewer workers than expected are critical: one
    that died may have a replacement that never came up.
    """
    standby, every = find_standby(connection), list_processes(connection)
    silent = [process for process in every if process.life(terms.threshold, standby) is False]
    living = [process for process in every if process.life(terms.threshold, standby) is not False]
    held = sum(process.claimed for process in silent)
    words = f"{count_of(len(silent), 'process')} silent for {terms.threshold:g} s or more, with {count_of(held, 'job')}"
    given = terms.warn or terms.crit
    bounds = Bounds(terms.warn, terms.crit) if given else Bounds(above(0), above(0) if held else None)
    if standby and any(process.life(terms.threshold, standby) is None for process in living):
        return unknown("processes", standby.doubt)
    workers = [process for process in living if process.kind == "Worker"]
    measures = [measure("silent", len(silent), words, bounds), _expected("workers", workers, terms.promises.workers)]
    for queue, expected in terms.promises.expected.items():
        takers = [worker for worker in workers if polled_by(worker).takes(queue)]
        measures.append(_expected(f"workers of {queue}", takers, expected))
    if not workers and not terms.promises.workers:
        waits = connection.scalar(select(ready.c.id).limit(1)) is not None
        level = Level.CRITICAL if waits or not living else Level.WARNING
        words = "no process lives" if not living else "no worker lives"
        measures.append(Measure("alive", level, f"{words}{', and jobs are ready' if waits else ''}", len(living)))
    kinds: dict[str, int] = {}
    for process in living:
        kinds[process.kind] = kinds.get(process.kind, 0) + 1
    alive = ", ".join(count_of(count, kind.partition("(")[0].lower()) for kind, count in sorted(kinds.items()))
    return CheckReport("processes", measures, f"{alive} alive")


def _expected(label: str, workers: Sequence[Process], expected: int | None) -> Measure:
    count = len(workers)
    if expected is None or count >= expected:
        return Measure(label, Level.OK, f"{count} {label}", count)
    return Measure(label, Level.CRITICAL, f"{count} of {expected} expected {label} live", count)


# -- recurring tasks --------------------------------------------------------------------------------------------------


def check_recurring(connection: Connection, terms: CheckTerms) -> CheckReport:
    """Judge the ticks that each recurring task missed, by default one is a warning and more are critical.

    Tasks while no scheduler lives are critical. What cannot be known is said, and is no alert.
    """
    tasks = list_recurring(connection)
    if not tasks:
        return CheckReport("recurring", [], "no recurring task is set up")
    standby = find_standby(connection)
    living = [p for p in list_processes(connection) if p.life(terms.threshold, standby) is not False]
    measures = [_ticks(task, terms) for task in tasks if task.missed is not None]
    if not any(process.kind == "Scheduler" for process in living):
        words = f"no scheduler lives, with {count_of(len(tasks), 'recurring task')} set up"
        measures.insert(0, Measure("schedulers", Level.CRITICAL, words, 0))
    unread = [f"{task.key} ({task.text})" for task in tasks if task.schedule is None]
    kept = [task for task in tasks if task.schedule is not None and task.missed is None]
    unknowns = [f"schedules that are not read here: {first_of(unread, MOST_NAMED)}"] if unread else []
    unknowns += ["no finished job is kept, so a tick leaves no trace"] if kept else []
    doubt = f"; not judged: {'; '.join(unknowns)}" if unknowns else ""
    judged = sum(task.missed is not None for task in tasks)
    return CheckReport("recurring", measures, f"{count_of(judged, 'recurring task')} without a missed tick{doubt}")


def _ticks(task: RecurringTask, terms: CheckTerms) -> Measure:
    missed = task.missed or 0
    ran = "never ran" if task.last_run_at is None else f"ran last at {task.last_run_at:%Y-%m-%d %H:%M:%S} UTC"
    text = f"{task.key} missed {count_of(missed, 'tick')} ({task.text}); it {ran}"
    return measure(task.key, missed, text, terms.bounds(0, 1))


CHECKS: Mapping[str, Callable[[Connection, CheckTerms], CheckReport]] = {
    "failures": check_failures,
    "deaths": check_deaths,
    "latency": check_latency,
    "processes": check_processes,
    "dispatcher": check_dispatcher,
    "recurring": check_recurring,
    "slots": check_slots,
}
OF_TIME = frozenset({"latency", "dispatcher", "slots"})  # they measure seconds; the others count
