"""Crash counts, table ``jq_crashes``: how often a process died while it ran a job, each death counted once.

Solid Queue has no such count, and its retry deletes the failure that recorded the death. Crashes are counted per Active
Job id, which all attempts of a job share; the count outlives retries, re-enqueues and the job itself. A crash that
another program wrote into ``failed_executions`` is counted when ``jq`` first reads it. The failure's id is unique in
``jq_crashes``, so counting is idempotent: no crash is counted twice, whoever counts.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    type_coerce,
    update,
)

from solidjq.batching import BATCH, LOCKED, in_batches
from solidjq.database.among import among, read_among
from solidjq.database.faults import duplicate_is_conflict
from solidjq.database.inserts import insert_many, insert_new, lacks
from solidjq.database.tables import crashes, failed, jobs
from solidjq.database.times import time_value, utcnow
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, Stays
from solidjq.ledger import on_death, operations, positions
from solidjq.queue.attempts import Attempt, passing_over
from solidjq.queue.failed import is_death
from solidjq.rails.error_text import Death, parse_error
from solidjq.rails.positions import Position, position_of

EVIDENCE = 255  # characters of an error that are stored; the error of a death is never longer
STAYS_UNCOUNTED = Stays("is not counted as crashed", "are not counted as crashed")

# Jobs that died together have exactly the same error, so few texts are parsed.
parse_evidence = lru_cache(maxsize=1024)(parse_error)


class Crash(NamedTuple):
    """One death that a job was in flight at. What is unknown of the process is None, which may be all of it."""

    failure_id: int
    job_id: int
    crashed_at: datetime | None
    evidence: str | None
    hostname: str | None = None
    pid: int | None = None
    last_heartbeat_at: datetime | None = None
    death_id: int | None = None
    started_at: datetime | None = None  # when the job began, if a sample recorded it
    position: Position | None = None  # where the job stood; None if nobody noted it, or it has no checkpoints
    class_name: str | None = None  # the job's class then; None if the crash was not counted yet: the one that it has

    @property
    def key(self) -> int | str:
        """Return what identifies the death: ``jq_deaths.id``, else the error, which jobs that died together share."""
        return self.evidence or "" if self.death_id is None else self.death_id

    @property
    def process(self) -> object | None:
        """Return what identifies the process, pid and last heartbeat; None if the error names no process."""
        error = parse_evidence(self.evidence)
        return None if error.death in {None, Death.MISSING} else (error.pid, error.last_heartbeat_at)


def recent_crashes(all_crashes: Iterable[Crash], window: timedelta, now: datetime) -> list[Crash]:
    """Return the crashes of the last ``window``; a crash of unknown time counts as recent."""
    return [crash for crash in all_crashes if crash.crashed_at is None or crash.crashed_at >= now - window]


def without_progress_since(all_crashes: Iterable[Crash], here: Position | None) -> list[Crash]:
    """Return the crashes at the position where a long job stands: those that no progress came after.

    A crash of which no position is known counts at each. Without checkpoints all crashes are returned.
    """
    return [crash for crash in all_crashes if here is None or crash.position is None or crash.position.key == here.key]


def subject() -> ColumnElement[str]:
    """Return, as SQL, the key that a job's crashes are counted by: its Active Job id, else ``job`` and its id."""
    # The id is not cast: on MySQL the text would have the session's collation, and no comparison with another's.
    return func.coalesce(jobs.c.active_job_id, literal("job ") + type_coerce(jobs.c.id, String()))


def subject_of(job_id: int, active_job_id: str | None) -> str:
    """Return, in Python, the key that a job's crashes are counted by: its Active Job id, else ``job`` and its id."""
    return active_job_id if active_job_id is not None else f"job {job_id}"


class Origin(NamedTuple):
    """The process whose death crashes are counted for: its row in ``jq_deaths``, host and pid if it may live."""

    death_id: int | None = None
    hostname: str | None = None
    pid: int | None = None
    last_heartbeat_at: datetime | None = None


