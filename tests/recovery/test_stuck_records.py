"""A job that dies again and again at one record is held; one that makes progress between its deaths is not."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from solidjq import Database
from solidjq.database import tables
from solidjq.database.setup import MIGRATIONS, initialize
from solidjq.incidents.charges import find_suspects
from solidjq.incidents.death_cases import JobStanding
from solidjq.incidents.failure_deaths import find_failure_deaths
from solidjq.incidents.incidents import find_incidents
from solidjq.incidents.job_scores import JobScore
from solidjq.ledger import crashes, positions
from solidjq.ledger.operations import Operation
from solidjq.queue.failed import Filter, list_failures
from solidjq.queue.states import State
from solidjq.recovery.dossiers import compile_dossiers
from solidjq.recovery.verdicts import Verdict
from solidjq.settings.file import SettingsFile
from solidjq.settings.policy import BUILT_IN, Policy, load_policy
from support.deaths import crash_subject
from support.long_jobs import add_long_job, forget_newest_crash, kill, kill_at, payload_of, save
from support.program import Shell
from support.queue import rows, state_of_each
from support.recovery import Retried, retry_jobs, safe, undo
from support.servers import execute

BY_JOB = load_policy(SettingsFile(Path("jq.toml"), {"default": {"count": "job"}}))


def decided(database: Database, job_id: int, *, policy: Policy = BUILT_IN, **terms: Any) -> Retried:
    return retry_jobs(database, [job_id], policy=policy, **terms)


def score_of(database: Database, job_id: int) -> JobScore:
    subject = crash_subject(database, job_id)
    with database.read() as connection:
        ranking = find_suspects(connection, find_incidents(connection))
    (score,) = (score for score in ranking.jobs if score.name == subject)
    return score


@pytest.mark.parametrize("rails", [False, True], ids=["our supervisor", "Rails' own"])
def test_two_deaths_at_one_cursor_hold_the_job(database: Database, *, rails: bool) -> None:
    """Rails' own supervisor writes nothing of ours: the job's payload says where it stood."""
    job_id = add_long_job(database)
    for _ in range(2):
        kill_at(database, job_id, "import", 48213)
        if rails:
            forget_newest_crash(database)
        assert len(rows(database, tables.failed)) == 1
        held = decided(database, job_id, safe=True)
    assert held.verdicts == {job_id: Verdict.STUCK_RECORD}
    assert held.reason(job_id) == "it died twice at import, cursor 48213"
    score = score_of(database, job_id)
    assert (score.standing, score.deaths) == (JobStanding.SUSPECT, 2)
    assert score.reasons[0] == "died twice at import, cursor 48213"
    assert score.position is not None
    assert score.position.to_record() == {"step": "import", "cursor": 48213, "exact": False}


@pytest.mark.parametrize("rails", [False, True], ids=["our supervisor", "Rails' own"])
def test_ten_kills_with_progress_in_between_never_hold_it(database: Database, *, rails: bool) -> None:
    job_id = add_long_job(database)
    for cursor in range(10):
        kill_at(database, job_id, "import", cursor)
        if rails:
            forget_newest_crash(database)
        score = score_of(database, job_id)
        assert not score.standing.held_back, (cursor, score)
        assert decided(database, job_id, safe=True).verdicts == {job_id: Verdict.RETRY}, cursor
    assert len(rows(database, tables.crashes)) == 10


def test_progress_starts_the_count_again(database: Database) -> None:
    job_id = add_long_job(database)
    for cursor in (5, 5, 7, 7, 7):
        kill_at(database, job_id, "import", cursor)
        held = decided(database, job_id)
        if held.verdicts[job_id] is Verdict.OVER_LIMIT:
            break
    assert held.reason(job_id) == "3 crashes at import, cursor 7 within 72h; the limit is 3"
    assert len(rows(database, tables.crashes)) == 5
    assert decided(database, job_id, safe=True).reason(job_id) == "it died 3 times at import, cursor 7"


def test_a_job_that_was_put_back_to_an_earlier_record_dies_there_once_more(database: Database) -> None:
    """The same record counts, whatever came between."""
    job_id = add_long_job(database)
    for cursor in (7, 3, 7):
        kill_at(database, job_id, "import", cursor)
        held = decided(database, job_id, safe=True)
    assert held.reason(job_id) == "it died twice at import, cursor 7"


def test_policy_may_count_by_job(database: Database) -> None:
    job_id = add_long_job(database)
    for cursor in (1, 2):
        kill_at(database, job_id, "import", cursor)
        held = decided(database, job_id, safe=True, policy=BY_JOB)
    assert held.reason(job_id) == "it was in flight when 2 different processes died"
    assert decided(database, job_id, safe=True).verdicts == {job_id: Verdict.RETRY}


def test_between_steps_no_record_is_to_blame(database: Database) -> None:
    job_id = add_long_job(database)
    for _ in range(2):
        kill_at(database, job_id, None)
        held = decided(database, job_id, safe=True)
    assert held.verdicts == {job_id: Verdict.SUSPECT}
    assert score_of(database, job_id).position is None


def test_jobs_without_checkpoints_are_counted_as_before(database: Database) -> None:
    job_id = add_long_job(database)
    for expected in (Verdict.RETRY, Verdict.SUSPECT):
        kill(database)
        held = decided(database, job_id, safe=True)
        assert held.verdicts == {job_id: expected}
    decided(database, job_id)
    assert held.reason(job_id) == "it was in flight when 2 different processes died"
    assert [row["progress"] for row in rows(database, tables.crashes)] == [None] * 2
    kill(database)
    assert decided(database, job_id).reason(job_id) == "3 crashes within 72h; the limit is 3"


def test_the_count_does_not_depend_on_an_undo(database: Database) -> None:
    job_id = add_long_job(database)
    kill_at(database, job_id, "import", 5)
    operation = Operation("retry")
    before = payload_of(database, job_id)
    retry_jobs(database, [job_id], operation, restart=True)
    assert undo(database, operation) == {job_id: None}
    assert payload_of(database, job_id) == before
    retry_jobs(database, [job_id])
    kill_at(database, job_id, "import", 5)
    assert decided(database, job_id, safe=True).reason(job_id) == "it died twice at import, cursor 5"


def test_where_a_job_stood_outlives_the_job(database: Database) -> None:
    job_id = add_long_job(database)
    kill_at(database, job_id, "import", 5)
    (crash,) = rows(database, tables.crashes)
    assert json.loads(crash["progress"]) == {
        "continuation": {"completed": ["fetch"], "current": ["import", 5]},
        "resumptions": 1,
    }
    assert crash["saved_at"] == rows(database, tables.jobs)[0]["updated_at"]
    decided(database, job_id, restart=True)
    with database.read() as connection:
        found = positions.find(connection, [crash["failure_id"]])
    assert found[crash["failure_id"]].position.where == "at import, cursor 5"
    assert found[crash["failure_id"]].saved_at == crash["saved_at"]


@pytest.mark.parametrize("cursor", ["é" * 4000, ["a", [1, None]], None, 2**70], ids=["long", "list", "none", "large"])
def test_cursors_of_every_kind_are_compared(database: Database, cursor: Any) -> None:
    job_id = add_long_job(database)
    for _ in range(2):
        kill_at(database, job_id, "import", cursor)
        held = decided(database, job_id, safe=True)
    assert held.verdicts == {job_id: Verdict.STUCK_RECORD}
    assert len(held.reason(job_id) or "") < 150


@pytest.mark.sqlite_only
def test_a_damaged_progress_counts_as_no_progress(database: Database) -> None:
    job_id = add_long_job(database)
    for _ in range(2):
        save(database, job_id, "import", 5)
        with database.write() as connection:
            connection.execute(tables.jobs.update().values(arguments='{"continuation":["\\ud800'))
        kill(database)
        held = decided(database, job_id, safe=True)
    assert held.verdicts == {job_id: Verdict.SUSPECT}


def older(database: Database) -> None:
    """Make the ledger one of before positions were stored."""
    dropped = [f"ALTER TABLE jq_crashes DROP COLUMN {name}" for name in ("progress", "saved_at")]
    execute(database.url, *dropped, "DELETE FROM jq_schema_migrations WHERE version = 6")


def test_an_older_ledger_works_and_is_brought_up_to_date(database: Database) -> None:
    """A crash that was counted before counts at every position."""
    job_id = add_long_job(database)
    older(database)
    kill_at(database, job_id, "import", 5)
    with database.read() as connection:
        (known,) = crashes.crashes_of(connection, [crash_subject(database, job_id)]).values()
    assert known[0].position is None
    assert decided(database, job_id, safe=True).verdicts == {job_id: Verdict.RETRY}
    assert initialize(database).migrated == [f"6 {MIGRATIONS[-1].name}"]
    kill_at(database, job_id, "import", 7)
    assert decided(database, job_id, safe=True).verdicts == {job_id: Verdict.SUSPECT}
    decided(database, job_id)
    kill_at(database, job_id, "import", 7)
    assert decided(database, job_id, safe=True).reason(job_id) == "it died twice at import, cursor 7"


@pytest.mark.sqlite_only
def test_a_poison_record_is_named_and_held_in_a_hundred_of_a_hundred(database: Database) -> None:
    """A hundred imports get on for a while, then die at their poison record, alone or with one or two others."""
    chance = random.Random(20261126)  # noqa: S311
    poison = {add_long_job(database, class_name=f"Import{trial}"): chance.randrange(10**6) for trial in range(100)}
    lives = {job_id: [*range(-chance.randrange(3), 0), at, at] for job_id, at in poison.items()}
    while retried := [job_id for job_id, state in state_of_each(database).items() if state is State.READY]:
        while retried:
            together = [retried.pop(chance.randrange(len(retried))) for _ in range(chance.randrange(3)) if retried]
            for job_id in together:
                save(database, job_id, "import", lives[job_id].pop(0))
            assert sorted(kill(database, job_ids=together)) == sorted(together)
        verdicts = safe(database)
        for job_id, verdict in verdicts.items():
            assert verdict is (Verdict.RETRY if lives[job_id] else Verdict.STUCK_RECORD), (job_id, lives[job_id])
    assert verdicts == dict.fromkeys(poison, Verdict.STUCK_RECORD)
    with database.read() as connection:
        ranking = find_suspects(connection, find_incidents(connection))
    named = {score.reasons[0] for score in ranking.jobs if score.standing is JobStanding.SUSPECT}
    assert named == {f"died twice at import, cursor {at}" for at in poison.values()}


def test_what_the_commands_say(database: Database, shell: Shell) -> None:
    job_id = add_long_job(database)
    kill_at(database, job_id, "import", 48213)
    decided(database, job_id)
    kill_at(database, job_id, "import", 48213)
    words = "it died twice at import, cursor 48213"
    dry = shell.run("retry", "--safe", "--dry-run", "-o", "json")
    (decision,) = json.loads(dry.stdout)
    assert (decision["verdict"], decision["reason"]) == ("stuck-record", words)
    plan = shell.run("retry", "--safe", "--plan-out", "plan")
    assert "a plan of 0 jobs, 1 held back" in plan.stderr
    suspected = [each for each in json.loads(shell.run("suspects", "-o", "json").stdout) if each["kind"] == "job"]
    assert [each["position"] for each in suspected] == [{"step": "import", "cursor": 48213, "exact": False}]
    auto = load_policy(SettingsFile(Path("jq.toml"), {"default": {"retry": "auto"}}))
    recovered = decided(database, job_id, safe=True, auto_only=True, policy=auto)
    assert recovered.verdicts == {job_id: Verdict.STUCK_RECORD}
    (failure,) = list_failures(database, Filter(), limit=1)
    (dossier,) = compile_dossiers(database, [failure], BUILT_IN)
    assert dossier.decision is not None
    assert dossier.decision.reason == words
    assert dossier.crashes is not None
    assert dossier.crashes.crashes == 2


def test_a_page_of_failures_knows_which_crashes_count(database: Database) -> None:
    job_id = add_long_job(database)
    for cursor in (1, 2, 2):
        kill_at(database, job_id, "import", cursor)
        decided(database, job_id)
    save(database, job_id, "import", 2)
    kill(database)
    forget_newest_crash(database)
    failures = [*list_failures(database, Filter(), limit=1, arguments=False)]
    with database.read() as connection:
        (death,) = find_failure_deaths(connection, failures).values()
    assert death.position is not None
    assert death.position.where == "at import, cursor 2"
    assert [crash.position.key for crash in death.crashes if crash.position] == [f'["import",{n}]' for n in (1, 2, 2)]
