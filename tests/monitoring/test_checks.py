"""The checks of jq check, on queues of which something is wrong and on those that look alike."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import blocked, failed, jobs, ready, recurring_executions, recurring_tasks, scheduled
from solidjq.database.times import ago, utcnow
from solidjq.errors import UsageError
from solidjq.monitoring.checks import CHECKS, CheckTerms, check_latency, make_checks
from solidjq.monitoring.levels import CheckReport, Level, above, parse_range, worst
from solidjq.queue import failure_counts, pauses
from solidjq.rails.error_text import error_json, exit_error
from solidjq.settings.promises import Promises
from support.processes import add_attendants, add_process, add_worker_of, silence
from support.program import Shell
from support.queue import add_jobs, fail, plain_jobs
from support.rails import load, read
from support.scenes import age_of, blocked_rightly, change, dead_process, due

OK, WARNING, CRITICAL, UNKNOWN = Level.OK, Level.WARNING, Level.CRITICAL, Level.UNKNOWN


def check(database: Database, name: str, **terms: Any) -> CheckReport:
    (report,) = make_checks(database, [name], CheckTerms(**terms))
    return report


def level(database: Database, name: str, **terms: Any) -> Level:
    return check(database, name, **terms).level


# -- levels and ranges ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "alerts", "quiet"),
    [
        ("10", [-1, 10.5], [0, 10]),
        ("10:", [9], [10, 1e9]),
        ("~:10", [11], [-1e9, 10]),
        ("10:20", [9, 21], [10, 20]),
        ("@10:20", [10, 20], [9, 21]),
        ("5m", [301], [300]),
        ("30s:5m", [29, 301], [30, 300]),
        ("0", [1], [0]),
    ],
)
def test_ranges(text: str, alerts: list[float], quiet: list[float]) -> None:
    bound = parse_range(text, "--warn", of_time=True)
    assert [bound.alerts(value) for value in (*alerts, *quiet)] == [True] * len(alerts) + [False] * len(quiet)
    assert parse_range(bound.text, "--warn", of_time=False) == bound  # the values are printed with it


@pytest.mark.parametrize("text", ["", "abc", "20:10", "1:2:3", "nan", "inf", "@", "~", "5 parsecs"])
def test_no_ranges(text: str) -> None:
    with pytest.raises(UsageError, match="--crit"):
        parse_range(text, "--crit", of_time=True)


@pytest.mark.parametrize("text", ["5m", "1:5m", "@1m:2m"])
def test_what_is_counted_has_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match=r"--warn .*this check counts"):
        parse_range(text, "--warn", of_time=False)


@pytest.mark.parametrize(("check", "status"), [("failures", 3), ("deaths", 3), ("processes", 3), ("slots", 0)])
def test_durations_are_for_checks_of_time(shell: Shell, check: str, status: int) -> None:
    done = shell.run("check", check, "--crit", "5m")
    assert (done.returncode, "this check counts" in done.stderr + done.stdout) == (status, status == 3), done


def test_the_latency_of_a_queue_that_nothing_names_is_unknown(database: Database) -> None:
    """A check of a misspelled name would be green for ever; a promise names a queue, too."""
    add_jobs(database, *plain_jobs(1, queue_name="mailers"))
    known = CheckTerms(queues=("mailers", "mail*", "*"))
    unknown = CheckTerms(queues=("mialers", "reports", "x*"), promises=Promises(latencies={"reports": 60.0}))
    with database.read() as connection:
        assert check_latency(connection, known).level is Level.OK
        found = check_latency(connection, unknown)
    assert {one.label: one.level for one in found.measures} == {
        "mialers": Level.UNKNOWN,
        "x*": Level.UNKNOWN,
        "reports": Level.OK,
    }
    assert "no queue mialers; did you mean mailers?" in found.text


def test_the_worst_level() -> None:
    assert worst([]) is OK
    assert worst([OK, UNKNOWN]) is UNKNOWN
    assert worst([UNKNOWN, WARNING, OK]) is WARNING
    assert worst([WARNING, UNKNOWN, CRITICAL]) is CRITICAL
    assert [each.exit_code for each in (OK, WARNING, CRITICAL, UNKNOWN)] == [0, 1, 2, 3]


# -- failures and deaths ----------------------------------------------------------------------------------------------


def test_failures(database: Database) -> None:
    assert level(database, "failures") is OK
    fail(database, *plain_jobs(3), error=[error_json("E", "boom"), exit_error(7, -9), error_json("E", "old")])
    found = check(database, "failures")
    assert (found.level, found.text) == (WARNING, "3 jobs failed within 1h: 1 died, 2 errors")
    assert [one.value for one in found.measures] == [3, 1]
    assert level(database, "failures", crit=above(2)) is CRITICAL
    assert level(database, "failures", warn=above(3)) is OK
    change(database, age_of(failed, 2 * 3600))
    assert level(database, "failures") is OK
    assert level(database, "failures", window=timedelta(hours=3)) is WARNING


def test_only_the_newest_failures_are_read(database: Database) -> None:
    fail(database, *plain_jobs(5), error=exit_error(7, -9))
    with database.read() as connection:
        assert failure_counts.count_recent(connection, None, most=6).complete
        some = failure_counts.count_recent(connection, None, most=5)
        assert (some.failed, some.died, some.complete) == (5, 5, False)
        assert failure_counts.count_by_queue(connection, most=6) == (0, [("default", True, 5)])
        older, by_queue = failure_counts.count_by_queue(connection, most=3)
        assert (older >= 0, by_queue) == (True, [("default", True, 3)])  # by a server's statistics, which may be old
        lowest = failure_counts.lowest_of_newest(connection, 2)
        assert len([row for row in connection.execute(failed.select()) if row.id >= lowest]) == 2
        assert failure_counts.lowest_of_newest(connection, 6) == 0


def test_deaths(database: Database) -> None:
    assert level(database, "deaths") is OK
    fail(database, *plain_jobs(3), error=[exit_error(7, -9), exit_error(8, -11), error_json("E", "boom")])
    found = check(database, "deaths")
    assert (found.level, found.measures[0].value) == (WARNING, 2)
    assert found.text.startswith("2 processes died within 1h: f")
    assert level(database, "deaths", crit=above(1)) is CRITICAL
    change(database, age_of(failed, 2 * 3600), delete(tables.crashes))
    assert level(database, "deaths") is OK


def test_deaths_that_rails_recorded(empty_url: URL, kind: str) -> None:
    """A queue of Rails without jq's tables is checked like any other."""
    load(empty_url, read(kind, "2b"))
    database = Database(empty_url, read_only=True)
    reports = make_checks(database, [*CHECKS], CheckTerms(window=timedelta(days=36500)))
    database.close()
    found = {report.check: report for report in reports}
    assert UNKNOWN not in {report.level for report in reports}
    assert found["deaths"].level is WARNING
    assert found["failures"].measures[1].value