UNKNOWN_ORIGIN = Origin()


def count(connection: Connection, which: ColumnElement[bool], origin: Origin = UNKNOWN_ORIGIN) -> None:
    """Count those failures among ``which`` that are crashes and were not counted before.

    For each of them the job is enqueued that the dead one named as its ``on_death``.
    """
    # Few jobs: the others' crashes do not pass through here. Which of these failures are uncounted crashes is seen once
    # they are locked.
    asks, has_steps = on_death.asks().label("asks"), positions.has_steps().label("has_steps")
    special = (
        select(failed.c.id.label("failure_id"), asks, has_steps)
        .join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        .where(which, or_(asks, has_steps))
        .order_by(failed.c.id)
    )
    copied = {
        crashes.c.subject: subject(),
        crashes.c.failure_id: failed.c.id,
        crashes.c.job_id: failed.c.job_id,
        crashes.c.class_name: jobs.c.class_name,
        crashes.c.evidence: func.substr(failed.c.error, 1, EVIDENCE),
        crashes.c.death_id: cast(origin.death_id, crashes.c.death_id.type),
        crashes.c.hostname: cast(origin.hostname, crashes.c.hostname.type),
        crashes.c.pid: cast(origin.pid, crashes.c.pid.type),
        crashes.c.last_heartbeat_at: time_value(origin.last_heartbeat_at),
        crashes.c.crashed_at: func.coalesce(failed.c.created_at, utcnow()),
    }
    rows = (
        select(*copied.values())
        .join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        .where(which, is_death())
        .order_by(failed.c.id)
    )
    with _other_jobs(connection, connection.execute(special).all()):
        insert_new(connection, crashes, [column.name for column in copied], rows)


def _dead(*columns: ColumnElement[Any]) -> Select[Any]:
    """Return the query for uncounted crashes, and whether the job asks for another one, and has steps."""
    return (
        select(*columns, on_death.asks().label("asks"), positions.has_steps().label("has_steps"))
        .join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        .where(is_death(), lacks(crashes.c.failure_id, failed.c.id))
    )


@contextmanager
def _other_jobs(connection: Connection, dead: Collection[Row[Any]]) -> Iterator[None]:
    """Lock failures before the block counts their crashes; then note positions, and enqueue what the jobs asked for.

    The rows say of each failure whether its job asks for another one, and has steps.
    """
    asking = on_death.lock_uncounted(connection, [row.failure_id for row in dead if row.asks])
    yield
    positions.note(connection, [row.failure_id for row in dead if row.has_steps])
    on_death.enqueue_for(connection, asking)


def count_failed(connection: Connection, job_ids: Iterable[int], origin: Origin = UNKNOWN_ORIGIN) -> None:
    """Count the crashes of jobs that just failed. Call it only if the database has a ledger."""
    for batch in in_batches(job_ids, LOCKED):
        count(connection, read_among(failed.c.job_id, batch), origin)


def count_pruned(connection: Connection, origins: Mapping[int, Origin], runs: Mapping[int, "Run"]) -> None:
    """Count the crashes of jobs that this transaction has failed, each with the origin of its own process.

    Both are by job id; ``runs`` are of the last samples. For each of them the job is enqueued that the dead one named
    as its ``on_death``. Call it only if the database has a ledger.

    Raises ConflictError if another program counts one of them at this moment.
    """
    columns = _dead(
        failed.c.id.label("failure_id"),
        subject().label("subject"),
        failed.c.job_id,
        jobs.c.class_name,
        func.substr(failed.c.error, 1, EVIDENCE).label("evidence"),
        func.coalesce(failed.c.created_at, utcnow(), type_=failed.c.created_at.type).label("crashed_at"),
    )
    for batch in in_batches(origins):
        dead = connection.execute(columns.where(among(failed.c.job_id, batch))).all()
        if not dead:
            continue
        rows = [_row_of(row, origins[row.job_id], runs.get(row.job_id)) for row in dead]
        words = f"another program inserted the same rows into {crashes.name} at this moment"
        with _other_jobs(connection, dead), duplicate_is_conflict(words):
            insert_many(connection, crashes, rows)


