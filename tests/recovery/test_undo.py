"""An undo restores what nobody has claimed yet, exactly, and says of the rest why not."""

from typing import Any

import pytest
from sqlalchemy import create_engine, delete, insert, select, text, update

from solidjq import Database, NewJob
from solidjq.database.setup import initialize
from solidjq.database.tables import claimed, failed, failures, jobs, operations, ready, scheduled, semaphores
from solidjq.database.times import ago
from solidjq.diff.sides import find_side
from solidjq.errors import LedgerMissingError, NoSuchJobError, UsageError
from solidjq.ledger.operations import Operation
from solidjq.queue import dispatch, endings
from solidjq.queue.claim import ALL_QUEUES
from solidjq.queue.claim import claim as claim_jobs
from solidjq.queue.concurrency import Limit
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from solidjq.recovery import undo as recovery_undo
from solidjq.recovery.undo import UndoneJob
from support.deaths import ALL, die
from support.processes import add_process
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import Retried, retry_jobs, undo
from support.schemas import drop_index, make_older
from support.servers import connected, execute


def retry(database: Database, operation: Operation, **terms: object) -> Retried:
    return retry_jobs(database, selection=ALL, operation=operation, **terms)


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_all_is_as_it_was(database: Database, verb: str) -> None:
    limit = Limit(1)
    new = [*plain_jobs(2, queue_name="mailers", priority=7), NewJob(class_name="L", concurrency_key="L/k", limit=limit)]
    ids = add_jobs(database, *new)
    die(database)
    with database.write() as connection:
        worn = '{"arguments":[1.10],"executions":4,"exception_executions":{"[E]":4}}'
        connection.execute(update(jobs).where(jobs.c.id == ids[0]).values(arguments=worn, updated_at=ago(5000)))
    before = {table.name: rows(database, table) for table in (jobs, failed, ready, scheduled, semaphores)}
    operation = Operation(verb)
    if verb == "retry":
        assert retry(database, operation, queue_as="elsewhere").job_ids == ids
    else:
        assert retry(database, operation, discard=True).job_ids == ids
        assert rows(database, jobs) == []
    assert undo(database, operation) == dict.fromkeys(ids)
    after = {table.name: rows(database, table) for table in (jobs, failed, ready, scheduled, semaphores)}
    assert after == before
    assert [row["restored_by"] for row in rows(database, failures)] == [rows(database, operations)[-1]["id"]] * 3
    assert undo(database, operation) == {}
    assert retry(database, Operation("retry")).job_ids == ids  # and it can be retried again


def test_jobs_that_nobody_names_are_only_counted(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(3))
    die(database)
    operation = Operation("retry")
    retry(database, operation)
    (claim,) = database.transact(claim_jobs, add_process(database), ALL_QUEUES, 1)
    (batch,) = recovery_undo.undo_batches(database, operation.id or 0, Operation("undo"), by_job=False)
    assert (batch.jobs, batch.reasons) == ((), {None: len(ids) - 1, "it runs now": 1})
    assert state_of_each(database)[claim.job_id] is State.CLAIMED


def test_a_job_that_is_ready_twice_leaves_with_both_rows(own: Database) -> None:
    ids = add_jobs(own, *plain_jobs(2))
    die(own)
    operation = Operation("retry")
    retry(own, operation)
    execute(own.url, "CREATE INDEX of_jobs ON solid_queue_ready_executions (job_id)")  # for MySQL's foreign key
    drop_index(own, "index_solid_queue_ready_executions_on_job_id", "solid_queue_ready_executions")
    with own.write() as connection:
        columns = ["job_id", "queue_name", "priority", "created_at"]
        connection.execute(insert(ready).from_select(columns, select(*(ready.c[name] for name in columns))))
    assert undo(own, operation) == dict.fromkeys(ids)
    assert rows(own, ready) == []


