"""A record that kills its worker: named after the second death, passed over by --skip-record, done by nobody."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from solidjq import Database, NewJob, current_job, job
from solidjq.database import tables
from solidjq.database.tables import jobs
from solidjq.ledger import crashes
from solidjq.processes import pruning
from solidjq.queue import endings
from solidjq.queue.checkpoint_groups import CheckpointGroups
from solidjq.queue.states import State
from solidjq.rails.positions import Marks, Position, marks_of, position_of
from solidjq.recovery.verdicts import Verdict
from solidjq.runtime.performing import perform
from solidjq.runtime.unrecorded import Ending
from solidjq.steps import ClaimedBy, Steps
from support.continuations import continued
from support.long_jobs import set_payload
from support.processes import add_process
from support.program import Shell, assert_refused
from support.queue import add_jobs, claim_all, rows
from support.recovery import retry_jobs
from support.runtime import Runtime

COUNT, POISON = 30, 20


def position(database: Database) -> Position:
    with database.read() as connection:
        found = position_of(connection.scalar(select(jobs.c.arguments)))
    assert found is not None
    return found


def test_a_record_that_kills_its_worker(runtime: Runtime, database: Database) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="import_poisoned", args=[COUNT, POISON]))
    runtime.start("--threads", "1", module="long_jobs")
    runtime.wait_for(job_id, State.FAILED)
    assert (position(database).where, position(database).skips) == (
        "in step import, before its first checkpoint",
        False,
    )
    assert retry_jobs(database, [job_id], safe=True).verdicts == {job_id: Verdict.RETRY}
    runtime.wait_for(job_id, State.FAILED)
    held = retry_jobs(database, [job_id], safe=True)
    assert held.verdicts == {job_id: Verdict.STUCK_RECORD}
    assert held.reason(job_id) == f"it died twice at import, cursor {POISON - 1}"
    (suspect,) = [
        each for each in json.loads(runtime.shell.run("suspects", "-o", "json").stdout) if each["kind"] == "job"
    ]
    assert suspect["position"] == {"step": "import", "cursor": POISON - 1, "exact": True}
    done = runtime.shell.run("retry", str(job_id), "--skip-record", "--reason", "damaged", "-o", "ids")
    assert done.returncode == 0, done.stderr
    runtime.wait_for(job_id, State.FINISHED)
    runtime.stop()
    times = Counter(map(int, (runtime.shell.folder / "records").read_text().split()))
    # Until the first death nothing was saved, from then on each record.
    assert times == {number: 2 if number < POISON else 1 for number in range(1, COUNT + 1) if number != POISON}


# -- what a run writes about itself -----------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a SIGKILL: the run writes nothing more."""


class Script:
    """What the one job of these tests does when it runs."""

    body: Callable[[], object] = staticmethod(lambda: None)


@job(name="scripted import")
def scripted(*_: object) -> object:
    return Script.body()


