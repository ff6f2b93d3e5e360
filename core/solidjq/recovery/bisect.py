"""Find the killer among jobs that died together: retry half of them in quarantine, and see whether that process dies.

Each round is an operation in ``jq_operations`` (verb ``bisect``, with the incident's name) that records the suspects
and the jobs on trial. A bisect that was interrupted continues from there, in whatever program.
"""

import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, log2

from sqlalchemy import Connection, select

from solidjq.batching import BATCH
from solidjq.database.among import among
from solidjq.database.tables import failed, failures, operations
from solidjq.database.transactions import Database
from solidjq.errors import RefusedError
from solidjq.ledger import operations as ledger_operations
from solidjq.processes.attendance import Attendance, describe, how_to_spare, read_attendance
from solidjq.processes.heartbeat import ALIVE_THRESHOLD
from solidjq.recovery.fates import Fate, fates_of
from solidjq.recovery.retry import retry
from solidjq.recovery.terms import RetryTerms, Selection
from solidjq.settings.policy import BUILT_IN, Policy
from solidjq.text import count_of
from solidjq.untrusted import read_object

VERB = "bisect"
POLL = 0.5  # seconds between two queries
MOST_ON_TRIAL = BATCH  # jobs: a round is put on trial in one transaction
NO_CRASH_LIMIT = 2**31 - 1  # these jobs are retried because they crashed


class Stage(StrEnum):
    """The stage of a bisect."""

    READY = "ready"  # the next round can start
    TRYING = "trying"  # some jobs on trial have not ended yet
    FOUND = "found"  # one suspect is left, and its process died when it ran again
    CLEARED = "cleared"  # no suspect is left: all that were tried ran, and no process died
    CAPPED = "capped"  # the limit of deaths is reached


@dataclass(frozen=True, slots=True)
class TrialStanding:
    """The state of a bisect after the rounds so far. Jobs are named by id."""

    stage: Stage
    suspects: tuple[int, ...]
    on_trial: tuple[int, ...] = ()  # the jobs of the last round
    waiting: tuple[int, ...] = ()  # jobs on trial that have not ended yet
    died: tuple[int, ...] = ()  # jobs on trial whose process died
    deaths: int = 0  # rounds in which a process died
    operation_id: int | None = None  # the operation of the last round
    untried: tuple[int, ...] = ()  # of a bisect that cleared all: jobs that are still failed, and never ran on trial


@dataclass(frozen=True, slots=True)
class Round:
    """One round as recorded: the suspects before it, and the fates of the jobs that it put on trial."""

    suspects: tuple[int, ...]
    deaths: int  # earlier rounds in which a process died
    fates: Mapping[int, Fate]
    operation_id: int | None = None


def most_deaths(count: int) -> int:
    """Return the most deaths that halving needs to find one killer among ``count`` jobs."""
    return max(1, ceil(log2(count))) if count else 0


def judge_round(last: Round, limit: int) -> TrialStanding:
    """Return the standing after a round; ``limit`` is the most deaths allowed.

    If jobs on trial died, they are the suspects that are left. If none did, all jobs of this half are cleared, also
    those that could not be put on trial because policy forbids it or they are not failed any more.
    """
    waiting = tuple(job for job, fate in last.fates.items() if fate is Fate.WAITING)
    died = tuple(job for job, fate in last.fates.items() if fate is Fate.DIED)
    deaths = last.deaths + bool(died)
    chosen = _half(last.suspects)
    left = died or tuple(job for job in last.suspects if job not in chosen)
    if waiting:
        stage, left = Stage.TRYING, last.suspects
    elif len(died) == 1:
        stage = Stage.FOUND
    elif not left:
        stage = Stage.CLEARED
    else:
        stage = Stage.CAPPED if deaths >= limit else Stage.READY
    return TrialStanding(stage, left, tuple(last.fates), waiting, died, deaths, last.operation_id)


