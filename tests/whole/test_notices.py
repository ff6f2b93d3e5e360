"""Word of new jobs: who sends it, who hears it. Only PostgreSQL carries it; the others must not mind."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import insert, text

from solidjq import Database, NewJob, enqueue
from solidjq.database import notices
from solidjq.database.tables import jobs, ready
from solidjq.database.tables import processes as process_table
from solidjq.database.times import utcnow
from solidjq.database.urls import url_text
from solidjq.errors import AccessDeniedError, DatabaseError, UsageError
from solidjq.queue.claim import ALL_QUEUES, claim
from solidjq.queue.enqueue import enqueue_alone
from solidjq.queue.pauses import pause, resume
from solidjq.queue.states import State
from support.paths import PROGRAMS
from support.processes import add_process
from support.program import Shell
from support.queue import add_jobs, plain_jobs, rows, state_of_each
from support.servers import execute
from support.waiting import PATIENCE, until

if TYPE_CHECKING:
    import psycopg

NEVER = 3600.0  # seconds


@contextmanager
def listening(database: Database) -> Iterator[Callable[[], bool]]:
    """Listen as a worker does; what is yielded waits for word, and tells whether any came."""
    heard = threading.Semaphore(0)

    def listen() -> None:
        with suppress(DatabaseError):  # the test is over, and its database gone
            for _ in notices.listen(database):
                heard.release()

    threading.Thread(target=listen, daemon=True).start()
    assert heard.acquire(timeout=PATIENCE), "it listens"
    yield lambda: heard.acquire(timeout=PATIENCE)


def notices_of(database: Database, move: Callable[[], object]) -> int:
    """Make a move; return how many notices it sent: those that arrive before a last one, which follows them."""
    with database.outside_transactions() as connection:
        connection.exec_driver_sql(f"LISTEN {notices.CHANNEL}")
        move()
        execute(database.url, f"NOTIFY {notices.CHANNEL}, 'the last one'")
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        for number, notice in enumerate(driver.notifies(timeout=PATIENCE)):
            if notice.payload:
                return number
    raise AssertionError("the last notice did not arrive")


@contextmanager
def taking_place(database: Database, place: int) -> Iterator[None]:
    """Be one of the two that are about to commit a notice."""
    with database.write() as connection:
        taken = text("SELECT pg_try_advisory_xact_lock(hashtext('solidjq.notices'), :place)")
        assert connection.scalar(taken, {"place": place})
        yield


def triggers(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(text("SELECT count(*) FROM pg_trigger WHERE tgname = 'jq_notify'")).scalar_one()


@pytest.mark.only_on("postgresql")
def test_who_enqueues_tells_those_who_wait(database: Database) -> None:
    with listening(database) as hears:
        add_jobs(database, *plain_jobs(1))
        assert hears()


@pytest.mark.only_on("postgresql")
def test_of_those_that_enqueue_at_once_two_notify(database: Database) -> None:
    """A notice keeps its place until its transaction ends; who finds none free enqueues and sends none."""

    def enqueue_one() -> None:
        enqueue_alone(database, NewJob(class_name="note"))

    with taking_place(database, 1):
        assert notices_of(database, enqueue_one) == 1
        with taking_place(database, 2):
            assert notices_of(database, enqueue_one) == 0
        assert notices_of(database, enqueue_one) == 1
    assert len(rows(database, ready)) == 3


@pytest.fixture
def enqueuer(own: Database, worker_name: str) -> Iterator[Database]:
    """A role that may enqueue, and of the catalogue's functions call only what everybody may."""
    role = f"enqueuer_{worker_name}"
    grants = (f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role}",)
    execute(own.url, f"CREATE ROLE {role} LOGIN", *grants, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    database = Database(own.url.set(username=role))
    yield database
    database.close()
    execute(own.url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("function", ["pg_try_advisory_xact_lock(int, int)", "pg_notify(text, text)"])
def test_who_may_not_call_a_function_of_the_notice_enqueues(own: Database, enqueuer: Database, function: str) -> None:
    execute(own.url, f"REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC")
    ids: list[int] = []
    assert notices_of(own, lambda: ids.append(enqueue_alone(enqueuer, NewJob(class_name="note")))) == 1

    def enqueue_within() -> None:
        with enqueuer.write() as connection:
            ids.extend(enqueue(connection, [NewJob(class_name="note")]))

    assert notices_of(own, enqueue_within) == 1
    assert state_of_each(own) == dict.fromkeys(ids, State.READY)
    execute(own.url, f"REVOKE INSERT ON {ready.name} FROM {enqueuer.url.username}")
    with pytest.raises(AccessDeniedError, match=ready.name):
        enqueue_alone(enqueuer, NewJob(class_name="note"))
    assert len(rows(own, jobs)) == 2


@pytest.mark.only_on("postgresql")
def test_a_callers_transaction_notifies_and_takes_no_place(database: Database) -> None:
    """It may last: meanwhile others would find none."""

    def enqueue_within() -> None:
        with database.write() as connection, taking_place(database, 1), taking_place(database, 2):
            enqueue(connection, [NewJob(class_name="note")])
            assert connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 2

    assert notices_of(database, enqueue_within) == 1


@pytest.mark.only_on("postgresql")
def test_who_resumes_a_queue_tells_them_too(database: Database) -> None:
    database.transact(pause, "default")
    with listening(database) as hears:
        assert database.transact(resume, "default")
        assert hears()


@pytest.mark.only_on("postgresql")
def test_with_the_trigger_every_program_does(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    database.transact(claim, add_process(database), ALL_QUEUES, 1)
    notices.install(database)
    notices.install(database)
    assert triggers(database) == 1
    with listening(database) as hears:
        with database.write() as connection:  # as Rails does it
            connection.execute(
                insert(ready).values(job_id=job_id, queue_name="default", priority=0, created_at=utcnow())
            )
        assert hears()
    notices.remove(database)
    notices.remove(database)
    assert triggers(database) == 0


@pytest.mark.only_on("postgresql")
def test_it_is_made_and_removed_on_the_command_line(database: Database, shell: Shell) -> None:
    made = shell.run("init", "--notify")
    assert (made.returncode, triggers(database)) == (0, 1)
    assert "now notifies waiting workers" in made.stderr
    removed = shell.run("init", "--no-notify")
    assert (removed.returncode, triggers(database)) == (0, 0)


@pytest.mark.only_on("sqlite", "mariadb")
def test_where_nothing_carries_it_that_is_said(database: Database, shell: Shell) -> None:
    assert list(notices.listen(database)) == []
    notices.remove(database)
    with pytest.raises(UsageError, match="only PostgreSQL"):
        notices.install(database)
    refused = shell.run("init", "--notify")
    assert refused.returncode == 2
    assert "only PostgreSQL" in refused.stderr


@pytest.mark.only_on("postgresql")
def test_a_worker_that_hears_of_a_job_does_not_wait_for_its_next_look(database: Database, shell: Shell) -> None:
    program = (
        "from solidjq import open_database; from solidjq.runtime.config import Config; "
        "from solidjq.runtime.supervisor import Supervisor; "
        f"url = {url_text(database.url)!r}; "
        f"Supervisor(Config(database_url=url, imports=('sample_jobs',), worker_polling_interval={NEVER}), "
        "open_database(url)).run()"
    )
    shell.environment["PYTHONPATH"] = str(PROGRAMS)
    supervisor = shell.start(program=("-c", program))
    try:
        until(lambda: any(row["kind"] == "Worker" for row in rows(database, process_table)), "a worker is there")
        for _ in range(3):
            (job_id,) = add_jobs(database, NewJob(class_name="note"))
            until(lambda job_id=job_id: state_of_each(database)[job_id] is State.FINISHED, "the job has run")
    finally:
        supervisor.terminate()
        supervisor.communicate(timeout=PATIENCE)
