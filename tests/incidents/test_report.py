"""The report of an incident: what became of its jobs, as Markdown, and as a page in a real browser."""

import json
import re
import uuid
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from solidjq import Database, NewJob
from solidjq.database.tables import claimed, deaths, jobs, operations
from solidjq.database.times import ago, utcnow
from solidjq.incidents.causes import Cause
from solidjq.incidents.incidents import Incident, find_incidents
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat, pruning
from solidjq.queue import endings
from solidjq.rails.error_text import error_json
from solidjq.recovery.aftermath import Aftermath, aftermath_of
from solidjq.recovery.outcome import JobOutcome as Is
from support.browser import browser
from support.deaths import die, raise_all
from support.processes import add_process, silence
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs
from support.recovery import retry_jobs, undo

HOSTILE = (
    "<script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>'\"`@all [x](http://evil.example) "
    "</style>&lt;\u202e\x1b[31m|*_#" + "W" * 120
)


def only_incident(database: Database) -> Incident:
    with database.read() as connection:
        (incident,) = find_incidents(connection)
    return incident


def aftermath(database: Database) -> Aftermath:
    incident = only_incident(database)
    with database.read() as connection:
        return aftermath_of(connection, incident)


def outcomes(database: Database) -> dict[int, tuple[Is, bool]]:
    return {each.job.job_id: (each.outcome, each.again) for each in aftermath(database).jobs}


def moved(database: Database) -> list[tuple[str, int]]:
    return [(each.operation.verb, each.jobs) for each in aftermath(database).operations]


# -- what became of the jobs ------------------------------------------------------------------------------------------


def test_what_became_of_each_job(database: Database) -> None:
    waits, runs, fails, done, ready, back, gone, away = ids = add_jobs(database, *plain_jobs(8))
    die(database)
    assert outcomes(database) == dict.fromkeys(ids, (Is.DIED, False))
    assert moved(database) == []
    retry_jobs(database, [runs, fails, done, ready, gone])
    worker = add_process(database)
    claim_all(database, worker)
    database.transact(endings.finish, claimed.c.job_id == done)
    database.transact(endings.fail, claimed.c.job_id == fails, error_json("E", "boom"))
    database.transact(endings.release, claimed.c.job_id.in_([ready, gone]))
    with database.write() as connection:
        connection.execute(delete(jobs).where(jobs.c.id == gone))
    undone = Operation("retry")
    retry_jobs(database, [back], undone)
    undo(database, undone)
    retry_jobs(database, [away], Operation("discard"), discard=True)
    assert outcomes(database) == {
        waits: (Is.DIED, False),
        runs: (Is.RUNNING, False),
        fails: (Is.FAILED, True),
        done: (Is.FINISHED, False),
        ready: (Is.READY, False),
        back: (Is.DIED, False),
        gone: (Is.GONE, False),
        away: (Is.DISCARDED, False),
    }
    assert moved(database) == [("retry", 5), ("discard", 1)]


def test_only_operations_on_its_own_jobs_and_since_its_deaths_belong_to_an_incident(database: Database) -> None:
    (other,) = add_jobs(database, *plain_jobs(1))
    raise_all(database)
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database)
    for retried in (other, job_id):
        retry_jobs(database, [retried])
    assert moved(database) == [("retry", 1)]

    def begin_at(time: object) -> None:
        with database.write() as connection:
            connection.execute(update(operations).values(created_at=time))

    begin_at(only_incident(database).at)  # at the very moment
    assert moved(database) == [("retry", 1)]
    begin_at(ago(86400))
    assert moved(database) == []


def test_a_job_is_followed_to_the_row_of_its_next_attempt(database: Database) -> None:
    (first,) = add_jobs(database, *plain_jobs(1))
    die(database)
    with database.write() as connection:  # as retry_on writes it
        names = [column.name for column in jobs.c if column.name not in {"id", "finished_at"}]
        again = select(*(jobs.c[name] for name in names)).where(jobs.c.id == first)
        connection.execute(insert(jobs).from_select(names, again))
        newest = connection.scalar(select(jobs.c.id).order_by(jobs.c.id.desc()).limit(1))
        connection.execute(update(jobs).where(jobs.c.id == newest).values(finished_at=utcnow()))
    ((job, outcome, at, _),) = aftermath(database).jobs
    assert (job.job_id, outcome, isinstance(at, datetime)) == (first, Is.FINISHED, True)


