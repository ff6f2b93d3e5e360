"""``jq history``: what became of one job, from every table that says something of it."""

import json

import pytest
from sqlalchemy import event

from solidjq import Database, NewJob
from solidjq.database.tables import claimed
from solidjq.database.urls import url_text
from solidjq.ledger.history import history
from solidjq.queue import endings
from solidjq.rails.error_text import error_json
from support.deaths import die
from support.processes import add_process
from support.program import Shell
from support.queue import add_jobs, claim_all, fail, plain_jobs
from support.recovery import retry_jobs
from support.screen import Terminal


def test_history_spans_retries_and_rows(database: Database, shell: Shell) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database, silent=2000)
    shell.run("retry", str(job_id), "--reason", "INC-7")
    claim_all(database, add_process(database))
    database.transact(endings.fail, claimed.c.job_id == job_id, error_json("ArgumentError", "boom"))
    shell.run("discard", str(job_id), "--reason", "useless")
    told = json.loads(shell.run("history", str(job_id), "-o", "json").stdout)
    assert [(row["event"], row["operation_id"]) for row in told] == [
        ("enqueued", None),
        ("failed", None),
        ("retried", 1),
        ("failed", None),
        ("discarded", 2),
    ]
    assert "ProcessPrunedError" in told[1]["detail"]
    assert [told[2]["detail"], told[3]["detail"], told[4]["detail"]] == ["INC-7", "ArgumentError: boom", "useless"]
    nobody = shell.run("history", "4711")
    assert (nobody.returncode, nobody.stdout, nobody.stderr) == (4, "", "jq: no job 4711\n")


@pytest.mark.sqlite_only
def test_history_says_which_queue_a_job_went_to(database: Database, shell: Shell) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="Mail", queue_name="mailers"))
    die(database, silent=2000)
    shell.run("retry", str(job_id), "--queue-as", "quarantine", "--reason", "INC-7")
    die(database)
    shell.run("retry", str(job_id))
    events = json.loads(shell.run("history", str(job_id), "-o", "json").stdout)
    details = {(row["event"], row["operation_id"]): row["detail"] for row in events}
    assert details["enqueued", None] == "Mail in mailers"
    assert (details["retried", 1], details["retried", 2]) == ("to queue quarantine: INC-7", None)


@pytest.mark.sqlite_only
def test_only_a_job_that_is_failed_is_offered_as_one(
    database: Database, screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(database.url))
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database)

    def offered() -> str:
        return screen.show(["history", str(job_id)]).splitlines()[-1]

    assert offered() == f"next  jq failed show {job_id} | jq jobs show {job_id}"
    retry_jobs(database, [job_id])
    assert offered() == f"next  jq jobs show {job_id}"
    claim_all(database, add_process(database))
    database.transact(endings.finish, claimed.c.job_id == job_id)
    assert offered() == f"next  jq jobs show {job_id}"


def test_each_statement_of_a_lookup_is_for_one_index(database: Database) -> None:
    """MariaDB reads a whole table for an OR of two indexes that is sorted by a third."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database)
    retry_jobs(database, [job_id])
    statements: list[str] = []

    def note(_: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    with database.read() as connection:
        event.listen(connection, "before_cursor_execute", note)
        assert [one.event for one in history(connection, str(job_id))] == ["enqueued", "failed", "retried"]
    assert statements
    assert not [statement for statement in statements if " OR " in statement]


@pytest.mark.sqlite_only
def test_a_message_that_is_a_sentence_goes_on_without_its_full_stop(database: Database, shell: Shell) -> None:
    (job_id,) = fail(database, *plain_jobs(1), error=error_json("ArgumentError", "Exited with status 7."))
    told = json.loads(shell.run("history", str(job_id), "-o", "json").stdout)
    assert told[-1]["detail"] == "ArgumentError: Exited with status 7; it waits for a decision"


@pytest.mark.sqlite_only
def test_the_history_of_a_discarded_job_leads_to_the_operation(
    database: Database, shell: Shell, screen: Terminal
) -> None:
    (job_id,) = fail(database, *plain_jobs(1), error=error_json("ArgumentError", "boom"))
    command = ["history", str(job_id), "-d", url_text(database.url)]
    assert f"next  jq failed show {job_id} | jq jobs show {job_id}\n" in screen.show(command)
    assert shell.run("discard", str(job_id)).returncode == 0
    assert "next  jq operations show 1\n" in screen.show(command)
    assert shell.run("undo", "1").returncode == 0
    assert f"jobs show {job_id}\n" in screen.show(command)
