"""Checks of a Rails application: whether its configuration fits the queue and its running processes."""

from collections.abc import Iterator

from sqlalchemy import Connection, select

from solidjq.database.statements import distinct_values
from solidjq.database.tables import ready
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
from solidjq.doctor.fleet import is_polled
from solidjq.processes.heartbeat import ALIVE_THRESHOLD, HEARTBEAT_INTERVAL
from solidjq.queue.patterns import fits_any
from solidjq.rails.settings import BESIDE_THREADS, HEARTBEAT, SKIP_LOCKED, THRESHOLD, RailsConfig


def _find(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    application = terms.application
    if application is None:
        return
    if application.problem is not None:
        yield DoctorFinding(
            f"{application.path} could not be compared with the queue: {application.problem}",
            "write it with ENV.fetch and the like, or leave this check out: --skip application",
            Severity.NOTE,
        )
    yield from _find_untaken(connection, terms, application)
    yield from _judge_workers(application)
    yield from _judge_settings(application, terms.threshold)


def _find_untaken(connection: Connection, terms: DoctorTerms, application: RailsConfig) -> Iterator[DoctorFinding]:
    if application.workers is None:
        return
    patterns = [pattern for worker in application.workers for pattern in worker.queues]
    workers = living(connection, terms, "Worker")
    for queue in distinct_values(connection, ready.c.queue_name)[:MOST_QUEUES]:
        if fits_any(patterns, queue):
            continue
        ids = list(connection.scalars(select(ready.c.job_id).where(ready.c.queue_name == queue).limit(MOST_NAMED + 1)))
        if ids:
            # A worker that polls one name with a comma registers `a,b`, which reads as if it polled two queues.
            elsewhere = is_polled(workers, queue) and not any("," in pattern for pattern in patterns)
            yield DoctorFinding(
                f"{how_many(ids, 'job waits', 'jobs wait')} in queue {queue!r}, and no worker of {application.path} "
                f"takes it{'; another live worker does' if elsewhere else ''}",
                f"add it to the queues of a worker in {application.path}, and restart bin/jobs",
                Severity.NOTE if elsewhere else Severity.ERROR,
                tuple(ids[:MOST_NAMED]),
                frozenset([queue]),
            )


def _judge_workers(application: RailsConfig) -> Iterator[DoctorFinding]:
    for worker in application.workers or ():
        for name in worker.queues:
            if "," in name:
                yield DoctorFinding(
                    f"a worker of {application.path} polls {name!r}: that is one queue with a comma in its name",
                    f"write a list: queues: [{name}]",
                    subjects=frozenset([name]),
                )
        needed = (worker.threads or 0) + BESIDE_THREADS
        if worker.threads and application.pool is not None and needed > application.pool:
            yield DoctorFinding(
                f"a worker of {application.path} with {worker.threads} threads needs {needed} connections, and "
                f"config/database.yml gives a process {application.pool}",
                f"raise pool (max_connections in Rails 8.1 and later) to {needed} or more, or run fewer threads",
                Severity.WARNING,
                subjects=frozenset(["pool"]),
            )


def _judge_settings(application: RailsConfig, threshold: float) -> Iterator[DoctorFinding]:
    settings = application.settings or {}
    for setting in settings.values():
        if setting.value is None:
            yield DoctorFinding(
                f"{setting.place} holds what only Ruby can read: {setting.code}",
                "check by hand whether it fits: jq could not compare it",
                Severity.NOTE,
            )
    if (locking := settings.get(SKIP_LOCKED)) is not None and locking.value is False:
        yield DoctorFinding(
            f"{locking.place} switches {SKIP_LOCKED} off: workers wait for each other's locks",
            "leave it on, unless the database is too old for SKIP LOCKED (MySQL before 8.0.1, MariaDB before 10.6)",
            Severity.NOTE,
        )
    configured = settings.get(THRESHOLD)
    own = ALIVE_THRESHOLD if configured is None else configured.value
    beat = settings.get(HEARTBEAT)
    interval = HEARTBEAT_INTERVAL if beat is None else beat.value
    if own is not None and own != threshold:
        yield DoctorFinding(
            f"jq counts a process as dead after {threshold:g} s, the application's own supervisors after {own:g} s",
            "leave out --alive-threshold and JQ_ALIVE_THRESHOLD, or set them to the application's value",
            Severity.WARNING,
            subjects=frozenset([THRESHOLD]),
        )
    if own is not None and interval is not None and interval * 2 > own:
        yield DoctorFinding(
            f"a heartbeat every {interval:g} s does not fit the application's {THRESHOLD} of {own:g} s",
            f"make {THRESHOLD} at least twice {HEARTBEAT}",
            Severity.WARNING,
            subjects=frozenset([HEARTBEAT]),
        )


CHECKS = (
    DoctorCheck(
        name="application",
        asks="With --rails: queues with waiting jobs that no worker of config/queue.yml takes, workers with more "
        "threads than connections, heartbeats and thresholds that do not fit.",
        why="The database does not store which workers should run; a queue that no worker is configured for is never "
        "polled.",
        advice="Correct config/queue.yml, config/database.yml or config.solid_queue, and restart bin/jobs.",
        finds=everywhere(_find),
        of_application=True,
    ),
)
