"""A plan in a file moves exactly what it says, once, or refuses."""

import hashlib
import json
import os
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from solidjq import Database, NewJob
from solidjq.database.tables import failures, operations
from solidjq.errors import RefusedError, UsageError
from solidjq.ledger.operations import Operation
from solidjq.queue.states import State
from solidjq.recovery import plans
from solidjq.recovery.apply import apply_plan
from solidjq.recovery.retry import plan as planned
from solidjq.recovery.terms import RetryTerms
from support.deaths import ALL, die
from support.program import Shell, assert_refused
from support.queue import add_jobs, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs


def make(database: Database, path: Path, **terms: object) -> plans.Plan:
    chosen = RetryTerms(**terms)  # type: ignore[arg-type]
    plans.write(path, database.identity(), chosen, chain.from_iterable(planned(database, ALL, chosen)))
    return plans.read(path)


def apply(database: Database, plan: plans.Plan) -> list[int]:
    operation = Operation("retry", plan=plan.id)
    return [decision.job_id for batch in apply_plan(database, plan, operation) for decision in batch]


def test_it_moves_the_set_under_its_terms_and_only_once(database: Database, tmp_path: Path) -> None:
    ids = add_jobs(database, *plain_jobs(3))
    die(database)
    plan = make(database, tmp_path / "plan", safe=True, delay=60.0)
    assert (plan.size, plan.terms) == (3, RetryTerms(safe=True, delay=60.0))
    add_jobs(database, *plain_jobs(1))
    (later,) = die(database)  # failed after the plan was made
    assert apply(database, plan) == ids
    assert state_of_each(database) == {**dict.fromkeys(ids, State.SCHEDULED), later: State.FAILED}
    assert rows(database, operations)[-1]["plan"] == plan.id
    assert apply(database, plan) == []
    assert len(rows(database, failures)) == 3


def test_it_refuses_as_a_whole_if_one_job_changed(database: Database, tmp_path: Path) -> None:
    ids = add_jobs(database, *plain_jobs(3))
    die(database)
    plan = make(database, tmp_path / "plan")
    retry_jobs(database, ids[1:2])
    with pytest.raises(RefusedError, match=f"job {ids[1]} is not failed any more"):
        apply(database, plan)
    die(database)  # failed again: another failure than the one that was looked at
    with pytest.raises(RefusedError, match="stale"):
        apply(database, plan)
    assert len(rows(database, failures)) == 1


def test_a_stale_plan_names_three_jobs_and_counts_the_others(database: Database, tmp_path: Path) -> None:
    ids = add_jobs(database, *plain_jobs(5))
    die(database)
    plan = make(database, tmp_path / "plan.json", safe=True)
    retry_jobs(database, ids)
    die(database)  # they failed anew
    named = "; ".join(f"job {job_id} is not failed any more, or failed anew" for job_id in ids[:3])
    with pytest.raises(
        RefusedError, match=f"^the plan is stale, and nothing was moved: {named}; and 2 more; make a new one$"
    ):
        apply(database, plan)


def test_it_refuses_a_job_that_its_terms_would_hold_back_by_now(database: Database, tmp_path: Path) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database)
    plan = make(database, tmp_path / "plan", safe=True, max_age=60.0)
    from sqlalchemy import update

    from solidjq.database.tables import failed
    from solidjq.database.times import ago

    with database.write() as connection:
        connection.execute(update(failed).values(created_at=ago(3600)))
    with pytest.raises(RefusedError, match=f"job {job_id}: it failed"):
        apply(database, plan)


def test_a_killed_apply_goes_on_where_it_stopped(database: Database, tmp_path: Path) -> None:
    ids = add_jobs(database, *plain_jobs(2100))
    die(database)
    plan = make(database, tmp_path / "plan")
    run = apply_plan(database, plan, Operation("retry", plan=plan.id))
    assert len(next(run)) == 1000
    run.close()
    assert apply(database, plan) == ids[1000:]
    assert len(rows(database, failures)) == 2100


