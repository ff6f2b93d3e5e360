"""What became of a canary's jobs: a death is seen, whenever it comes and whatever was done about it since."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from solidjq import Database
from solidjq.database.tables import claimed, failed
from solidjq.ledger.operations import Operation
from solidjq.queue import endings
from solidjq.recovery.canary import Outcome, watch
from support.deaths import ALL, die
from support.processes import add_process
from support.queue import add_jobs, claim_all, plain_jobs
from support.recovery import retry_jobs, undo


@pytest.fixture
def canary(database: Database) -> Operation:
    """Return a retry of two jobs, which wait."""
    add_jobs(database, *plain_jobs(2))
    die(database)
    operation = Operation("retry")
    retry_jobs(database, selection=ALL, operation=operation)
    return operation


def outcome(database: Database, operation: Operation) -> Outcome:
    assert operation.id is not None
    return watch(database, operation.id, patience=0)


@contextmanager
def after_the_first_look_at_failures(act: Callable[[], object]) -> Iterator[None]:
    """Do this once, as soon as a statement that reads the failures has run."""
    acts = [act]

    def hook(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if failed.name in statement and acts:
            acts.pop()()

    event.listen(Engine, "after_cursor_execute", hook)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", hook)


def test_jobs_wait_then_die(database: Database, canary: Operation) -> None:
    assert outcome(database, canary) == Outcome(waiting=2)
    die(database)
    assert outcome(database, canary) == Outcome(died=2)


def test_a_death_during_a_look_is_no_error_of_the_jobs_own(database: Database, canary: Operation) -> None:
    dead: list[int] = []
    with after_the_first_look_at_failures(lambda: dead.extend(die(database))):
        assert not outcome(database, canary).safe
    assert (len(dead), outcome(database, canary)) == (2, Outcome(died=2))


@pytest.mark.parametrize("verb", ["recover", "discard"])
def test_a_job_that_died_and_was_moved_by_another_did_die(database: Database, canary: Operation, verb: str) -> None:
    die(database)
    retry_jobs(database, selection=ALL, operation=Operation(verb), discard=verb == "discard")
    assert outcome(database, canary) == Outcome(died=2)
    claim_all(database, add_process(database))
    database.transact(endings.finish, claimed.c.id > 0)
    assert outcome(database, canary) == Outcome(died=2)


def test_a_canary_that_was_taken_back_is_not_safe(database: Database, canary: Operation) -> None:
    undo(database, canary)
    assert not outcome(database, canary).safe
