"""Several programs at once, with real connections: every job moves once."""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from solidjq import Database
from solidjq.database.tables import crashes, failures, jobs
from solidjq.errors import ProcessGoneError, RefusedError
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat, pruning
from solidjq.queue import claim as queue_claim
from solidjq.queue import discard as queue_discard
from solidjq.queue import dispatch as queue_dispatch
from solidjq.queue import endings
from solidjq.queue.patterns import PolledQueues
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from solidjq.recovery import plans
from solidjq.recovery import undo as recovery_undo
from solidjq.recovery.apply import apply_plan
from solidjq.recovery.retry import plan as planned
from solidjq.recovery.terms import RetryTerms
from support.deaths import ALL, die
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each, take_turn
from support.races import at_once
from support.recovery import retry_jobs

JOBS = 120
PROGRAMS = 4


def drain(process: int) -> Callable[[Database], list[int]]:
    """Claim and finish a few at a time until nothing is left."""

    def run(database: Database) -> list[int]:
        done: list[int] = []
        while claims := database.transact(queue_claim.claim, process, queue_claim.ALL_QUEUES, 5):
            done += database.transact(endings.finish, endings.claims_of(process, [claim.id for claim in claims]))
        return done

    return run


def test_each_job_is_claimed_by_one_worker(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(JOBS))
    workers = [add_process(database, f"worker-{number}") for number in range(PROGRAMS)]
    done = at_once(database, *(drain(worker) for worker in workers))
    assert Counter(job_id for each in done for job_id in each) == Counter(ids)
    assert set(state_of_each(database).values()) == {State.FINISHED}


@pytest.mark.parametrize(
    "polled",
    [PolledQueues(("*",)), PolledQueues(("default", "low")), PolledQueues(("def*",)), PolledQueues(("*",), ("low",))],
    ids=PolledQueues.describe,
)
def test_each_job_runs_once_where_workers_take_turns(database: Database, polled: PolledQueues) -> None:
    ids = add_jobs(database, *plain_jobs(JOBS))
    workers = [add_process(database, f"worker-{number}") for number in range(PROGRAMS)]

    def run(own: Database, process: int) -> list[int]:
        done: list[int] = []
        claims: list[queue_claim.Claim] = []
        while claims := take_turn(own, process, claims, polled.patterns, 5, polled.excepted):
            done += [claim.job_id for claim in claims]
        return done

    done = at_once(database, *(partial(run, process=worker) for worker in workers))
    assert Counter(job_id for each in done for job_id in each) == Counter(ids)
    assert set(state_of_each(database).values()) == {State.FINISHED}


