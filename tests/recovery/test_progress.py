"""The progress of a long job is shown, kept by a retry, dropped by --restart and moved by --from; undo restores it."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import jobs
from solidjq.database.times import ago
from solidjq.rails.continuation import NO_PROGRESS, Progress, progress_of
from solidjq.rails.error_text import error_json, missing_error, parse_error, pruned_error
from support.continuations import continued
from support.long_jobs import add_long_job, kill_at
from support.program import Shell, assert_refused
from support.queue import fail, rows
from support.recovery import retry_jobs

SAVED = datetime(2026, 11, 26, 10, 0, 0, tzinfo=UTC)
PROGRESS = Progress(("fetch", "check"), "import", 48213, 2)
PAYLOAD = continued({"completed": ["fetch", "check"], "current": ["import", 48213], "attributes": {"x": 1.0}}, 2)


@pytest.fixture
def job_id(database: Database) -> int:
    (failed_id,) = fail(database, NewJob(class_name="ImportJob"), error=missing_error())
    set_payload(database, failed_id, PAYLOAD)
    return failed_id


def set_payload(database: Database, job_id: int, payload: str) -> None:
    with database.write() as connection:
        row = update(jobs).where(jobs.c.id == job_id)
        connection.execute(row.values(arguments=payload, updated_at=ago(9000)))


def payload(database: Database, job_id: int) -> str:
    with database.read() as connection:
        return str(connection.scalar(select(jobs.c.arguments).where(jobs.c.id == job_id)))


def progress(database: Database, job_id: int) -> Progress:
    return progress_of(payload(database, job_id))


def test_a_retry_keeps_the_progress_and_resets_the_counters(database: Database, job_id: int) -> None:
    set_payload(database, job_id, PAYLOAD.replace('"executions":0', '"executions":3'))
    retry_jobs(database, [job_id])
    assert payload(database, job_id) == PAYLOAD


def test_restart_drops_the_progress_and_undo_restores_it(database: Database, shell: Shell, job_id: int) -> None:
    (other,) = fail(database, NewJob(class_name="Plain"), error=missing_error())
    plain = payload(database, other)
    done = shell.run("retry", str(job_id), str(other), "--restart", "-o", "ids")
    assert done.returncode == 0, done.stderr
    assert payload(database, job_id) == continued({"completed": [], "attributes": {"x": 1.0}})
    assert payload(database, other) == plain
    (operation,) = rows(database, tables.operations)
    assert json.loads(operation["filter"])["restart"] is True
    assert [row["arguments"] for row in rows(database, tables.failures)] == [PAYLOAD, plain]
    assert shell.run("undo", str(operation["id"])).returncode == 0
    assert payload(database, job_id) == PAYLOAD


@pytest.mark.parametrize(
    ("position", "after"),
    [
        ("import:48000", Progress(("fetch", "check"), "import", 48000, 2)),
        ("import", Progress(("fetch", "check"), "import", None, 2)),
        ("check:a:b", Progress(("fetch",), "check", "a:b", 2)),
        ('fetch:["a",1]', Progress((), "fetch", ["a", 1], 2)),
        ('fetch:"7"', Progress((), "fetch", "7", 2)),
    ],
)
def test_from_moves_the_one_job(database: Database, shell: Shell, job_id: int, position: str, after: Progress) -> None:
    dry = shell.run("retry", str(job_id), "--from", position, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert payload(database, job_id) == PAYLOAD
    done = shell.run("retry", str(job_id), "--from", position, "-o", "ids")
    assert (done.returncode, done.stdout) == (0, f"{job_id}\n")
    assert f"job {job_id} goes on at {after.words}; it was at step import, cursor 48213" in done.stderr
    assert progress(database, job_id) == after
    (operation,) = rows(database, tables.operations)
    assert json.loads(operation["filter"])["resume_at"] == position
    assert shell.run("undo", str(operation["id"])).returncode == 0
    assert payload(database, job_id) == PAYLOAD


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{id}", "--from", "clean"], "the job has begun no step 'clean' (begun so far: fetch, check, import)"),
        (["{id}", "--from", "import:1.5"], "the cursor of step 'import' cannot be of type float"),
        (["--class", "ImportJob", "--yes", "--from", "import"], "--from moves one job, named by its id"),
        (["{id}", "{other}", "--from", "import"], "--from moves one job, named by its id"),
        (["{id}", "--from", "import", "--restart"], "--restart, --from and --skip-record exclude each other"),
    ],
)
def test_positions_that_make_no_sense(
    database: Database, shell: Shell, job_id: int, arguments: list[str], words: str
) -> None:
    (other,) = fail(database, NewJob(class_name="ImportJob"), error=missing_error())
    done = shell.run("retry", *(argument.format(id=job_id, other=other) for argument in arguments))
    assert_refused(done, 2, words)
    assert payload(database, job_id) == PAYLOAD


@pytest.mark.sqlite_only
def test_a_plan_has_the_position(database: Database, shell: Shell, job_id: int) -> None:
    assert shell.run("retry", str(job_id), "--from", "check:3", "--plan-out", "plan").returncode == 0
    assert progress(database, job_id) == PROGRESS
    done = shell.run("apply", "plan", "--yes")
    assert done.returncode == 0, done.stderr
    assert progress(database, job_id) == Progress(("fetch",), "check", 3, 2)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("text", ['{"continuation":null}', "no JSON, continuation", '["continuation"]'])
def test_restart_of_a_damaged_payload(database: Database, job_id: int, text: str) -> None:
    set_payload(database, job_id, text)
    retry_jobs(database, [job_id], restart=True)
    assert progress(database, job_id) == NO_PROGRESS


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (missing_error(), "step import, cursor 48213 (saved 2h before the death)"),
        (error_json("ValueError", "boom", []), "step import, cursor 48213 (saved 2h before the failure)"),
        (pruned_error(SAVED + timedelta(seconds=3)), "step import, cursor 48213 (saved 3s before the last heartbeat)"),
        (pruned_error(SAVED - timedelta(seconds=4)), "step import, cursor 48213 (saved 4s after the last heartbeat)"),
    ],
)
def test_the_progress_in_words(error: str, words: str) -> None:
    assert PROGRESS.described(SAVED, SAVED + timedelta(hours=2.5), parse_error(error)) == words
    assert PROGRESS.described(None, SAVED, parse_error(error)) == "step import, cursor 48213"


@pytest.mark.parametrize("command", [("failed", "show"), ("jobs", "show")])
def test_the_progress_is_shown(database: Database, shell: Shell, job_id: int, command: tuple[str, str]) -> None:
    (other,) = fail(database, NewJob(class_name="Plain"), error=missing_error())
    shown = shell.run(*command, str(job_id), str(other), "-o", "json")
    with_progress, without = json.loads(shown.stdout)
    saved_at = with_progress["progress"].pop("saved_at")
    assert saved_at.endswith("Z")
    assert with_progress["progress"] == PROGRESS.to_record()
    assert without["progress"] is None


def test_history_says_how_far_the_job_was(database: Database, shell: Shell, job_id: int) -> None:
    for _ in range(2):
        events = json.loads(shell.run("history", str(job_id), "-o", "json").stdout)
        assert [event["detail"] for event in events if event["event"] == "saved"] == ["step import, cursor 48213"]
        retry_jobs(database, [job_id], restart=True)


def test_a_dry_run_says_where_long_jobs_go_on(database: Database, shell: Shell, job_id: int) -> None:
    (other,) = fail(database, NewJob(class_name="Plain"), error=missing_error())
    words = f"job {job_id} goes on at step import, cursor 48213 (saved 2h before the death)"
    dry = shell.run("retry", "--safe", "--dry-run", "-o", "json")
    of_each = {one["job_id"]: one["progress"] for one in json.loads(dry.stdout)}
    assert of_each[job_id] == {**PROGRESS.to_record(), "saved_at": of_each[job_id]["saved_at"]}
    assert of_each[other] is None
    assert dry.stderr.count(" goes on at ") == 1
    assert words in dry.stderr
    assert words in shell.run("retry", str(job_id), "--dry-run").stderr
    for option in ("--restart", "--from=check"):
        assert words not in shell.run("retry", str(job_id), option, "--dry-run").stderr


@pytest.mark.sqlite_only
def test_few_of_many_long_jobs_are_named(database: Database, shell: Shell) -> None:
    for failed_id in fail(database, *(NewJob(class_name="ImportJob") for _ in range(8)), error=missing_error()):
        set_payload(database, failed_id, PAYLOAD)
    set_payload(database, failed_id, continued({"completed": [], "attributes": {}}))
    dry = shell.run("retry", "--safe", "--dry-run")
    assert dry.stderr.count(" goes on ") == dry.stderr.count(" goes on at step import") == 5
    assert "2 more long jobs go on where they were" in dry.stderr
    set_payload(database, failed_id, continued({"completed": ["fetch"]}))
    words = f"job {failed_id} goes on after step fetch (saved 2h before the death)"
    assert words in shell.run("retry", str(failed_id), "--dry-run").stderr


def test_an_incident_says_where_long_jobs_stood(database: Database, shell: Shell) -> None:
    """Also after they were retried, by what was noted of the crash."""
    job_id = add_long_job(database)
    kill_at(database, job_id, "import", 48213)
    for words in ("(saved 2h before the death); resumes there", "(saved 2h before the death)"):
        (listed,) = json.loads(shell.run("incidents", "list", "-o", "json").stdout)
        name = listed["incident"]
        shown = shell.run("incidents", "show", name)
        assert f"progress  job {job_id} ImportJob: step import, cursor 48213 {words}\n" in shown.stdout
        (incident,) = json.loads(shell.run("incidents", "show", name, "-o", "json").stdout)
        ((job,),) = (death["jobs"] for death in incident["deaths"])
        assert (job["progress"]["step"], job["progress"]["cursor"]) == ("import", 48213)
        retry_jobs(database, [job_id], restart=True)
