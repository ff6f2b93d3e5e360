"""The steps of a long job: it goes on where it was, and its progress is saved when it must be and never beyond."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from solidjq import ClaimLostError, Database, NewJob, StepError, Stopping, current_job, job
from solidjq.database.tables import jobs, pauses
from solidjq.database.times import utcnow
from solidjq.errors import BusyError, DatabaseUnreachableError
from solidjq.processes import pruning
from solidjq.queue import checkpoints, endings
from solidjq.queue.checkpoint_groups import CheckpointGroups
from solidjq.rails.continuation import NO_PROGRESS, Progress, progress_of
from solidjq.rails.error_text import parse_error
from solidjq.runtime.performing import perform
from solidjq.runtime.unrecorded import Ending
from solidjq.steps import ClaimedBy, Step
from support.continuations import continued
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all

Body = Callable[[], object]


class Script:
    """What the one job of these tests does when it runs."""

    body: Body = staticmethod(lambda: None)


@job(name="scripted")
def scripted(*_: object) -> object:
    return Script.body()


class LongJob:
    """The one job in the database, run again and again by one worker."""

    def __init__(self, database: Database) -> None:
        (self.id,) = add_jobs(database, NewJob(class_name="scripted"))
        self.database = database
        self.process = add_process(database)
        self.groups = CheckpointGroups(database, self.process)
        self.stopping = False

    def run(self, body: Body) -> Ending:
        """Run the job as a worker does, then release its claim."""
        Script.body = staticmethod(body)
        (claim,) = claim_all(self.database, self.process)
        ending = perform(ClaimedBy(claim, self.groups, lambda: self.stopping))
        self.database.transact(endings.release, endings.claims_of(self.process))
        return ending

    def fails(self, body: Body) -> str:
        """Run the job, which must fail; return its error in words."""
        ending = self.run(body)
        assert ending.error is not None
        error = parse_error(ending.error)
        return f"{error.exception_class}: {error.message}"

    @property
    def arguments(self) -> str:
        with self.database.read() as connection:
            return str(connection.scalar(select(jobs.c.arguments).where(jobs.c.id == self.id)))

    @arguments.setter
    def arguments(self, value: str) -> None:
        with self.database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == self.id).values(arguments=value))

    @property
    def progress(self) -> Progress:
        return progress_of(self.arguments)

    def prune(self) -> None:
        silence(self.database, self.process, 600)
        assert list(pruning.prune(self.database, 300))


@pytest.fixture
def long_job(database: Database) -> LongJob:
    return LongJob(database)


@pytest.fixture
def lost_connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no checkpoint reach the database."""

    def save(*_: object) -> set[int]:
        raise DatabaseUnreachableError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_group", save)
        yield


def import_up_to(last: int, done: list[int], *, interval: float = 0, fail_at: int | None = None) -> Body:
    """Return a job of three steps: the second imports the numbers 1 to ``last``, and fails before one of them."""

    def body() -> None:
        with current_job().step("fetch") as step:
            if not step.done:
                done.append(0)
        with current_job().step("import", checkpoint_interval=interval) as step:
            if not step.done:
                for number in range((step.cursor or 0) + 1, last + 1):
                    if number == fail_at:
                        raise ZeroDivisionError
                    done.append(number)
                    step.advance(to=number)
        with current_job().step("clean") as step:
            if not step.done:
                done.append(-1)

    return body


def iterate(rows: Any, done: list[Any], *, fail_at: object = None) -> Body:
    def body() -> None:
        for row in current_job().iterate("import", rows, cursor=lambda row: row, checkpoint_interval=0):
            if row == fail_at:
                raise ZeroDivisionError
            done.append(row)

    return body


def test_a_job_goes_on_where_it_was(long_job: LongJob) -> None:
    done: list[int] = []
    assert "ZeroDivisionError" in long_job.fails(import_up_to(5, done, fail_at=3))
    assert long_job.progress == Progress(("fetch",), "import", 2)
    assert "ZeroDivisionError" in long_job.fails(import_up_to(5, done, fail_at=5))
    assert long_job.progress == Progress(("fetch",), "import", 4, resumptions=1)
    assert long_job.run(import_up_to(5, done)).error is None
    assert done == [0, 1, 2, 3, 4, 5, -1]
    assert long_job.progress == Progress(("fetch", "import", "clean"), resumptions=2)