class Import:
    """An import of the rows 1 to 9 that is killed again and again."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        (self.id,) = add_jobs(database, NewJob(class_name="scripted import"))
        self.database = database
        self.done: list[int] = []
        self.now = 1000.0
        self.fatal = 0
        self.kill = True
        self.stopping = False
        self.rows: Any = lambda cursor: range((cursor or 0) + 1, 10)
        self.interval = 5.0
        monkeypatch.setattr("solidjq.steps.time", SimpleNamespace(monotonic=lambda: self.now))
        write = Steps.save_at_exception
        monkeypatch.setattr(Steps, "save_at_exception", lambda steps: None if self.died else write(steps))
        self.died = False

    def body(self) -> None:
        rows = self.rows
        for row in current_job().iterate("import", rows, cursor=lambda row: row, checkpoint_interval=self.interval):
            if row == self.fatal:
                self.died = self.kill
                raise Killed
            self.done.append(row)
            self.now += 1

    def run(self, body: Callable[[], object] | None = None) -> Ending:
        """Run the job; if it is killed, let its supervisor reap the worker."""
        self.died = False
        Script.body = staticmethod(body or self.body)
        worker = add_process(self.database, f"worker-{self.now}")
        (claim,) = claim_all(self.database, worker)
        groups = CheckpointGroups(self.database, worker)
        has_crashed = partial(crashes.has_crashed, self.database, claim.job_id, claim.active_job_id)
        ending = perform(ClaimedBy(claim, groups, lambda: self.stopping, has_crashed=has_crashed))
        if self.died:
            self.database.transact(pruning.fail_exited, worker, pid=int(self.now), returncode=-9)
        elif ending.error:
            self.database.transact(endings.fail, endings.claims_of(worker), ending.error)
        elif ending.stopped:
            self.database.transact(endings.release, endings.claims_of(worker))
        else:
            self.database.transact(endings.finish, endings.claims_of(worker))
        self.now += 100
        return ending

    def retry(self, **terms: Any) -> None:
        assert retry_jobs(self.database, [self.id], **terms).count == 1

    @property
    def position(self) -> Position:
        return position(self.database)


@pytest.fixture
def long_import(database: Database, monkeypatch: pytest.MonkeyPatch) -> Import:
    return Import(database, monkeypatch)


def test_after_a_death_each_record_is_saved_for_one_interval(long_import: Import) -> None:
    long_import.fatal = 4
    long_import.run()
    begun = long_import.position
    assert (begun.progress.cursor, begun.marks) == (None, Marks(running=True, rows=True))
    long_import.retry()
    long_import.run()
    assert (long_import.position.progress.cursor, long_import.position.key) == (3, begun.key)
    assert long_import.position.skips
    long_import.fatal = 9
    long_import.retry()
    long_import.run()  # it lasts for an interval: that is progress
    assert (long_import.position.progress.cursor, long_import.position.key) == (8, '["import",8]')
    assert long_import.done == [1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8]
    assert not long_import.position.skips


@pytest.mark.parametrize("completes", [False, True], ids=["first step", "second step"])
def test_a_step_that_dies_before_its_first_checkpoint(long_import: Import, *, completes: bool) -> None:
    """It writes nothing when it begins, unless it follows a death: so its second death is at a position."""
    begun: list[str] = []

    def body() -> None:
        if completes:
            with current_job().step("fetch"):
                pass
        before = rows(long_import.database, jobs)[0]["arguments"]
        with current_job().step("import"):
            begun.append("unsaved" if rows(long_import.database, jobs)[0]["arguments"] == before else "saved")
            long_import.died = True
            raise Killed

    long_import.run(body)
    assert retry_jobs(long_import.database, [long_import.id], safe=True).verdicts == {long_import.id: Verdict.RETRY}
    long_import.run(body)
    assert begun == ["unsaved", "saved"]
    held = retry_jobs(long_import.database, [long_import.id], safe=True)
    assert held.verdicts == {long_import.id: Verdict.STUCK_RECORD}
    assert held.reason(long_import.id) == "it died twice in step import, before its first checkpoint"
    long_import.retry()
    assert long_import.run(lambda: current_job().checkpoint()).error is None


def test_a_record_is_passed_over_once(long_import: Import, caplog: pytest.LogCaptureFixture) -> None:
    long_import.fatal, long_import.interval = 4, 0
    long_import.run()
    assert long_import.position.skips
    long_import.retry(skip_record=True)
    long_import.fatal = 5
    with caplog.at_level(logging.WARNING):
        long_import.run()
    assert f"job {long_import.id}: passed over the row with cursor 4 of step import" in caplog.text
    assert (long_import.position.progress.cursor, long_import.position.marks.skip) == (4, None)
    long_import.retry()
    long_import.fatal = 0
    assert long_import.run().error is None
    assert long_import.done == [1, 2, 3, 5, 6, 7, 8, 9]
    assert long_import.position.progress.completed == ("import",)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("rows", "left"), [(lambda _: [5, 9], [9]), ([1, 5, 9], [9]), (lambda _: [], [])], ids=["later", "list", "none"]
)
def test_the_record_that_is_passed_over_is_whatever_comes_next(long_import: Import, rows: Any, left: list[int]) -> None:
    long_import.fatal, long_import.interval = 4, 0
    long_import.run()
    long_import.retry(skip_record=True)
    long_import.rows, long_import.fatal = rows, 0
    assert long_import.run().error is None
    assert long_import.done == [1, 2, 3, *left]
    assert long_import.position.marks.skip is None


def test_a_job_that_failed_by_itself_may_pass_over_the_record_too(long_import: Import) -> None:
    long_import.fatal, long_import.kill = 4, False
    assert long_import.run().error is not None
    assert (long_import.position.progress.cursor, long_import.position.marks) == (3, Marks(exact=True, rows=True))
    long_import.retry(skip_record=True)
    long_import.fatal = 0
    assert long_import.run().error is None
    assert long_import.done == [1, 2, 3, 5, 6, 7, 8, 9]


@pytest.mark.sqlite_only
def test_an_orderly_stop_is_no_death(long_import: Import) -> None:
    def stops() -> None:
        long_import.stopping = True
        long_import.body()

    assert long_import.run(stops).stopped
    long_import.stopping = False

    def stops_later() -> None:
        for row in current_job().iterate("import", long_import.rows, cursor=lambda row: row):
            long_import.done.append(row)
            long_import.stopping = row == 3

    assert long_import.run(stops_later).stopped
    long_import.stopping = False
    assert long_import.position.marks == Marks(exact=True, rows=True)
    long_import.fatal = 6
    long_import.run()
    assert long_import.position.progress.cursor == 3  # not careful: the first checkpoint would come after 5 seconds


@pytest.mark.sqlite_only
def test_progress_in_the_jobs_own_transaction_counts_at_once(long_import: Import) -> None:
    def body() -> None:
        with current_job().step("import") as step:
            for number in range((step.cursor or 0) + 1, 10):
                if number == long_import.fatal:
                    long_import.died = True
                    raise Killed
                with long_import.database.write() as connection:
                    step.advance(to=number, connection=connection)

    for fatal in (3, 5):
        long_import.fatal = fatal
        long_import.run(body)
        assert long_import.position.key == f'["import",{fatal - 1}]'
        assert not long_import.position.skips
        long_import.retry()


def test_rails_reads_past_what_a_run_writes_about_itself(long_import: Import) -> None:
    """Rails' own two keys are what they were, and ours comes last."""
    long_import.fatal = 4
    long_import.run()
    (row,) = rows(long_import.database, jobs)
    text = row["arguments"]
    theirs = ',"continuation":{"completed":[],"current":["import",null]},"resumptions":0'
    assert text.endswith(f'{theirs},"solidjq":{{"running":true,"rows":true}}}}')
    assert json.loads(text)["arguments"] == []