def test_other_causes_are_weighed(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(2))
    die(database)
    incident = only_incident(database)
    lines = shell.run("incidents", "report", incident.name).stdout.splitlines()
    rows = [line for line in lines if re.match(rf"\| ({'|'.join(map(re.escape, Cause))}) \|", line)]
    assert len(rows) == len(Cause) - 1 - (incident.finding.cause is not Cause.UNKNOWN)


# -- the two forms ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(database: Database) -> Database:
    """An incident with a hostile text wherever a stranger can write one."""
    add_jobs(
        database, *(NewJob(class_name=f"{number}{HOSTILE}"[:255], queue_name=HOSTILE[:250]) for number in range(9))
    )
    worker = database.transact(
        heartbeat.register, kind="Worker", name=f"{HOSTILE[:200]}{uuid.uuid4()}", pid=7, hostname=HOSTILE, metadata={}
    )
    claim_all(database, worker, 9)
    silence(database, worker, 1000)
    assert len(list(pruning.prune(database, 300))) == 1
    with database.write() as connection:
        evidence = {"last_words": f"Current thread\n{HOSTILE}\npassword=hunter2\n```\n", "sample": {}}
        connection.execute(update(deaths).values(evidence=json.dumps(evidence)))
    retry_jobs(database, [1], Operation("retry", reason=HOSTILE))
    with database.write() as connection:
        connection.execute(update(operations).values(actor=HOSTILE[:255], command=HOSTILE))
    return database


@pytest.mark.sqlite_only
def test_the_page_in_a_browser(hostile: Database, shell: Shell, tmp_path: Path) -> None:
    done = shell.run("incidents", "report", "d1", "--html", "report.html")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    path = shell.folder / "report.html"
    assert "hunter2" not in path.read_text()
    with browser(tmp_path / "profile") as started, started.open(path) as page:
        assert {width: page.overflow(width) for width in (360, 800, 1600)} == {360: 0, 800: 0, 1600: 0}
        assert page.evaluate("document.images.length + document.querySelectorAll('[onerror], a, iframe').length") == 0
        assert page.evaluate("document.scripts.length") == 1
        data = json.loads(page.evaluate("document.getElementById('incident').textContent"))
        assert (data["incident"], len(data["jobs_now"]), data["operations"][0]["reason"]) == ("d1", 9, HOSTILE)
        assert "alert(1)" in page.evaluate("document.body.innerText")
        assert page.evaluate("document.querySelectorAll('input[type=checkbox]').length") >= 2
        colours = {
            page.scheme(scheme): page.evaluate("getComputedStyle(document.body).backgroundColor")
            for scheme in ("light", "dark")
        }
        assert len(set(colours.values())) == 2, "light and dark"
        assert page.complaints == []
        assert page.requests == [path.as_uri()]
    assert hostile.url.database


@pytest.mark.sqlite_only
def test_markdown_that_nobody_can_write_markup_into(hostile: Database, shell: Shell) -> None:
    shown = shell.run("incidents", "report", "d1", "--markdown").stdout
    assert "hunter2" not in shown
    assert "\x1b" not in shown
    prose, *fenced = re.split(r"^(`{3,})\n.*?^\1\n", shown, flags=re.MULTILINE | re.DOTALL)
    prose = "".join([prose, *(part for part in fenced if not part.startswith("`"))])
    assert not re.search(r"(?<!\\)<(?!!-- -->)", prose), "no tag"
    assert not re.search(r"(?<!\\)[\[\]`]", re.sub(r"^- \[ \]", "", prose, flags=re.MULTILINE)), "no link, no code"
    assert not re.search(r"@(?!<!-- -->)", prose), "nobody is told"
    heads = {line.count("|") - line.count("\\|") for line in prose.splitlines() if line.startswith("| ")}
    assert heads == {4, 7}, "each row has the cells of its table"
    assert hostile.url.database


@pytest.mark.sqlite_only
def test_what_cannot_be_reported(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(1))
    die(database)
    for arguments, code, words in (
        (["d2"], 4, "no incident d2"),
        (["d1", "--html", "r.html", "--markdown"], 2, "two forms of one report"),
        (["d1", "--html", "nowhere/r.html"], 2, "nowhere/r.html cannot be written: No such file"),
    ):
        done = shell.run("incidents", "report", *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert words in done.stderr
    assert shell.run("incidents", "report", "d1", "--html", "-").stdout.startswith("<!DOCTYPE html>")