def test_between_steps_the_cursor_is_saved_when_the_interval_is_over(
    long_job: LongJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("solidjq.steps.time", SimpleNamespace(monotonic=lambda: now[0]))
    seen: list[Any] = []

    def body() -> None:
        with current_job().step("import") as step:
            for number, seconds in enumerate([2.0, 2.9, 0.1, 4.9, 0.1], start=1):
                now[0] += seconds
                step.advance(to=number)
                seen.append(long_job.progress.cursor)
            current_job().checkpoint()
            step.advance(to=6)
            current_job().checkpoint()
            seen.append(long_job.progress.cursor)

    assert long_job.run(body).error is None
    assert seen == [None, None, 3, 3, 5, 6]


def test_an_exception_saves_what_the_interval_held_back(long_job: LongJob) -> None:
    done: list[int] = []
    assert "ZeroDivisionError" in long_job.fails(import_up_to(5, done, interval=3600, fail_at=4))
    assert long_job.progress.cursor == 3


@pytest.mark.usefixtures("lost_connection")
def test_the_exception_that_is_under_way_is_not_hidden(long_job: LongJob, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert "ZeroDivisionError" in long_job.fails(import_up_to(5, [], interval=3600, fail_at=4))
    assert f"job {long_job.id}: its progress could not be saved: gone" in caplog.text


@pytest.mark.usefixtures("lost_connection")
def test_a_job_goes_on_if_its_progress_cannot_be_saved(long_job: LongJob, caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    with caplog.at_level(logging.WARNING):
        assert long_job.run(import_up_to(3, done)).error is None
    assert done == [0, 1, 2, 3, -1]
    assert caplog.text.count("trying again at each checkpoint until it is: gone") == 1


@pytest.mark.usefixtures("lost_connection")
def test_a_checkpoint_that_the_job_asks_for_must_be_saved(long_job: LongJob) -> None:
    def body() -> None:
        with current_job().step("import") as step:
            step.advance(to=1)
            current_job().checkpoint()

    assert "DatabaseUnreachableError: gone" in long_job.fails(body)


def test_a_worker_that_stops_gets_the_job_back_with_its_progress(long_job: LongJob) -> None:
    done: list[int] = []

    def body() -> None:
        with current_job().step("import", checkpoint_interval=3600) as step:
            for number in range((step.cursor or 0) + 1, 6):
                done.append(number)
                long_job.stopping = number == 3
                step.advance(to=number)

    ending = long_job.run(body)
    assert ending.stopped
    assert long_job.progress == Progress((), "import", 3)
    long_job.stopping = False
    assert not long_job.run(body).stopped
    assert done == [1, 2, 3, 4, 5]


def test_no_step_begins_while_the_worker_stops(long_job: LongJob) -> None:
    long_job.stopping = True
    done: list[int] = []
    assert long_job.run(import_up_to(3, done)).stopped
    assert done == []
    assert long_job.progress == NO_PROGRESS


def test_a_checkpoint_without_a_step_stops_the_job(long_job: LongJob) -> None:
    long_job.stopping = True
    assert long_job.run(lambda: current_job().checkpoint()).stopped


def test_a_pruned_worker_saves_nothing(long_job: LongJob) -> None:
    def body() -> None:
        with current_job().step("import", checkpoint_interval=0) as step:
            step.advance(to=1)
            long_job.prune()
            step.advance(to=2)

    assert "ClaimLostError: job" in long_job.fails(body)
    assert long_job.progress.cursor == 1


def test_a_pruned_worker_does_not_complete_a_step(long_job: LongJob) -> None:
    seen: list[type] = []

    def body() -> None:
        try:
            with current_job().step("import"):
                long_job.prune()
        except ClaimLostError as error:
            seen.append(type(error))
            raise

    long_job.fails(body)
    assert seen == [ClaimLostError]
    assert long_job.progress == NO_PROGRESS


# -- in the job's own transaction -------------------------------------------------------------------------------------


def effects(database: Database) -> list[str]:
    """Return what the jobs of this part wrote into the same database: paused queues, for want of a table of its own."""
    with database.read() as connection:
        return list(connection.scalars(select(pauses.c.queue_name).order_by(pauses.c.id)))


def write_effect(connection: Connection, number: int) -> None:
    connection.execute(insert(pauses).values(queue_name=str(number), created_at=utcnow()))


@pytest.mark.parametrize("in_time", [True, False], ids=["advance", "checkpoint"])
def test_progress_and_effects_commit_together(
    long_job: LongJob, monkeypatch: pytest.MonkeyPatch, *, in_time: bool
) -> None:
    """Whether a job fails before the commit or after it, each effect is there once."""
    # The next run saves its first records one by one. On SQLite that waits for the job's own transaction, in vain.
    monkeypatch.setattr("solidjq.database.transactions.ATTEMPTS", 1)
    monkeypatch.setattr("solidjq.database.engines.BUSY_TIMEOUT", 0.1)
    long_job.database.close()  # the next connection has that limit
    failures = ["before 2", "after 3"]

    def body() -> None:
        with current_job().step("import") as step:
            for number in range((step.cursor or 0) + 1, 6):
                with long_job.database.write() as connection:
                    write_effect(connection, number)
                    if in_time:
                        step.advance(to=number, connection=connection)
                    else:
                        step.advance(to=number)
                        current_job().checkpoint(connection=connection)
                    if f"before {number}" in failures:
                        failures.remove(f"before {number}")
                        raise ZeroDivisionError
                if f"after {number}" in failures:
                    failures.remove(f"after {number}")
                    raise ZeroDivisionError

    long_job.fails(body)
    assert effects(long_job.database) == ["1"]
    assert long_job.progress.cursor == 1
    long_job.fails(body)
    assert long_job.progress.cursor == 3
    assert long_job.run(body).error is None
    assert effects(long_job.database) == ["1", "2", "3", "4", "5"]
    assert long_job.progress.completed == ("import",)


def test_a_step_within_one_transaction_is_completed_by_it(long_job: LongJob) -> None:
    """Another connection would wait for the lock of this transaction, which waits for the end of the step."""
    fail = [True, False]

    def body() -> None:
        with long_job.database.write() as connection:
            with current_job().step("import") as step:
                if not step.done:
                    write_effect(connection, 1)
                    step.advance(to=1, connection=connection)
            if fail.pop(0):
                raise ZeroDivisionError

    long_job.fails(body)
    assert (effects(long_job.database), long_job.progress) == ([], NO_PROGRESS)
    assert long_job.run(body).error is None
    assert (effects(long_job.database), long_job.progress) == (["1"], Progress(("import",)))


def test_stopping_within_a_transaction_undoes_both(long_job: LongJob) -> None:
    def body() -> None:
        with current_job().step("import") as step:
            for number in range((step.cursor or 0) + 1, 4):
                long_job.stopping = number == 2
                with long_job.database.write() as connection:
                    write_effect(connection, number)
                    step.advance(to=number, connection=connection)

    assert long_job.run(body).stopped
    assert (effects(long_job.database), long_job.progress.cursor) == (["1"], 1)


def test_a_pruned_worker_cannot_commit_its_effects(long_job: LongJob) -> None:
    def body() -> None:
        with current_job().step("import") as step:
            long_job.prune()
            with long_job.database.write() as connection:
                write_effect(connection, 1)
                step.advance(to=1, connection=connection)

    assert "ClaimLostError" in long_job.fails(body)
    assert effects(long_job.database) == []


@pytest.mark.sqlite_only
def test_a_connection_to_another_database_is_no_lost_claim(long_job: LongJob, own: Database) -> None:
    def body() -> None:
        with current_job().step("import") as step, own.write() as connection:
            step.advance(to=1, connection=connection)

    assert "StepError: the connection that the checkpoint of job" in long_job.fails(body)


@pytest.mark.sqlite_only
def test_a_checkpoint_beside_the_jobs_own_transaction_says_so_at_once(
    long_job: LongJob, caplog: pytest.LogCaptureFixture
) -> None:
    """It would wait for itself. What it was to save is saved when the step ends."""

    def body() -> None:
        with current_job().step("import", checkpoint_interval=0) as step:
            with long_job.database.write() as connection:
                write_effect(connection, 1)
                step.advance(to=1)
            assert long_job.progress == NO_PROGRESS

    assert long_job.run(body).error is None
    assert "this thread has a transaction open that writes to it" in caplog.text
    assert "give its connection: advance(..., connection=connection)" in caplog.text
    assert long_job.progress == Progress(("import",))
    assert len(effects(long_job.database)) == 1


@pytest.mark.sqlite_only
def test_a_checkpoint_waits_once_for_a_busy_file(
    long_job: LongJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that is not ours writes: perhaps the job's own."""
    monkeypatch.setattr("solidjq.database.engines.BUSY_TIMEOUT", 0.05)
    long_job.groups = CheckpointGroups(Database(long_job.database.url), long_job.process)
    begun: list[Database] = []
    write = Database.write

    def counting(database: Database) -> AbstractContextManager[Connection]:
        begun.append(database)
        return write(database)

    def body() -> None:
        with (
            closing(sqlite3.connect(str(long_job.database.url.database), isolation_level=None)) as own,
            current_job().step("import", checkpoint_interval=0) as step,
        ):
            own.execute("BEGIN IMMEDIATE")
            with monkeypatch.context() as patch:
                patch.setattr(Database, "write", counting)
                step.advance(to=1)
                assert len(begun) == 1
                with pytest.raises(BusyError, match="give its connection"):
                    current_job().checkpoint()
                assert len(begun) == 2
            own.execute("COMMIT")

    assert long_job.run(body).error is None
    assert caplog.text.count("give its connection: advance(..., connection=connection)") == 1
    assert long_job.progress == Progress(("import",))
    long_job.groups.database.close()


# -- rows -------------------------------------------------------------------------------------------------------------


def after(cursor: int | None) -> range:
    return range((cursor or 0) + 1, 6)


@pytest.mark.parametrize("rows", [after, [1, 2, 3, 4, 5]], ids=["function", "list"])
def test_iterate_passes_over_rows_that_are_done(long_job: LongJob, rows: Any) -> None:
    done: list[int] = []
    assert "ZeroDivisionError" in long_job.fails(iterate(rows, done, fail_at=4))
    assert long_job.progress == Progress((), "import", 3)
    assert long_job.run(iterate(rows, done)).error is None
    assert done == [1, 2, 3, 4, 5]
    assert long_job.run(iterate(rows, done)).error is None
    assert done == [1, 2, 3, 4, 5]
    assert long_job.progress == Progress(("import",), resumptions=1)  # the third run had nothing to write


@pytest.mark.sqlite_only
def test_a_row_that_is_gone_is_passed_over_too(long_job: LongJob) -> None:
    done: list[int] = []
    long_job.fails(iterate([1, 2, 3, 4, 5], done, fail_at=4))
    assert long_job.run(iterate([1, 4, 5], done)).error is None
    assert done == [1, 2, 3, 4, 5]


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["a", "C", "b"], "'C' came after 'a'"),
        ([1, 1], "two rows of step 'import' have the cursor 1"),
        ([None], "or have none"),
        ([1, "a"], "cannot be compared"),
        (lambda _: [7, 7], "two rows of step 'import' have the cursor 7"),
    ],
)
def test_rows_that_a_resume_could_lose_are_refused(long_job: LongJob, rows: Any, words: str) -> None:
    assert words in long_job.fails(iterate(rows, []))


@pytest.mark.sqlite_only
def test_a_loop_that_is_left_early_does_not_complete_its_step(long_job: LongJob) -> None:
    def body() -> None:
        for row in current_job().iterate("import", after, cursor=lambda row: row, checkpoint_interval=0):
            if row == 3:
                break
        with current_job().step("clean"):
            pass

    assert "step 'clean' begins before step 'import' is complete" in long_job.fails(body)
    assert long_job.progress == Progress((), "import", 2)


# -- steps that do not fit --------------------------------------------------------------------------------------------


def in_steps(*names: str) -> Body:
    def body() -> None:
        for name in names:
            with current_job().step(name):
                pass

    return body


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x"], "step 'x' begins where the job's progress has step 'a'"),
        (["b"], "step 'b' begins where the job's progress has step 'a'"),
        (["a", "c"], "step 'c' begins where the job's progress has step 'b'"),
        (["a", "a"], "step 'a' occurs twice in this job"),
        ([""], "a step must have a name"),
    ],
)
def test_steps_that_do_not_fit_the_progress(long_job: LongJob, names: list[str], words: str) -> None:
    before = long_job.arguments = continued({"completed": ["a"], "current": ["b", 7]}, class_name="scripted")
    assert words in long_job.fails(in_steps(*names))
    assert long_job.arguments == before