# -- what a retry asks ------------------------------------------------------------------------------------------------


def test_skip_record_is_recorded_and_undone(long_import: Import, shell: Shell) -> None:
    long_import.fatal, long_import.interval = 4, 0
    long_import.run()
    (before,) = rows(long_import.database, jobs)
    dry = shell.run("retry", str(long_import.id), "--skip-record", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    done = shell.run("retry", str(long_import.id), "--skip-record", "-o", "ids")
    assert (done.returncode, done.stdout) == (0, f"{long_import.id}\n")
    words = f"job {long_import.id} goes on behind the record that comes after step import, cursor 3"
    assert words in dry.stderr
    assert words in done.stderr
    assert long_import.position.marks.skip == '["import",3]'
    (operation,) = rows(long_import.database, tables.operations)
    assert json.loads(operation["filter"])["skip_record"] is True
    assert shell.run("undo", str(operation["id"])).returncode == 0
    assert rows(long_import.database, jobs)[0]["arguments"] == before["arguments"]
    assert shell.run("retry", str(long_import.id), "--restart").returncode == 0
    assert marks_of(rows(long_import.database, jobs)[0]["arguments"]) == Marks()


def test_a_record_that_is_passed_over_is_not_over_the_limit(long_import: Import) -> None:
    long_import.fatal, long_import.interval = 4, 0
    for _ in range(2):
        long_import.run()
        long_import.retry()
    long_import.run()
    assert retry_jobs(long_import.database, [long_import.id]).verdicts == {long_import.id: Verdict.OVER_LIMIT}
    skipped = retry_jobs(long_import.database, [long_import.id], skip_record=True)
    assert (skipped.count, skipped.reason(long_import.id)) == (1, None)
    long_import.fatal = 5
    long_import.run()
    assert retry_jobs(long_import.database, [long_import.id], safe=True).verdicts == {long_import.id: Verdict.RETRY}


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("payload", "arguments", "words"),
    [
        (None, ["{id}", "--skip-record"], "the job is in no step, so there is no record to pass over"),
        ("not JSON", ["{id}", "--skip-record"], "the job is in no step"),
        (continued({"completed": ["a"]}), ["{id}", "--skip-record"], "the job is in no step"),
        (
            continued({"completed": [], "current": ["a", 3]}),
            ["{id}", "--skip-record"],
            "step 'a' does not iterate(...), so nobody knows which record comes after its cursor; --from a:CURSOR",
        ),
        (
            continued({"completed": [], "current": ["a", 3]})[:-1] + ',"solidjq":{"rows":true}}',
            ["{id}", "--skip-record"],
            "the cursor of step 'a' was saved some records before the death; retry the job once more",
        ),
        (None, ["--died", "--yes", "--skip-record"], "--skip-record moves one job, named by its id"),
        (None, ["{id}", "--skip-record", "--safe"], "--skip-record goes without --safe"),
        (None, ["{id}", "--skip-record", "--restart"], "--restart, --from and --skip-record exclude each other"),
    ],
)
def test_what_cannot_be_passed_over(
    long_import: Import, shell: Shell, payload: str | None, arguments: list[str], words: str
) -> None:
    long_import.fatal = 1
    long_import.run(lambda: 1 / 0)
    if payload is not None:
        set_payload(long_import.database, long_import.id, payload)
    before = rows(long_import.database, jobs)
    done = shell.run("retry", *(argument.format(id=long_import.id) for argument in arguments))
    assert_refused(done, 2, words)
    assert rows(long_import.database, jobs) == before


@pytest.mark.parametrize("text", ['{"solidjq":1}', '{"solidjq":{"since":5,"exact":"yes"}}', '{"solidjq":', "[]", None])
def test_marks_that_make_no_sense_are_none(text: str | None) -> None:
    assert marks_of(text) == Marks()