# -- latency ----------------------------------------------------------------------------------------------------------


def waits(database: Database, queue: str, seconds: float) -> None:
    add_jobs(database, *plain_jobs(1, queue_name=queue))
    change(database, update(ready).where(ready.c.queue_name == queue).values(created_at=ago(seconds)))


def test_latency(database: Database) -> None:
    assert level(database, "latency") is OK
    waits(database, "low", 200)
    assert level(database, "latency") is OK
    assert level(database, "latency", warn=above(100)) is WARNING
    waits(database, "mailers", 1)
    assert level(database, "latency", warn=above(100), queues=["mail*"]) is OK
    waits(database, "lower", 2000)
    found = check(database, "latency")
    assert (found.level, found.text) == (CRITICAL, "lower: the oldest ready job waits for 33m")
    assert [(one.label, one.unit) for one in found.measures] == [("low", "s"), ("lower", "s"), ("mailers", "s")]


def test_promised_latency(database: Database) -> None:
    waits(database, "within_5_minutes", 250)
    waits(database, "mailers", 250)
    promises = Promises(latencies={"mailers": 60.0, "imports": 5.0})
    found = {one.label: one.level for one in check(database, "latency", promises=promises).measures}
    assert found == {"within_5_minutes": WARNING, "mailers": CRITICAL, "imports": OK}
    database.transact(pauses.pause, "mailers")
    assert "60 s are promised (paused)" in check(database, "latency", promises=promises).text


# -- dispatcher and slots ---------------------------------------------------------------------------------------------


def test_dispatcher(database: Database) -> None:
    assert level(database, "dispatcher") is WARNING  # none lives, and none is needed
    add_jobs(database, NewJob(class_name="Later", delay=3600))
    assert level(database, "dispatcher") is WARNING
    due(database)
    assert level(database, "dispatcher") is CRITICAL
    change(database, age_of(scheduled, 270, "scheduled_at"))
    dispatcher = add_process(database, "dispatcher-1", kind="Dispatcher")
    found = check(database, "dispatcher")
    assert (found.level, found.text) == (WARNING, "the oldest due scheduled job waits for 4m")
    change(database, age_of(scheduled, 301, "scheduled_at"))
    assert level(database, "dispatcher") is CRITICAL
    change(database, delete(scheduled))
    assert level(database, "dispatcher") is OK
    silence(database, dispatcher, 301)
    assert level(database, "dispatcher") is WARNING
    assert level(database, "dispatcher", threshold=400) is OK


def test_slots(database: Database) -> None:
    assert level(database, "slots") is OK
    blocked_rightly(database)
    assert level(database, "slots") is WARNING
    change(database, age_of(blocked, 3601, "expires_at"))
    assert level(database, "slots") is CRITICAL
    change(database, age_of(blocked, -60, "expires_at"))
    assert level(database, "slots") is OK


# -- processes --------------------------------------------------------------------------------------------------------


def test_processes(database: Database) -> None:
    assert (level(database, "processes"), check(database, "processes").text) == (CRITICAL, "no process lives")
    add_attendants(database)
    assert check(database, "processes").text == "1 dispatcher, 1 worker alive"
    other = add_process(database, "worker-2")
    silence(database, other, 301)
    assert level(database, "processes") is WARNING
    assert level(database, "processes", threshold=400) is OK
    assert level(database, "processes", warn=above(1)) is OK
    assert level(database, "processes", crit=above(0)) is CRITICAL


