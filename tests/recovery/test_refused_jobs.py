"""A job that the database refuses to move, by a trigger say, keeps no other from a retry, a discard or an undo."""

import json
from datetime import UTC, datetime
from itertools import cycle

import pytest
from sqlalchemy import Column

from solidjq import Database, NewJob
from solidjq.database.tables import failed, failures, jobs, operations, ready
from solidjq.errors import DatabaseError
from solidjq.ledger.operations import Operation
from solidjq.queue.states import State
from solidjq.recovery.refusals import MOST_IN_VAIN, MOST_NAMED
from support.databases import DATABASES
from support.deaths import die
from support.processes import add_attendants, add_process
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs
from support.refusals import UNKNOWN, VALUE, refusing

LATER = datetime(2099, 5, 4, tzinfo=UTC)
COMMANDS = {
    "retry": ("retry", "--died", "--yes"),
    "retry --safe": ("retry", "--safe", "--yes"),
    "discard": ("discard", "--died", "--yes"),
}
STATES = [(kind, state) for kind in DATABASES for state in (VALUE, UNKNOWN) if (kind, state) != ("sqlite", VALUE)]
OUTPUTS = [*((kind, "table") for kind in DATABASES), ("sqlite", "json")]


def refused(*job_ids: int) -> str:
    return f"NEW.job_id IN ({', '.join(map(str, job_ids))})"


def in_turn(*values: str) -> list[tuple[str, str]]:
    """Give each value a database, and each database a value: every refusal costs transactions of its own."""
    return [*zip(cycle(DATABASES), values, strict=False)]


