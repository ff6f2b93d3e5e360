"""Checks of jobs: in no state or in two states at once, orphaned claims, claims that last too long."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, insert, literal, select, union_all

from solidjq.database.among import among
from solidjq.database.deletions import delete_by_id
from solidjq.database.tables import claimed, failed, jobs
from solidjq.database.times import ago, utcnow
from solidjq.database.transactions import Database
from solidjq.doctor.checks import (
    MOST_NAMED,
    DoctorCheck,
    DoctorFinding,
    DoctorTerms,
    Severity,
    everywhere,
    fix_some,
    how_many,
)
from solidjq.errors import Stays
from solidjq.ledger import archive, operations
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.processes.heartbeat import list_processes
from solidjq.processes.samples import instant, sample_of
from solidjq.queue.attempts import Attempt
from solidjq.queue.executions import EXECUTIONS
from solidjq.queue.failure_counts import RecentFailures, count_recent
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from solidjq.text import count_of, its

NO_STATE = error_json(
    "SolidQueue::Processes::ProcessMissingError",
    "The job was in no state: not finished, and neither waiting nor running (found by jq doctor)",
)
STAYS_STATELESS = Stays("stays in no state", "stay in no state")
STAYS_TWICE = Stays("stays finished and failed", "stay finished and failed")


def _stateless() -> ColumnElement[bool]:
    return and_(
        jobs.c.finished_at.is_(None), *(~exists().where(table.c.job_id == jobs.c.id) for table in EXECUTIONS.values())
    )


def _all_in_a_state(connection: Connection) -> bool:
    """Whether as many jobs are unfinished as have an execution, which the database counts by indexes alone.

    A search for jobs without an execution reads every job, and most may have finished long ago. The two counts are
    equal all the same if as many jobs are finished and have an execution, which are findings of other checks.
    """
    unfinished = select(func.count()).select_from(jobs).where(jobs.c.finished_at.is_(None)).scalar_subquery()
    rows = [select(func.count()).select_from(table).scalar_subquery() for table in EXECUTIONS.values()]
    twice = [
        select(func.count()).select_from(one.join(other, other.c.job_id == one.c.job_id)).scalar_subquery()
        for one, other in combinations(EXECUTIONS.values(), 2)
    ]
    return bool(connection.scalar(select(unfinished == sum(rows, literal(0)) - sum(twice, literal(0)))))


def _find_stateless(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    if _all_in_a_state(connection):
        return
    ids = tuple(connection.scalars(select(jobs.c.id).where(_stateless()).limit(MOST_NAMED + 1)))
    if ids:
        yield DoctorFinding(
            f"{how_many(ids, 'job is', 'jobs are')} neither finished nor waiting, running or failed",
            "jq doctor no-state --fix makes them failed jobs; then jq failed show and jq retry",
            job_ids=ids[:MOST_NAMED],
            subjects=frozenset(ids),
        )


def _fail_stateless(database: Database, _terms: DoctorTerms, operation: Operation) -> Iterator[int]:
    return fix_some(database, operation, _fail_some_stateless, what="job", stays=STAYS_STATELESS)


def _fail_some_stateless(connection: Connection, operation: Operation, attempt: Attempt) -> list[int] | None:
    candidates = connection.scalars(attempt.of(select(jobs.c.id).where(_stateless()), jobs.c.id)).all()
    attempt.tried = candidates
    if not candidates:
        return None
    # A program that inserts a state for one of them must lock its row for the foreign key: it is left, or has to wait.
    lock = select(jobs.c.id).where(among(jobs.c.id, candidates)).order_by(jobs.c.id)
    locked = connection.scalars(lock.with_for_update(skip_locked=True)).all()
    stateless = select(jobs.c.id).where(among(jobs.c.id, locked), _stateless()).order_by(jobs.c.id)
    ids = list(connection.scalars(stateless))

    def fail(part: Sequence[int]) -> list[int]:
        rows = select(jobs.c.id, literal(NO_STATE), utcnow()).where(among(jobs.c.id, part)).order_by(jobs.c.id)
        connection.execute(insert(failed).from_select(["job_id", "error", "created_at"], rows))
        return list(part)

    done = attempt.act(connection, {number: number for number in ids}, fail)
    if done:
        operation.record_if_possible(connection, len(done))
    return done


def _finished_and(*states: State) -> list[Select[tuple[int, str]]]:
    """Look each execution's job up by its id: joined, PostgreSQL may read all jobs that have finished."""
    queries = []
    for state in states:
        job_id = EXECUTIONS[state].c.job_id
        finished_at = select(jobs.c.finished_at).where(jobs.c.id == job_id).scalar_subquery()
        queries.append(select(job_id, literal(f"finished and {state.value}")).where(finished_at.is_not(None)))
    return queries


