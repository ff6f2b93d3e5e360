"""Jobs that wait are discarded, run now, postponed and moved; every move is guarded, recorded and taken back."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import blocked, jobs, ready, scheduled, semaphores
from solidjq.errors import RefusedError, UsageError
from solidjq.ledger.operations import Operation
from solidjq.queue import claim, dispatch
from solidjq.queue.concurrency import Limit
from solidjq.queue.jobs import views_of
from solidjq.queue.listing import JobFilter, count_jobs, list_job_ids, list_jobs
from solidjq.queue.states import State
from solidjq.queue.waiting import WAITING
from solidjq.rails.error_text import missing_error
from solidjq.recovery import plans
from solidjq.recovery.apply import apply_waiting
from solidjq.recovery.undo import undo
from solidjq.recovery.waiting import WaitingTerms, WaitingVerb, move_batch, move_waiting, plan_waiting
from support.processes import add_process
from support.queue import add_jobs, claim_all, fail, plain_jobs, rows, state_of_each
from support.races import at_once

LATER = datetime(2099, 5, 4, 3, 2, 1, tzinfo=UTC)
LIMIT = Limit(1, 60.0)
DISCARD = WaitingTerms(verb=WaitingVerb.DISCARD)
RUN_NOW = WaitingTerms(verb=WaitingVerb.RUN_NOW)
POSTPONE = WaitingTerms(verb=WaitingVerb.POSTPONE, until=LATER)
MOVE = WaitingTerms(verb=WaitingVerb.MOVE, queue_name="elsewhere")
ALL_TERMS = (DISCARD, RUN_NOW, POSTPONE, MOVE)


def limited(key: str = "Import/1", **settings: Any) -> NewJob:
    return NewJob(class_name="Import", concurrency_key=key, limit=LIMIT, **settings)


class Scene:
    """A job in every state; of the limited ones, one is ready and holds the slot that two blocked ones wait for."""

    def __init__(self, database: Database) -> None:
        (self.claimed,) = add_jobs(database, NewJob(class_name="Plain"))
        process = add_process(database)
        claim_all(database, process)
        (self.failed,) = fail(database, NewJob(class_name="Plain"), error=missing_error())
        (self.ready,) = add_jobs(database, NewJob(class_name="Plain"))
        (self.scheduled,) = add_jobs(database, NewJob(class_name="Plain", at=LATER))
        self.held, self.blocked, self.next = add_jobs(database, limited(), limited(priority=1), limited(priority=2))
        (self.later,) = add_jobs(database, limited("Import/2", at=LATER))
        self.waiting = [self.ready, self.scheduled, self.held, self.blocked, self.next, self.later]
        self.all = [self.claimed, self.failed, *self.waiting]


def snapshot(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the queue, without their own ids and times."""
    own = {"id", "created_at", "updated_at", "expires_at"}
    return {
        table.name: sorted(
            ({key: value for key, value in row.items() if key not in own} for row in rows(database, table)), key=str
        )
        for table in (jobs, ready, scheduled, blocked, tables.failed, tables.claimed)
    }


def carry_out(
    database: Database, chosen: JobFilter, terms: WaitingTerms, **how: Any
) -> tuple[Operation, dict[int, Any]]:
    operation = Operation(terms.verb.recorded)
    batches = move_waiting(database, chosen, terms, operation, **how)
    return operation, {each.job.job_id: each.reason for batch in batches for each in batch}


def take_back(database: Database, operation: Operation) -> dict[int, str | None]:
    assert operation.id is not None
    return {each.job_id: each.reason for batch in undo(database, operation.id, Operation("undo")) for each in batch}


ANY = JobFilter(states=WAITING)


