"""Rests between the batches of what moves many jobs, while workers claim some."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from solidjq import Database
from solidjq.database.tables import claimed
from solidjq.ledger.operations import Operation
from solidjq.queue.claim import ALL_QUEUES, claim
from solidjq.queue.endings import finish_claims
from solidjq.queue.listing import JobFilter
from solidjq.queue.waiting import WAITING
from solidjq.recovery import apply, plans, retry, undo, waiting
from solidjq.recovery.rests import LONGEST, Rests, rest_after
from solidjq.recovery.terms import DEFAULT_TERMS, Selection
from solidjq.recovery.waiting import WaitingTerms, WaitingVerb
from support.deaths import die
from support.processes import add_process
from support.program import Shell
from support.queue import add_jobs, plain_jobs, rows

Batches: TypeAlias = Iterator[list[Any]]

TOOK = 2.0  # seconds of each move, by the test's clock


class Mover:
    """Makes moves that take TOOK seconds by a clock that nothing else moves."""

    def __init__(self, database: Database, *, fast: bool = False) -> None:
        self.now = 100.0
        self._slept: list[float] = []
        self._rests = Rests(database, fast=fast, sleep=self._slept.append, clock=lambda: self.now)

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
    assert rest_after(2.0, 0.0) == 2.0
    assert rest_after(2.0, 0.5) == 1.5  # what was done since, such as printing, counts
    assert rest_after(2.0, 3.0) == 0.0
    assert rest_after(60.0, 1.0) == LONGEST - 1.0  # it waited for a lock


def test_moves_rest_while_jobs_are_claimed(database: Database) -> None:
    add_jobs(database, *plain_jobs(4))
    worker = add_process(database)
    mover = Mover(database)
    assert mover.moves(2) == []
    first = claim_one(database, worker)
    assert mover.moves(2) == [TOOK]  # the first of the two sees the claim, the second rests
    assert mover.moves(2) == []  # the job runs for long, and nobody claims another
    second = claim_one(database, worker)
    database.transact(finish_claims, worker, first)
    assert mover.moves(2) == [TOOK]
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
    assert mover.moves(2) == [TOOK]


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

    def move_waiting(self, *, fast: bool) -> Batches:
        terms = move_to("elsewhere")
        operation = Operation(terms.verb.recorded)
        return waiting.move_waiting(self._database, self._waiting, terms, operation, fast=fast)

    def apply_waiting(self, *, fast: bool) -> Batches:
        terms = move_to("somewhere")
        plan = self._plan(waiting.plan_waiting(self._database, self._waiting, terms), terms)
        return apply.apply_waiting(self._database, plan, terms, Operation(plan.verb, plan=plan.id), fast=fast)

    def retry(self, *, fast: bool) -> Batches:
        die(self._database)
        self._retried = Operation("retry")
        return retry.retry(self._database, Selection(job_ids=self._ids, fast=fast), self._retried)

    def undo(self, *, fast: bool) -> Batches:
        return undo.undo(self._database, self._retried.id or 0, Operation("undo"), fast=fast)

    def apply_plan(self, *, fast: bool) -> Batches:
        planned = retry.plan(self._database, Selection(job_ids=self._ids), DEFAULT_TERMS)
        plan = self._plan(planned, DEFAULT_TERMS)
        return apply.apply_plan(self._database, plan, Operation("retry", plan=plan.id), fast=fast)

    def _plan(self, planned: Batches, terms: Any) -> plans.Plan:
        plans.write(self._file, self._database.identity(), terms, chain.from_iterable(planned))
        plan = plans.read(self._file)
        self._file.unlink()
        return plan


def test_every_verb_that_moves_many_jobs_rests(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[bool] = []

    class Noted(Rests):
        def __init__(self, database: Database, *, fast: bool = False) -> None:
            made.append(fast)
            super().__init__(database, fast=fast)

        def transact(self, *args: Any, **kwargs: Any) -> Any:
            made.append(self._fast)
            return super().transact(*args, **kwargs)

    for module in (retry, apply, undo, waiting):
        monkeypatch.setattr(module, "Rests", Noted)
    verbs = Verbs(database, tmp_path / "plan")
    for fast in (False, True):
        for verb in (verbs.move_waiting, verbs.apply_waiting, verbs.retry, verbs.undo, verbs.apply_plan):
            assert len(list(chain.from_iterable(verb(fast=fast)))) == 2, verb
            assert made[:2] == [fast, fast], verb  # once made, and at least one move
            made.clear()


def test_nobody_rests_after_the_last_batch(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[object] = []

    class Counted(Rests):
        def transact(self, *args: Any, **kwargs: Any) -> Any:
            moves.append(args)
            return super().transact(*args, **kwargs)

    for module in (retry, undo):
        monkeypatch.setattr(module, "Rests", Counted)
    add_jobs(database, *plain_jobs(3))
    die(database)
    retried = Operation("retry")
    assert len(list(retry.retry(database, Selection(batch=1), retried))) == len(moves) == 3
    moves.clear()
    assert len(list(undo.undo(database, retried.id or 0, Operation("undo")))) == len(moves) == 1


@pytest.mark.parametrize("command", ["retry --safe --yes", "discard --died --yes", "recover"])
def test_it_is_switched_off_on_the_command_line(command: str, database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(1))
    die(database)
    done = shell.run(*command.split(), "--fast")
    assert done.returncode == 0, done.stderr
