"""A claim ends once, whoever ends it: finish, fail, release."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from solidjq import Database
from solidjq.database.tables import claimed, failed, jobs, processes, ready
from solidjq.database.times import utcnow
from solidjq.errors import ProcessGoneError
from solidjq.queue import claim as queue_claim
from solidjq.queue import endings
from solidjq.queue.claim import Claim
from solidjq.queue.concurrency import NO_LIMITS
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json, parse_error
from solidjq.runtime import unrecorded
from solidjq.runtime.config import Config
from solidjq.runtime.worker import _exchange
from support.locks import sessions
from support.processes import add_process
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each, take_turn
from support.waiting import PATIENCE, until

ERROR = error_json("ValueError", "boom", ["app.py:1:in `work'"])


def finish(database: Database, process: int, claim_ids: list[int]) -> list[int]:
    return database.transact(endings.finish, endings.claims_of(process, claim_ids))


def fail(database: Database, process: int, claim_ids: list[int]) -> list[int]:
    return database.transact(endings.fail, endings.claims_of(process, claim_ids), ERROR)


def release(database: Database, process: int, claim_ids: list[int]) -> list[int]:
    return database.transact(endings.release, endings.claims_of(process, claim_ids))


Ending = Callable[[Database, int, list[int]], list[int]]
ENDINGS: list[tuple[Ending, State]] = [
    (finish, State.FINISHED),
    (fail, State.FAILED),
    (release, State.READY),
]


@pytest.mark.parametrize(("end", "state"), ENDINGS)
def test_an_ending_moves_the_job(database: Database, end: Ending, state: State) -> None:
    ended, held = add_jobs(database, *plain_jobs(2))
    process = add_process(database)
    first, _ = claim_all(database, process)
    assert end(database, process, [first.id]) == [ended]
    assert state_of_each(database) == {ended: state, held: State.CLAIMED}


@pytest.mark.parametrize(("first", "state"), ENDINGS)
@pytest.mark.parametrize(("second", "_"), ENDINGS)
def test_a_second_ending_does_nothing(
    database: Database, first: Ending, state: State, second: Ending, _: State
) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    process = add_process(database)
    (claim,) = claim_all(database, process)
    first(database, process, [claim.id])
    assert second(database, process, [claim.id]) == []
    assert state_of_each(database) == {job_id: state}


@pytest.mark.parametrize(("end", "_"), ENDINGS)
def test_an_old_claim_cannot_end_a_new_one_of_the_same_job(database: Database, end: Ending, _: State) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    frozen, other = add_process(database, "frozen"), add_process(database, "other")
    (old,) = claim_all(database, frozen)
    release(database, frozen, [old.id])
    (new,) = claim_all(database, other)
    assert new.id != old.id
    assert end(database, frozen, [old.id]) == []
    assert end(database, frozen, [new.id]) == []  # not its own
    assert state_of_each(database) == {job_id: State.CLAIMED}


def test_finish_sets_the_time_and_keeps_the_job(database: Database) -> None:
    add_jobs(database, *plain_jobs(1))
    before = rows(database, jobs)[0]
    process = add_process(database)
    (claim,) = claim_all(database, process)
    finish(database, process, [claim.id])
    after = rows(database, jobs)[0]
    assert after["finished_at"] == after["updated_at"] >= before["updated_at"]
    unchanged = before.keys() - {"finished_at", "updated_at"}
    assert {key: after[key] for key in unchanged} == {key: before[key] for key in unchanged}


def test_each_failure_gets_its_own_error(database: Database) -> None:
    one, two = add_jobs(database, *plain_jobs(2))
    process = add_process(database)
    claims = claim_all(database, process)
    errors = {claim.id: error_json("E", f"job {claim.job_id}") for claim in claims}
    assert database.transact(endings.fail, endings.claims_of(process), errors) == [one, two]
    messages = {row["job_id"]: parse_error(row["error"]).message for row in rows(database, failed)}
    assert messages == {one: f"job {one}", two: f"job {two}"}


def test_release_puts_the_job_back_where_it_was(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1, queue_name="mailers", priority=3))
    process = add_process(database)
    (claim,) = claim_all(database, process)
    release(database, process, [claim.id])
    (execution,) = rows(database, ready)
    assert (execution["job_id"], execution["queue_name"], execution["priority"]) == (job_id, "mailers", 3)


def test_a_worker_in_doubt_releases_its_own_claims_alone(database: Database) -> None:
    """Another worker's claims are none that the first one holds, but they are not the first one's to release."""
    kept, lost, running = add_jobs(database, *plain_jobs(3))
    doubtful, other = add_process(database, "doubtful"), add_process(database, "other")
    held, _ = claim_all(database, doubtful, 2)
    claim_all(database, other)
    assert database.transact(endings.release_others, doubtful, [held.id]) == [lost]
    assert state_of_each(database) == {kept: State.CLAIMED, lost: State.READY, running: State.CLAIMED}


def test_many_claims_end_together(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(2300))
    process = add_process(database)
    assert len(claim_all(database, process, 5000)) == 2300
    assert sorted(database.transact(endings.fail, endings.claims_of(process), ERROR)) == ids
    assert set(state_of_each(database).values()) == {State.FAILED}


@pytest.mark.parametrize("damage", ["finished", "failed"])
def test_a_job_that_ended_already_does_not_fail_a_second_time(database: Database, damage: str) -> None:
    """Some other program left the job claimed although it had ended it."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    process = add_process(database)
    claim_all(database, process)
    with database.write() as connection:
        if damage == "finished":
            connection.execute(update(jobs).values(finished_at=utcnow()))
        else:
            connection.execute(insert(failed).values(job_id=job_id, error="first", created_at=utcnow()))
    database.transact(endings.fail, endings.claims_of(process), ERROR)
    assert rows(database, claimed) == []
    expected: dict[str, Any] = {"finished": (State.FINISHED, []), "failed": (State.FAILED, ["first"])}
    state, errors = expected[damage]
    assert state_of_each(database) == {job_id: state}
    assert [row["error"] for row in rows(database, failed)] == errors


