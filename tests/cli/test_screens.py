"""Screens on terminals of 60 to 200 columns: nothing that must be whole is cut, and the options that shape a screen."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len

from solidjq import Database, NewJob
from solidjq.database.setup import initialize
from solidjq.database.urls import parse_url, url_text
from solidjq.processes import heartbeat, pruning
from solidjq.queue import pauses
from solidjq.rails.error_text import error_json
from solidjq_cli import ages
from support.commands import run
from support.processes import silence
from support.queue import add_jobs, claim_all, fail
from support.screen import Terminal

WIDTHS = [60, 80, 120, 200]
LONG = "Billing::Invoices::GenerateMonthlyStatementJob"
CJK = "請求書::月次請求書を作成して顧客に送付するジョブ"
QUEUES = ("reports_for_large_customers_in_europe", "mailers", "画像を変換するためのキュー")
REASON = "the host worker-7 lost its power at night, see INC-4711, and 請求書 were not sent to 1,204 customers"
LISTS = {
    "failed list": "job_id",
    "processes list": "pid",
    "queues list": None,
    "operations list": "operation_id",
    "prune --dry-run": "process_id",
    "incidents list": "incident",
}


@pytest.fixture
def kind() -> str:
    """All of this is the same on every database."""
    return "sqlite"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A queue in which every name is as long as they get, and an incident of 20 hosts."""
    assert (len(LONG), cell_len(CJK)) == (46, 48)
    folder = tmp_path_factory.mktemp("a_folder_of_a_long_name_in_which_the_database_is") / "production_queue.sqlite3"
    database = Database(parse_url(f"sqlite:{folder}"))
    initialize(database)
    for number in range(20):
        add_jobs(database, *(NewJob(class_name=name, queue_name=QUEUES[number % 3]) for name in (LONG, CJK)))
        host = f"worker-{number}.eu-central-1.compute.internal"
        worker = database.transact(
            heartbeat.register, kind="Worker", name=f"w{number}", pid=2_600_000 + number, hostname=host, metadata={}
        )
        claim_all(database, worker)
        silence(database, worker, 1000)
    assert len(list(pruning.prune(database, 300))) == 20
    message = error_json("Billing::TimeoutError", "請求書 " + "never came " * 500)
    fail(database, NewJob(class_name=LONG), error=message)
    supervisor = database.transact(
        heartbeat.register, kind="Supervisor", name="s", pid=1, hostname="a.internal", metadata={}
    )
    sample = {"rss": 58 * 2**20, "release": "2026.11.25-2"}
    for number, queues in enumerate(("mailers,reports_for_large_customers_in_europe", "*")):
        database.transact(
            heartbeat.register,
            kind="Worker",
            name=f"child-{number}",
            pid=4_194_300 + number,
            hostname="a.internal",
            metadata={"queues": queues, "thread_pool_size": 5, "sample": sample},
            supervisor_id=supervisor,
        )
    dead = database.transact(
        heartbeat.register, kind="Dispatcher", name="dispatcher-dead", pid=77, hostname="b.internal", metadata={}
    )
    silence(database, dead, 1000)
    add_jobs(database, *(NewJob(class_name=LONG, queue_name=name) for name in QUEUES for _ in range(3)))
    database.transact(pauses.pause, "mailers")
    database.close()
    url = url_text(database.url)
    assert run(["discard", "1", "--reason", REASON, "-d", url]) == 0
    assert run(["retry", "2", "-d", url]) == 0
    yield database
    database.close()


@pytest.fixture
def url(wide: Database, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(wide.url))
    return url_text(wide.url)