def _find_two(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Query each pair of states by itself: the database then starts from the smaller of the two tables."""
    pairs = [
        select(one.c.job_id, literal(f"{state.value} and {other_state.value}")).join(
            other, other.c.job_id == one.c.job_id
        )
        for (state, one), (other_state, other) in combinations(EXECUTIONS.items(), 2)
    ]
    every = [*pairs, *_finished_and(*(state for state in State if state not in {State.FINISHED, State.FAILED}))]
    ids_of: dict[str, list[int]] = {}
    for job_id, states in connection.execute(union_all(*every).limit(MOST_NAMED + 1)):
        ids_of.setdefault(states, []).append(job_id)
    for states, ids in sorted(ids_of.items()):
        yield DoctorFinding(
            f"{how_many(ids, 'job is', 'jobs are')} {states} at once",
            f"find out which state is right: jq jobs show {_some(ids)}; then delete the row of the wrong one",
            job_ids=tuple(ids[:MOST_NAMED]),
            subjects=frozenset((states, job_id) for job_id in ids),
        )


def _find_finished_failed(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    (query,) = _finished_and(State.FAILED)
    ids = tuple(row.job_id for row in connection.execute(query.order_by(failed.c.job_id).limit(MOST_NAMED + 1)))
    if ids:
        yield DoctorFinding(
            f"{how_many(ids, 'job has', 'jobs have')} finished and failed; a retry would repeat work that is done",
            "jq doctor finished-and-failed --fix moves the failures into jq's record (jq history)",
            job_ids=ids[:MOST_NAMED],
            subjects=frozenset(ids),
        )


def _archive_finished(database: Database, _terms: DoctorTerms, operation: Operation) -> Iterator[int]:
    return fix_some(database, operation, _archive_some_finished, what="failure", stays=STAYS_TWICE)


def _archive_some_finished(connection: Connection, operation: Operation, attempt: Attempt) -> list[int] | None:
    operations.require(connection)
    query = select(failed.c.id, failed.c.job_id).join(jobs, jobs.c.id == failed.c.job_id)
    locked = attempt.of(query.where(jobs.c.finished_at.is_not(None)), failed.c.id).with_for_update(skip_locked=True)
    job_of: dict[int, int] = dict(connection.execute(locked).all())
    attempt.tried = list(job_of)
    before = operation.id

    def archive_part(part: Sequence[int]) -> list[int]:
        archive.archive(connection, part, operation.record(connection, len(part)))
        connection.execute(delete_by_id(failed, part))
        return list(part)

    done = attempt.act(connection, job_of, archive_part)
    if not done:
        operation.revert(before)
    return done if job_of else None


def _find_orphans(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    ids = tuple(pruning.find_orphans(connection))
    if ids:
        yield DoctorFinding(
            f"{len(ids):,} {'job is' if len(ids) == 1 else 'jobs are'} claimed by processes that are not registered",
            "jq prune, or jq doctor orphans --fix; then jq retry --safe",
            job_ids=ids,
            subjects=frozenset(ids),
        )


def _fail_orphans(database: Database, terms: DoctorTerms, operation: Operation) -> Iterator[int]:
    return map(len, pruning.fail_orphans(database, limits=terms.limits, record=operation.record_if_possible))


def _find_long(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    alive = {p.id: p for p in list_processes(connection) if p.is_alive(terms.threshold)}
    claims = connection.execute(
        select(claimed.c.job_id, claimed.c.process_id, claimed.c.created_at)
        .where(claimed.c.created_at <= ago(terms.long), claimed.c.process_id.is_not(None))
        .order_by(claimed.c.job_id)
        .limit(MOST_NAMED + 1)
    ).all()
    running: list[int] = []
    lost: list[int] = []
    for row in claims:
        if process := alive.get(row.process_id):
            sample = sample_of(process.metadata)
            at, runs = instant(sample.get("at")), sample.get("jobs", [])
            complete = at is not None and at > row.created_at and "more_jobs" not in sample and isinstance(runs, list)
            listed = not complete or any(isinstance(job, dict) and job.get("id") == row.job_id for job in runs)
            (running if listed else lost).append(row.job_id)
    if lost:
        yield DoctorFinding(
            f"{how_many(lost, 'job is', 'jobs are')} claimed by live workers that, by their own samples, do not run "
            "them",
            "restart these workers (jq processes list): a worker that stops releases its claims",
            job_ids=tuple(lost[:MOST_NAMED]),
            subjects=frozenset(lost),
        )
    if running:
        yield DoctorFinding(
            f"{how_many(running, 'job is', 'jobs are')} held by a live worker for longer than {terms.long:g} s",
            f"check whether they still make progress: jq jobs show {_some(running)}; if such jobs are usual: --long 1d",
            Severity.WARNING,
            tuple(running[:MOST_NAMED]),
            frozenset(running),
        )


def _find_died(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    failures = count_recent(connection, None)
    if failures.died:
        died = f"{_counted(failures.died, failures)} died with {its(failures.died)} process"
        yield DoctorFinding(
            f"{died} and {'waits' if failures.died == 1 else 'wait'} for a decision",
            "jq incidents list says why; jq retry --safe --dry-run shows which may go back to work",
        )


def _find_failed(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    failures = count_recent(connection, None)
    if failures.errors:
        yield DoctorFinding(
            f"{_counted(failures.errors, failures)} failed with an error of {its(failures.errors)} own",
            "jq failed diff shows how many problems they are; jq retry, or jq discard",
            Severity.WARNING,
        )


def _counted(count: int, failures: RecentFailures) -> str:
    return count_of(count, "job") if failures.complete else f"{count:,} of the newest {failures.failed:,} failed jobs"


def _some(ids: list[int]) -> str:
    return " ".join(map(str, ids[:3])) + (" ..." if len(ids) > 3 else "")  # noqa: PLR2004


CHECKS = (
    DoctorCheck(
        name="no-state",
        asks="Jobs that are neither finished nor waiting, running or failed.",
        why="No worker will ever claim such a job, and no list of Solid Queue shows it. It remains when execution rows "
        "are deleted.",
        advice="Make them failed jobs (--fix), inspect them (jq failed show), retry those that may run (jq retry).",
        finds=everywhere(_find_stateless),
        again=True,
        fix=_fail_stateless,
        fixes="makes them failed jobs, which runs none of them",
    ),
    DoctorCheck(
        name="two-states",
        asks="Jobs in two states at once: ready and claimed, finished and scheduled, and so on.",
        why="Such a job may run twice, or run although it is done.",
        advice="Find out which state is right (jq jobs show, jq history) and delete the row of the wrong one.",
        finds=everywhere(_find_two),
        again=True,
    ),
    DoctorCheck(
        name="finished-and-failed",
        asks="Jobs that have finished and also have a failure.",
        why="The job is done: its process was pruned as dead while it went on working. A retry would repeat the work.",
        advice="Move the failure out of the queue into jq's record (jq history).",
        finds=everywhere(_find_finished_failed),
        again=True,
        fix=_archive_finished,
        fixes="moves the failures into jq's record; the jobs stay finished",
    ),
    DoctorCheck(
        name="orphans",
        by_clock=True,
        asks="Jobs claimed by processes that are not registered, or no longer.",
        why="Nobody will end these claims: Solid Queue looks for them only when a supervisor boots.",
        advice="jq prune fails them with ProcessMissingError, as Solid Queue would; then jq retry --safe.",
        finds=everywhere(_find_orphans),
        again=True,
        fix=_fail_orphans,
        fixes="fails them with ProcessMissingError, as jq prune does",
    ),
    DoctorCheck(
        name="died-jobs",
        asks="Failed jobs that died with their process.",
        why="Solid Queue retries none of them, and one of them may be what killed the process.",
        advice="Find out why (jq incidents list, jq suspects), then put the safe ones back (jq retry --safe).",
        finds=everywhere(_find_died),
    ),
    DoctorCheck(
        name="failed-jobs",
        asks="Jobs that failed with an error of their own.",
        why="Nothing retries such a job any more: retry_on has given up, or there was none.",
        advice="See which problems they are (jq failed diff), then retry or discard them.",
        finds=everywhere(_find_failed),
    ),
    DoctorCheck(
        name="long-claims",
        by_clock=True,
        asks="Jobs that a live worker has held for longer than --long, running or not.",
        why="The job hangs, or its ending was lost, which a busy SQLite database can cause: then the claim lasts as "
        "long as the worker.",
        advice="Inspect the worker (py-spy, rbspy) and restart it; if such jobs are usual, give a longer --long.",
        finds=everywhere(_find_long),
        again=True,
    ),
)