def _half(suspects: tuple[int, ...]) -> tuple[int, ...]:
    return suspects[: max(1, len(suspects) // 2)]


def bisect(
    database: Database,
    incident: str,
    job_ids: Collection[int],
    *,
    quarantine: str,
    new_operation: Callable[[Mapping[str, object]], ledger_operations.Operation],
    policy: Policy = BUILT_IN,
    limit: int | None = None,
    threshold: float = ALIVE_THRESHOLD,
    patience: float = 600.0,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[TrialStanding]:
    """Run round after round; yield the standing when a round has started and when it has ended, the outcome last.

    The jobs go to the queue ``quarantine`` only. A worker of that queue must run them, and its supervisor or a prune
    must notice its death. No round starts while a worker of other queues takes jobs of that queue too: it would die. A
    worker lives while its heartbeat is younger than ``threshold`` seconds. ``limit`` is the most deaths to cause, by
    default ``most_deaths``. If a round has not ended after ``patience`` seconds, the last standing yielded is at stage
    TRYING; the next run continues that round.

    Raises RefusedError if there are more than ``MOST_ON_TRIAL`` jobs, none of a round may run, or a worker of other
    queues would die, and LedgerMissingError without ``jq_`` tables.
    """

    def read_now() -> TrialStanding:
        return read_standing(database, incident, job_ids, limit=limit)

    while True:
        now = read_now()
        if now.stage is Stage.READY:
            with database.read() as connection:
                refuse_shared_workers(read_attendance(connection, threshold), quarantine, now)
            _put_on_trial(database, incident, now, quarantine, new_operation, policy)
            now = read_now()
        yield now
        if now.stage is not Stage.TRYING:
            return
        deadline = time.monotonic() + patience
        while (now := read_now()).waiting and time.monotonic() < deadline:
            sleep(POLL)
        if now.waiting:
            yield now
            return
        if now.stage is Stage.READY:
            yield now


def read_standing(
    database: Database, incident: str, job_ids: Collection[int], *, limit: int | None = None
) -> TrialStanding:
    """Return the state of a bisect of this incident's jobs, begun or not; ``limit`` as in ``bisect``.

    Raises RefusedError if there are more than ``MOST_ON_TRIAL`` jobs, and LedgerMissingError without ``jq_`` tables.
    """
    if len(job_ids) > MOST_ON_TRIAL:
        raise RefusedError(f"{len(job_ids):,} jobs are too many to bisect at once; the most is {MOST_ON_TRIAL:,}")
    with database.read() as connection:
        ledger_operations.require(connection)
        last = _last_round(connection, incident)
        if last is None:
            return _before_round_one(connection, job_ids)
        now = judge_round(last, most_deaths(len(job_ids)) if limit is None else limit)
        return replace(now, untried=_untried(connection, incident, job_ids)) if now.stage is Stage.CLEARED else now


def refuse_shared_workers(attendance: Attendance, quarantine: str, now: TrialStanding) -> None:
    """Raise RefusedError, which names them, if a killer in this queue would kill workers of other queues."""
    if endangered := attendance.endangered(quarantine):
        raise RefusedError(
            f"{count_of(len(endangered), 'worker')} of other queues would die by a killer in queue {quarantine}: "
            f"{describe(endangered)}; {attendance.with_doubt(endangered, how_to_spare(quarantine))}; {_done(now)}"
        )


def refuse_if_vain(attendance: Attendance, quarantine: str, now: TrialStanding) -> None:
    """Raise RefusedError if no job on trial would run: no living worker polls this queue, or it is paused."""
    queue = shlex.quote(quarantine)
    if not attendance.takers(quarantine):
        raise RefusedError(
            f"no living worker polls queue {quarantine}, so no job on trial would run; start one on a host where its "
            f"death hurts nobody: jq work --queues {queue} --threads 1; {_done(now)}"
        )
    if quarantine in attendance.paused:
        raise RefusedError(
            f"queue {quarantine} is paused, so no job on trial would run; first: jq queues resume {queue}; {_done(now)}"
        )


def _done(now: TrialStanding) -> str:
    if now.stage is Stage.TRYING:
        return f"to take the round under way back: jq undo {now.operation_id}"
    return "nothing was put on trial"


def _put_on_trial(
    database: Database,
    incident: str,
    now: TrialStanding,
    quarantine: str,
    new_operation: Callable[[Mapping[str, object]], ledger_operations.Operation],
    policy: Policy,
) -> None:
    operation = new_operation(
        {"incident": incident, "suspects": now.suspects, "deaths": now.deaths, "queue_as": quarantine}
    )
    half = _half(now.suspects)
    terms = RetryTerms(queue_as=quarantine, max_crashes=NO_CRASH_LIMIT)
    decisions = [
        decision
        for batch in retry(database, Selection(job_ids=half), operation, terms, policy=policy)
        for decision in batch
    ]
    if not any(decision.verdict.moves for decision in decisions):
        reason = decisions[0].reason if decisions else "none is failed any more"
        raise RefusedError(f"none of {count_of(len(half), 'job')} to try may run: {reason}")


def _before_round_one(connection: Connection, job_ids: Collection[int]) -> TrialStanding:
    still_failed = select(failed.c.job_id).where(among(failed.c.job_id, job_ids)).order_by(failed.c.job_id)
    suspects = tuple(connection.scalars(still_failed))
    return TrialStanding(Stage.READY if suspects else Stage.CLEARED, suspects)


def _last_round(connection: Connection, incident: str) -> Round | None:
    """Return the last round that was not undone, with the fates of its jobs as they are now; None without one."""
    columns = operations.c
    rows = connection.execute(
        select(columns.id, columns.filter)
        .where(columns.plan == incident, columns.verb == VERB)
        .order_by(columns.id.desc())
    ).all()
    for row in rows:
        on_trial = fates_of(row.id).where(failures.c.restored_by.is_(None)).order_by(failures.c.job_id)
        if fates := {job_id: Fate(fate) for job_id, fate, _ in connection.execute(on_trial)}:
            suspects, deaths = _recorded(row.id, row.filter)
            return Round(suspects, deaths, fates, row.id)
    return None


def _untried(connection: Connection, incident: str, job_ids: Collection[int]) -> tuple[int, ...]:
    """Return those of these jobs that are still failed although no round put them on trial: policy forbids it, say."""
    tried = (
        select(failures.c.job_id)
        .join(operations, operations.c.id == failures.c.operation_id)
        .where(operations.c.plan == incident, operations.c.verb == VERB, failures.c.restored_by.is_(None))
    )
    still_failed = select(failed.c.job_id).where(among(failed.c.job_id, job_ids)).order_by(failed.c.job_id)
    ran = set(connection.scalars(tried))
    return tuple(job_id for job_id in connection.scalars(still_failed) if job_id not in ran)


def _recorded(operation_id: int, chosen: str | None) -> tuple[tuple[int, ...], int]:
    """Return the suspects and the number of deaths that a round recorded. Raises RefusedError if they make no sense."""
    match read_object(chosen):
        case {"suspects": list(suspects), "deaths": int(deaths)} if all(type(job_id) is int for job_id in suspects):
            return tuple(suspects), deaths
    raise RefusedError(
        f"operation {operation_id}, the last round of this bisect, does not record its suspects in a form that makes "
        f"sense; to begin again, take it back: jq undo {operation_id}"
    )