def test_only_jobs_that_wait_are_moved(database: Database) -> None:
    scene = Scene(database)
    for terms in ALL_TERMS:
        operation, reasons = carry_out(database, JobFilter(job_ids=scene.all, states=WAITING), terms)
        assert reasons[scene.claimed] == "a worker has it: only that can end it"
        assert reasons[scene.failed] == "it has failed: jq retry or jq discard"
        assert any(reasons[job_id] is None for job_id in scene.waiting)
        take_back(database, operation)
    states = state_of_each(database)
    assert (states[scene.claimed], states[scene.failed]) == (State.CLAIMED, State.FAILED)


def test_a_plan_says_what_a_move_does_and_changes_nothing(database: Database) -> None:
    scene = Scene(database)
    for terms in (RUN_NOW, MOVE, POSTPONE, DISCARD):
        before = snapshot(database)
        chosen = JobFilter(job_ids=scene.all, states=WAITING)
        planned = {each.job.job_id: each.reason for batch in plan_waiting(database, chosen, terms) for each in batch}
        assert snapshot(database) == before
        assert carry_out(database, chosen, terms)[1] == planned


def test_discarded_jobs_are_gone_and_their_slot_goes_to_the_next(database: Database) -> None:
    scene = Scene(database)
    carry_out(database, JobFilter(job_ids=[scene.held, scene.ready], states=WAITING), DISCARD)
    states = state_of_each(database)
    assert states[scene.blocked] is State.READY
    assert states[scene.next] is State.BLOCKED
    assert {scene.held, scene.ready}.isdisjoint(states)
    (semaphore,) = (row for row in rows(database, semaphores) if row["key"] == "Import/1")
    assert semaphore["value"] == 0
    carry_out(database, ANY, DISCARD)
    assert state_of_each(database) == {scene.claimed: State.CLAIMED, scene.failed: State.FAILED}
    assert [row["value"] for row in rows(database, semaphores) if row["key"] == "Import/1"] in ([1], [])


def test_run_now_makes_free_jobs_ready_and_limited_ones_due(database: Database) -> None:
    scene = Scene(database)
    _, reasons = carry_out(database, JobFilter(job_ids=scene.waiting, states=WAITING), RUN_NOW)
    assert reasons == {
        scene.ready: "it is ready already",
        scene.scheduled: None,
        scene.held: "it is ready already",
        scene.blocked: "it waits for a slot of Import/1, and runs when one is free",
        scene.next: "it waits for a slot of Import/1, and runs when one is free",
        scene.later: None,
    }
    assert state_of_each(database)[scene.scheduled] is State.READY
    assert state_of_each(database)[scene.later] is State.SCHEDULED
    assert database.transact(dispatch.dispatch, 10, {"Import": LIMIT}) == [scene.later]
    assert state_of_each(database)[scene.later] is State.READY


def test_postponed_jobs_are_due_later_and_give_their_slots_back(database: Database) -> None:
    scene = Scene(database)
    carry_out(database, JobFilter(job_ids=[scene.ready, scene.held], states=WAITING), POSTPONE)
    assert state_of_each(database)[scene.blocked] is State.READY
    due = {row["job_id"]: row["scheduled_at"] for row in rows(database, scheduled)}
    assert due[scene.ready] == due[scene.held] == LATER
    _, reasons = carry_out(database, ANY, POSTPONE)
    assert list(reasons.values()) == [None] * 6
    assert {job_id for job_id, state in state_of_each(database).items() if state is State.SCHEDULED} == set(
        scene.waiting
    )


def test_moved_jobs_wait_in_the_other_queue_in_the_same_state(database: Database) -> None:
    scene = Scene(database)
    before = state_of_each(database)
    _, reasons = carry_out(database, ANY, MOVE)
    assert set(reasons) == set(scene.waiting)
    assert state_of_each(database) == before
    assert {row["queue_name"] for table in (ready, scheduled, blocked) for row in rows(database, table)} == {
        "elsewhere"
    }
    assert set(carry_out(database, ANY, MOVE)[1].values()) == {"it is in that queue already"}