def test_a_discard_can_be_planned(database: Database, tmp_path: Path) -> None:
    add_jobs(database, *plain_jobs(2))
    die(database)
    plan = make(database, tmp_path / "plan", discard=True)
    apply(database, plan)
    assert state_of_each(database) == {}


HEAD = {"jq_plan": 2, "id": "x", "by": "a", "database": {}, "terms": {}}
PLACE = {"dialect": "sqlite", "host": None, "port": None, "database": "q", "schema": None, "prefix": "solid_queue_"}
HEAD["database"] = PLACE
JOB = {"failure_id": 1, "job_id": 1, "active_job_id": "a", "class_name": "A", "queue_name": "q", "queue_as": None}
END = {"end": 0, "sha256": "?"}
DEEP = "[" * 30_000 + "]" * 30_000


def lines(*values: object) -> str:
    return "".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values)


def with_terms(**terms: object) -> str:
    return lines({**HEAD, "terms": terms}, END)


def with_job(**values: object) -> str:
    return lines(HEAD, {**JOB, **values}, {"end": 1, "sha256": "?"})


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("no json\n", "line 1: Expecting value"),
        ("[1]\n", "line 1 is not a JSON object"),
        ("{}\n", "does not begin with the head"),
        (lines({"jq_plan": True}), "does not begin with the head"),
        (lines({"jq_plan": 99, "id": "x", "terms": {}}, END), "a later version of jq; make the plan again"),
        (lines({"jq_plan": 1, "id": "x", "terms": {}}, END), "an earlier version of jq; make the plan again"),
        (lines(HEAD), "cut off"),
        (lines(HEAD, JOB), "cut off"),
        (lines(HEAD, JOB, {"end": 2}), "cut off"),
        (lines(HEAD, END, JOB), "line 3 comes after the end"),
        (lines({**HEAD, "database": {"dialect": "sqlite"}}, END), "not a plan that this version"),
        (lines({**HEAD, "database": {**PLACE, "port": "1"}}, END), "the database is not named"),
        (lines({**HEAD, "id": 1}, END), "not a plan that this version"),
        (with_terms(unsafe=True), "unsafe"),
        (with_terms(safe="yes"), "safe cannot be 'yes'"),
        (with_terms(force=1), "force cannot be 1"),
        (with_terms(max_crashes=10**30), "max_crashes cannot be 1000"),
        (with_terms(max_crashes=True), "max_crashes cannot be True"),
        (with_terms(delay=-1), "delay cannot be -1"),
        (with_terms(delay=1e300), "delay cannot be"),
        (with_terms(interval=[]), r"interval cannot be \[\]"),
        (with_terms(queue_as=""), "queue_as cannot be ''"),
        (lines({**HEAD, "terms": "?"}, END).replace('"?"}', '{"delay":NaN}}', 1), "delay cannot be nan"),
        (with_job(failure_id=-1), "line 2: failure_id cannot be -1"),
        (with_job(failure_id=True), "failure_id cannot be true"),
        (with_job(job_id=2**63), "job_id cannot be"),
        (with_job(job_id="1"), 'job_id cannot be "1"'),
        (with_job(class_name=None), "class_name cannot be null"),
        (with_job(queue_as="q" * 256), "queue_as cannot be"),
        (with_job(sql="DROP"), "exactly these keys"),
        (lines(HEAD, '{"failure_id":1,"failure_id":2}'), "a key stands twice"),
        (lines(HEAD, f'{{"failure_id":{DEEP}}}'), "nested too deep"),
        (lines(HEAD, f'{{"failure_id":{"9" * 5000}}}'), "line 2"),
        (lines(HEAD, "x" * 70_000), "line 2 is longer than 65,536 bytes"),
        ("\0" * 200_000, "line 1 is longer than 65,536 bytes"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "line 1"),
    ],
)
def test_what_is_no_whole_plan_is_refused(database: Database, tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "plan"
    path.write_text(text)
    with pytest.raises(UsageError, match=complaint) as refused:
        plans.read(path)
    assert len(str(refused.value)) < 500
    assert database.now()


@pytest.mark.sqlite_only
def test_an_endless_device_is_no_plan(database: Database) -> None:
    with pytest.raises(UsageError, match="not a regular file"):
        plans.read(Path("/dev/zero"))
    with pytest.raises(UsageError, match="not a regular file"):
        plans.read_key(Path("/dev/zero"))


def edit(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change a plan as somebody would who knows how its checksum is made."""
    values = [json.loads(line) for line in path.read_text().splitlines()]
    change(values)
    body = "".join(json.dumps(value, separators=(",", ":")) + "\n" for value in values[:-1])
    end = {**values[-1], "end": len(values) - 2, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    path.write_text(body + json.dumps(end) + "\n")


def test_an_edited_plan_is_found_by_its_checksum(database: Database, tmp_path: Path) -> None:
    add_jobs(database, *plain_jobs(2))
    die(database)
    path = tmp_path / "plan"
    make(database, path)
    path.write_text(path.read_text().replace('"terms":{}', '"terms":{"discard":true}'))
    with pytest.raises(RefusedError, match="checksum differs"):
        plans.read(path)


def test_what_the_plan_says_of_a_job_must_be_true(database: Database, tmp_path: Path) -> None:
    add_jobs(database, *plain_jobs(2))
    die(database)
    for key, value, complaint in (
        ("class_name", "Harmless", "is PlainJob in the database and Harmless in the plan"),
        ("queue_name", "other", "in the database and of other in the plan"),
        ("active_job_id", "forged", "is not failed any more"),
        ("queue_as", "attacker", "would go to its own queue now, and to attacker by the plan"),
    ):
        path = tmp_path / key
        make(database, path)
        edit(path, lambda values, said={key: value}: values[1].update(said))
        with pytest.raises(RefusedError, match=complaint):
            apply(database, plans.read(path))
    assert rows(database, failures) == []


def test_ids_that_were_exchanged_are_found(database: Database, tmp_path: Path) -> None:
    add_jobs(database, NewJob(class_name="PlainJob"), NewJob(class_name="Payment"))
    die(database)
    path = tmp_path / "plan"
    make(database, path)

    def exchange(values: list[dict[str, Any]]) -> None:
        for key in ("failure_id", "job_id", "active_job_id"):
            values[1][key], values[2][key] = values[2][key], values[1][key]

    edit(path, exchange)
    with pytest.raises(RefusedError, match="is Payment in the database and PlainJob in the plan"):
        apply(database, plans.read(path))
    assert rows(database, failures) == []


def test_a_plan_for_another_database_is_refused(database: Database, tmp_path: Path) -> None:
    add_jobs(database, *plain_jobs(1))
    die(database)
    for key in ("host", "port", "database", "schema", "dialect", "prefix"):
        path = tmp_path / key
        make(database, path)
        other = {key: 1 if key == "port" else "another"}
        edit(path, lambda values, other=other: values[0]["database"].update(other))
        with pytest.raises(RefusedError, match=r"the plan was made for .*; this is .*; make the plan again"):
            apply(database, plans.read(path))
        assert "hunter2" not in path.read_text()
    assert rows(database, failures) == []


@pytest.mark.sqlite_only
def test_what_was_checked_is_what_is_carried_out(database: Database, tmp_path: Path) -> None:
    ids = add_jobs(database, *plain_jobs(2))
    die(database)
    path = tmp_path / "plan"
    plan = make(database, path)
    with path.open("r+") as file:  # the same file, after it was checked
        file.truncate(10)
    assert apply(database, plan) == ids


@pytest.mark.sqlite_only
def test_a_signature_finds_what_a_checksum_cannot(database: Database, tmp_path: Path) -> None:
    ids = add_jobs(database, *plain_jobs(2))
    die(database)
    path = tmp_path / "plan"
    decisions = list(chain.from_iterable(planned(database, ALL, RetryTerms())))
    key = b"k" * 32
    plans.write(path, database.identity(), RetryTerms(), decisions)
    assert not plans.read(path).signed
    with pytest.raises(RefusedError, match="is not signed"):
        plans.read(path, key=key)
    plans.write(path, database.identity(), RetryTerms(), decisions, key=key)
    assert plans.read(path).signed
    with pytest.raises(RefusedError, match="was not signed with this key"):
        plans.read(path, key=b"l" * 32)
    signed = path.read_text()
    edit(path, lambda values: values.pop(1))
    assert plans.read(path).size == 1  # the checksum was made again
    with pytest.raises(RefusedError, match="was not signed with this key, or was changed"):
        plans.read(path, key=key)
    path.write_text(signed)
    assert apply(database, plans.read(path, key=key)) == ids


@pytest.mark.sqlite_only
def test_a_key_is_read_only_if_it_is_secret(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"k" * 32)
    for mode in (0o640, 0o604, 0o660, 0o602):
        path.chmod(mode)
        with pytest.raises(UsageError, match=f"chmod 600 {path}"):
            plans.read_key(path)
    path.chmod(0o600)
    assert plans.read_key(path) == b"k" * 32
    path.write_bytes(b"short")
    with pytest.raises(UsageError, match="a key has 16 to"):
        plans.read_key(path)
    with pytest.raises(UsageError, match="No such file"):
        plans.read_key(tmp_path / "none")


NOBODY = 65_534


@pytest.mark.sqlite_only
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_signs_nothing(database: Database, tmp_path: Path) -> None:
    """Its owner knows it, or could put another in its place, and would sign plans that root applies."""
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    key, link = folder / "key", tmp_path / "link"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    link.symlink_to(key)
    assert plans.read_key(link) == b"k" * 32
    folder.chmod(0o1777)  # as /tmp is: nobody may replace the files of others there
    assert plans.read_key(key) == b"k" * 32
    for place, mode, owner in ((folder, 0o777, 0), (folder, 0o700, NOBODY), (key, 0o600, NOBODY)):
        os.chown(place, owner, -1)
        place.chmod(mode)
        for path in (key, link):
            with pytest.raises(UsageError, match=f"may be another user's: .* {place}"):
                plans.read_key(path)
        os.chown(place, 0, -1)
        folder.chmod(0o700)
    assert plans.read_key(key) == b"k" * 32


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("discard", "the plan deletes 1 job"),
        ("retry --force --reason x", "the plan retries 1 job past their crash limit"),
    ],
)
def test_a_plan_that_deletes_or_forces_needs_a_yes(database: Database, shell: Shell, command: str, words: str) -> None:
    add_jobs(database, *plain_jobs(1))
    (job_id,) = die(database)
    key = shell.folder / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    made = shell.run(*command.split(), str(job_id), "--plan-out", "plan.json", "--sign-with", "key")
    assert "wrote a signed plan of 1 job" in made.stderr
    assert "jq apply plan.json --verify-with key" in made.stderr
    assert_refused(shell.run("apply", "plan.json", "--verify-with", "key"), 5, words, "--yes", "nothing was changed")
    assert rows(database, failures) == []
    done = shell.run("apply", "plan.json", "--yes")
    assert (done.returncode, "signature was not verified" in done.stderr) == (0, True)
    assert len(rows(database, failures)) == 1
    assert_refused(shell.run("retry", str(job_id), "--sign-with", "key"), 2, "--plan-out")


@pytest.mark.sqlite_only
def test_a_plan_that_cannot_be_written_leaves_nothing(database: Database, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        make(database, tmp_path / "nowhere" / "plan")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        make(database, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir() if "plan" in path.name or path.name == "nowhere"] == []


@pytest.mark.sqlite_only
def test_the_file_is_json_a_line(database: Database, tmp_path: Path) -> None:
    add_jobs(database, *plain_jobs(2))
    die(database)
    make(database, tmp_path / "plan")
    head, *lines, end = map(json.loads, (tmp_path / "plan").read_text().splitlines())
    assert (head["jq_plan"], end["end"], head["database"]) == (2, 2, database.identity()._asdict())
    assert [line["class_name"] for line in lines] == ["PlainJob", "PlainJob"]