@pytest.mark.sqlite_only
def test_steps_are_not_nested(long_job: LongJob) -> None:
    def body() -> None:
        with current_job().step("a"), current_job().step("b"):
            pass

    assert "step 'b' begins before step 'a' is complete" in long_job.fails(body)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("use", [lambda step: step.cursor, lambda step: step.advance(to=1)])
def test_a_step_that_is_done_has_no_work(long_job: LongJob, use: Callable[[Step], object]) -> None:
    long_job.arguments = continued({"completed": ["a"]}, class_name="scripted")

    def body() -> None:
        with current_job().step("a") as step:
            use(step)

    assert "look at its done before its work begins" in long_job.fails(body)


@pytest.mark.sqlite_only
def test_a_cursor_that_cannot_be_recorded_is_refused_at_once(long_job: LongJob) -> None:
    def body() -> None:
        with current_job().step("a", checkpoint_interval=3600) as step:
            step.advance(to={"page": 1})

    assert "StepError: the cursor of step 'a' cannot be of type dict" in long_job.fails(body)


# -- Rails ------------------------------------------------------------------------------------------------------------


def test_what_rails_began_goes_on_here_and_the_other_way_round(long_job: LongJob) -> None:
    long_job.arguments = continued(
        {"completed": ["fetch"], "current": ["import", 2], "attributes": {"tries": 1.0}}, 1, class_name="scripted"
    )
    done: list[int] = []
    long_job.fails(import_up_to(5, done, fail_at=5))
    assert done == [3, 4]
    assert long_job.arguments == continued(
        {"completed": ["fetch"], "current": ["import", 4], "attributes": {"tries": 1.0}}, 2, class_name="scripted"
    )
    ending = long_job.run(import_up_to(5, done))
    theirs = continued(
        {"completed": ["fetch", "import", "clean"], "attributes": {"tries": 1.0}}, 3, class_name="scripted"
    )
    assert long_job.arguments == f'{theirs[:-1]},"solidjq":{{"running":true}}}}'
    assert ending.arguments == theirs
    again = long_job.run(import_up_to(5, done)).arguments  # nothing was saved, but the marks are there
    assert again == theirs.replace('"resumptions":3', '"resumptions":4')
    long_job.arguments = theirs
    assert long_job.run(import_up_to(5, done)).arguments is None


