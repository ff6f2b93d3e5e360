"""The doctor compares a queue with the code behind it: a Rails application's text, imported Python modules."""

import json
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import jobs, ready
from solidjq.database.times import utcnow
from solidjq.doctor import code, examine
from solidjq.doctor.checks import DoctorTerms, Severity
from solidjq.errors import UsageError
from solidjq.rails.job_code import IdleHandler, JobCode, read_job_code
from support.doctor import findings
from support.program import Shell
from support.queue import add_jobs, fail
from support.scenes import change

KNOWN = JobCode(frozenset(["reports::monthlyjob"]), frozenset(["mailers::welcomejob"]))


def test_jobs_of_classes_that_are_not_there(database: Database) -> None:
    """Finished ones do not matter, nor those of Rails' own gems; a failed one does."""
    add_jobs(database, NewJob(class_name="Old::GoneJob"))
    change(database, delete(ready), update(jobs).values(finished_at=utcnow()))
    (failed,) = fail(database, NewJob(class_name="ChargeJob"), error="StandardError")
    add_jobs(
        database,
        *(NewJob(class_name=name) for name in ("Reports::MonthlyJob", "Mailers::WelcomeJob", "tidy")),
        NewJob(class_name="ActionMailer::MailDeliveryJob"),
        *(NewJob(class_name="Reports::WeeklyJob") for _ in range(2)),
    )
    task = {"key": "nightly", "schedule": "every day", "class_name": "NightlyJob"}
    change(database, insert(tables.recurring_tasks).values({**task, "created_at": utcnow(), "updated_at": utcnow()}))
    charge, weekly, tidy, nightly = findings(database, "job-classes", code=KNOWN)
    assert {each.severity for each in (charge, weekly, tidy, nightly)} == {Severity.NOTE}
    assert charge.what == "1 unfinished job is of ChargeJob, which was not found under app, lib"
    assert charge.job_ids == (failed,)
    assert "2 unfinished jobs are of Reports::WeeklyJob" in weekly.what
    assert "the recurring task 'nightly' enqueues NightlyJob, which" in nightly.what
    both = {"code": KNOWN, "registered": frozenset(["tidy", "ChargeJob", "NightlyJob"])}
    (only,) = findings(database, "job-classes", **both)
    assert "WeeklyJob, which was not found under app, lib or among the functions of the imported" in only.what
    (missing,) = [
        f for f in findings(database, "job-classes", registered=frozenset(["tidy"])) if "ActionMailer" in f.what
    ]
    assert missing.severity is Severity.NOTE  # jq work cannot run it
    assert findings(database, "job-classes") == []
    (many,) = findings(database, "job-classes", code=JobCode(frozenset(), frozenset(), complete=False))
    assert "more than" in many.what


def test_handlers_that_never_run() -> None:
    handler = IdleHandler("app/jobs/a_job.rb:5", "AJob", "retry_on", "ProcessPrunedError")
    (found,) = code.judge_handlers(JobCode(frozenset(), frozenset(), (handler,)))
    assert found.severity is Severity.WARNING
    assert found.what.startswith("AJob's retry_on ProcessPrunedError never runs (app/jobs/a_job.rb:5): ")
    assert list(code.judge_handlers(None)) == []


def test_without_code_they_are_left_out() -> None:
    def chosen(**there: bool) -> set[str]:
        return {check.name for check in examine.choose(**there)} & {"job-classes", "retry-on"}

    assert chosen() == chosen(with_modules=False) == {"job-classes", "retry-on"}
    assert chosen(with_application=False) == {"job-classes"}
    assert chosen(with_application=False, with_modules=False) == set()
    with pytest.raises(UsageError, match=r"the check job-classes needs a Rails application.* --import"):
        examine.choose(["job-classes"], with_application=False, with_modules=False)
    with pytest.raises(UsageError, match="the check retry-on needs a Rails application: name it with --rails or a"):
        examine.choose(["retry-on"], with_application=False)


@pytest.mark.sqlite_only
def test_with_rails_and_with_import(database: Database, shell: Shell) -> None:
    """The program reads the application's files, and the names of an imported module."""
    add_jobs(database, NewJob(class_name="ShipJob"), NewJob(class_name="send_note"))
    (shell.folder / "config").mkdir()
    (shell.folder / "config" / "database.yml").write_text(
        f"production:\n  adapter: sqlite3\n  database: {database.url.database}\n"
    )
    job = shell.folder / "app" / "jobs" / "ship_job.rb"
    job.parent.mkdir(parents=True)
    job.write_text("class ShipJob < ApplicationJob\n  retry_on SolidQueue::Processes::ProcessPrunedError\nend\n")
    (shell.folder / "notes_of_code.py").write_text("import solidjq\n@solidjq.job\ndef send_note() -> None: ...\n")

    def found(*options: str) -> set[tuple[str, str]]:
        ran = shell.run("--rails", ".", "doctor", "job-classes", "retry-on", *options, "-o", "json")
        return {(row["check"], row["status"]) for row in json.loads(ran.stdout)}

    assert found() == {("job-classes", "note"), ("retry-on", "warning")}
    assert found("--import", "notes_of_code") == {("job-classes", "healthy"), ("retry-on", "warning")}
    assert read_job_code(Path(shell.folder)).has("ShipJob")
    assert DoctorTerms().code is None
