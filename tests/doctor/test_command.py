"""``jq doctor`` as a program."""

import json
from pathlib import Path

import pytest

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import failed, jobs, ready
from solidjq.database.urls import url_text
from solidjq.doctor import examine as doctor
from solidjq.doctor.checks import CheckResult, DoctorTerms
from solidjq.errors import UsageError
from solidjq.queue.concurrency import Limit
from solidjq.queue.states import State
from support.doctor import findings
from support.program import Shell
from support.queue import add_jobs, plain_jobs, rows, state_of_each
from support.scenes import age_of, change, orphan, recurring
from support.schemas import drop_index
from support.screen import Terminal
from support.terminal import terminal
from support.waiting import until


@pytest.mark.sqlite_only
def test_healthy_and_not(database: Database, shell: Shell) -> None:
    well = shell.run("doctor", "-o", "json")
    assert (well.returncode, {row["status"] for row in json.loads(well.stdout)}) == (0, {"healthy"})
    orphan(database)
    ill = shell.run("doctor", "-o", "json")
    assert ill.returncode == 6
    (found,) = [row for row in json.loads(ill.stdout) if row["status"] != "healthy"]
    assert (found["check"], found["status"], found["fixable"], len(found["job_ids"])) == ("orphans", "error", True, 2)
    assert "jq prune" in found["fix"]
    assert ill.stderr.startswith("jq: 1 error; ")
    assert shell.run("doctor", "orphans", "-o", "ids").stdout.split() == [str(i) for i in found["job_ids"]]


@pytest.mark.sqlite_only
def test_fix(database: Database, shell: Shell) -> None:
    orphan(database)
    recurring(database)  # nobody but the operator can start a scheduler
    refused = shell.run("doctor", "--fix")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--yes" in refused.stderr
    assert rows(database, failed) == []
    done = shell.run("doctor", "--fix", "--yes", "--reason", "INC-7")
    assert (done.returncode, "1 error; " in done.stderr) == (6, True)
    assert "orphans: fixed 2" in done.stderr
    assert set(state_of_each(database).values()) == {State.FAILED}
    (operation,) = rows(database, tables.operations)
    assert (operation["verb"], operation["jobs"], operation["reason"]) == ("doctor", 2, "INC-7")
    again = shell.run("doctor", "--fix", "--yes", "--skip", "scheduler", "--skip", "died-jobs")
    assert again.returncode == 0
    assert len(rows(database, tables.operations)) == 1


@pytest.mark.sqlite_only
def test_on_a_terminal_it_asks(database: Database, shell: Shell) -> None:
    orphan(database)
    looked = terminal(shell, "doctor", "orphans")
    assert "error    orphans: 2 jobs are claimed by processes that are not registered" in looked
    assert "\n         why: Nobody will end these claims" in looked
    assert "\n         fix: jq prune" in looked
    shown = terminal(shell, "doctor", "orphans", "--fix", typed="n\n")
    assert "that are not registered; --fix fails them with" in " ".join(shown.split())
    assert "fix it? [y/N]" in shown
    assert "nothing was changed" in shown
    assert rows(database, failed) == []
    assert "fixed 2" in terminal(shell, "doctor", "orphans", "--fix", typed="y\n")
    assert len(rows(database, failed)) == 2


@pytest.mark.sqlite_only
def test_a_name_from_a_row_is_only_shown(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(1, queue_name="a\x1b[31m'; rm -rf ~"))
    change(database, age_of(ready, 90))
    assert "\x1b[31m" not in terminal(shell, "doctor", "workers")
    (found,) = findings(database, "workers")
    assert "--queues 'a\x1b[31m'\"'\"'; rm -rf ~'" in found.advice


@pytest.mark.sqlite_only
def test_list_and_unknown_names(shell: Shell) -> None:
    listed = shell.run("doctor", "--list", "-o", "json")
    assert [row["check"] for row in json.loads(listed.stdout)] == [check.name for check in doctor.CHECKS]
    unknown = shell.run("doctor", "orphan")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "there is no check 'orphan'; the checks are: no-state" in unknown.stderr
    with pytest.raises(UsageError):
        doctor.choose(skip=["nonsense"])


@pytest.mark.sqlite_only
def test_init_indexes(database: Database, shell: Shell) -> None:
    drop_index(database, "index_solid_queue_poll_all", "")
    assert "index_solid_queue_poll_all" not in shell.run("init").stderr
    assert findings(database, "indexes")
    done = shell.run("init", "--indexes")
    assert "created index index_solid_queue_poll_all on solid_queue_ready_executions (priority, job_id)" in done.stderr
    assert findings(database, "indexes") == []
    assert "nothing to do" in shell.run("init", "--indexes").stderr


@pytest.mark.sqlite_only
def test_no_queue_is_no_finding(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "other.sqlite3").touch()
    assert shell.run("doctor", "--database", str(tmp_path / "other.sqlite3")).returncode == 3


@pytest.mark.sqlite_only
def test_a_real_queue_under_load_is_healthy(database: Database, shell: Shell) -> None:
    """Workers finish jobs, fail some, pass slots on, while every check looks."""
    shell.folder.joinpath("load.py").write_text(
        "import time\nfrom solidjq import job\n"
        "@job\ndef quick(n):\n    time.sleep(0.001)\n"
        "@job(limit=2, limit_by=lambda n: n % 3)\ndef narrow(n):\n    assert n % 10\n"
    )
    shell.environment["PYTHONPATH"] = str(shell.folder)
    work = shell.start("work", "--import", "load", "--processes", "2")
    try:
        plain = [NewJob(class_name="quick", args=[n]) for n in range(150)]
        keyed = [
            NewJob(class_name="narrow", args=[n], concurrency_key=f"narrow/{n % 3}", limit=Limit(2)) for n in range(100)
        ]

        def finished() -> int:
            return sum(row["finished_at"] is not None for row in rows(database, jobs))

        others = doctor.choose(skip=["failed-jobs"])

        def ended_meanwhile() -> bool:
            """Examine the queue; whether jobs ended while it was examined is chance on a busy machine."""
            if len(rows(database, ready)) < 50:
                add_jobs(database, *plain, *keyed, NewJob(class_name="quick", args=[0], delay=0.5))
            before = finished()
            results = doctor.examine(database, others, DoctorTerms(limits={"narrow": Limit(2)}))
            assert [result for result in results if result.findings or result.skipped] == []
            return finished() > before

        add_jobs(database, *plain)
        until(finished, "a job finished")
        for _ in range(5):
            until(ended_meanwhile, "jobs ended while the queue was examined")
    finally:
        work.terminate()
        work.communicate()


@pytest.mark.sqlite_only
def test_checks_that_are_skipped_for_one_reason_share_a_line(
    database: Database, screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, well = doctor.choose(("orphans", "workers", "endings", "tables"), ())
    results = [CheckResult(check, skipped=why) for check, why in ((first, "late"), (second, "denied"), (third, "late"))]
    monkeypatch.setattr(doctor, "examine", lambda *_: [*results, CheckResult(well)])
    heading, *lines = screen.show(["doctor", "-d", url_text(database.url)], width=200).splitlines()
    assert heading.startswith("nothing found; 1 check healthy, 3 skipped  ")
    assert lines == [
        f"skipped  {first.name}, {third.name}: late",
        f"skipped  {second.name}: denied",
    ]