@pytest.mark.parametrize("terms", ALL_TERMS, ids=lambda terms: terms.verb.value)
def test_an_undo_restores_free_jobs_exactly_and_limited_ones_to_the_dispatcher(
    database: Database, terms: WaitingTerms
) -> None:
    scene = Scene(database)
    before, states = snapshot(database), state_of_each(database)
    free = JobFilter(states=WAITING, classes=("Plain",))
    operation, reasons = carry_out(database, free, terms)
    assert sum(reason is None for reason in reasons.values()) >= 1
    restored = take_back(database, operation)
    assert set(restored.values()) == {None}
    assert snapshot(database) == before
    operation, reasons = carry_out(database, ANY, terms)
    take_back(database, operation)
    moved = {job_id for job_id, reason in reasons.items() if reason is None}
    now = state_of_each(database)
    for job_id in scene.waiting:
        expected = State.SCHEDULED if job_id in moved and job_id in {scene.held, scene.blocked, scene.next} else None
        assert now[job_id] is (expected or states[job_id]), job_id
    assert take_back(database, operation) == {}


def test_an_undo_leaves_jobs_that_were_claimed_since(database: Database) -> None:
    scene = Scene(database)
    operation, _ = carry_out(database, JobFilter(job_ids=[scene.scheduled, scene.later], states=WAITING), RUN_NOW)
    claim_all(database, add_process(database, "another"))
    assert take_back(database, operation) == {scene.scheduled: "it runs now", scene.later: None}
    assert state_of_each(database)[scene.later] is State.SCHEDULED


def test_the_limit_and_pages_hold(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(7, at=LATER), *plain_jobs(3))
    operation, reasons = carry_out(database, ANY, POSTPONE, limit=5, batch=2)
    assert list(reasons) == ids[:5]
    (row,) = rows(database, tables.operations)
    assert (row["id"], row["verb"], row["jobs"]) == (operation.id, "jobs postpone", 5)
    _, reasons = carry_out(database, ANY, POSTPONE, batch=2)
    assert sorted(reasons) == ids
    assert len(rows(database, tables.failures)) == 15


def test_a_job_is_either_claimed_or_moved(database: Database) -> None:
    """Workers claim while each of the moves takes the same jobs: every job ends in one state, and is run or moved."""
    for terms in (DISCARD, POSTPONE, MOVE):
        ids = add_jobs(database, *plain_jobs(60))
        process = add_process(database, f"worker-{terms.verb.value}")

        def claim_some(own: Database, process: int = process) -> list[int]:
            turns = (own.transact(claim.claim, process, ("default",), 7) for _ in itertools.count())
            taken = itertools.takewhile(bool, turns)
            return [each.job_id for turn in taken for each in turn]

        def move_some(own: Database, terms: WaitingTerms = terms, ids: list[int] = ids) -> list[int]:
            operation = Operation(terms.verb.recorded)
            batches = [own.transact(move_batch, ids[at : at + 10], terms, operation) for at in range(0, len(ids), 10)]
            return [each.job.job_id for batch in batches for each in batch if each.moves]

        claimed_ids, moved = at_once(database, claim_some, move_some)
        assert sorted(claimed_ids + moved) == ids
        found = state_of_each(database)
        after = {DISCARD: None, POSTPONE: State.SCHEDULED, MOVE: State.READY}[terms]
        assert {found.get(job_id) for job_id in moved} <= {after}
        assert {found[job_id] for job_id in claimed_ids} <= {State.CLAIMED}
        carry_out(database, ANY, DISCARD)


# -- the list


