"""``jq retry --with-arguments``: one job runs with other arguments; secrets are recorded nowhere; undo restores."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select, update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import jobs
from solidjq.rails.active_job import replace_arguments, shown_arguments
from solidjq.rails.error_text import missing_error
from solidjq.recovery.terms import RetryTerms
from support.program import Shell, assert_refused
from support.queue import add_jobs, fail, rows

SECRET = "open-sesame"  # noqa: S105
ARGS = [2025, "Ünïcode <b>", {"password": SECRET, "n": 1.5}]
NEW = '[2026, "x", {"password": "another-sesame"}]'


@pytest.fixture
def failed_id(database: Database) -> int:
    return fail(database, NewJob(class_name="Report", args=ARGS), error=missing_error())[0]


def payload(database: Database, job_id: int) -> str:
    with database.read() as connection:
        return str(connection.scalar(select(jobs.c.arguments).where(jobs.c.id == job_id)))


def test_new_arguments_are_in_the_row_alone_and_undo_restores_the_old_ones(
    database: Database, shell: Shell, failed_id: int
) -> None:
    before = payload(database, failed_id)
    done = shell.run("retry", str(failed_id), "--with-arguments", NEW, "-o", "ids")
    assert (done.returncode, done.stdout) == (0, f"{failed_id}\n")
    assert done.stderr.startswith(
        f'jq: the arguments of job {failed_id} were [2025, "Ünïcode <b>", {{"password": "***", "n": 1.5, '
        f'"_aj_symbol_keys": []}}]\njq: the arguments of job {failed_id} become [2026, "x", {{"password": "***"}}]\n'
    )
    after = payload(database, failed_id)
    assert shown_arguments(after) == json.loads(NEW)
    assert {**json.loads(after), "arguments": 0} == {**json.loads(before), "arguments": 0}
    (operation,) = rows(database, tables.operations)
    assert json.loads(operation["filter"])["with_arguments"] == [2026, "x", {"password": "***"}]
    assert "sesame" not in f"{operation} {done.stderr}"
    assert shell.run("undo", str(operation["id"])).returncode == 0
    assert payload(database, failed_id) == before


def test_arguments_come_from_standard_input_and_a_dry_run_changes_nothing(
    database: Database, shell: Shell, failed_id: int
) -> None:
    before = payload(database, failed_id)
    done = shell.run("retry", str(failed_id), "--with-arguments", "-", "--dry-run", stdin=f"{NEW}\n")
    assert done.returncode == 0, done.stderr
    assert '"password": "***"' in done.stderr
    assert payload(database, failed_id) == before
    assert rows(database, tables.operations) == []
    done = shell.run("retry", str(failed_id), "--with-arguments", "-", stdin='[1,\n "two"]\n')
    assert shown_arguments(payload(database, failed_id)) == [1, "two"], done.stderr


@pytest.mark.sqlite_only
def test_what_cannot_be_the_arguments_of_one_job_is_refused(database: Database, shell: Shell, failed_id: int) -> None:
    (other,) = fail(database, NewJob(class_name="Report", kwargs={"year": 1}), error=missing_error())
    for arguments in (
        [str(failed_id), "--with-arguments", "5"],
        [str(failed_id), "--with-arguments", "[NaN]"],
        [str(failed_id), "--with-arguments", "[" * 2000],
        [str(failed_id), "--with-arguments", '[{"password": "***"}]'],
        [str(failed_id), str(other), "--with-arguments", "[]"],
        ["--class", "Report", "--yes", "--with-arguments", "[]"],
        [str(failed_id), "--with-arguments", "[]", "--plan-out", "plan.json"],
        [str(other), "--with-arguments", '[{"year": 2}]'],  # called with a hash, no longer with keywords
    ):
        assert_refused(shell.run("retry", *arguments), 2)
    assert len(rows(database, tables.failed)) == 2
    keywords = '[{"year": 2, "_aj_ruby2_keywords": ["year"]}]'
    assert shell.run("retry", str(other), "--with-arguments", keywords).returncode == 0
    assert shown_arguments(payload(database, other)) == json.loads(keywords)


@pytest.mark.sqlite_only
def test_a_job_of_a_limit_keeps_its_key_and_says_so(database: Database, shell: Shell, failed_id: int) -> None:
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == failed_id).values(concurrency_key="Report/7"))
    done = shell.run("retry", str(failed_id), "--with-arguments", "[]")
    assert "concurrency key, made from the old arguments, stays Report/7" in done.stderr


def test_only_the_arguments_of_a_payload_are_replaced() -> None:
    before = '{"a": 1e2, "arguments" : [ {"arguments": [1]} ] ,"executions":0, "é": "\\u00e9"}'
    assert replace_arguments(before, "[7]") == before.replace('[ {"arguments": [1]} ]', "[7]")


def test_no_plan_contains_arguments() -> None:
    assert RetryTerms(with_arguments=NEW).to_record() == {}
    with pytest.raises(ValueError, match="with_arguments"):
        RetryTerms.from_record({"with_arguments": "[]"})


# -- what is shown


def test_secrets_are_masked_in_every_output(database: Database, shell: Shell, failed_id: int, tmp_path: Path) -> None:
    (shell.folder / "jq.toml").write_text('mask = ["iban"]\n')
    root = tmp_path / "app"
    (root / "config").mkdir(parents=True)
    (root / "config" / "application.rb").write_text("config.filter_parameters += [:badge]\n")
    url = shell.url if "://" in shell.url else str(Path(shell.url.removeprefix("sqlite:")))
    adapter = "sqlite3" if shell.url.startswith("sqlite") else None
    text = f"adapter: {adapter}\n  database: {url}" if adapter else f"url: {url}"
    (root / "config" / "database.yml").write_text(f"production:\n  {text}\n")
    (other,) = fail(
        database,
        NewJob(class_name="Report", args=[{"iban": "NL-first", "badge": "B-second", "passwd": "third-secret"}]),
        error=missing_error(),
    )
    waiting = add_jobs(database, NewJob(class_name="Report", args=ARGS))[0]
    commands = [
        ["failed", "show", str(failed_id), str(other)],
        ["failed", "diff", str(failed_id), str(other)],
        ["jobs", "show", str(waiting), str(other)],
        ["retry", "-n", "--yes", "--class", "Report"],
        ["history", str(other)],
    ]
    for command in commands:
        for output in ("table", "json", "ndjson", "csv"):
            shown = shell.run(*command, "-o", output)
            assert shown.returncode in {0, 1}, shown.stderr
            assert not any(secret in shown.stdout for secret in (SECRET, "third-secret", "NL-first")), command
        of_application = shell.run("--rails", str(root), "--env", "production", *command, "-o", "json")
        assert of_application.returncode in {0, 1}, of_application.stderr
        assert "B-second" not in of_application.stdout, command
    for command in commands[:3]:
        shown = shell.run(*command, "--show-arguments", "-o", "json")
        assert SECRET in shown.stdout or "third-secret" in shown.stdout