@pytest.mark.parametrize(("kind", "state"), STATES, indirect=["kind"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_job_that_is_refused_keeps_no_other(
    database: Database, kind: str, shell: Shell, command: str, state: str
) -> None:
    """The archive refuses it, which each of these commands writes."""
    ids = add_jobs(database, *plain_jobs(9))
    die(database)
    bad = (ids[1], ids[8])
    with refusing(database, kind, "INSERT", failures.name, refused(*bad), state):
        ran = shell.run(*COMMANDS[command], "--batch", "4", "-o", "ids")
    moved = [job_id for job_id in ids if job_id not in bad]
    assert (ran.returncode, ran.stdout.split()) == (6, [str(job_id) for job_id in moved])
    assert f"jobs {bad[0]}, {bad[1]} stay failed: " in ran.stderr
    assert "refused by the test" in ran.stderr
    left = dict.fromkeys(bad, State.FAILED)
    assert state_of_each(database) == left | ({} if command == "discard" else dict.fromkeys(moved, State.READY))
    (operation,) = rows(database, operations)
    verdict = "discard" if command == "discard" else "retry"
    assert (operation["jobs"], json.loads(operation["verdicts"])) == (7, {verdict: 7})
    assert shell.run(*COMMANDS[command], "-o", "ids").stdout.split() == [str(job_id) for job_id in bad]


@pytest.mark.parametrize("more", [(), ("--rate", "60/m")])
def test_a_job_that_is_refused_takes_no_place_under_a_limit(
    database: Database, kind: str, shell: Shell, more: tuple[str, ...]
) -> None:
    ids = add_jobs(database, *plain_jobs(9))
    die(database)
    with refusing(database, kind, "INSERT", failures.name, refused(ids[0]), UNKNOWN):
        ran = shell.run("retry", "--died", "--yes", "--limit", "3", *more, "-o", "ids")
    assert (ran.returncode, ran.stdout.split()) == (6, [str(job_id) for job_id in ids[1:4]])
    assert f"job {ids[0]} stays failed: " in ran.stderr
    assert sum(state is State.FAILED for state in state_of_each(database).values()) == 6


def test_a_job_that_is_named_and_refused_is_not_missing(database: Database, kind: str, shell: Shell) -> None:
    bad, other = add_jobs(database, *plain_jobs(2))
    die(database)
    with refusing(database, kind, "INSERT", ready.name, refused(bad), UNKNOWN):
        both = shell.run("retry", str(bad), str(other))
        alone = shell.run("retry", str(bad))
    for ran in (both, alone):
        assert ran.returncode == 6
        assert f"job {bad} stays failed: " in ran.stderr
        assert "was not taken" not in ran.stderr
    assert "jq undo" not in alone.stderr
    assert "no failed jobs" not in alone.stderr
    assert state_of_each(database) == {bad: State.FAILED, other: State.READY}
    assert len(rows(database, operations)) == 1


@pytest.mark.parametrize(("kind", "command"), in_turn(*COMMANDS), indirect=["kind"])
def test_a_database_that_refuses_every_job_stops_the_command(
    database: Database, kind: str, shell: Shell, command: str
) -> None:
    ids = add_jobs(database, *plain_jobs(MOST_IN_VAIN + 1))
    die(database)
    with refusing(database, kind, "INSERT", failures.name, "NEW.job_id > 0", UNKNOWN):
        ran = shell.run(*COMMANDS[command])
    assert ran.returncode == 3
    assert "refused by the test" in ran.stderr
    assert state_of_each(database) == dict.fromkeys(ids, State.FAILED)
    assert not rows(database, operations)


@pytest.mark.parametrize(("kind", "batch"), in_turn("4", "1000", "4", "1000"), indirect=["kind"])
def test_however_many_jobs_are_refused_they_keep_no_other(
    database: Database, kind: str, shell: Shell, batch: str
) -> None:
    ids = add_jobs(database, *plain_jobs(40))
    die(database)
    bad, others = [ids[at] for at in range(1, len(ids), 2)], ids[::2]
    operation = Operation("retry")
    with refusing(database, kind, "INSERT", failures.name, refused(*bad), UNKNOWN):
        ran = shell.run("retry", "--died", "--yes", "--batch", batch, "-o", "ids")
    assert (ran.returncode, ran.stdout.split()) == (6, [str(job_id) for job_id in others])
    assert f"jobs {', '.join(map(str, bad))} stay failed: " in ran.stderr
    retry_jobs(database, bad, operation)
    with refusing(database, kind, "INSERT", failed.name, refused(*bad[::2]), UNKNOWN):
        assert "took back 10 jobs" in shell.run("undo", str(operation.id)).stderr


@pytest.mark.parametrize(("kind", "batch"), in_turn("30", "1000", "30", "1000"), indirect=["kind"])
def test_the_oldest_jobs_that_are_refused_keep_no_newer_ones(
    database: Database, kind: str, shell: Shell, batch: str
) -> None:
    """With batches of 30, nothing of the first moves, and what is left of it waits until the others were tried."""
    ids = add_jobs(database, *plain_jobs(80))
    die(database)
    bad, others = [*ids[:29], *ids[30:41]], [ids[29], *ids[41:]]
    with refusing(database, kind, "INSERT", failures.name, refused(*bad), UNKNOWN):
        ran = shell.run("retry", "--died", "--yes", "--batch", batch, "-o", "json")
    assert ran.returncode == 6
    assert sorted(one["job_id"] for one in json.loads(ran.stdout)) == others
    named = ", ".join(map(str, bad[:MOST_NAMED]))
    assert f"jobs {named} and 20 more stay failed: " in ran.stderr
    assert state_of_each(database) == dict.fromkeys(bad, State.FAILED) | dict.fromkeys(others, State.READY)
    (operation,) = rows(database, operations)
    assert (operation["jobs"], json.loads(operation["verdicts"])) == (40, {"retry": 40})
    with refusing(database, kind, "INSERT", failed.name, refused(*others[:15]), UNKNOWN):
        assert "took back 25 jobs" in shell.run("undo", str(operation["id"])).stderr


def test_twenty_refused_jobs_are_named_and_the_others_counted(database: Database, kind: str, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(2 * MOST_NAMED + 6))
    die(database)
    bad = ids[1::2]
    with refusing(database, kind, "INSERT", failures.name, refused(*bad), UNKNOWN):
        assert f"{bad[MOST_NAMED - 1]} and 3 more stay failed: " in shell.run("retry", "--died", "--yes").stderr
    assert shell.run("undo", str(rows(database, operations)[0]["id"])).returncode == 0
    retry_jobs(database, ids, operation := Operation("retry"))
    with refusing(database, kind, "INSERT", failed.name, refused(*bad), UNKNOWN):
        ran = shell.run("undo", str(operation.id))
    named = [job_id for job_id in bad if f"refuses to move job {job_id}: " in ran.stderr]
    assert (named, "left 3 jobs alone: the database refuses to move them" in ran.stderr) == (bad[:MOST_NAMED], True)


def test_a_retry_that_is_exact_is_refused_as_a_whole(database: Database, kind: str, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(3))
    die(database)
    assert shell.run("retry", "--safe", "--plan-out", "plan.json").returncode == 0
    with refusing(database, kind, "INSERT", failures.name, refused(ids[1]), UNKNOWN):
        assert shell.run("apply", "plan.json", "--yes").returncode == 3
        with pytest.raises(DatabaseError, match="refused by the test"):
            retry_jobs(database, ids, Operation("bisect"))
    assert state_of_each(database) == dict.fromkeys(ids, State.FAILED)


def test_a_recover_goes_on_past_a_job_that_is_refused(database: Database, kind: str, shell: Shell) -> None:
    bad, *others = add_jobs(database, *plain_jobs(4))
    die(database)
    shell.environment["JQ_CONFIG"] = "own.toml"
    (shell.folder / "own.toml").write_text('[default]\nretry = "auto"\n')
    with refusing(database, kind, "INSERT", failures.name, refused(bad), UNKNOWN):
        ran = shell.run("recover", "--force", "--quiet")
    assert ran.returncode == 6
    assert f"job {bad} stays failed: " in ran.stderr
    assert state_of_each(database) == {bad: State.FAILED, **dict.fromkeys(others, State.READY)}


@pytest.mark.parametrize(
    ("verb", "column"), [("retry", failed.c.job_id), ("discard", failed.c.job_id), ("discard", jobs.c.id)], ids=str
)
@pytest.mark.parametrize(("kind", "output"), OUTPUTS, indirect=["kind"])
def test_a_job_that_is_refused_keeps_no_other_from_an_undo(
    database: Database, kind: str, shell: Shell, verb: str, column: Column[int], output: str
) -> None:
    ids = add_jobs(database, *plain_jobs(9))
    die(database)
    operation = Operation(verb)
    retry_jobs(database, ids, operation, discard=verb == "discard")
    moved = rows(database, jobs)
    bad = (ids[1], ids[8])
    with refusing(database, kind, "INSERT", column.table.name, f"NEW.{column.name} IN {bad}", UNKNOWN):
        ran = shell.run("undo", str(operation.id), "-o", output)
    assert ran.returncode == 6
    assert "took back 7 jobs" in ran.stderr
    assert all(f"refuses to move job {job_id}: " in ran.stderr for job_id in bad)
    if output == "json":
        assert [one["job_id"] for one in json.loads(ran.stdout) if "refuses to move" in (one["reason"] or "")] == [*bad]
    left = {} if verb == "discard" else dict.fromkeys(bad, State.READY)
    assert state_of_each(database) == left | {job_id: State.FAILED for job_id in ids if job_id not in bad}
    assert [job for job in rows(database, jobs) if job["id"] in bad] == [job for job in moved if job["id"] in bad]
    ran = shell.run("undo", str(operation.id))
    assert (ran.returncode, "took back 2 jobs" in ran.stderr) == (0, True)
    assert state_of_each(database) == dict.fromkeys(ids, State.FAILED)


def test_a_database_that_refuses_every_job_stops_an_undo(database: Database, kind: str, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(MOST_IN_VAIN + 1))
    die(database)
    operation = Operation("retry")
    retry_jobs(database, ids, operation)
    with refusing(database, kind, "INSERT", failed.name, "NEW.job_id > 0", UNKNOWN):
        assert shell.run("undo", str(operation.id)).returncode == 3
    assert state_of_each(database) == dict.fromkeys(ids, State.READY)


def test_a_job_that_is_refused_is_none_of_the_canary(database: Database, kind: str, shell: Shell) -> None:
    """The canary takes the next job instead. None of its jobs ends, so nothing else is retried."""
    ids = add_jobs(database, *plain_jobs(4))
    die(database)
    add_attendants(database)
    with refusing(database, kind, "INSERT", failures.name, refused(ids[0]), UNKNOWN):
        ran = shell.run("retry", "--died", "--yes", "--canary", "2", "--wait", "0.2s")
    assert ran.returncode == 6
    assert "canary: retried 2 jobs" in ran.stderr
    assert f"job {ids[0]} stays failed: " in ran.stderr
    assert state_of_each(database) == {job_id: State.READY if job_id in ids[1:3] else State.FAILED for job_id in ids}


# -- jobs that wait, or run -------------------------------------------------------------------------------------------

WAITING = {
    "discard": ("jobs", "discard"),
    "run-now": ("jobs", "run-now", "--state", "scheduled"),
    "postpone": ("jobs", "postpone", "--to", "2h"),
    "move": ("jobs", "move", "--to", "low"),
}


@pytest.mark.parametrize(("kind", "output"), OUTPUTS, indirect=["kind"])
@pytest.mark.parametrize("command", WAITING)
def test_a_job_that_is_refused_keeps_no_other_that_waits(
    database: Database, kind: str, shell: Shell, command: str, output: str
) -> None:
    ids = add_jobs(database, *(NewJob(class_name="Plain", at=LATER) for _ in range(9)))
    bad = (ids[1], ids[8])
    before = [job for job in rows(database, jobs) if job["id"] in bad]
    with refusing(database, kind, "INSERT", failures.name, refused(*bad), UNKNOWN):
        ran = shell.run(*WAITING[command], "--class", "Plain", "--yes", "--batch", "4", "-o", output)
    assert ran.returncode == 6, ran.stderr
    assert f"jobs {bad[0]}, {bad[1]} wait as before: " in ran.stderr
    assert "refused by the test" in ran.stderr
    assert "left 2 jobs alone" in ran.stderr
    if output == "json":
        assert {one["job_id"] for one in json.loads(ran.stdout) if "refuses to move it" in (one["reason"] or "")} == {
            *bad
        }
    assert [job for job in rows(database, jobs) if job["id"] in bad] == before
    (operation,) = rows(database, operations)
    assert operation["jobs"] == 7
    assert shell.run("undo", str(operation["id"])).returncode == 0
    assert state_of_each(database) == dict.fromkeys(ids, State.SCHEDULED)


def test_a_job_that_is_refused_takes_no_place_under_a_limit_of_moves(
    database: Database, kind: str, shell: Shell
) -> None:
    ids = add_jobs(database, *plain_jobs(9))
    with refusing(database, kind, "INSERT", failures.name, refused(ids[0]), UNKNOWN):
        ran = shell.run("jobs", "discard", "--class", "PlainJob", "--yes", "--limit", "3")
    assert ran.returncode == 6
    assert [*state_of_each(database)] == [ids[0], *ids[4:]]


@pytest.mark.parametrize(("kind", "command"), in_turn(*WAITING), indirect=["kind"])
def test_a_database_that_refuses_every_job_that_waits_stops_the_command(
    database: Database, kind: str, shell: Shell, command: str
) -> None:
    ids = add_jobs(database, *(NewJob(class_name="Plain", at=LATER) for _ in range(MOST_IN_VAIN + 1)))
    with refusing(database, kind, "INSERT", failures.name, "NEW.job_id > 0", UNKNOWN):
        ran = shell.run(*WAITING[command], "--class", "Plain", "--yes")
    assert ran.returncode == 3
    assert f"it refused {MOST_IN_VAIN + 1} jobs in a row" in ran.stderr
    assert state_of_each(database) == dict.fromkeys(ids, State.SCHEDULED)


def test_a_request_that_is_refused_keeps_no_other(database: Database, kind: str, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(3))
    claim_all(database, add_process(database, metadata={"runtime": "solidjq", "can_stop": True}))
    with refusing(database, kind, "INSERT", failures.name, refused(ids[1]), UNKNOWN):
        ran = shell.run("jobs", "stop", "--class", "PlainJob", "--yes")
    assert ran.returncode == 6
    assert f"job {ids[1]} is not asked: " in ran.stderr
    assert "asked 2 jobs to stop" in ran.stderr
