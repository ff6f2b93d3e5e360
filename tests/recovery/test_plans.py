"""A plan in a file moves exactly what it says, once, or refuses."""

import json
from itertools import chain
from pathlib import Path

import pytest

from solidjq import Database
from solidjq.database.tables import failures, operations
from solidjq.errors import RefusedError, UsageError
from solidjq.ledger.operations import Operation
from solidjq.queue.states import State
from solidjq.recovery import plans
from solidjq.recovery.retry import plan as planned
from solidjq.recovery.verdicts import RetryTerms
from support.deaths import ALL, die
from support.queue import add_jobs, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs


def make(database: Database, path: Path, **terms: object) -> plans.Plan:
    chosen = RetryTerms(**terms)  # type: ignore[arg-type]
    plans.write(path, chosen, chain.from_iterable(planned(database, ALL, chosen)))
    return plans.read(path)


def apply(database: Database, plan: plans.Plan) -> list[int]:
    operation = Operation("retry", plan=plan.id)
    return [decision.job_id for batch in plans.apply(database, plan, operation) for decision in batch]


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
    run = plans.apply(database, plan, Operation("retry", plan=plan.id))
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


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not a plan"),
        ("no json\n", "is not a plan"),
        ("[1]\n", "line 1"),
        ('{"jq_plan":99,"id":"x","terms":{}}\n{"end":0}\n', "is not a plan that this version"),
        ('{"jq_plan":1,"id":"x","terms":{}}\n', "cut off"),
        ('{"jq_plan":1,"id":"x","terms":{}}\n{"failure_id":1,"job_id":1,"active_job_id":"a"}\n', "cut off"),
        ('{"jq_plan":1,"id":"x","terms":{}}\n{"failure_id":1,"job_id":1,"active_job_id":"a"}\n{"end":2}\n', "cut off"),
        ('{"jq_plan":1,"id":"x","terms":{"unsafe":true}}\n{"end":0}\n', "is not a plan that this version"),
    ],
)
def test_what_is_no_whole_plan_is_refused(database: Database, tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "plan"
    path.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        plans.read(path)
    assert database.now()


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
    assert (head["jq_plan"], end) == (1, {"end": 2})
    assert [line["class_name"] for line in lines] == ["PlainJob", "PlainJob"]