def test_the_list_has_each_job_once_newest_first_in_any_choice(database: Database) -> None:
    scene = Scene(database)
    with database.write() as connection:
        connection.execute(
            update(jobs).where(jobs.c.id == scene.ready).values(finished_at=LATER, created_at=LATER - timedelta(days=1))
        )
        connection.execute(ready.delete().where(ready.c.job_id == scene.ready))
    choices: list[tuple[JobFilter, list[int]]] = [
        (JobFilter(), [each for each in scene.all if each != scene.ready]),
        (JobFilter(states=(State.FINISHED,)), [scene.ready]),
        (JobFilter(states=(State.BLOCKED, State.CLAIMED)), [scene.claimed, scene.blocked, scene.next]),
        (JobFilter(job_ids=[scene.claimed, scene.failed, scene.ready]), [scene.claimed, scene.failed]),
        (JobFilter(classes=("Imp*",)), [scene.held, scene.blocked, scene.next, scene.later]),
        (JobFilter(not_classes=("Plain",), keys=("Import/2",)), [scene.later]),
        (JobFilter(keys=("Import/*",), states=(State.READY,)), [scene.held]),
        (JobFilter(since=LATER - timedelta(days=2), states=tuple(State)), [scene.ready]),
        (JobFilter(processes=("worker*",)), [scene.claimed]),
        (JobFilter(processes=("nobody",)), []),
        (JobFilter(queues=("nowhere",)), []),
    ]
    for chosen, expected in choices:
        assert [view.job_id for view in list_jobs(database, chosen)] == sorted(expected, reverse=True), chosen
        assert [job.job_id for job in list_job_ids(database, chosen)] == sorted(expected, reverse=True), chosen
        with database.read() as connection:
            assert count_jobs(connection, chosen) == len(expected)


def test_a_finished_job_that_has_an_execution_is_listed_with_both_states(database: Database) -> None:
    scene = Scene(database)
    finished = [scene.claimed, scene.failed, *add_jobs(database, *plain_jobs(2))]
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id.in_(finished)).values(finished_at=LATER))
        connection.execute(delete(ready).where(ready.c.job_id.in_(finished)))
    with database.read() as connection:
        whole = views_of(connection, finished)
    assert list(list_jobs(database, JobFilter(states=(State.FINISHED,)))) == whole[::-1]
    assert [len(view.states) for view in whole] == [2, 2, 1, 1]


def test_a_job_that_finished_at_a_time_that_cannot_be_read_is_finished_wherever_it_is_shown(database: Database) -> None:
    scene = Scene(database)
    finished = [scene.failed, scene.ready]
    with database.write() as connection:
        unreadable = datetime(9500, 1, 1, tzinfo=UTC)
        connection.execute(update(jobs).where(jobs.c.id.in_(finished)).values(finished_at=unreadable))
        connection.execute(delete(ready).where(ready.c.job_id == scene.ready))
    with database.read() as connection:
        views = views_of(connection, finished)
    assert [(view.finished_at, view.states) for view in views] == [
        (None, (State.FAILED, State.FINISHED)),
        (None, (State.FINISHED,)),
    ]
    assert list(list_jobs(database, JobFilter(states=(State.FINISHED,)))) == views[::-1]