def test_what_was_claimed_or_ended_stays(database: Database) -> None:
    waits, runs, done, fails, gone = add_jobs(database, *plain_jobs(5))
    die(database)
    operation = Operation("retry")
    retry(database, operation)
    worker = add_process(database)
    claim_all(database, worker)
    database.transact(endings.finish, claimed.c.job_id.in_([done, gone]))
    database.transact(endings.fail, claimed.c.job_id == fails, error_json("E", "boom"))
    database.transact(endings.release, claimed.c.job_id == waits)
    with database.write() as connection:
        connection.execute(delete(jobs).where(jobs.c.id == gone))
    left = undo(database, operation)
    assert left[waits] is None
    assert left[runs] == "it runs now"
    assert left[done] == "it has finished"
    assert left[fails] == "it failed again"
    assert "gone" in str(left[gone])
    assert state_of_each(database) == {
        waits: State.FAILED,
        runs: State.CLAIMED,
        done: State.FINISHED,
        fails: State.FAILED,
    }


def test_an_older_retry_does_not_take_a_later_one_back(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database, silent=2000)
    first, second = Operation("retry"), Operation("retry")
    retry(database, first)
    die(database)
    retry(database, second)
    assert undo(database, first) == {job_id: f"operation {second.id} moved it again"}
    assert state_of_each(database) == {job_id: State.READY}
    assert undo(database, second) == {job_id: None}


def test_a_dispatched_limited_job_gives_its_slot_back(database: Database) -> None:
    limit = Limit(1)
    first, second = add_jobs(database, *(NewJob(class_name="L", concurrency_key="L/k", limit=limit) for _ in range(2)))
    die(database)  # the second gets the slot
    database.transact(endings.finish, claimed.c.job_id == second) if claim_all(
        database, add_process(database)
    ) else None
    operation = Operation("retry")
    retry(database, operation)
    database.transact(dispatch.dispatch, 10, {"L": limit})
    assert state_of_each(database)[first] is State.READY
    assert rows(database, semaphores)[0]["value"] == 0
    assert undo(database, operation) == {first: None}
    assert rows(database, semaphores)[0]["value"] == 1


def test_thousands_in_batches(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(2300))
    die(database)
    operation = Operation("retry")
    retry(database, operation)
    undone = list(recovery_undo.undo(database, operation.id or 0, Operation("undo")))
    assert [len(batch) for batch in undone] == [1000, 1000, 300]
    assert all(isinstance(each, UndoneJob) and each.restored for batch in undone for each in batch)
    assert set(state_of_each(database).values()) == {State.FAILED}
    assert len(ids) == 2300


def test_only_a_recorded_retry_or_discard_can_be_undone(database: Database) -> None:
    add_jobs(database, *plain_jobs(1))
    die(database)
    pruned = Operation("prune")
    database.transact(pruned.record, 1)
    with pytest.raises(UsageError, match="was a prune"):
        undo(database, pruned)
    with pytest.raises(NoSuchJobError, match="no operation 999"):
        list(recovery_undo.undo(database, 999, Operation("undo")))


# -- columns that we do not know --------------------------------------------------------------------------------------

WORDS = {
    "sqlite": {"q": '"', "time": "datetime(6)", "json": "json", "raw": "blob", "made": "VIRTUAL", "double": "real"},
    "postgresql": {
        "q": '"',
        "time": "timestamp(6)",
        "json": "jsonb",
        "raw": "bytea",
        "made": "STORED",
        "double": "double precision",
    },
    "mysql": {"q": "`", "time": "datetime(6)", "json": "json", "raw": "blob", "made": "STORED", "double": "double"},
}
# Each with a value, beside NULL.
TYPES = {
    "batch_id": ("bigint", 2**62 + 1),
    "tenant": ("varchar(30) NOT NULL DEFAULT 'nobody'", 'it\'s "Mc\\Duck" é 🦆 %s :x'),
    "note": ("text", "null"),
    "lines_": ("text", "a\nb\t{"),
    "code": ("char(5)", "12"),
    "due": ("{time}", "2026-02-03 04:05:06.789012"),
    "day": ("date", "2026-02-03"),
    "urgent": ("boolean", True),
    "data": ("{json}", '{"a": [1, "x", null]}'),
    "share": ("{double}", 0.1234567890123456),
    "ratio": ("float", 0.1234567),
    "amount": ("decimal(30,5)", "1234567890.12345"),
    "raw": ("{raw}", b"\x00\xff'\\"),
    "{q}Odd Name{q}": ("integer", -7),
}


