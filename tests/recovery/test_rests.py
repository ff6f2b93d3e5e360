"""Rests between the batches of what moves many jobs, while workers claim some."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from sqlalchemy import delete

from solidjq import Database
from solidjq.database.tables import claimed
from solidjq.ledger.operations import Operation
from solidjq.queue.claim import ALL_QUEUES, claim
from solidjq.queue.endings import finish_claims
from solidjq.queue.failed import Filter
from solidjq.queue.listing import JobFilter
from solidjq.queue.waiting import WAITING
from solidjq.recovery import apply, plans, retry, undo, waiting
from solidjq.recovery.rests import LONGEST, Rests, rest_after
from solidjq.recovery.terms import DEFAULT_TERMS, Selection
from solidjq.recovery.waiting import WaitingTerms, WaitingVerb
from solidjq_cli import moving
from support.deaths import die
from support.processes import add_process
from support.program import Shell
from support.queue import add_jobs, plain_jobs, rows
from support.servers import execute

Batches: TypeAlias = Iterator[list[Any]]

TOOK = 2.0  # seconds of each move, by the test's clock
REST = 4.0  # seconds after it


class Mover:
    """Makes moves that take TOOK seconds by a clock that nothing else moves."""

    def __init__(self, database: Database, *, fast: bool = False) -> None:
        self.now = 100.0
        self._slept: list[float] = []
        self.announced: list[list[float]] = []  # the rests before each announcement
        self._rests = Rests(
            database,
            fast=fast,
            begins=lambda: self.announced.append([*self._slept]),
            sleep=self._slept.append,
            clock=lambda: self.now,
        )

    def moves(self, count: int) -> list[float]:
        """Make so many moves; return the rests before them."""
        self._slept.clear()
        for _ in range(count):
            self._rests.transact(self._pass)
        return [*self._slept]

    def _pass(self, _connection: object) -> None:
        self.now += TOOK


def claim_one(database: Database, worker: int) -> dict[int, int]:
    (found,) = database.transact(claim, worker, ALL_QUEUES, 1)
    return {found.id: found.job_id}


def test_how_long_a_rest_lasts() -> None:
    assert rest_after(2.0, 0.0) == 4.0
    assert rest_after(2.0, 0.5) == 3.5  # what was done since, such as printing, counts
    assert rest_after(2.0, 5.0) == 0.0
    assert rest_after(60.0, 1.0) == LONGEST - 1.0  # it waited for a lock


def test_moves_rest_while_jobs_are_claimed(database: Database) -> None:
    add_jobs(database, *plain_jobs(4))
    worker = add_process(database)
    mover = Mover(database)
    assert mover.moves(2) == []
    first = claim_one(database, worker)
    assert mover.moves(2) == [REST]  # the first of the two sees the claim, the second rests
    assert mover.moves(2) == []  # the job runs for long, and nobody claims another
    second = claim_one(database, worker)
    database.transact(finish_claims, worker, first)
    assert mover.moves(2) == [REST]
    database.transact(finish_claims, worker, second | claim_one(database, worker))
    assert rows(database, claimed) == []
    assert mover.moves(2) == []


def test_who_works_already_is_seen_at_the_second_move(database: Database) -> None:
    add_jobs(database, *plain_jobs(2))
    worker = add_process(database)
    mover = Mover(database)
    claim_one(database, worker)
    assert mover.moves(1) == []
    claim_one(database, worker)
    assert mover.moves(2) == [REST]


def test_claims_of_a_dead_process_are_no_reason(database: Database) -> None:
    add_jobs(database, *plain_jobs(2))
    database.transact(claim, add_process(database), ALL_QUEUES, 2)
    assert Mover(database).moves(4) == []


def test_what_is_to_be_fast_does_not_rest(database: Database) -> None:
    add_jobs(database, *plain_jobs(2))
    worker = add_process(database)
    mover = Mover(database, fast=True)
    for _ in range(2):
        claim_one(database, worker)
        assert mover.moves(2) == []


def move_to(queue: str) -> WaitingTerms:
    return WaitingTerms(verb=WaitingVerb.MOVE, queue_name=queue)


class Verbs:
    """Each verb that moves many jobs, as a function that makes it move both jobs."""

    def __init__(self, database: Database, file: Path) -> None:
        self._database = database
        self._file = file
        self._ids = add_jobs(database, *plain_jobs(2))
        self._waiting = JobFilter(job_ids=self._ids, states=WAITING)

    def move_waiting(self, rests: Rests) -> Batches:
        terms = move_to("elsewhere")
        operation = Operation(terms.verb.recorded)
        return waiting.move_waiting(self._database, self._waiting, terms, operation, rests=rests)

    def apply_waiting(self, rests: Rests) -> Batches:
        terms = move_to("somewhere")
        plan = self._plan(waiting.plan_waiting(self._database, self._waiting, terms), terms)
        return apply.apply_waiting(self._database, plan, terms, Operation(plan.verb, plan=plan.id), rests=rests)

    def retry(self, rests: Rests) -> Batches:
        die(self._database)
        self._retried = Operation("retry")
        return retry.retry(self._database, Selection(job_ids=self._ids), self._retried, rests=rests)

    def undo(self, rests: Rests) -> Batches:
        return undo.undo(self._database, self._retried.id or 0, Operation("undo"), rests=rests)

    def apply_plan(self, rests: Rests) -> Batches:
        planned = retry.plan(self._database, Selection(job_ids=self._ids), DEFAULT_TERMS)
        plan = self._plan(planned, DEFAULT_TERMS)
        return apply.apply_plan(self._database, plan, Operation("retry", plan=plan.id), rests=rests)

    def _plan(self, planned: Batches, terms: Any) -> plans.Plan:
        plans.write(self._file, self._database.identity(), terms, chain.from_iterable(planned))
        plan = plans.read(self._file)
        self._file.unlink()
        return plan


class Counted(Rests):
    """Rests that count the moves between them."""

    moves = 0

    def transact(self, *args: Any, **kwargs: Any) -> Any:
        self.moves += 1
        return super().transact(*args, **kwargs)


def test_every_verb_that_moves_many_jobs_rests(database: Database, tmp_path: Path) -> None:
    verbs = Verbs(database, tmp_path / "plan")
    for fast in (False, True):
        for verb in (verbs.move_waiting, verbs.apply_waiting, verbs.retry, verbs.undo, verbs.apply_plan):
            rests = Counted(database, fast=fast)
            assert len(list(chain.from_iterable(verb(rests)))) == 2, verb
            assert rests.moves, verb


def test_nobody_rests_after_the_last_batch(database: Database) -> None:
    add_jobs(database, *plain_jobs(3))
    die(database)
    retried = Operation("retry")
    rests = Counted(database)
    assert len(list(retry.retry(database, Selection(batch=1), retried, rests=rests))) == rests.moves == 3
    rests = Counted(database)
    assert len(list(undo.undo(database, retried.id or 0, Operation("undo"), rests=rests))) == rests.moves == 1


def test_nobody_rests_after_the_last_match_of_a_filter(database: Database) -> None:
    add_jobs(database, *plain_jobs(3, queue_name="slow"), *plain_jobs(2, queue_name="other"))
    die(database)  # the newest failures are those of the other queue
    rests = Counted(database)
    chosen = Selection(chosen=Filter(queues=("slow",)), batch=2)
    assert len(list(retry.retry(database, chosen, Operation("retry"), rests=rests))) == rests.moves == 2


def test_the_first_rest_is_announced(database: Database) -> None:
    add_jobs(database, *plain_jobs(4))
    worker = add_process(database)
    mover = Mover(database)
    mover.moves(2)
    assert mover.announced == []
    for announced in ([[]], [[]]):
        claim_one(database, worker)
        mover.moves(2)
        assert mover.announced == announced, "once, and before the rest itself"


@pytest.mark.sqlite_only
def test_a_command_says_that_it_rests_once(database: Database, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(20))
    die(database)
    columns = "(job_id, process_id, created_at) VALUES (NEW.job_id, 1, CURRENT_TIMESTAMP)"
    execute(
        database.url,
        "CREATE TRIGGER claims AFTER INSERT ON solid_queue_ready_executions BEGIN "
        f"INSERT INTO solid_queue_claimed_executions {columns}; END",
    )
    said = "rests between batches, since workers are claiming jobs; --fast does not rest"
    for fast in ([], ["--fast"]):
        done = shell.run("retry", "--died", "--yes", "--batch", "1", *fast)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(said) == (not fast)
        assert f"retried {len(ids)} jobs" in done.stderr
        with database.write() as connection:
            connection.execute(delete(claimed))
        die(database)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("quiet", [False, True])
def test_a_quiet_command_does_not_say_it(
    database: Database, capsys: pytest.CaptureFixture[str], *, quiet: bool
) -> None:
    moves = 20  # a busy machine may let more time pass after some of them than they took
    add_jobs(database, *plain_jobs(moves))
    worker = add_process(database)
    rests = moving.rests(database, fast=False, quiet=quiet)
    for _ in range(moves):
        rests.transact(claim, worker, ALL_QUEUES, 1)
    assert capsys.readouterr().err.count("rests between batches") == (not quiet)


@pytest.mark.parametrize("command", ["retry --safe --yes", "discard --died --yes", "recover"])
def test_it_is_switched_off_on_the_command_line(command: str, database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(1))
    die(database)
    done = shell.run(*command.split(), "--fast")
    assert done.returncode == 0, done.stderr
