"""Checks of processes and queues: dead or missing processes, clocks, heartbeats, paused queues, old finished jobs."""

import shlex
from collections.abc import Iterable, Iterator
from datetime import timedelta

from sqlalchemy import Connection, func, select

from solidjq.database import times
from solidjq.database.standby import ReadOnlyServer, find_standby
from solidjq.database.statements import distinct_values
from solidjq.database.tables import jobs, pauses, ready, recurring_tasks, scheduled
from solidjq.database.times import ago
from solidjq.doctor.checks import (
    MOST_NAMED,
    MOST_QUEUES,
    DoctorCheck,
    DoctorFinding,
    DoctorTerms,
    Severity,
    everywhere,
    how_many,
    living,
)
from solidjq.processes import local_time
from solidjq.processes.attendance import polled_by
from solidjq.processes.heartbeat import Process, list_processes
from solidjq.processes.samples import instant, read_unrecorded, sample_of
from solidjq.text import count_of
from solidjq.untrusted import number

LATE = 60.0  # seconds that due or ready jobs may wait for a process to take them
BEHIND = 300.0  # seconds that due jobs may wait for a live dispatcher
SKEW = 10.0  # seconds between two clocks; a smaller difference may be a slow commit
LATE_BEAT = 5.0  # seconds that a heartbeat may be late
FINISHED_AGE = 30 * 86400.0  # seconds; older finished jobs are usually left over, not kept on purpose


