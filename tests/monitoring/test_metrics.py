"""The metrics of a queue, and the texts that Prometheus reads: checked by its own promtool where it is installed."""

import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from sqlalchemy import insert, update
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database.tables import recurring_tasks, semaphores
from solidjq.database.times import ago, utcnow
from solidjq.database.urls import url_text
from solidjq.monitoring import scrape as scraping
from solidjq.monitoring.exposition import MetricsFormat, write
from solidjq.monitoring.families import Family
from solidjq.monitoring.scrape import ScrapeTerms, scrape
from solidjq.processes import pruning
from solidjq.queue import failure_counts, pauses
from solidjq.rails.error_text import error_json, exit_error
from solidjq.settings.promises import Promises
from support.paths import ROOT
from support.processes import add_attendants, add_process, silence
from support.program import Shell
from support.queue import add_jobs, fail, plain_jobs
from support.rails import load, read
from support.scenes import NASTY, blocked_rightly, change, dead_process, due
from support.terminal import terminal
from support.waiting import PATIENCE

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)+)\})? (\S+)')


def values(text: str) -> dict[str, float]:
    """Return the samples of a text: ``name{label="x"}`` to value; every line must be one or a comment."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            found[line.rpartition(" ")[0]] = float(match[3])
    return found


def measured(database: Database, **terms: object) -> dict[str, float]:
    found = values(write(scrape(database, ScrapeTerms(**terms))))  # type: ignore[arg-type]
    assert [name for name, value in found.items() if name.startswith("jq_scrape_success") and not value] == []
    return found


def test_an_empty_queue(database: Database) -> None:
    found = measured(database)
    assert found["solid_queue_up"] == 1
    assert found['solid_queue_processes{kind="Worker",status="alive"}'] == 0
    assert found['solid_queue_failed_jobs{queue="other",reason="unread"}'] == 0
    assert found["jq_deaths_total"] == 0
    assert found["jq_scrape_duration_seconds"] > 0


def test_what_stands_in_the_tables(database: Database) -> None:
    add_attendants(database)
    fail(database, *plain_jobs(3), error=[error_json("E", "boom"), exit_error(7, -9), error_json("E", "boom")])
    dead_process(database)
    blocked_rightly(database)
    due(database)
    add_jobs(database, *plain_jobs(2, queue_name="mailers"))
    database.transact(pauses.pause, "mailers")
    change(database, update(semaphores).values(expires_at=ago(60)))
    found = measured(database, promises=Promises(latencies={"mailers": 60.0}, workers=4))
    expected = {
        'solid_queue_jobs{queue="mailers",state="ready"}': 2,
        'solid_queue_paused{queue="mailers"}': 1,
        'solid_queue_paused{queue="default"}': 0,
        'solid_queue_jobs{queue="default",state="scheduled"}': 1,
        'solid_queue_jobs{queue="default",state="claimed"}': 2,
        'solid_queue_jobs{queue="default",state="blocked"}': 2,
        'solid_queue_failed_jobs{queue="default",reason="error"}': 2,
        'solid_queue_failed_jobs{queue="default",reason="died"}': 1,
        'solid_queue_processes{kind="Worker",status="silent"}': 1,
        'solid_queue_processes{kind="Dispatcher",status="alive"}': 1,
        "solid_queue_silent_process_jobs": 1,
        "solid_queue_expired_semaphores": 1,
        'jq_latency_promise_seconds{queue="mailers"}': 60,
        "jq_expected_workers": 4,
        'jq_recent_deaths{cause="killed"}': 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert 301 <= found["solid_queue_oldest_heartbeat_age_seconds"] < 400
    assert 90 <= found["solid_queue_oldest_due_age_seconds"] < 200
    assert found["solid_queue_oldest_blocked_overdue_seconds"] >= 1500


def test_the_record(database: Database) -> None:
    dead_process(database)
    assert len(list(pruning.prune(database, 300))) == 1
    found = measured(database)
    assert found["jq_deaths_total"] == 1
    assert sum(value for name, value in found.items() if name.startswith("jq_recent_deaths")) == 1


def test_recurring_tasks(database: Database) -> None:
    for key, schedule in (("clean", "every 5 minutes"), ("odd", "every blue moon")):
        row = {"key": key, "schedule": schedule, "static": True, "priority": 0}
        change(database, insert(recurring_tasks).values(**row, created_at=ago(900), updated_at=utcnow()))
    found = measured(database)
    assert found['solid_queue_recurring_period_seconds{task="clean"}'] == 300
    assert 900 <= found['solid_queue_recurring_age_seconds{task="clean"}'] < 1000
    assert [name for name in found if "missed" in name] == []  # no finished job is kept: it cannot be known
    assert 'solid_queue_recurring_period_seconds{task="odd"}' not in found


def test_labels_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many queues there are; what they hold is still in the sums."""
    monkeypatch.setattr(failure_counts.count_by_queue, "__kwdefaults__", {"most": 4})
    spread = (NewJob(class_name="PlainJob", queue_name=f"q{number % 3}") for number in range(6))
    fail(database, *spread, error=error_json("E", "boom"))
    add_jobs(database, *(job for n in range(5) for job in plain_jobs(n + 1, queue_name=f"r{n}")))
    found = measured(database, most_queues=2)
    ready = {name: value for name, value in found.items() if 'state="ready"' in name}
    assert ready == {
        'solid_queue_jobs{queue="r4",state="ready"}': 5,
        'solid_queue_jobs{queue="r3",state="ready"}': 4,
        'solid_queue_jobs{queue="other",state="ready"}': 6,
    }
    failures = {name: value for name, value in found.items() if name.startswith("solid_queue_failed_jobs")}
    assert sum(value for name, value in failures.items() if "unread" not in name) == 4
    assert len(failures) <= 4


