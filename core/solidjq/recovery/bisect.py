"""Find the killer among jobs that died together: run half of them in quarantine, see whether the process dies again.

Each round stands in the record of operations (verb ``bisect``, with the incident's name): who was suspected, and who
was put on trial. So a bisect that was interrupted goes on where it was, from whatever program.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from math import ceil, log2

from sqlalchemy import Connection, select

from solidjq.batching import BATCH
from solidjq.database.statements import among
from solidjq.database.tables import failed, failures, jobs, operations
from solidjq.database.transactions import Database
from solidjq.errors import RefusedError
from solidjq.ledger import operations as ledger_operations
from solidjq.queue.failed import is_death
from solidjq.recovery.retry import Selection, retry
from solidjq.recovery.verdicts import RetryTerms
from solidjq.settings.policy import BUILT_IN, Policy

VERB = "bisect"
POLL = 0.5  # seconds between two looks
MOST_ON_TRIAL = BATCH  # a round is put on trial in one transaction
ANY_NUMBER = 2**31 - 1  # of crashes: these jobs are tried because they crashed


class Stage(StrEnum):
    """Where a bisect stands."""

    READY = "ready"  # the next round can start
    TRYING = "trying"  # jobs on trial have not ended yet
    FOUND = "found"  # one job is left, and its process died when it ran again
    CLEARED = "cleared"  # all ran, and no process died
    CAPPED = "capped"  # as many deaths as were allowed


@dataclass(frozen=True, slots=True)
class TrialStanding:
    """What is known of the jobs (by job id) after the rounds so far."""

    stage: Stage
    suspects: tuple[int, ...]
    on_trial: tuple[int, ...] = ()  # of the last round
    waiting: tuple[int, ...] = ()  # of these, not ended yet
    died: tuple[int, ...] = ()  # of these, with their process
    deaths: int = 0  # rounds that ended in one
    operation_id: int | None = None  # of the last round


class Fate(Enum):
    """What became of a job on trial."""

    WAITING = auto()
    ENDED = auto()  # well, with an error of its own, or deleted
    DIED = auto()  # with its process


@dataclass(frozen=True, slots=True)
class Round:
    """The last round, as it is recorded: who was suspected before it, and what became of whom it put on trial."""

    suspects: tuple[int, ...]
    deaths: int  # rounds before it that ended in one
    fates: Mapping[int, Fate]
    operation_id: int | None = None


def most_deaths(count: int) -> int:
    """Return how many further deaths it takes at most to find one killer among ``count`` jobs by halves."""
    return max(1, ceil(log2(count))) if count else 0


def judge_round(last: Round, limit: int) -> TrialStanding:
    """Say how it stands after a round.

    If some died on trial the killer is among them. If none did, all on trial are cleared. A job that could not be put
    on trial (policy forbids it, or it is not failed any more) is suspected no longer.
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
    patience: float = 600.0,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[TrialStanding]:
    """Run round after round; yield how it stands when one has started and when it has ended, the outcome last.

    Jobs go to the queue ``quarantine`` and nowhere else. A worker there must run them, and its supervisor or a prune
    must notice its death. ``limit`` caps the further deaths; by default it is what halving takes. If a round has not
    ended after ``patience`` seconds the last thing yielded is at stage TRYING: the next run goes on with that round.

    Raises RefusedError if there are more than ``MOST_JOBS`` jobs, or policy lets none of them run; LedgerMissingError
    without ``jq_`` tables.
    """
    if len(job_ids) > MOST_ON_TRIAL:
        raise RefusedError(f"{len(job_ids)} jobs are too many to bisect at once; the most is {MOST_ON_TRIAL}")
    with database.read() as connection:
        ledger_operations.require(connection)
    allowed = most_deaths(len(job_ids)) if limit is None else limit

    def look() -> TrialStanding:
        with database.read() as connection:
            last = _last_round(connection, incident)
            return _first(connection, job_ids) if last is None else judge_round(last, allowed)

    while True:
        now = look()
        if now.stage is Stage.READY:
            _put_on_trial(database, incident, now, quarantine, new_operation, policy)
            now = look()
        yield now
        if now.stage is not Stage.TRYING:
            return
        deadline = time.monotonic() + patience
        while (now := look()).waiting and time.monotonic() < deadline:
            sleep(POLL)
        if now.waiting:
            yield now
            return
        if now.stage is Stage.READY:
            yield now


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
    terms = RetryTerms(queue_as=quarantine, max_crashes=ANY_NUMBER)
    decided = [
        decision
        for batch in retry(database, Selection(job_ids=half), operation, terms, policy=policy)
        for decision in batch
    ]
    if not any(decision.verdict.moves for decision in decided):
        why = decided[0].reason if decided else "none is failed any more"
        raise RefusedError(f"none of the {len(half)} jobs to try may run: {why}")


def _first(connection: Connection, job_ids: Collection[int]) -> TrialStanding:
    still_failed = select(failed.c.job_id).where(among(failed.c.job_id, job_ids)).order_by(failed.c.job_id)
    suspects = tuple(connection.scalars(still_failed))
    return TrialStanding(Stage.READY if suspects else Stage.CLEARED, suspects)


def _last_round(connection: Connection, incident: str) -> Round | None:
    """Read the last round that was not taken back altogether, with the fates of those on trial as they are now."""
    columns = operations.c
    rows = connection.execute(
        select(columns.id, columns.filter)
        .where(columns.plan == incident, columns.verb == VERB)
        .order_by(columns.id.desc())
    ).all()
    for row in rows:
        moved = select(failures.c.job_id).where(failures.c.operation_id == row.id, failures.c.restored_by.is_(None))
        if on_trial := connection.scalars(moved.order_by(failures.c.job_id)).all():
            told = json.loads(row.filter)
            return Round(tuple(told["suspects"]), told["deaths"], _fates(connection, on_trial), row.id)
    return None


def _fates(connection: Connection, job_ids: Sequence[int]) -> dict[int, Fate]:
    """Tell what became of jobs since their failures were archived: what is failed now has failed anew."""
    rows = connection.execute(
        select(jobs.c.id, jobs.c.finished_at, failed.c.id.label("failure_id"), is_death().label("died"))
        .join_from(jobs, failed, failed.c.job_id == jobs.c.id, isouter=True)
        .where(among(jobs.c.id, job_ids))
    )
    now = {row.id: row for row in rows}
    fates: dict[int, Fate] = {}
    for job_id in job_ids:
        row = now.get(job_id)
        if row is None or row.finished_at is not None:
            fates[job_id] = Fate.ENDED
        elif row.failure_id is None:
            fates[job_id] = Fate.WAITING
        else:
            fates[job_id] = Fate.DIED if row.died else Fate.ENDED
    return fates