def _find_dead(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    dead = [p for p in list_processes(connection) if not p.is_alive(terms.threshold)]
    held = sum(process.claimed for process in dead)
    if dead:
        yield DoctorFinding(
            f"{count_of(len(dead), 'process')} without a heartbeat for {terms.threshold:g} s or more, with "
            f"{count_of(held, 'job')}",
            "jq prune (jq prune --dry-run shows what it would do); then jq retry --safe",
            Severity.ERROR if held else Severity.WARNING,
            subjects=frozenset(process.id for process in dead),
        )


def _find_undispatched(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    alive = living(connection, terms, "Dispatcher")
    late = ago(BEHIND if alive else LATE)
    ids = list(
        connection.scalars(
            select(scheduled.c.job_id)
            .where(scheduled.c.scheduled_at <= late)
            .order_by(scheduled.c.scheduled_at)
            .limit(MOST_NAMED + 1)
        )
    )
    if not ids:
        return
    due = how_many(ids, "scheduled job is", "scheduled jobs are")
    if alive:
        limited = connection.scalar(
            select(func.count()).where(jobs.c.id.in_(ids[:MOST_NAMED]), jobs.c.concurrency_key.is_not(None))
        )
        why = "; those with a concurrency limit need a dispatcher that knows their class" if limited else ""
        yield DoctorFinding(
            f"{due} overdue by {BEHIND:g} s or more although a dispatcher lives{why}",
            "let Rails' dispatcher run, or give jq work --import the modules of these jobs"
            if limited
            else "look at the dispatcher's log and load; run a second one, or raise its batch_size",
            Severity.WARNING,
            tuple(ids[:MOST_NAMED]),
            frozenset(ids),
        )
    else:
        yield DoctorFinding(
            f"{due} due, and no dispatcher lives to make them ready",
            "start one: bin/jobs with a dispatcher in config/queue.yml, or jq work",
            job_ids=tuple(ids[:MOST_NAMED]),
            subjects=frozenset(["dispatcher"]),
        )


def _find_unattended(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    workers = living(connection, terms, "Worker")
    paused = set(connection.scalars(select(pauses.c.queue_name)))
    for queue in distinct_values(connection, ready.c.queue_name)[:MOST_QUEUES]:
        if queue in paused or is_polled(workers, queue):
            continue
        old = select(ready.c.job_id).where(ready.c.queue_name == queue, ready.c.created_at <= ago(LATE))
        ids = list(connection.scalars(old.limit(MOST_NAMED + 1)))
        if ids:
            whom = "no live worker polls it" if workers else "no worker lives"
            yield DoctorFinding(
                f"{how_many(ids, 'job waits', 'jobs wait')} in queue {queue!r}, and {whom}",
                f"start a worker for it: bin/jobs, or jq work --queues {shlex.quote(queue)}",
                job_ids=tuple(ids[:MOST_NAMED]),
                subjects=frozenset([queue]),
            )


def is_polled(workers: Iterable[Process], queue: str) -> bool:
    """Whether one of these workers polls the queue."""
    return any(polled_by(worker).takes(queue) for worker in workers)


def _find_unscheduled(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    if living(connection, terms, "Scheduler"):
        return
    keys = list(connection.scalars(select(recurring_tasks.c.key).order_by(recurring_tasks.c.key).limit(MOST_NAMED + 1)))
    if keys:
        yield DoctorFinding(
            f"{how_many(keys, 'recurring task is', 'recurring tasks are')} set up, and no scheduler lives to enqueue "
            f"them: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}",  # noqa: PLR2004
            "start a supervisor with recurring tasks: bin/jobs (SOLID_QUEUE_SKIP_RECURRING must not be set)",
            subjects=frozenset(["scheduler"]),
        )


def _find_skew(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Compare clocks: Rails writes heartbeats by its own; jq work by the database's, and its own into the sample."""
    now, fleet = times.clock(connection), list_processes(connection)
    threshold = timedelta(seconds=terms.threshold)
    if offset := local_time.find_offset((process.last_heartbeat_at for process in fleet), now, threshold):
        yield DoctorFinding(
            f"heartbeats are {local_time.words(offset)} to the minute: Rails seems to write local time, so the "
            "database's clock cannot show who is dead, and jq prune is refused",
            "config.active_record.default_timezone = :utc; times that were written before stay as they are",
            subjects=frozenset(["zone"]),
        )
        return
    for process in fleet:
        beat, own = process.last_heartbeat_at, instant(sample_of(process.metadata).get("at"))
        if beat is None:
            continue
        ahead = (own - beat if own else beat - now).total_seconds()
        if ahead > SKEW or (own and ahead < -SKEW):
            way = "ahead of" if ahead > 0 else "behind"
            yield DoctorFinding(
                f"the clock of {process.name} (host {process.hostname}) is {abs(ahead):.0f} s {way} the database's",
                f"synchronize the clocks of {process.hostname} and of the database server (chronyc tracking)",
                Severity.WARNING,
                subjects=frozenset([process.id]),
            )


def _find_read_only(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    server = find_standby(connection)
    if isinstance(server, ReadOnlyServer):
        yield DoctorFinding(
            f"this server takes no writes ({server.access}): no job is claimed or ended, no heartbeat written",
            f"name the server that takes the writes, or let an administrator run: {server.remedy}",
        )


def _find_misfits(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    for process in living(connection, terms):
        interval = number(sample_of(process.metadata), "interval")
        age = process.heartbeat_age or 0.0
        if interval is not None and interval * 2 > terms.threshold:
            yield DoctorFinding(
                f"{process.name} beats every {interval:g} s, which does not fit an alive threshold of "
                f"{terms.threshold:g} s",
                "a healthy process is pruned after one late heartbeat: make the threshold at least twice the interval, "
                "the same for every program (jq work --heartbeat, --alive-threshold; "
                "SolidQueue.process_heartbeat_interval, process_alive_threshold)",
                subjects=frozenset([process.id]),
            )
        elif age > (terms.threshold / 2 if interval is None else 2 * interval + LATE_BEAT):
            yield DoctorFinding(
                f"the heartbeat of {process.name} is {age:.0f} s old; after {terms.threshold:g} s it counts as dead",
                f"check whether pid {process.pid} on {process.hostname} still runs; if its heartbeat is often late, "
                "raise the threshold or take load off the machine",
                Severity.WARNING,
                subjects=frozenset([process.id]),
            )


def _find_unrecorded(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    for process in living(connection, terms, "Worker"):
        unrecorded = read_unrecorded(process.metadata)
        if unrecorded is not None:
            since = f" since {unrecorded.since:%Y-%m-%d %H:%M:%S} UTC" if unrecorded.since else ""
            yield DoctorFinding(
                f"{process.name} cannot record how {count_of(unrecorded.jobs, 'job')} ended{since}: {unrecorded.error}",
                f"mend what the error says; the worker tries again by itself. Until then leave it alone (pid "
                f"{process.pid} on {process.hostname}): if its host goes down, jobs that succeeded count as failed",
                subjects=frozenset([process.id]),
            )


def _find_paused(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    for queue in connection.scalars(select(pauses.c.queue_name).order_by(pauses.c.queue_name).limit(MOST_QUEUES)).all():
        old = select(ready.c.job_id).where(ready.c.queue_name == queue, ready.c.created_at <= ago(terms.long))
        ids = list(connection.scalars(old.limit(MOST_NAMED + 1)))
        if ids:
            yield DoctorFinding(
                f"queue {queue!r} is paused, and {how_many(ids, 'job has', 'jobs have')} waited in it for longer than "
                f"{terms.long:g} s",
                f"jq queues resume {shlex.quote(queue)}, unless it must stay paused (see jq operations list)",
                Severity.WARNING,
                tuple(ids[:MOST_NAMED]),
                frozenset([queue]),
            )


def _find_old_finished(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    old = select(jobs.c.id).where(jobs.c.finished_at <= ago(FINISHED_AGE)).limit(MOST_NAMED + 1)
    ids = list(connection.scalars(old))
    if len(ids) > MOST_NAMED:
        yield DoctorFinding(
            f"more than {MOST_NAMED} finished jobs are older than 30 days",
            "clear them regularly: SolidQueue::Job.clear_finished_in_batches as a recurring task",
            Severity.NOTE,
        )


CHECKS = (
    DoctorCheck(
        name="dead-processes",
        by_clock=True,
        asks="Processes whose last heartbeat is older than --alive-threshold.",
        why="The jobs of a dead process stay claimed until a supervisor or jq prune prunes it; a running supervisor "
        "does so within another threshold.",
        advice="jq prune, then jq retry --safe.",
        finds=everywhere(_find_dead),
    ),
    DoctorCheck(
        name="dispatcher",
        by_clock=True,
        asks="Scheduled jobs that are due while no dispatcher lives, or overdue by 5 minutes although one does.",
        why="Only a dispatcher makes scheduled jobs ready, retries of jobs with a concurrency limit included.",
        advice="Start a dispatcher: bin/jobs, or jq work. Only the one of Rails knows the limits of Ruby classes.",
        finds=everywhere(_find_undispatched),
        again=True,
    ),
    DoctorCheck(
        name="workers",
        by_clock=True,
        asks="Queues with jobs that have waited a minute while no live worker polls them.",
        why="A queue that was renamed, or left out of config/queue.yml, fills up and nothing reports it.",
        advice="Start a worker that polls the queue, or add the queue to a worker's list.",
        finds=everywhere(_find_unattended),
        again=True,
    ),
    DoctorCheck(
        name="scheduler",
        by_clock=True,
        asks="Recurring tasks while no scheduler lives.",
        why="Without a scheduler their jobs are not enqueued, and no failure shows it.",
        advice="Start a supervisor with recurring tasks.",
        finds=everywhere(_find_unscheduled),
        again=True,
    ),
    DoctorCheck(
        name="clock-skew",
        asks="Processes whose clock is 10 s or more away from the database's, or that write local time instead of UTC.",
        why="Rails decides by its own clock which processes are dead and which jobs are due: a process whose clock is "
        "ahead is pruned too late, one whose clock is behind while it still runs. Of a Rails process, only a clock "
        "that is ahead can be found.",
        advice="Synchronize the clocks (NTP).",
        finds=everywhere(_find_skew),
        again=True,
    ),
    DoctorCheck(
        name="writes",
        asks="A server that takes no writes from anybody, and is no standby.",
        why="No job is enqueued, claimed or ended, and no process can write its heartbeat.",
        advice="Switch off the setting that forbids writes, or name the server that takes them.",
        finds=everywhere(_find_read_only),
    ),
    DoctorCheck(
        name="heartbeats",
        by_clock=True,
        asks="Heartbeat intervals that do not fit the alive threshold, and live processes whose heartbeat is late.",
        why="A healthy process would be pruned, and its jobs would fail while it runs them.",
        advice="Make the threshold at least twice the interval, the same for every program of the queue.",
        finds=everywhere(_find_misfits),
        again=True,
    ),
    DoctorCheck(
        name="endings",
        by_clock=True,
        asks="Workers of jq work that cannot record how jobs ended, because the database refuses it: a full disk, a "
        "read-only database, time-outs, a trigger.",
        why="The jobs are done, but stay claimed, and with them their places in the worker and the slots of their "
        "concurrency limits. Blocked jobs wait behind them.",
        advice="Mend what the error says. The worker tries again for as long as it lives; do not kill it.",
        finds=everywhere(_find_unrecorded),
        again=True,
    ),
    DoctorCheck(
        name="paused-queues",
        asks="Paused queues with jobs that have waited for longer than --long.",
        why="A forgotten pause is an outage.",
        advice="jq queues resume QUEUE.",
        finds=everywhere(_find_paused),
    ),
    DoctorCheck(
        name="finished-jobs",
        asks="More than 1,000 finished jobs that are older than 30 days.",
        why="Old finished jobs make every index of the jobs table larger than it needs to be.",
        advice="Let Rails clear them: SolidQueue::Job.clear_finished_in_batches as a recurring task.",
        finds=everywhere(_find_old_finished),
    ),
)