def add_columns(database: Database, types: dict[str, str]) -> None:
    words = WORDS[database.url.get_backend_name()]
    columns = (f"{name} {kind}".format(**words) for name, kind in types.items())
    execute(database.url, *(f"ALTER TABLE solid_queue_jobs ADD COLUMN {each}" for each in columns))


def set_columns(database: Database, job_id: int, values: dict[str, Any]) -> None:
    words = WORDS[database.url.get_backend_name()]
    assigned = ", ".join(f"{name.format(**words)} = :v{number}" for number, name in enumerate(values))
    with connected(database.url) as connection:
        statement = text(f"UPDATE solid_queue_jobs SET {assigned} WHERE id = {job_id}")  # noqa: S608
        connection.execute(statement, {f"v{number}": value for number, value in enumerate(values.values())})
        connection.commit()


def whole(database: Database) -> list[dict[str, Any]]:
    """Return all of the jobs, as the driver gives it."""
    engine = create_engine(database.url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM solid_queue_jobs ORDER BY id")).mappings()
        read = [dict(row) for row in found]
    engine.dispose()
    return read


def discard(database: Database) -> Operation:
    operation = Operation("discard")
    retry(database, operation, discard=True)
    return operation


def test_a_discarded_job_gets_all_its_columns_back(own: Database) -> None:
    full, empty = add_jobs(own, *plain_jobs(2))
    die(own)
    add_columns(own, {name: kind for name, (kind, _) in TYPES.items()})
    # What the database computes; of the float, whose last digits MySQL does not show.
    add_columns(own, {"twice": "{double} GENERATED ALWAYS AS (ratio * 2) {made}"})
    set_columns(own, full, {name: value for name, (_, value) in TYPES.items()})
    before = whole(own)
    others = before[0].keys() - jobs.c.keys()
    assert [name for name in others if before[0][name] is None] == []
    assert {name for name in others if before[1][name] is not None} == {"tenant"}
    operation = discard(own)
    assert whole(own) == []
    assert undo(own, operation) == {full: None, empty: None}
    assert whole(own) == before
    assert undo(own, discard(own)) == {full: None, empty: None}
    assert whole(own) == before


@pytest.mark.sqlite_only
def test_text_of_another_encoding_hinders_no_undo(own: Database) -> None:
    (job_id,) = add_jobs(own, *plain_jobs(1))
    die(own)
    add_columns(own, {"tenant": "varchar(30)"})
    execute(own.url, "UPDATE solid_queue_jobs SET tenant = CAST(X'61ff' AS TEXT)")
    assert undo(own, discard(own)) == {job_id: None}
    with own.read() as connection:
        assert connection.scalar(text("SELECT tenant FROM solid_queue_jobs")) == "a\ufffd"


def test_only_a_discard_with_such_columns_keeps_them(own: Database) -> None:
    """A job that is retried keeps its row; and a plain queue's has no others."""
    add_jobs(own, *plain_jobs(1))
    die(own)
    assert undo(own, discard(own))
    add_columns(own, {"batch_id": "bigint"})
    operation = Operation("retry")
    retry(own, operation)
    assert undo(own, operation)
    assert [row["more"] for row in rows(own, failures)] == [None, None]
    discard(own)
    assert "batch_id" in rows(own, failures)[-1]["more"]


def test_columns_that_came_and_went_since(own: Database) -> None:
    (job_id,) = add_jobs(own, *plain_jobs(1))
    die(own)
    add_columns(own, {"gone": "integer", "kept": "integer"})
    set_columns(own, job_id, {"gone": 1, "kept": 2})
    operation = discard(own)
    add_columns(own, {"fresh": "integer NOT NULL DEFAULT 3"})
    execute(own.url, "ALTER TABLE solid_queue_jobs DROP COLUMN gone")
    assert undo(own, operation) == {job_id: None}
    (job,) = whole(own)
    assert "gone" not in job
    assert (job["kept"], job["fresh"]) == (2, 3)


def test_a_job_that_the_table_does_not_take_any_more_holds_up_no_other(own: Database) -> None:
    """Where what it refers to is gone, it comes back without; where another has its unique value, it stays away."""
    ids = lost, taken, *_ = add_jobs(own, *plain_jobs(4))
    die(own)
    execute(own.url, "CREATE TABLE shops (id bigint PRIMARY KEY)", "INSERT INTO shops VALUES (1), (2)")
    # Only so do all databases take the reference for one.
    refers = {"mysql": "bigint, ADD CONSTRAINT of_shop FOREIGN KEY (shop_id) REFERENCES shops (id)"}
    add_columns(
        own, {"shop_id": refers.get(own.url.get_backend_name(), "bigint REFERENCES shops (id)"), "slug": "varchar(9)"}
    )
    execute(own.url, "CREATE UNIQUE INDEX slugs ON solid_queue_jobs (slug)")
    for job_id in ids:
        set_columns(own, job_id, {"shop_id": 1 if job_id == lost else 2, "slug": f"s{job_id}"})
    before = whole(own)
    operation = discard(own)
    execute(own.url, "DELETE FROM shops WHERE id = 1")
    (other,) = add_jobs(own, *plain_jobs(1))
    set_columns(own, other, {"slug": f"s{taken}"})
    left = undo(own, operation)
    reason = left.pop(taken)
    assert reason is not None
    assert reason.startswith(f"the database refuses to move job {taken}: ")
    assert "slug" in reason
    assert left == {job_id: None for job_id in ids if job_id != taken}
    back = {job["id"]: job for job in whole(own)}
    assert back[lost] == {**before[0], "shop_id": None}
    assert [back[job_id] for job_id in ids[2:]] == before[2:]
    assert taken not in back
    execute(own.url, f"UPDATE solid_queue_jobs SET slug = NULL WHERE id = {other}")  # noqa: S608
    assert undo(own, operation) == {taken: None}


def test_an_older_ledger_loses_nothing_silently(own: Database) -> None:
    """A plain queue does not need more room. Where a discard would lose something, it says what to do; others go on."""
    (job_id,) = add_jobs(own, *plain_jobs(1))
    die(own)
    make_older(own)
    operation = discard(own)
    add_columns(own, {"batch_id": "bigint", "tenant": "varchar(20)"})
    assert undo(own, operation) == {job_id: None}
    set_columns(own, job_id, {"batch_id": 5, "tenant": "acme"})
    before = whole(own)
    operation = Operation("retry")
    assert retry(own, operation).job_ids == [job_id]
    assert find_side(own, str(job_id)).name
    assert undo(own, operation) == {job_id: None}
    with pytest.raises(LedgerMissingError, match=r"cannot store batch_id, tenant of solid_queue_jobs.*run: jq init"):
        discard(own)
    assert whole(own) == before
    assert len(state_of_each(own)) == 1
    with own.read() as connection:
        verbs = connection.scalars(select(operations.c.verb).order_by(operations.c.id)).all()
    assert verbs == ["discard", "undo", "retry", "undo"]
    initialize(own)
    assert undo(own, discard(own)) == {job_id: None}
    assert whole(own) == before


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (recovery_undo.RUNS, "they run now"),
        (recovery_undo.GONE, "they are gone: cleared after they finished, or discarded"),
        ("operation 14 moved it again", "operation 14 moved them again"),
        ("the database refuses to move job 1: no", "the database refuses to move job 1: no"),
    ],
)
def test_a_reason_agrees_with_its_number(reason: str, words: str) -> None:
    assert recovery_undo.reason_of(1, reason) == reason
    assert recovery_undo.reason_of(2, reason) == words