def test_a_silent_process_with_jobs(database: Database) -> None:
    add_attendants(database)
    dead_process(database)
    found = check(database, "processes")
    assert (found.level, found.text) == (CRITICAL, "1 process silent for 300 s or more, with 1 job")


def test_no_worker(database: Database) -> None:
    add_process(database, "dispatcher-1", kind="Dispatcher")
    assert (level(database, "processes"), check(database, "processes").text) == (WARNING, "no worker lives")
    add_jobs(database, *plain_jobs(1))
    assert check(database, "processes").text == "no worker lives, and jobs are ready"
    assert level(database, "processes") is CRITICAL


def test_expected_workers(database: Database) -> None:
    """The replacement of a worker that died may hang while it boots: nothing but its absence shows that."""
    add_worker_of(database, "mailers", "worker-1")
    add_worker_of(database, "*", "worker-2", pid=4243, **{"except": "mailers"})
    promises = Promises(expected={"mailers": 1}, workers=2)
    assert level(database, "processes", promises=promises) is OK
    found = check(database, "processes", promises=replace(promises, workers=3))
    assert (found.level, found.text) == (CRITICAL, "2 of 3 expected workers live")
    found = check(database, "processes", promises=replace(promises, expected={"mailers": 2}))
    assert (found.level, found.text) == (CRITICAL, "1 of 2 expected workers of mailers live")


# -- recurring tasks --------------------------------------------------------------------------------------------------


def set_up(database: Database, key: str, schedule: str, *, since: float) -> None:
    row = {"key": key, "schedule": schedule, "static": True, "priority": 0}
    change(database, insert(recurring_tasks).values(**row, created_at=ago(since), updated_at=utcnow()))


def ran(database: Database, key: str, at: datetime) -> None:
    """Write the row of a tick, with its job, as Solid Queue's scheduler does."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    values = {"job_id": job_id, "task_key": key, "run_at": at, "created_at": at}
    change(database, insert(recurring_executions).values(values), delete(ready).where(ready.c.job_id == job_id))
    change(database, update(jobs).where(jobs.c.id == job_id).values(finished_at=at))


def test_recurring(database: Database) -> None:
    assert level(database, "recurring") is OK
    now = database.now().replace(microsecond=0)
    on_time = now - timedelta(minutes=now.minute % 5, seconds=now.second)
    set_up(database, "clean", "every 5 minutes", since=7 * 86400)
    add_process(database, "scheduler-1", kind="Scheduler")
    ran(database, "clean", on_time - timedelta(days=2))
    ran(database, "clean", on_time)
    assert check(database, "recurring").text == "1 recurring task without a missed tick"
    change(database, delete(recurring_executions).where(recurring_executions.c.run_at == on_time))
    found = check(database, "recurring")
    assert found.level is CRITICAL
    assert found.text.startswith("clean missed 57")
    assert "(every 5 minutes); it ran last at" in found.text
    assert level(database, "recurring", warn=above(600), crit=above(1000)) is OK


def test_recurring_without_a_scheduler(database: Database) -> None:
    set_up(database, "clean", "every day", since=60)
    found = check(database, "recurring")
    assert (found.level, found.text) == (CRITICAL, "no scheduler lives, with 1 recurring task set up")
    assert [(one.label, one.value) for one in found.measures if one.level is CRITICAL] == [("schedulers", 0)]


def test_what_cannot_be_known_of_recurring_tasks_is_said(database: Database) -> None:
    add_process(database, "scheduler-1", kind="Scheduler")
    set_up(database, "clean", "every 5 minutes", since=7 * 86400)
    set_up(database, "odd", "every blue moon", since=7 * 86400)
    found = check(database, "recurring")
    unread, kept = (
        "schedules that are not read here: odd (every blue moon)",
        "no finished job is kept, so a tick leaves",
    )
    assert found.level is OK
    assert found.text == f"0 recurring tasks without a missed tick; not judged: {unread}; {kept} no trace"
    ran(database, "odd", datetime.now(UTC) - timedelta(days=1))
    assert check(database, "recurring").text.startswith("clean missed 28")  # none ran since that job was kept


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.sqlite_only
def test_a_check_that_cannot_be_made_hides_no_other(database: Database) -> None:
    change(database, tables.recurring_tasks.delete())
    with database.outside_transactions() as connection:
        connection.exec_driver_sql("DROP TABLE solid_queue_semaphores")
        connection.exec_driver_sql("DROP TABLE solid_queue_recurring_tasks")
    found = {report.check: report.level for report in make_checks(database, [*CHECKS], CheckTerms())}
    assert found["recurring"] is UNKNOWN
    assert (found["slots"], found["failures"]) == (OK, OK)


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_database_that_is_away_is_critical(queue_url: URL) -> None:
    database = Database(queue_url.set(port=1))
    reports = make_checks(database, [*CHECKS], CheckTerms())
    assert {report.level for report in reports} == {CRITICAL}
    assert len(reports) == len(CHECKS)
    assert len({report.text for report in reports}) == 1