def test_a_queue_of_rails_without_our_tables(empty_url: URL, kind: str) -> None:
    load(empty_url, read(kind, "2b"))
    database = Database(empty_url, read_only=True)
    found = measured(database)
    database.close()
    assert found["solid_queue_up"] == 1
    assert [name for name in found if name.startswith(("jq_deaths", "jq_operations"))] == []
    assert sum(value for name, value in found.items() if 'reason="died"' in name) > 0


@pytest.mark.sqlite_only
def test_a_part_that_cannot_be_read_hides_no_other(database: Database) -> None:
    with database.outside_transactions() as connection:
        connection.exec_driver_sql("DROP TABLE solid_queue_recurring_tasks")
    found = values(write(scrape(database, ScrapeTerms())))
    assert found['jq_scrape_success{part="recurring"}'] == 0
    assert sum(value for name, value in found.items() if "success" in name) == len(scraping.PARTS) - 1


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_database_that_is_away(queue_url: URL, shell: Shell, tmp_path: Path) -> None:
    shell.url = url_text(queue_url.set(host="127.0.0.1", port=1).difference_update_query(["host"]))
    done = shell.run("metrics", "--file", "jq.prom")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert values((tmp_path / "jq.prom").read_text())["solid_queue_up"] == 0


# -- texts ------------------------------------------------------------------------------------------------------------


def test_formats() -> None:
    counter = Family("jq_x", 'Help with "quotes"\nand \\', counter=True)
    counter.add(3, queue='a"b\\c\nd\x1b\ud800')
    gauge = Family("jq_y_seconds", "Seconds", unit="seconds")
    gauge.add(0.25)
    families = [counter, gauge, Family("jq_empty", "Nothing")]
    assert write(families) == (
        '# HELP jq_x Help with \\"quotes\\"\\nand \\\\\n# TYPE jq_x counter\n'
        'jq_x_total{queue="a\\"b\\\\c\\nd\ufffd\ufffd"} 3\n'
        "# HELP jq_y_seconds Seconds\n# TYPE jq_y_seconds gauge\n# UNIT jq_y_seconds seconds\n"
        "jq_y_seconds 0.25\n# EOF\n"
    )
    assert write(families, MetricsFormat.PROMETHEUS) == (
        '# HELP jq_x_total Help with "quotes"\\nand \\\\\n# TYPE jq_x_total counter\n'
        'jq_x_total{queue="a\\"b\\\\c\\nd\ufffd\ufffd"} 3\n'
        "# HELP jq_y_seconds Seconds\n# TYPE jq_y_seconds gauge\njq_y_seconds 0.25\n"
    )


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