def _row_of(dead: Row[Any], origin: Origin, run: "Run | None") -> dict[str, Any]:
    """Return the row of a crash for a row of ``_dead``."""
    row = dead._asdict()
    del row["asks"], row["has_steps"]
    return {**row, **origin._asdict(), "started_at": run and run.started_at, "growth": run and run.growth}


def count_all(database: Database) -> None:
    """Count every crash that is in ``failed_executions`` now; do nothing if the database has no ledger.

    A failure that another program retries later is then counted already. One transaction a batch. A crash that the
    database refuses to count keeps no other: RowsRefusedError names the jobs of such at the end.
    """
    batches = passing_over(
        database, lambda attempt: database.transact(_count_some, attempt), BATCH, what="crash", stays=STAYS_UNCOUNTED
    )
    for _ in batches:
        pass


def _count_some(connection: Connection, attempt: Attempt) -> list[int] | None:
    if not operations.exists(connection):
        return None
    # Not by ``lacks``: most failures are counted, and PostgreSQL joins so many in two thirds of the time.
    uncounted = (
        select(failed.c.id, failed.c.job_id)
        .outerjoin(crashes, crashes.c.failure_id == failed.c.id)
        .where(is_death(), crashes.c.failure_id.is_(None))
    )
    job_of: dict[int, int] = dict(connection.execute(attempt.of(uncounted, failed.c.id)).all())
    attempt.tried = list(job_of)

    def count_part(failure_ids: Sequence[int]) -> list[int]:
        count(connection, among(failed.c.id, failure_ids))
        return list(failure_ids)

    return attempt.act(connection, job_of, count_part) if job_of else None


def has_crashed(database: Database, job_id: int, active_job_id: str | None) -> bool:
    """Whether a crash of a job was counted; False, too, if the database cannot be asked or has no ledger."""
    counted = select(crashes.c.failure_id).where(crashes.c.subject == subject_of(job_id, active_job_id)).limit(1)
    try:
        with database.read() as connection:
            return connection.scalar(counted) is not None
    except DatabaseError:
        return False


def crashes_of(connection: Connection, subjects: Collection[str]) -> dict[str, list[Crash]]:
    """Return the counted crashes by subject, the oldest failure first; see ``subject`` for the key."""
    by_subject: dict[str, list[Crash]] = defaultdict(list)
    stored = positions.are_stored(connection)
    rows = connection.execute(
        select(
            crashes.c.subject,
            crashes.c.failure_id,
            crashes.c.job_id,
            crashes.c.crashed_at,
            crashes.c.evidence,
            crashes.c.hostname,
            crashes.c.pid,
            crashes.c.last_heartbeat_at,
            crashes.c.death_id,
            crashes.c.started_at,
            crashes.c.progress if stored else null(),
            crashes.c.class_name,
        )
        .where(among(crashes.c.subject, subjects))
        .order_by(crashes.c.failure_id)
    )
    for name, *values, progress, class_name in rows:
        by_subject[name].append(Crash._make((*values, position_of(progress), class_name)))
    return by_subject


class Run(NamedTuple):
    """A job in a process's last sample: when it began, and by how many bytes the process grew since then."""

    job_id: int
    started_at: datetime | None
    growth: int | None


def note_runs(connection: Connection, origin: Origin, runs: Iterable[Run]) -> None:
    """Add to a death's crashes when each job began, and by how much the process grew since then."""
    for run in runs:
        connection.execute(
            update(crashes)
            .where(crashes.c.death_id == origin.death_id, crashes.c.job_id == run.job_id)
            .values(started_at=run.started_at, growth=run.growth)
        )