@pytest.mark.parametrize("other_process", [False, True])
def test_an_ending_of_a_lost_claim_leaves_the_claim_that_got_its_id(database: Database, *, other_process: bool) -> None:
    """After a failover that lost commits, the server gives the ids of lost claims to others."""
    ids = add_jobs(database, *plain_jobs(4))
    process, other = add_process(database), add_process(database, "other")
    lost = claim_all(database, process)
    held = {claim.id: claim.job_id for claim in lost}
    with database.write() as connection:
        owner = other if other_process else process
        connection.execute(delete(claimed))
        for claim_id, job_id in zip(held, ids if other_process else [*ids[1:], ids[0]], strict=True):
            row = {"id": claim_id, "job_id": job_id, "process_id": owner, "created_at": utcnow()}
            connection.execute(insert(claimed).values(row))
    for claim in lost:
        one = {claim.id: claim.job_id}
        assert database.transact(endings.finish_claims, process, one) == []
        assert database.transact(endings.fail, endings.claims_of(process, one), "{}") == []
        assert database.transact(endings.release, endings.claims_of(process, one)) == []
        queue_claim.exchange(database, process, one, ["*"], 1)
    assert set(state_of_each(database).values()) == {State.CLAIMED}


def turn_in_steps(database: Database, process: int, claims: Sequence[Claim], queues: Sequence[str], limit: int) -> None:
    """Take a worker's turn whose endings are not simple, or whose queues one statement cannot poll."""
    config = Config(database_url="", queues=tuple(queues))
    batch = [unrecorded.Ending(claim) for claim in claims]
    database.transact(_exchange, process, batch, NO_LIMITS, config, limit, sound=False)


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("turn_of", [take_turn, turn_in_steps])
@pytest.mark.parametrize("ended", [1, 2])
def test_a_turn_waits_for_a_prune_and_never_meets_it_in_a_deadlock(
    database: Database, ended: int, turn_of: Callable[..., Any]
) -> None:
    *held, waiting = add_jobs(database, *plain_jobs(3))
    process = add_process(database)
    claims = claim_all(database, process, 2)[:ended]
    own, answers = Database(database.url), []

    def turn() -> None:
        try:
            turn_of(own, process, claims, ["*"], 1)
        except ProcessGoneError as error:
            answers.append(error)

    worker = threading.Thread(target=turn)
    with database.write() as connection:
        connection.execute(select(processes.c.id).where(processes.c.id == process).with_for_update())
        worker.start()
        until(lambda: sessions(database), "the turn waits for the process")
        endings.fail(connection, endings.claims_of(process), ERROR)
        connection.execute(delete(processes).where(processes.c.id == process))
    worker.join(PATIENCE)
    own.close()
    assert len(answers) == 1
    assert state_of_each(database) == dict.fromkeys(held, State.FAILED) | {waiting: State.READY}