def records(command: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run([*command.split(), "-o", "json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", LISTS)
@pytest.mark.usefixtures("url")
def test_a_list_fits_and_keeps_what_must_be_whole(
    command: str, width: int, screen: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    found = records(command, capsys)
    shown = screen.show(command.split(), width=width)
    # A word that is wider than the terminal, as a path, is left whole.
    assert [line for line in shown.splitlines() if cell_len(line) > width and len(line.split()) > 1] == []
    words = set(shown.split())
    key = LISTS[command]
    assert [record[key] for record in found if key and str(record[key]) not in words] == []
    for record in found:
        if command == "queues list":
            assert {str(record["ready"]), str(record["claimed"])} <= words
        if record.get("reason"):
            assert set(record["reason"].split()) <= words
    assert "production_queue.sqlite3" in shown


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.usefixtures("url")
def test_no_title_is_cut_and_which_columns_leave_is_fixed(width: int, screen: Terminal) -> None:
    titles = {
        "failed list": ["JOB", "CLASS", "QUEUE", "WHEN", "HOW", "INCIDENT", "HOST"],
        "processes list": ["HOST", "PROCESS", "PID", "BEAT", "JOBS", "RSS", "QUEUES", "RELEASE"],
        "queues list": ["QUEUE", "READY", "CLAIMED", "SCHEDULED", "BLOCKED", "OLDEST", "STATE"],
        "operations list": ["ID", "WHEN", "WHAT", "JOBS", "WHO", "REASON"],
    }
    for command, every in titles.items():
        shown = screen.show(command.split(), width=width).splitlines()
        line = next(line for line in shown if {every[0], every[1]} <= set(line.split()))
        there = line.split()
        assert [title for title in every if title in there] == there
        assert there == every or width < 120, command


@pytest.mark.usefixtures("url")
def test_the_heading_counts_and_the_last_line_has_the_next_commands(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/solidjq", "failed", "list", "--died", "--limit", "5"])
    first, *_, last = screen.show(["failed", "list", "--died", "--limit", "5"], width=120).splitlines()
    assert first.startswith("38 of 39 failed jobs died with their process; newest first")
    assert first.endswith("production_queue.sqlite3")
    assert last.startswith("33 older  solidjq failed list --died --limit 5 --page-after ")
    assert last.endswith(" | solidjq incidents list")


@pytest.mark.usefixtures("url")
def test_hosts_lose_the_domain_that_all_share_and_several_are_counted(screen: Terminal) -> None:
    shown = screen.show(["failed", "list"], width=200)
    assert {f"worker-{number}" for number in range(1, 20)} <= set(shown.split())
    assert "compute.internal" not in shown
    assert " +19" in screen.show(["incidents", "list"])


@pytest.mark.usefixtures("url")
def test_a_dead_process_is_red_and_said_to_be_dead(screen: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = screen.show(["processes", "list"], colours=True)
    assert "\x1b[31mdead 16m" in shown
    assert "1 process dead" in shown
    assert "└─ worker" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in screen.show(["processes", "list"], colours=True)


# -- the options that shape a screen


@pytest.mark.usefixtures("url")
def test_a_table_that_was_typed_is_one_in_a_pipe_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queues", "list"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[0]
        == "queue_name\tpaused\tready\tclaimed\tscheduled\tblocked\toldest_ready_at"
    )
    assert run(["queues", "list", "-o", "table"]) == 0
    heading, line, *_ = capsys.readouterr().out.splitlines()
    assert heading.startswith("4 queues, 1 paused; 10 jobs are ready")
    assert line.split()[:2] == ["QUEUE", "READY"]
    assert run(["failed", "list", "-o", "table"]) == 0
    printed = capsys.readouterr().out
    assert (LONG in printed, CJK in printed, "…" in printed) == (True, True, False)


@pytest.mark.usefixtures("url")
def test_wide_shows_more_and_cuts_nothing(screen: Terminal) -> None:
    shown = screen.show(["failed", "list", "-o", "wide"], width=60)
    assert {"ENQUEUED", "PRIORITY"} <= set(shown.split())
    assert "…" not in shown.partition("\n")[2]


@pytest.mark.usefixtures("url")
def test_fields_are_chosen_in_every_format(screen: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["failed", "list", "--limit", "1", "--fields", "priority, job_id"]
    assert run([*chosen, "-o", "json"]) == 0
    assert list(json.loads(capsys.readouterr().out)[0]) == ["priority", "job_id"]
    assert run([*chosen, "-o", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "priority,job_id"
    assert run(chosen) == 0
    assert capsys.readouterr().out.splitlines()[0] == "priority\tjob_id"
    assert screen.show(chosen).splitlines()[1].split() == ["PRIORITY", "JOB"]
    assert run(["failed", "list", "--fields", "job"]) == 2
    assert "no field 'job'; the fields: job_id, class_name, queue_name" in capsys.readouterr().err
    assert run([*chosen, "-o", "ids"]) == 2


@pytest.mark.usefixtures("url")
def test_a_list_is_sorted_by_a_field_and_what_has_none_comes_last(capsys: pytest.CaptureFixture[str]) -> None:
    for field, reverse in (("job_id", False), ("-job_id", True)):
        assert run(["failed", "list", "--sort", field, "-o", "ids"]) == 0
        ids = [int(line) for line in capsys.readouterr().out.split()]
        assert ids == sorted(ids, reverse=reverse)
    assert run(["failed", "list", "--sort", "-last_heartbeat_at", "-o", "json"]) == 0
    beats = [record["last_heartbeat_at"] for record in json.loads(capsys.readouterr().out)]
    assert beats == [*sorted(filter(None, beats), reverse=True), *(beat for beat in beats if beat is None)]
    assert run(["failed", "list", "--sort", "nothing"]) == 2


def test_clock_times_of_the_own_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        now = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
        assert ages.clock_time(now - timedelta(minutes=1), now) == "11:59:00"
        assert ages.clock_time(now - timedelta(hours=13), now) == "11-25 23:00"
        assert ages.clock_time(now - timedelta(days=400), now) == "2025-10-22 12:00"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_hour_that_occurs_twice_has_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the newest of a list would seem older than the one below it."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        first, now = datetime(2026, 10, 25, 0, 40, tzinfo=UTC), datetime(2026, 10, 25, 5, tzinfo=UTC)
        hours = [first + timedelta(hours=hour, seconds=1) for hour in range(-1, 3)]
        shown = ["01:40:01", "02:40:01 CEST", "02:40:01 CET", "03:40:01"]
        assert [ages.clock_time(hour, now) for hour in hours] == shown
        later = now + timedelta(days=100)
        assert ages.clock_time(first, now + timedelta(days=1)) == "10-25 02:40 CEST"
        assert ages.clock_time(first, later) == "2026-10-25 02:40 CEST"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.usefixtures("url")
def test_local_times_instead_of_ages(screen: Terminal) -> None:
    one = ["failed", "list", "--limit", "1", "--died", "--class", "請求書*"]
    assert not re.search(r"\d:\d\d", screen.show(one))
    assert re.search(r" (\d\d:\d\d:\d\d|\d\d-\d\d \d\d:\d\d) ", screen.show([*one, "--local"]))


# -- pages


@pytest.fixture
def pager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pager that keeps what it gets, and its LESS, in a file."""
    program, kept = tmp_path / "pager", tmp_path / "kept"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "LESS=$LESS" > {kept}\ncat >> {kept}\n')
    program.chmod(0o755)
    monkeypatch.delenv("LESS", raising=False)
    monkeypatch.setattr("support.screen.PAGER", str(program))
    return kept


@pytest.mark.usefixtures("url")
def test_what_is_longer_than_the_screen_goes_through_the_pager(screen: Terminal, pager: Path) -> None:
    shown = screen.show(["failed", "list"])
    less, *lines = pager.read_text("utf-8").splitlines()
    assert (shown, less) == ("", "LESS=FRX")
    assert len(lines) == 43  # a heading of two lines, titles, 39 failures, next commands
    assert "failed jobs" in lines[1]
    assert "next  jq failed show" in lines[-1]


@pytest.mark.parametrize(
    "line", ["failed list --no-pager", "--no-pager failed list", "failed list --limit 3", "failed list -o json"]
)
@pytest.mark.usefixtures("url")
def test_what_fits_or_shall_not_does_not(line: str, screen: Terminal, pager: Path) -> None:
    assert "請求書" in screen.show(line.split())
    assert not pager.exists()


@pytest.mark.usefixtures("url")
def test_a_pager_that_is_left_or_missing_is_no_error(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("support.screen.PAGER", "true")
    screen.show(["failed", "list"])
    assert (screen.code, capsys.readouterr().err) == (0, "")
    monkeypatch.setattr("support.screen.PAGER", "no-such-pager")
    assert "failed jobs" in screen.show(["failed", "list"])
    assert (screen.code, capsys.readouterr().err) == (0, "")


# -- watching


@pytest.mark.usefixtures("url")
def test_a_watched_list_is_drawn_again_until_ctrl_c(screen: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    # Not of the whole process: what other tests have left behind may sleep in a thread, for ever at once.
    monkeypatch.setattr("solidjq_cli.screens.time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    screen.height = 10
    shown = screen.show(["failed", "list", "--watch"], colours=True)
    assert screen.code == 130
    assert len(waits) == 3
    assert min(waits) >= 2
    assert shown.count("\x1b[H") == 3
    assert shown.count("\x1b[?1049h") == shown.count("\x1b[?1049l") == 1
    drawn = shown.split("\x1b[H")[1].split("\x1b[J")[0]
    assert drawn.count("\n") == 9
    assert "... 35 more lines" in drawn


@pytest.mark.usefixtures("url")
def test_only_a_terminal_can_be_watched(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["failed", "list", "--watch"]) == 2
    assert "--watch draws a table on a terminal" in capsys.readouterr().err
