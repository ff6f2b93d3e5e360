"""Which queues exist: a pause of a name that nothing names is a typing error until --create says that it is none."""

from sqlalchemy import insert

from solidjq import Database, NewJob
from solidjq.database.tables import operations, pauses, recurring_tasks
from solidjq.database.times import utcnow
from solidjq.processes import heartbeat
from solidjq.processes.queue_names import queue_names, unknown_queues
from support.program import Shell, assert_refused
from support.queue import add_jobs, rows


def name_queues(database: Database) -> None:
    """Name a queue in each of the places where Solid Queue stores one."""
    add_jobs(database, NewJob(class_name="A", queue_name="of_a_job"))
    database.transact(
        heartbeat.register,
        kind="Worker",
        name="worker-1",
        pid=1,
        hostname="h",
        metadata={"queues": "of_a_worker, report*"},
    )
    now = {"created_at": utcnow(), "updated_at": utcnow()}
    with database.write() as connection:
        connection.execute(insert(pauses).values(queue_name="of_a_pause", created_at=utcnow()))
        task = {"key": "nightly", "schedule": "every day", "queue_name": "of_a_task"}
        connection.execute(insert(recurring_tasks).values(**task, **now))
        connection.execute(insert(recurring_tasks).values(**task | {"key": "other", "queue_name": None}, **now))


def test_a_queue_exists_where_a_job_a_worker_a_pause_or_a_task_names_it(database: Database) -> None:
    name_queues(database)
    with database.read() as connection:
        assert queue_names(connection) == ["of_a_job", "of_a_pause", "of_a_task", "of_a_worker"]
        asked = ["reports", "of_a_task", "of_a_worker", "*", "report*", "of_a_job", "Of_a_job", "of_a_pause", ""]
        assert unknown_queues(connection, asked) == ["reports", "*", "report*", "Of_a_job", ""]


def test_a_misspelled_queue_is_not_paused_unless_it_is_meant(database: Database, shell: Shell) -> None:
    add_jobs(database, NewJob(class_name="A", queue_name="mailers"))
    assert_refused(shell.run("queues", "pause", "mailers", "mialers"), 5, "no queue mialers; did you mean mailers?")
    assert_refused(shell.run("queues", "pause", "zzz"), 5, "no queue zzz. Nothing was paused", "--create")
    assert rows(database, pauses) == []
    assert rows(database, operations) == []
    done = shell.run("queues", "pause", "--create", "mialers")
    assert (done.returncode, done.stderr) == (0, "jq: queue mialers paused\n")
    assert shell.run("queues", "pause", "mialers").stderr == "jq: queue mialers was paused already\n"


def test_a_misspelled_queue_is_not_silently_left_paused(database: Database, shell: Shell) -> None:
    add_jobs(database, NewJob(class_name="A", queue_name="mailers"), NewJob(class_name="A", queue_name="reports"))
    assert shell.run("queues", "pause", "mailers").returncode == 0
    done = shell.run("queues", "resume", "mailer")
    assert (done.returncode, done.stderr) == (4, "jq: no queue mailer; did you mean mailers?\n")
    assert [row["queue_name"] for row in rows(database, pauses)] == ["mailers"]
    both = shell.run("queues", "resume", "mailers", "nothing-like-it")
    assert (both.returncode, both.stderr) == (6, "jq: queue mailers resumed\njq: no queue nothing-like-it\n")
    assert (done := shell.run("queues", "resume", "reports")).returncode == 0, done.stderr
    assert done.stderr == "jq: queue reports was not paused\n"
