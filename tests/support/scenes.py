"""Queues in a named state: what makes them so, for tests of several rooms."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert, text, update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.poolers import qualified
from solidjq.database.tables import blocked, claimed, jobs, ready, scheduled, semaphores
from solidjq.database.tables import processes as process_table
from solidjq.database.times import ago, utcnow
from solidjq.processes import heartbeat, pruning
from solidjq.queue import endings, pauses
from solidjq.queue.concurrency import Limit
from solidjq.queue.failed import Filter
from solidjq.queue.states import State
from solidjq.rails.error_text import Death, error_json, exit_error, missing_error
from solidjq.recovery.terms import Selection
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all, fail, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs

ONE = Limit(1)
DAY = 86400.0
ERROR = error_json("E", "boom")
NASTY = "\x1b[31m\x07\x7f\x85\x9b31m\u202e\u2066\u2028\ufeffend"
LEAKY = "postgres://app:hunter2@db/app"


# -- for commands -------------------------------------------------------------------------------------------------


def something_for_every_command(database: Database) -> dict[str, object]:
    """Make a queue in which every command finds something to do; return what the commands call it by."""
    retried, failed, held, _orphan = add_jobs(database, *plain_jobs(4))
    dead, silent, gone = (add_process(database, name) for name in ("dead", "silent", "gone"))
    claim_all(database, dead, 2)
    claim_all(database, silent, 1)
    claim_all(database, gone, 1)
    with database.write() as connection:
        connection.execute(tables.processes.delete().where(tables.processes.c.id == gone))
    silence(database, dead, 1000)
    list(pruning.prune(database, 300))
    silence(database, silent, 1000)
    retry_jobs(database, [retried])
    return {
        "retried": retried,
        "failed": failed,
        "held": held,
        "death": f"d{rows(database, tables.deaths)[-1]['id']}",
        "operation": rows(database, tables.operations)[-1]["id"],
    }


# -- what makes a healthy queue ill, and what looks alike and is not --------------------------------------------------


def change(database: Database, *statements: Any) -> None:
    with database.write() as connection:
        for statement in statements:
            connection.execute(statement)


def limited(count: int, key: str = "Limited/a") -> list[NewJob]:
    return [NewJob(class_name="Limited", concurrency_key=key, limit=ONE) for _ in range(count)]


def age_of(table: Any, seconds: float, column: str = "created_at") -> Any:
    """Move a time of every row of a table into the past."""
    return update(table).values({column: ago(seconds)})


def lose_state(database: Database) -> None:
    add_jobs(database, *plain_jobs(3))
    change(database, delete(ready).where(ready.c.job_id == rows(database, jobs)[1]["id"]))


def every_state(database: Database) -> None:
    """Have jobs in all six states, at work."""
    worker = add_process(database)
    add_process(database, "dispatcher-1", kind="Dispatcher")
    ids = add_jobs(database, *plain_jobs(4))
    for job_id, end in zip(ids, (endings.finish, endings.release), strict=False):
        claim_all(database, worker, 1)
        database.transact(end, claimed.c.job_id == job_id)
    claim_all(database, worker, 1)
    database.transact(endings.fail, endings.claims_of(worker), missing_error())
    claim_all(database, worker, 1)
    add_jobs(database, *limited(2), NewJob(class_name="Later", delay=3600))
    assert set(state_of_each(database).values()) == set(State)


def two_states(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    claim_all(database, add_process(database))
    row = {"job_id": job_id, "queue_name": "default", "priority": 0, "created_at": utcnow()}
    change(database, insert(ready).values(row))


def finished_and_ready(database: Database) -> None:
    add_process(database)
    add_jobs(database, *plain_jobs(1))
    change(database, update(jobs).values(finished_at=utcnow()))


def finished_and_failed(database: Database) -> None:
    fail_all(database)
    change(database, update(jobs).values(finished_at=utcnow()))


def fail_all(database: Database) -> None:
    add_jobs(database, *plain_jobs(2))
    worker = add_process(database)
    claim_all(database, worker)
    database.transact(endings.fail, endings.claims_of(worker), missing_error())


def fail_by_errors(database: Database) -> None:
    fail(database, *plain_jobs(2), error=ERROR)


def orphan(database: Database) -> None:
    working(database)
    change(database, delete(tables.processes))


def working(database: Database) -> None:
    add_jobs(database, *plain_jobs(2))
    claim_all(database, add_process(database))


def long_claim(database: Database) -> None:
    working(database)
    change(database, age_of(claimed, 2 * 3600))


def leak_slot(database: Database) -> None:
    """Let the holder of a slot vanish without giving it back, as a delete by hand does."""
    first, _ = add_jobs(database, *limited(2))
    add_process(database)
    change(database, delete(ready).where(ready.c.job_id == first), delete(jobs).where(jobs.c.id == first))


def lose_slot(database: Database) -> None:
    """Let one of three slots be gone: a job holds one, and another waits for the third."""
    metadata = {"concurrency_maintenance_interval": 600, "limits": {"Limited": 3, "Other": 1, "Odd": "many"}}
    add_process(database, "dispatcher", kind="Dispatcher", metadata=metadata)
    add_jobs(database, *limited(2))
    change(database, update(blocked).values(expires_at=ago(-600)))
    claim_all(database, add_process(database))


def slot_in_use(database: Database) -> None:
    add_jobs(database, *limited(3))
    claim_all(database, add_process(database))


def below_zero(database: Database) -> None:
    slot_in_use(database)
    change(database, update(semaphores).values(value=-1))


def expired_semaphore(database: Database) -> None:
    add_process(database)
    add_jobs(database, *limited(1))
    change(database, age_of(semaphores, 1500, "expires_at"))


def semaphore_to_be_cleared(database: Database) -> None:
    add_process(database)
    add_jobs(database, *limited(1))
    change(database, age_of(semaphores, 500, "expires_at"))


def blocked_too_long(database: Database) -> None:
    slot_in_use(database)
    change(database, age_of(blocked, 1500, "expires_at"), delete(semaphores))


def blocked_rightly(database: Database) -> None:
    """Blocked for long, by a job that holds the slot for long."""
    slot_in_use(database)
    change(database, age_of(blocked, 1500, "expires_at"))


def crowded_key(database: Database) -> None:
    add_jobs(database, *limited(1001))


def nearly_crowded_key(database: Database) -> None:
    add_jobs(database, *limited(1000), *limited(500, "Limited/b"))


def dead_process(database: Database) -> None:
    add_jobs(database, *plain_jobs(1))
    worker = add_process(database)
    claim_all(database, worker)
    silence(database, worker, 301)


def due(database: Database) -> None:
    add_jobs(database, NewJob(class_name="Later", delay=3600))
    change(database, age_of(scheduled, 90, "scheduled_at"))


def due_with_dispatcher(database: Database) -> None:
    due(database)
    add_process(database, "dispatcher-1", kind="Dispatcher")


def overdue_with_dispatcher(database: Database) -> None:
    due_with_dispatcher(database)
    change(database, age_of(scheduled, 400, "scheduled_at"))


def add_worker(database: Database, queues: str, **more: Any) -> int:
    return database.transact(
        heartbeat.register, kind="Worker", name="worker-1", pid=1, hostname="h", metadata={"queues": queues, **more}
    )


def unattended(database: Database) -> None:
    add_worker(database, "mailers,report*")
    add_jobs(database, *plain_jobs(1, queue_name="mail"), *plain_jobs(1, queue_name="reports"))
    change(database, age_of(ready, 90))


def attended(database: Database) -> None:
    add_worker(database, "mailers,report*")
    add_jobs(database, *plain_jobs(1, queue_name="mailers"), *plain_jobs(1, queue_name="reports"))
    change(database, age_of(ready, 90))


def attended_by_nobody(database: Database) -> None:
    attended(database)
    change(database, delete(tables.processes))


def just_enqueued(database: Database) -> None:
    add_jobs(database, *plain_jobs(5))


def recurring(database: Database) -> None:
    row = {"key": "nightly", "schedule": "every day", "created_at": utcnow(), "updated_at": utcnow()}
    change(database, insert(tables.recurring_tasks).values(row))


def recurring_with_scheduler(database: Database) -> None:
    recurring(database)
    add_process(database, "scheduler-1", kind="Scheduler")


def sample(**sampled: Any) -> dict[str, Any]:
    return {"sample": {"at": datetime.now(UTC).isoformat(), "interval": 60.0, **sampled}}


def clock_ahead(database: Database) -> None:
    silence(database, add_process(database), -30)


def clock_behind(database: Database) -> None:
    add_worker(database, "*", **sample(at=(datetime.now(UTC) - timedelta(seconds=45)).isoformat()))


def clock_right(database: Database) -> None:
    add_worker(database, "*", **sample())


def beats_too_slowly(database: Database) -> None:
    add_worker(database, "*", **sample(interval=200.0))


def late_beat(database: Database) -> None:
    silence(database, add_worker(database, "*", **sample()), 140)


def refused_endings(database: Database) -> None:
    said = {"jobs": 3, "since": datetime.now(UTC).isoformat(), "error": "disk full"}
    add_worker(database, "*", **sample(unrecorded=said))


def between_beats(database: Database) -> None:
    silence(database, add_worker(database, "*", **sample()), 59)


def forgotten_pause(database: Database) -> None:
    add_jobs(database, *plain_jobs(2))
    change(database, age_of(ready, 2 * 3600))
    database.transact(pauses.pause, "default")


def fresh_pause(database: Database) -> None:
    add_jobs(database, *plain_jobs(2))
    change(database, age_of(ready, 1800))
    database.transact(pauses.pause, "default")


def nothing(_database: Database) -> None:
    """A queue with no process and no work."""


# -- five jobs: three plain ones, one that holds a slot, one that waits for it ----------------------------------------


def with_limited(count: int) -> list[NewJob]:
    """Describe plain jobs, one that holds a slot, and one that waits for it."""
    limited = [NewJob(class_name="L", concurrency_key="L/k", limit=ONE) for _ in range(2)]
    return [*plain_jobs(count), *limited]


def five_ready(database: Database) -> None:
    add_jobs(database, *with_limited(3))
    add_process(database)


def five_claimed(database: Database) -> None:
    five_ready(database)
    (process,) = (row["id"] for row in rows(database, tables.processes))
    claim_all(database, process)


def five_silent(database: Database) -> None:
    five_claimed(database)
    (process,) = (row["id"] for row in rows(database, tables.processes))
    silence(database, process, 1000)


def five_orphaned(database: Database) -> None:
    five_claimed(database)
    with database.write() as connection:
        connection.execute(delete(tables.processes))


def three_due(database: Database) -> None:
    add_jobs(database, *plain_jobs(3, delay=3600))
    with database.write() as connection:
        connection.execute(update(scheduled).values(scheduled_at=ago(1)))


def five_failed(database: Database) -> None:
    five_claimed(database)
    database.transact(endings.fail, tables.claimed.c.id > 0, ERROR)
    with database.write() as connection:
        worn = update(jobs).where(jobs.c.class_name == "PlainJob")
        connection.execute(worn.values(arguments='{"job_class":"PlainJob","arguments":[],"executions":4}'))


def five_died(database: Database) -> None:
    """All five died with their process, the one that waited for a slot too."""
    for seconds in (2000, 1000):
        if seconds == 2000:
            five_silent(database)
        else:
            claim_all(database, add_process(database, "worker-2"))
            silence(database, rows(database, tables.processes)[0]["id"], seconds)
        list(pruning.prune(database, 300))
    reset_ids(database)


def five_retried(database: Database) -> None:
    five_died(database)
    retry_safely(database)


def five_silent_first_operation(database: Database) -> None:
    five_silent(database)
    reset_ids(database)


def reset_ids(database: Database) -> None:
    """The operation of a test's own preparation is number 1 on every database; another one's is the next."""
    restart = {
        "mysql": "ALTER TABLE jq_operations AUTO_INCREMENT = 1",  # or what follows the last one
        "postgresql": "SELECT setval('{table}_id_seq', COALESCE(max(id), 0) + 1, false) FROM {table}",
        "sqlite": "DELETE FROM sqlite_sequence WHERE name = 'jq_operations'",
    }
    with database.write() as connection:
        table = qualified(connection, tables.operations.name)
        connection.execute(text(restart[database.url.get_backend_name()].format(table=table)))


def retry_safely(database: Database) -> None:
    retry_jobs(database, selection=Selection(chosen=Filter(deaths=frozenset(Death))), safe=True, queue_as="q")


def in_trouble(database: Database) -> int:
    """Fail one job, and let a process die with two in its hands, one of which holds the slot that a third waits for."""
    (failed,) = fail(database, *plain_jobs(1), error=missing_error())
    dead = add_process(database)
    add_jobs(database, *plain_jobs(1), *(NewJob(class_name="L", concurrency_key="L/k", limit=ONE) for _ in range(2)))
    claim_all(database, dead)
    silence(database, dead, 1000)
    assert list(state_of_each(database).values()) == [State.FAILED, State.CLAIMED, State.CLAIMED, State.BLOCKED]
    return failed


def hostile_rows(database: Database) -> None:
    fail(
        database,
        NewJob(class_name="ReportJob", args=[1, {"deep": [None, 1.5]}], kwargs={"format": "pdf"}, queue_name="reports"),
        NewJob(class_name="MailJob", queue_name="mailers", priority=-5),
        NewJob(class_name="MailJob", args=["x"], queue_name="mailers"),
        NewJob(class_name=f"J{NASTY}", queue_name=f"q{NASTY}", args=[NASTY, {NASTY: [NASTY]}], kwargs={NASTY: NASTY}),
        NewJob(class_name="Raw"),
        NewJob(class_name="A", args=[LEAKY, {"nested": [LEAKY]}], kwargs={"url": LEAKY}),
        NewJob(class_name=LEAKY, queue_name=LEAKY),
        error=[
            missing_error(),  # of the second job: its priority is the highest
            error_json("Net::ReadTimeout", "it took\n too \tlong", ["a.rb:1:in `x'", "b.rb:2"]),
            exit_error(26201, -9),
            error_json(f"E{NASTY}", f"message\r\n{NASTY}", [f"a.rb:1{NASTY}"]),
            f"no JSON {NASTY}",
            error_json("E", f"cannot connect to {LEAKY}", [f"a.rb:1 {LEAKY}"]),
            f"{LEAKY} is no JSON",
        ],
    )
    add_jobs(database, NewJob(class_name="A", queue_name="reports"), NewJob(class_name="A", delay=3600))
    claim_all(database, add_process(database, "worker-1"), 1)
    add_jobs(database, *plain_jobs(3))
    claim_all(database, add_process(database, "worker-2"), 1)
    nasty = add_process(database, f"worker{NASTY}", kind=f"Worker{NASTY}")
    secret = add_process(database, LEAKY)
    claim_all(database, secret, 1)
    for process in (nasty, secret, add_process(database, "dispatcher-1", kind="Dispatcher")):
        silence(database, process, 1000)
    with database.write() as connection:
        of_process = update(process_table).where
        connection.execute(of_process(process_table.c.id == nasty).values(hostname=NASTY, metadata=f"no JSON {NASTY}"))
        connection.execute(
            of_process(process_table.c.id == secret).values(hostname=LEAKY, metadata=json.dumps({"url": LEAKY}))
        )
        of_job = update(jobs).where
        connection.execute(of_job(jobs.c.id == 4).values(active_job_id=NASTY, concurrency_key=NASTY))
        connection.execute(of_job(jobs.c.id == 5).values(arguments=f"no JSON {NASTY}"))
        connection.execute(of_job(jobs.c.id == 7).values(arguments=f"{LEAKY} is no JSON"))
