"""Enqueue, dispatch, claim, discard, pause: one suite, every database."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database.statements import WriteStyle
from solidjq.database.tables import blocked, claimed, jobs, ready, scheduled, semaphores
from solidjq.database.times import ago
from solidjq.errors import ArgumentsError, NotAQueueError, ProcessGoneError, UsageError
from solidjq.processes import heartbeat
from solidjq.queue import claim as queue_claim
from solidjq.queue import discard, dispatch, endings, enqueue, pauses
from solidjq.queue.concurrency import Limit
from solidjq.queue.patterns import parse_queues
from solidjq.queue.states import State
from solidjq.rails.active_job import Call, call_of
from support.processes import add_process
from support.queue import add_jobs, claim_all, clear, plain_jobs, rows, state_of_each, take_turn

ONE = Limit(1)


def limited(number: int, limit: Limit = ONE) -> NewJob:
    return NewJob(class_name="LimitedJob", args=[number], concurrency_key="LimitedJob/k", limit=limit)


def test_a_due_job_is_ready(database: Database) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="ReportJob", args=[42], queue_name="mailers", priority=7))
    assert state_of_each(database) == {job_id: State.READY}
    (execution,) = rows(database, ready)
    assert (execution["job_id"], execution["queue_name"], execution["priority"]) == (job_id, "mailers", 7)
    (job,) = rows(database, jobs)
    assert (job["class_name"], job["queue_name"], job["priority"]) == ("ReportJob", "mailers", 7)
    assert job["scheduled_at"] == job["created_at"] == job["updated_at"]


def test_a_job_with_a_delay_is_scheduled_by_the_databases_clock(database: Database) -> None:
    before = database.now()
    (job_id,) = add_jobs(database, NewJob(class_name="ReportJob", delay=3600))
    assert state_of_each(database) == {job_id: State.SCHEDULED}
    (execution,) = rows(database, scheduled)
    assert timedelta(seconds=3600) <= execution["scheduled_at"] - before < timedelta(seconds=3660)
    assert rows(database, jobs)[0]["scheduled_at"] == execution["scheduled_at"]


def test_a_time_in_the_past_means_now(database: Database) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="ReportJob", at=datetime(2020, 1, 1, tzinfo=UTC)))
    assert state_of_each(database) == {job_id: State.READY}


def test_bulk_enqueue_returns_ids_in_the_given_order(database: Database) -> None:
    new = [NewJob(class_name=f"Job{n}", delay=60 if n % 3 == 0 else None) for n in range(2500)]
    ids = add_jobs(database, *new)
    assert len(set(ids)) == 2500
    names = {row["id"]: row["class_name"] for row in rows(database, jobs)}
    assert [names[job_id] for job_id in ids] == [job.class_name for job in new]
    found = state_of_each(database)
    assert [found[job_id] for job_id in ids] == [State.SCHEDULED if n % 3 == 0 else State.READY for n in range(2500)]


def test_nothing_is_inserted_if_one_argument_is_impossible(database: Database) -> None:
    with pytest.raises(ArgumentsError, match="object"):
        add_jobs(database, NewJob(class_name="A"), NewJob(class_name="B", args=[object()]))
    assert state_of_each(database) == {}


@pytest.mark.parametrize("count", [1, 2])
def test_without_the_tables_it_says_what_to_do(empty_url: URL, count: int) -> None:
    empty = Database(empty_url)
    with pytest.raises(NotAQueueError, match="run: jq init"):
        add_jobs(empty, *plain_jobs(count))
    empty.close()


def test_what_is_enqueued_together_is_written_like_what_is_enqueued_alone(database: Database) -> None:
    at = datetime(2030, 1, 1, 12, 0, 0, 250, tzinfo=timezone(timedelta(hours=2)))
    odd = ["\\.", "\t\u2028\x00 ", None]
    new = [NewJob(class_name="A\t\\N\n", args=odd, queue_name="\\N", priority=n, at=at) for n in (-3, None)]
    alone = [job_id for each in new for job_id in add_jobs(database, each)]
    together = add_jobs(database, *new)
    found = {row["id"]: row for row in rows(database, jobs)}

    def written(job_id: int) -> dict[str, Any]:
        row = {key: value for key, value in found[job_id].items() if key not in {"id", "created_at", "updated_at"}}
        payload = json.loads(row.pop("arguments"))
        assert payload.pop("job_id") == row.pop("active_job_id")
        assert payload.pop("enqueued_at")
        return row | {"payload": payload}

    assert [written(job_id) for job_id in together] == [written(job_id) for job_id in alone]
    assert written(together[0]) | {"payload": None} == {
        "queue_name": "\\N",
        "class_name": "A\t\\N\n",
        "priority": -3,
        "scheduled_at": at,
        "finished_at": None,
        "concurrency_key": None,
        "payload": None,
    }


def test_a_job_is_enqueued_alone_as_in_a_transaction(database: Database) -> None:
    kinds = [
        NewJob(class_name="ReportJob", args=[42], kwargs={"a": "ü\x00"}, queue_name="mailers", priority=-7),
        NewJob(class_name="ReportJob", delay=3600),
        NewJob(class_name="ReportJob", at=datetime(2030, 1, 1, tzinfo=UTC)),
        limited(1),
        limited(1),
    ]
    before = database.now()
    ids = [enqueue.enqueue_alone(database, new) for new in kinds]
    expected = [State.READY, State.SCHEDULED, State.SCHEDULED, State.READY, State.BLOCKED]
    assert list(state_of_each(database).items()) == list(zip(ids, expected, strict=True))
    first, *_ = rows(database, jobs)
    assert before <= first["created_at"] == first["updated_at"] == first["scheduled_at"] <= database.now()
    assert rows(database, ready)[0]["created_at"] >= before
    payload = json.loads(first["arguments"])
    assert (payload["job_id"], payload["job_class"]) == (first["active_job_id"], "ReportJob")
    assert call_of(first["arguments"]) == Call([42], {"a": "ü\x00"})

    database.transact(discard.discard, ids)
    again = [add_jobs(database, new)[0] for new in kinds]
    assert list(state_of_each(database).values()) == expected
    kept = ("queue_name", "class_name", "priority", "concurrency_key", "finished_at")
    (other, *_) = rows(database, jobs)
    assert other["id"] == again[0]
    assert [other[name] for name in kept] == [first[name] for name in kept]
    assert payload.keys() == json.loads(other["arguments"]).keys()


def test_enqueue_joins_the_callers_transaction(database: Database) -> None:
    def enqueue_then_raise() -> None:
        with database.write() as connection:
            enqueue.enqueue(connection, plain_jobs(3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        enqueue_then_raise()
    assert state_of_each(database) == {}


# -- dispatch


def test_dispatch_moves_what_is_due_and_nothing_else(database: Database) -> None:
    due, later = add_jobs(database, NewJob(class_name="A", delay=3600), NewJob(class_name="B", delay=7200))
    with database.write() as connection:
        connection.execute(update(scheduled).where(scheduled.c.job_id == due).values(scheduled_at=ago(1)))
    assert database.transact(dispatch.dispatch, 100) == [due]
    assert state_of_each(database) == {due: State.READY, later: State.SCHEDULED}
    assert database.transact(dispatch.dispatch, 100) == []


def test_dispatch_takes_the_earliest_first_and_no_more_than_its_limit(database: Database) -> None:
    ids = add_jobs(database, *(NewJob(class_name="A", delay=3600) for _ in range(5)))
    with database.write() as connection:
        for seconds, job_id in enumerate(ids, start=1):  # the last is the longest overdue
            connection.execute(
                update(scheduled).where(scheduled.c.job_id == job_id).values(scheduled_at=ago(seconds * 10))
            )
    assert database.transact(dispatch.dispatch, 2) == [ids[4], ids[3]]


def test_dispatch_holds_a_limited_job_back_while_its_slot_is_taken(database: Database) -> None:
    first, second = add_jobs(database, limited(1), NewJob(class_name="A", delay=3600))
    with database.write() as connection:
        connection.execute(
            update(jobs).where(jobs.c.id == second).values(class_name="LimitedJob", concurrency_key="LimitedJob/k")
        )
        connection.execute(update(scheduled).values(scheduled_at=ago(1)))
    assert database.transact(dispatch.dispatch, 10, {"LimitedJob": ONE}) == [second]
    assert state_of_each(database) == {first: State.READY, second: State.BLOCKED}


def test_of_due_jobs_of_one_key_the_one_with_the_highest_priority_gets_the_slot(database: Database) -> None:
    new = (NewJob(class_name="LimitedJob", delay=3600, priority=priority) for priority in (2, 1, 1))
    ids = add_jobs(database, *new)
    with database.write() as connection:
        connection.execute(update(jobs).values(concurrency_key="LimitedJob/k"))
        for seconds, job_id in zip((30, 10, 20), ids, strict=True):  # the least urgent has been due for longest
            due = update(scheduled).where(scheduled.c.job_id == job_id)
            connection.execute(due.values(scheduled_at=ago(seconds)))
    database.transact(dispatch.dispatch, 10, {"LimitedJob": ONE})
    assert list(state_of_each(database).values()) == [State.BLOCKED, State.READY, State.BLOCKED]


def test_dispatch_leaves_a_limited_job_of_an_unknown_class_to_rails(database: Database) -> None:
    foreign, plain = add_jobs(database, NewJob(class_name="RubyJob", delay=3600), NewJob(class_name="A", delay=3600))
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == foreign).values(concurrency_key="RubyJob/1"))
        connection.execute(update(scheduled).values(scheduled_at=ago(1)))
    assert database.transact(dispatch.dispatch, 10, {"LimitedJob": ONE}) == [plain]
    assert state_of_each(database) == {foreign: State.SCHEDULED, plain: State.READY}


# -- claim


def test_claim_order_is_priority_then_age(database: Database) -> None:
    low, first, second, urgent = add_jobs(
        database,
        NewJob(class_name="A", priority=50),
        NewJob(class_name="A"),
        NewJob(class_name="A"),
        NewJob(class_name="A", priority=-10),
    )
    process = add_process(database)
    assert [claim.job_id for claim in claim_all(database, process, 3)] == [urgent, first, second]
    assert [claim.job_id for claim in claim_all(database, process, 3)] == [low]
    assert claim_all(database, process) == []


def test_a_claim_carries_what_is_needed_to_run_the_job(database: Database) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="ReportJob", args=["ž 日本 💥"], queue_name="mailers"))
    (claim,) = claim_all(database, add_process(database))
    (execution,) = rows(database, claimed)
    assert (claim.id, claim.job_id, claim.class_name, claim.queue_name) == (
        execution["id"],
        job_id,
        "ReportJob",
        "mailers",
    )
    assert '"ž 日本 💥"' in (claim.arguments or "")
    assert state_of_each(database) == {job_id: State.CLAIMED}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*"], ["high", "mail_in", "mail_out", "other"]),
        (["other", "high"], ["other", "high"]),
        (["mail*"], ["mail_in", "mail_out"]),
        (["other", "mail*"], ["other", "mail_in", "mail_out"]),
        (["mail_out", "mail*"], ["mail_out", "mail_in"]),
        (["mail*", "mail_out"], ["mail_in", "mail_out"]),
        (["nothing"], []),
        (["nothing*", "high"], ["high"]),
        (["mail_"], []),
    ],
)
def test_queues_are_polled_in_the_order_given(database: Database, patterns: list[str], expected: list[str]) -> None:
    names = ["high", "mail_in", "mail_out", "other"]
    add_jobs(database, *(NewJob(class_name="A", queue_name=name) for name in names))
    claims = database.transact(queue_claim.claim, add_process(database), patterns, 10)
    assert [claim.queue_name for claim in claims] == expected


def test_queue_order_beats_priority(database: Database) -> None:
    add_jobs(
        database,
        NewJob(class_name="A", queue_name="second", priority=-100),
        NewJob(class_name="A", queue_name="first", priority=100),
    )
    claims = database.transact(queue_claim.claim, add_process(database), ["first", "second"], 1)
    assert [claim.queue_name for claim in claims] == ["first"]


@pytest.mark.parametrize("patterns", [["*"], ["mail*", "other"], ["mailers", "other"]])
def test_paused_queues_are_left_out(database: Database, patterns: list[str]) -> None:
    add_jobs(database, NewJob(class_name="A", queue_name="mailers"), NewJob(class_name="A", queue_name="other"))
    assert database.transact(pauses.pause, "mailers")
    process = add_process(database)
    assert [c.queue_name for c in database.transact(queue_claim.claim, process, patterns, 10)] == ["other"]
    assert database.transact(pauses.resume, "mailers")
    assert [c.queue_name for c in database.transact(queue_claim.claim, process, patterns, 10)] == ["mailers"]


@pytest.mark.parametrize("paused", [None, "mail_in", "other"])
@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*"], ["high", "mail_in", "mail_out", "other"]),
        (["mail*", "high"], ["mail_in", "mail_out", "high"]),
        (["other", "mail_in"], ["other", "mail_in"]),
        (["nothing*"], []),
    ],
)
def test_a_workers_turn_takes_from_the_same_queues(
    database: Database, patterns: list[str], expected: list[str], paused: str | None
) -> None:
    process = add_process(database)
    (over,) = add_jobs(database, *plain_jobs(1))
    (claim,) = claim_all(database, process)
    add_jobs(database, *(NewJob(class_name="A", queue_name=name) for name in ("high", "mail_in", "mail_out", "other")))
    if paused is not None:
        database.transact(pauses.pause, paused)
    claims = take_turn(database, process, [claim], patterns, 10)
    assert [each.queue_name for each in claims] == [name for name in expected if name != paused]
    found = state_of_each(database)
    assert found.pop(over) == State.FINISHED
    assert [job_id for job_id, state in found.items() if state == State.CLAIMED] == sorted(c.job_id for c in claims)


@pytest.mark.parametrize("patterns", [["*"], ["mail*"], ["other", "mail*"], ["other", "mailers"]])
def test_neither_a_prefix_nor_a_paused_queue_needs_a_transaction_for_a_turn(
    database: Database, patterns: list[str]
) -> None:
    add_jobs(database, *(NewJob(class_name="A", queue_name=name) for name in ("mailers", "other")))
    database.transact(pauses.pause, "other")
    claims = queue_claim.exchange(database, add_process(database), {}, patterns, 10)
    one_query = patterns == ["*"] and database.write_style is WriteStyle.SILENT  # it begins anew in its transaction
    if database.writes_in_with or one_query:
        assert claims is not None
        assert [claim.queue_name for claim in claims] == ["mailers"]
    else:
        assert claims is None
        assert State.CLAIMED not in state_of_each(database).values()


EXCEPTED: tuple[tuple[list[str], list[str], list[str]], ...] = (  # patterns, what they leave out, what is claimed
    (["*"], ["mail_in"], ["other", "high", "mail_out"]),
    (["*"], ["mail*"], ["other", "high"]),
    (["*"], ["mail*", "high"], ["other"]),
    (["mail*", "high"], ["mail_in"], ["mail_out", "high"]),
    (["high", "mail_in"], ["mail_in"], ["high"]),
    (["*"], ["*"], []),
    (["*"], ["nothing"], ["other", "high", "mail_in", "mail_out"]),
)


@pytest.mark.parametrize("paused", [None, "other"])
@pytest.mark.parametrize("way", ["turn", "claim"])
def test_excepted_queues_are_left_out(database: Database, paused: str | None, way: str) -> None:
    """With ``*``, the queue of the first job comes first, whatever its name is."""
    priorities = {"high": -1, "mail_in": 0, "mail_out": 1, "other": -2}
    for patterns, excepted, expected in EXCEPTED:
        clear(database)
        process = add_process(database)
        add_jobs(database, *(NewJob(class_name="A", queue_name=name, priority=p) for name, p in priorities.items()))
        if paused is not None:
            database.transact(pauses.pause, paused)
        if way == "turn":
            claims = take_turn(database, process, [], patterns, 10, excepted)
        else:
            claims = database.transact(queue_claim.claim, process, patterns, 10, excepted)
        claimed = [claim.queue_name for claim in claims]
        assert claimed == [name for name in expected if name != paused], (patterns, excepted)


@pytest.mark.parametrize("left_out", ["excepted", "paused"])
@pytest.mark.parametrize("way", ["turn", "claim"])
def test_if_one_of_all_queues_is_left_out_the_queue_of_the_first_job_comes_first(
    database: Database, left_out: str, way: str
) -> None:
    process = add_process(database)
    names = ["z", "quarantine", "a", "z", "m"]
    add_jobs(database, *(NewJob(class_name="A", queue_name=name) for name in names))
    if left_out == "paused":
        database.transact(pauses.pause, "quarantine")
    excepted = ["quarantine"] if left_out == "excepted" else []
    claimed: list[str] = []
    for _ in range(5):
        if way == "turn":
            claims = take_turn(database, process, [], ["*"], 1, excepted)
        else:
            claims = database.transact(queue_claim.claim, process, ["*"], 1, excepted)
        claimed += [claim.queue_name for claim in claims]
    assert claimed == ["z", "a", "z", "m"]


def test_pause_and_resume_tell_whether_they_changed_anything(database: Database) -> None:
    assert database.transact(pauses.pause, "mailers") is True
    assert database.transact(pauses.pause, "mailers") is False
    assert database.transact(pauses.resume, "mailers") is True
    assert database.transact(pauses.resume, "mailers") is False


def test_a_pruned_process_claims_nothing(database: Database) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="A"))
    process = add_process(database)
    database.transact(heartbeat.deregister, process)
    with pytest.raises(ProcessGoneError):
        claim_all(database, process)
    with pytest.raises(ProcessGoneError):
        take_turn(database, process, [], ["*"], 1)
    assert state_of_each(database) == {job_id: State.READY}


# -- concurrency limits


def test_a_limited_job_waits_for_the_one_before_it(database: Database) -> None:
    first, second, third = add_jobs(database, limited(1), limited(2), limited(3))
    assert state_of_each(database) == {first: State.READY, second: State.BLOCKED, third: State.BLOCKED}
    process = add_process(database)
    (claim,) = claim_all(database, process)
    database.transact(endings.finish, endings.claims_of(process, [claim.id]))
    assert state_of_each(database) == {first: State.FINISHED, second: State.READY, third: State.BLOCKED}
    assert [row["value"] for row in rows(database, semaphores)] == [0]


def test_the_slot_is_free_again_when_nobody_waits(database: Database) -> None:
    two = Limit(2)
    add_jobs(database, limited(1, two), limited(2, two), limited(3, two))
    assert [row["value"] for row in rows(database, semaphores)] == [0]
    process = add_process(database)
    claims = claim_all(database, process)
    assert len(claims) == 2
    known = {"LimitedJob": two}
    database.transact(endings.finish, endings.claims_of(process), known)
    assert len(rows(database, blocked)) == 0
    assert [row["value"] for row in rows(database, semaphores)] == [1]
    claim_all(database, process)
    database.transact(endings.finish, endings.claims_of(process), known)
    assert [row["value"] for row in rows(database, semaphores)] == [2]


def test_a_released_limited_job_keeps_its_slot(database: Database) -> None:
    first, second = add_jobs(database, limited(1), limited(2))
    process = add_process(database)
    claim_all(database, process)
    database.transact(endings.release, endings.claims_of(process))
    assert state_of_each(database) == {first: State.READY, second: State.BLOCKED}
    assert [row["value"] for row in rows(database, semaphores)] == [0]


# -- discard


def test_discard_deletes_what_waits_and_leaves_the_rest(database: Database) -> None:
    ready_id, later, held, done = add_jobs(
        database,
        NewJob(class_name="A", priority=9),
        NewJob(class_name="A", delay=60),
        NewJob(class_name="A", priority=1),
        NewJob(class_name="A", priority=0),
    )
    process = add_process(database)
    done_claim, _ = claim_all(database, process, 2)
    database.transact(endings.finish, endings.claims_of(process, [done_claim.id]))
    assert sorted(database.transact(discard.discard, [ready_id, later, held, done, 10**12])) == [ready_id, later]
    assert state_of_each(database) == {held: State.CLAIMED, done: State.FINISHED}


def test_discarding_a_ready_limited_job_lets_the_next_one_in(database: Database) -> None:
    first, second = add_jobs(database, limited(1), limited(2))
    assert database.transact(discard.discard, [first]) == [first]
    assert state_of_each(database) == {second: State.READY}


# -- pure


def test_parse_queues() -> None:
    assert parse_queues("mailers, report*,mailers") == ("mailers", "report*")
    assert parse_queues("") == ("*",)
    with pytest.raises(UsageError, match="star"):
        parse_queues("ma*lers")


def test_rows_are_in_utc(database: Database) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    add_jobs(database, NewJob(class_name="A"))
    with database.read() as connection:
        created_at = connection.scalar(select(jobs.c.created_at))
    assert created_at is not None
    assert before < created_at < datetime.now(UTC) + timedelta(minutes=5)