def test_pages_of_the_list(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solidjq.queue.listing.PAGE", 2)
    monkeypatch.setattr("solidjq.queue.listing.PAGE_OF_IDS", 3)
    ids = add_jobs(database, *plain_jobs(5), *plain_jobs(4, at=LATER), *plain_jobs(2))
    listed = [view.job_id for view in list_jobs(database, JobFilter())]
    assert listed == ids[::-1]
    assert [job.job_id for job in list_job_ids(database, JobFilter())] == ids[::-1]
    for listing in (list_jobs, list_job_ids):
        assert [job.job_id for job in listing(database, JobFilter(), limit=3, after=ids[6])] == ids[5:2:-1]
    with database.read() as connection:
        assert count_jobs(connection, JobFilter(), after=ids[6]) == 6
        assert connection.scalar(select(jobs.c.id).limit(1)) is not None


def test_terms_are_read_as_they_were_written() -> None:
    for terms in ALL_TERMS:
        assert WaitingTerms.from_record(terms.to_record()) == terms
    for record in (
        {},
        {"verb": "retry"},
        {"verb": "move"},
        {"verb": "move", "queue_name": 5},
        {"verb": "discard", "queue_name": "a"},
        {"verb": "postpone"},
        {"verb": "postpone", "until": "2099-01-01"},
        {"verb": "postpone", "until": "soon"},
        {"verb": "discard", "else": 1},
    ):
        with pytest.raises((ValueError, TypeError)):
            WaitingTerms.from_record(record)


# -- plans


def write_plan(database: Database, chosen: JobFilter, terms: WaitingTerms, path: Path) -> int:
    planned = (each for batch in plan_waiting(database, chosen, terms) for each in batch)
    return plans.write(path, database.identity(), terms, planned)


def apply(database: Database, path: Path) -> list[int]:
    plan = plans.read(path)
    assert plan.waiting is not None
    batches = apply_waiting(database, plan, plan.waiting, Operation(plan.verb, plan=plan.id))
    return [each.job.job_id for batch in batches for each in batch]


@pytest.mark.parametrize("terms", ALL_TERMS, ids=lambda terms: terms.verb.value)
def test_a_plan_is_carried_out_once_as_it_was_written(database: Database, terms: WaitingTerms, tmp_path: Path) -> None:
    scene = Scene(database)
    file = tmp_path / "plan.json"
    planned = [each for batch in plan_waiting(database, ANY, terms) for each in batch if each.moves]
    assert write_plan(database, ANY, terms, file) == len(planned)
    plan = plans.read(file)
    assert (plan.waiting, plan.size, plan.verb) == (terms, len(planned), f"jobs {terms.verb.value}")
    assert (plan.danger() is None) == (terms is not DISCARD)
    add_jobs(database, NewJob(class_name="Plain", at=LATER))  # enqueued since
    assert sorted(apply(database, file)) == sorted(each.job.job_id for each in planned)
    assert apply(database, file) == []
    assert set(state_of_each(database)) >= {scene.claimed, scene.failed}


def test_a_stale_plan_moves_nothing(database: Database, tmp_path: Path) -> None:
    ids = add_jobs(database, *plain_jobs(4))
    file = tmp_path / "plan.json"
    write_plan(database, ANY, MOVE, file)
    claim_all(database, add_process(database), 1)
    with pytest.raises(RefusedError, match=f"job {ids[0]}: a worker has it"):
        apply(database, file)
    assert {row["queue_name"] for row in rows(database, ready)} == {"default"}
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == ids[1]).values(class_name="Another"))
    with pytest.raises(RefusedError, match="class Another in the database and of PlainJob in the plan"):
        apply(database, file)
    with database.write() as connection:  # one is another job, whose id the server gave once more
        connection.execute(update(jobs).where(jobs.c.id == ids[2]).values(active_job_id="another"))
        connection.execute(delete(jobs).where(jobs.c.id == ids[3]))
    with pytest.raises(RefusedError, match=f"job {ids[2]} is gone; and 1 more"):
        apply(database, file)


def test_a_plan_that_was_changed_is_refused(database: Database, tmp_path: Path) -> None:
    add_jobs(database, *plain_jobs(2))
    file = tmp_path / "plan.json"
    write_plan(database, ANY, MOVE, file)
    written = file.read_text()
    for changed in (
        written.replace('"state":"ready"', '"state":"claimed"', 1),
        written.replace('"state":"ready"', '"failure_id":7', 1),
        written.replace('"verb":"move"', '"verb":"run"', 1),
        written.replace('"queue_name":"elsewhere"', '"until":"2099-01-01"', 1),
    ):
        assert changed != written
        file.write_text(changed)
        with pytest.raises(UsageError):
            plans.read(file)
    file.write_text(written.replace("PlainJob", "OtherJob", 1))
    with pytest.raises(RefusedError, match="checksum"):
        plans.read(file)