@pytest.mark.parametrize("queues", [("*",), ("default",)], ids=",".join)
@pytest.mark.parametrize("round_", range(3))
def test_a_prune_against_a_turn_of_the_worker_it_prunes(database: Database, queues: tuple[str], round_: int) -> None:
    """Whoever is first, no job ends twice, and the pruned worker is left with no claim."""
    ids = add_jobs(database, *plain_jobs(JOBS))
    frozen = add_process(database, "frozen")
    held = claim_all(database, frozen, JOBS // 2)
    silence(database, frozen, 1000)

    def wake(own: Database) -> None:
        with suppress(ProcessGoneError):
            take_turn(own, frozen, held[: JOBS // 4], queues, 10)
            take_turn(own, frozen, held[JOBS // 4 :], queues, 10)

    _, pruned = at_once(database, wake, lambda own: list(pruning.prune(own, 300)))
    pruned = pruned or list(pruning.prune(database, 300))  # it passes over a process that claims at this very moment
    assert len(pruned) == 1
    found = Counter(state_of_each(database).values())
    assert found[State.CLAIMED] == 0
    assert found[State.FAILED] == len(pruned[0].job_ids)
    assert found.total() == len(ids)


def test_each_due_job_is_dispatched_once(database: Database) -> None:
    from solidjq.database.tables import scheduled
    from solidjq.database.times import ago

    ids = add_jobs(database, *plain_jobs(JOBS, delay=3600))
    with database.write() as connection:
        connection.execute(update(scheduled).values(scheduled_at=ago(1)))

    def dispatch(own: Database) -> list[int]:
        moved: list[int] = []
        while batch := own.transact(queue_dispatch.dispatch, 7):
            moved += batch
        return moved

    moved = at_once(database, *[dispatch] * PROGRAMS)
    assert Counter(job_id for each in moved for job_id in each) == Counter(ids)
    assert set(state_of_each(database).values()) == {State.READY}


def test_each_dead_process_is_pruned_once(database: Database) -> None:
    add_jobs(database, *plain_jobs(JOBS))
    dead = [add_process(database, f"dead-{number}") for number in range(12)]
    for process in dead:
        claim_all(database, process, JOBS // len(dead))
        silence(database, process, 1000)
    pruned = at_once(database, *[lambda own: list(pruning.prune(own, 300))] * PROGRAMS)
    assert Counter(process.process_id for each in pruned for process in each) == Counter(dead)
    assert sum(len(process.job_ids) for each in pruned for process in each) == JOBS
    assert set(state_of_each(database).values()) == {State.FAILED}


@pytest.mark.parametrize("round_", range(3))
def test_a_prune_against_the_worker_it_prunes(database: Database, round_: int) -> None:
    """The worker wakes while it is pruned: whatever it still does, each job ends once and none is left claimed."""
    ids = add_jobs(database, *plain_jobs(JOBS))
    frozen = add_process(database, "frozen")
    held = claim_all(database, frozen, JOBS // 2)
    silence(database, frozen, 1000)

    def wake(own: Database) -> int:
        ended = 0
        for claim in held:
            ended += len(own.transact(endings.finish, endings.claims_of(frozen, [claim.id])))
        try:
            own.transact(queue_claim.claim, frozen, queue_claim.ALL_QUEUES, 10)
        except Exception:  # noqa: BLE001  (pruned: that it may not claim is asserted through the states)
            return ended
        return ended

    finished, pruned = at_once(database, wake, lambda own: list(pruning.prune(own, 300)))
    pruned = pruned or list(pruning.prune(database, 300))  # it passes over a process that claims at this very moment
    assert len(pruned) == 1
    found = Counter(state_of_each(database).values())
    assert found[State.FINISHED] == finished
    assert found[State.FAILED] == len(pruned[0].job_ids)
    assert found[State.CLAIMED] == 0
    assert found.total() == len(ids)


def test_each_failed_job_is_retried_once(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(JOBS))
    process = add_process(database)
    claim_all(database, process)
    database.transact(endings.fail, endings.claims_of(process), error_json("E", "boom"))
    retried = at_once(database, *[lambda own: retry_jobs(own, ids).job_ids] * PROGRAMS)
    assert Counter(job_id for each in retried for job_id in each) == Counter(ids)
    assert len(rows(database, failures)) == JOBS
    assert set(state_of_each(database).values()) == {State.READY}


def test_retry_against_discard(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(JOBS))
    process = add_process(database)
    claim_all(database, process)
    database.transact(endings.fail, endings.claims_of(process), error_json("E", "boom"))

    def discard(own: Database) -> list[int]:
        return [job_id for each in ids for job_id in own.transact(queue_discard.discard, [each])]

    def retry(own: Database) -> list[int]:
        return [job_id for each in ids for job_id in retry_jobs(own, [each]).job_ids]

    discarded, retried = at_once(database, discard, retry)
    left = state_of_each(database)
    assert set(left) == set(ids) - set(discarded)
    assert set(left.values()) <= {State.READY}
    assert set(left) <= set(retried)


def test_deregistering_against_a_prune(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(JOBS))
    leaving = add_process(database, "leaving")
    claim_all(database, leaving)
    silence(database, leaving, 1000)
    released, pruned = at_once(
        database,
        lambda own: own.transact(heartbeat.deregister, leaving),
        lambda own: [job_id for process in pruning.prune(own, 300) for job_id in process.job_ids],
    )
    assert sorted(released + pruned) == ids
    found = Counter(state_of_each(database).values())
    assert (found[State.READY], found[State.FAILED]) == (len(released), len(pruned))


def test_limited_jobs_never_run_beyond_their_limit(database: Database) -> None:
    from solidjq import NewJob
    from solidjq.queue.concurrency import Limit

    limit = Limit(2)
    known = {"L": limit}
    add_jobs(database, *(NewJob(class_name="L", concurrency_key="L/k", limit=limit) for _ in range(30)))
    running: set[int] = set()
    lock = threading.Lock()
    most = 0

    def work(process: int) -> Callable[[Database], int]:
        def run(own: Database) -> int:
            nonlocal most
            done = 0
            while claims := own.transact(queue_claim.claim, process, queue_claim.ALL_QUEUES, 1):
                with lock:
                    running.update(claim.id for claim in claims)
                    most = max(most, len(running))
                with lock:
                    running.difference_update(claim.id for claim in claims)
                own.transact(endings.finish, endings.claims_of(process, [claim.id for claim in claims]), known)
                done += len(claims)
            return done

        return run

    workers = [add_process(database, f"worker-{number}") for number in range(PROGRAMS)]
    at_once(database, *(work(worker) for worker in workers))
    # A worker that found nothing stopped while others still held slots: the rest is for one alone.
    work(workers[0])(database)
    assert most <= 2
    assert set(state_of_each(database).values()) == {State.FINISHED}


def test_two_safe_retries_at_once_move_each_job_once_and_count_each_crash_once(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(JOBS))
    die(database)
    with database.write() as connection:  # as in a database where only Rails has pruned so far
        connection.execute(crashes.delete())
    retried = at_once(
        database, *[lambda own: retry_jobs(own, selection=replace(ALL, batch=7), safe=True).job_ids] * PROGRAMS
    )
    assert Counter(job_id for each in retried for job_id in each) == Counter(ids)
    assert len(rows(database, failures)) == len(rows(database, crashes)) == JOBS
    assert set(state_of_each(database).values()) == {State.READY}


def test_an_undo_against_the_workers(database: Database) -> None:
    """A job is taken back or claimed, never both."""
    ids = add_jobs(database, *plain_jobs(JOBS))
    die(database)
    operation = Operation("retry")
    retry_jobs(database, selection=ALL, operation=operation)
    worker = add_process(database, "awake")

    def undo(own: Database) -> list[int]:
        batches = recovery_undo.undo(own, operation.id or 0, Operation("undo"))
        return [each.job_id for batch in batches for each in batch if each.restored]

    def claim(own: Database) -> list[int]:
        taken: list[int] = []
        while claims := own.transact(queue_claim.claim, worker, queue_claim.ALL_QUEUES, 3):
            taken += [claim.job_id for claim in claims]
        return taken

    first, second, claimed = at_once(database, undo, undo, claim)
    assert Counter(first + second + claimed) == Counter(ids)
    found = Counter(state_of_each(database).values())
    assert (found[State.FAILED], found[State.CLAIMED]) == (len(first + second), len(claimed))


def test_a_plan_applied_twice_at_once_moves_each_job_once(database: Database, tmp_path: Path) -> None:
    ids = add_jobs(database, *plain_jobs(JOBS))
    die(database)
    decisions = (each for batch in planned(database, ALL) for each in batch)
    plans.write(tmp_path / "plan", database.identity(), RetryTerms(), decisions)
    plan = plans.read(tmp_path / "plan")

    def apply(own: Database) -> list[int]:
        try:
            return [d.job_id for batch in apply_plan(own, plan, Operation("retry", plan=plan.id)) for d in batch]
        except RefusedError:  # the other one was first
            return []

    applied = at_once(database, apply, apply)
    assert Counter(job_id for each in applied for job_id in each) == Counter(ids)
    assert len(rows(database, failures)) == JOBS


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_deadlock_behind_a_savepoint_is_tried_again(database: Database) -> None:
    """MariaDB takes the savepoint away with the transaction, and then complains of that."""
    ids = add_jobs(database, *plain_jobs(2))
    both = threading.Barrier(2)

    def crosswise(first: int, second: int) -> Callable[[Database], None]:
        turns = iter([both.wait])

        def move(connection: Connection) -> None:
            connection.execute(update(jobs).where(jobs.c.id == first).values(priority=jobs.c.priority + 1))
            next(turns, int)()
            with connection.begin_nested():
                connection.execute(update(jobs).where(jobs.c.id == second).values(priority=jobs.c.priority + 1))

        return lambda own: own.transact(move)

    at_once(database, crosswise(*ids), crosswise(*reversed(ids)))
    assert [row["priority"] for row in rows(database, jobs)] == [2, 2]