@pytest.mark.sqlite_only
def test_cursors_of_rails_8_2_are_read_as_arguments_are(long_job: LongJob) -> None:
    time = {"_aj_serialized": "ActiveJob::Serializers::DateSerializer", "value": "2026-11-26"}
    seen: list[str] = []

    def body() -> None:
        with current_job().step("a") as step:
            seen.append(str(step.cursor))

    long_job.arguments = continued({"completed": [], "current": ["a", time]}, class_name="scripted")
    assert long_job.run(body).error is None
    assert seen == ["2026-11-26"]
    of_ruby = {"_aj_serialized": "ActiveJob::Serializers::ModuleSerializer", "value": "Shop"}
    long_job.arguments = continued({"completed": [], "current": ["a", of_ruby]}, class_name="scripted")
    assert "the cursor of step 'a' cannot be read in Python: only Ruby" in long_job.fails(body)


# -- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.sqlite_only
def test_async_jobs_have_steps_too(long_job: LongJob) -> None:
    done: list[int] = []

    async def advance(step: Step, number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)
        await asyncio.to_thread(step.advance, to=number)
        if number == 2 and len(done) == 2:
            raise ZeroDivisionError

    async def body() -> None:
        with current_job().step("import", checkpoint_interval=0) as step:
            for number in range((step.cursor or 0) + 1, 5):
                await advance(step, number)

    long_job.fails(body)
    assert long_job.progress == Progress((), "import", 2)
    assert long_job.run(body).error is None
    assert done == [1, 2, 3, 4]
    assert long_job.progress == Progress(("import",), resumptions=1)


def test_outside_of_a_worker_steps_are_in_memory() -> None:
    done: list[int] = []
    for _ in range(2):
        import_up_to(2, done)()
        current_job().checkpoint()
    assert done == [0, 1, 2, -1] * 2
    with pytest.raises(StepError, match="cannot be of type float"), current_job().step("a") as step:
        step.advance(to=1.5)
    with current_job().step("a") as step:
        step.advance(to=[1, "b"])
        assert step.cursor == [1, "b"]
    assert step.done


def test_an_own_stopping_saves_the_progress(long_job: LongJob) -> None:
    def body() -> None:
        with current_job().step("a", checkpoint_interval=3600) as step:
            step.advance(to=1)
            long_job.stopping = True
            raise Stopping

    assert long_job.run(body).stopped
    assert long_job.progress.cursor == 1