def run_promtool(promtool: str, *arguments: str, stdin: str = "", folder: Path = ROOT) -> None:
    done = subprocess.run(
        [promtool, *arguments], input=stdin, capture_output=True, text=True, cwd=folder, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@pytest.mark.sqlite_only
def test_promtool_finds_nothing_wrong(promtool: str, database: Database) -> None:
    add_attendants(database)
    fail(database, *plain_jobs(3, queue_name=NASTY), error=exit_error(7, -9))
    add_jobs(database, *plain_jobs(1, queue_name='a"b\\c'))
    text = write(scrape(database, ScrapeTerms()), MetricsFormat.PROMETHEUS)
    run_promtool(promtool, "check", "metrics", stdin=text)


def test_the_alert_rules(promtool: str) -> None:
    """Each fires when it should, on series that are made up, and none before."""
    folder = ROOT / "docs" / "monitoring"
    run_promtool(promtool, "check", "rules", "alerts.yml", folder=folder)
    run_promtool(promtool, "test", "rules", "alerts_test.yml", folder=folder)
    alerts = re.findall(r"alert: (\w+)", (folder / "alerts.yml").read_text())
    tested = re.findall(r'alertname="(\w+)"', (folder / "alerts_test.yml").read_text())
    assert sorted(alerts) == sorted(tested)


@pytest.mark.sqlite_only
def test_rules_and_dashboard_use_metrics_that_there_are(database: Database) -> None:
    source = (ROOT / "core" / "solidjq" / "monitoring" / "scrape.py").read_text()
    there = set(re.findall(r'"((?:solid_queue|jq)_\w+)"', source)) | {"jq_deaths_total", "jq_operations_total"}
    for name in ("alerts.yml", "dashboard.json"):
        text = (ROOT / "docs" / "monitoring" / name).read_text()
        used = set(re.findall(r"\b((?:solid_queue|jq)_\w+)\b", text))
        assert used - there == set(), name
        assert len(used) > 8


# -- the program ------------------------------------------------------------------------------------------------------


@pytest.mark.sqlite_only
def test_once_and_to_a_file(database: Database, shell: Shell, tmp_path: Path) -> None:
    add_process(database)
    once = shell.run("--read-only", "metrics")
    assert (once.returncode, once.stderr, once.stdout.splitlines()[-1]) == (0, "", "# EOF")
    done = shell.run("metrics", "--file", "jq.prom")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    path = tmp_path / "jq.prom"
    assert values(path.read_text()).keys() == values(once.stdout).keys()
    assert path.stat().st_mode & 0o777 == 0o644  # node_exporter is another user
    assert [each.name for each in tmp_path.glob("*prom*")] == ["jq.prom"]
    silence(database, 1, 600)
    shell.run("metrics", "--file", "jq.prom", "--alive-threshold", "500")
    assert 'status="silent"} 1' in path.read_text()
    failing = shell.run("metrics", "--file", "missing/jq.prom")
    assert (failing.returncode, failing.stderr.count("\n")) == (2, 1)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "line",
    [
        *(f"--listen {'a' * 70}:1", f"--listen 127.0.0.1:{'1' * 5000}"),
        *("--listen 9394", "--listen x:y", "--listen :1", "--listen 127.0.0.1:99999", "--listen 192.0.2.1:9394"),
        *("--file a --listen 127.0.0.1:0", "--listen 127.0.0.1:0 --format prometheus"),
    ],
)
def test_a_wrong_command_line(shell: Shell, line: str) -> None:
    done = shell.run("metrics", *line.split())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def fetch(url: str, accept: str = "") -> tuple[str, str]:
    asked = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310  (http alone)
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:  # noqa: S310
        return answer.headers["Content-Type"], answer.read().decode()


def test_a_server(database: Database, shell: Shell) -> None:
    add_process(database)
    server = shell.start("--read-only", "metrics", "--listen", "127.0.0.1:0")
    try:
        assert server.stderr is not None
        url = server.stderr.readline().split()[-1]
        kind, text = fetch(url)
        assert kind.startswith("text/plain; version=0.0.4")
        assert values(text)["solid_queue_up"] == 1
        kind, text = fetch(url, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(url.replace("/metrics", "/"))
        server.terminate()
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
        server.communicate()


@pytest.mark.sqlite_only
def test_the_first_lines_on_a_terminal(shell: Shell) -> None:
    assert "solid_queue_up 1" in terminal(shell, "metrics")
