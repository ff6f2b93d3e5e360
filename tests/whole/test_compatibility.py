"""Every command with every generation of Solid Queue's schema, on each database, and the document that says so."""

from pathlib import Path

import compatibility
import pytest
from compatibility import BATCHES, COMMANDS, ENVIRONMENTS, GENERATIONS, TOP, WORK, Generation
from sqlalchemy import text
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database.urls import url_text
from solidjq.ledger.operations import Operation
from solidjq.queue.enqueue import NewJob
from solidjq.queue.states import State
from solidjq_cli.command_tree import tree
from support.commands import ELSEWHERE, leaves
from support.environments import NAMED, make, run_every_command
from support.paths import PROGRAMS, ROOT
from support.program import Shell
from support.queue import add_jobs, state_of_each
from support.recovery import retry_jobs, undo
from support.servers import connected, execute
from support.waiting import PATIENCE, until


@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda generation: generation.name)
def test_every_command(
    generation: Generation,
    empty_url: URL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = make(empty_url, generation)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(empty_url))
    ended = run_every_command(empty_url, names, generation, monkeypatch, capsys)
    assert [each.outcome for each in ended] == [each.expected for each in ended]


@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda generation: generation.name)
def test_work(generation: Generation, empty_url: URL, tmp_path: Path) -> None:
    make(empty_url, generation)
    own = Database(empty_url)
    (job_id,) = add_jobs(own, NewJob(class_name="note", args=[1], queue_name="python"))
    shell = Shell(url_text(empty_url), tmp_path, {"PYTHONPATH": str(PROGRAMS)})
    working = shell.start(*WORK.command.split(), "--queues", "python")
    try:
        if not WORK.is_refused(generation):
            until(lambda: state_of_each(own)[job_id] is State.FINISHED, "the job finishes")
            working.terminate()
        _, told = working.communicate(timeout=PATIENCE)
    finally:
        working.kill()
        own.close()
    assert (working.returncode, NAMED in told) == (int(WORK.outcome(generation)[0]), WORK.is_refused(generation)), told


def test_a_job_of_a_batch(empty_url: URL) -> None:
    """What happens to the batch's rows while we know nothing of them.

    A failed job is no outstanding work: in Solid Queue it has the batch's id and no row that tracks it.
    """
    names = make(empty_url, BATCHES)
    own = Database(empty_url)
    failed = int(str(names["failed"]))

    def batch() -> tuple[object, bool]:
        with connected(empty_url) as connection:
            of_job = connection.scalar(text(f"SELECT batch_id FROM solid_queue_jobs WHERE id = {failed}"))  # noqa: S608
            kept = connection.scalars(text("SELECT job_id FROM solid_queue_batch_executions")).all()
        return of_job, failed in kept

    assert batch() == (1, True)
    retry, discard = Operation("retry"), Operation("discard")
    assert retry_jobs(own, [failed], retry).job_ids == [failed]
    assert batch() == (1, True)
    assert undo(own, retry) == {failed: None}
    assert batch() == (1, True)
    assert retry_jobs(own, [failed], discard, discard=True).job_ids == [failed]
    assert batch() == (None, False)
    assert undo(own, discard) == {failed: None}
    assert state_of_each(own)[failed] is State.FAILED
    assert batch() == (1, False)
    again = Operation("discard")
    assert retry_jobs(own, [failed], again, discard=True).job_ids == [failed]
    execute(empty_url, "DELETE FROM solid_queue_batches")  # as Solid Queue clears them, whatever the jobs say
    assert undo(own, again) == {failed: None}
    assert state_of_each(own)[failed] is State.FAILED
    assert batch() == (1, False)
    own.close()


def test_the_document_says_what_was_tried() -> None:
    path = ROOT / "docs" / "compatibility.md"
    assert path.read_text() == compatibility.document(), "run: make docs"


def test_each_environment_names_a_test() -> None:
    for row in ENVIRONMENTS:
        file, _, function = row.test.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(), row.test


def test_no_command_is_forgotten() -> None:
    tried = [each.command for each in (*COMMANDS, TOP, WORK)]
    named = {leaf for leaf in leaves(tree()) for command in tried if command.startswith(leaf)}
    assert named == leaves(tree()) - ELSEWHERE
