"""``jq watch`` as a program: beside real workers that are killed, and killed itself."""

import json
import signal
import time
from pathlib import Path

import pytest

from solidjq import Database, NewJob
from solidjq.database.urls import url_text
from support.deaths import die, raise_all
from support.program import Shell
from support.proxies import proxied
from support.queue import add_jobs, plain_jobs
from support.receiver import Receiver
from support.runtime import Runtime, children_of, kill
from support.terminal import terminal
from support.waiting import until

OFTEN = ("--interval", "0.1")


@pytest.fixture(autouse=True)
def _own_state(shell: Shell) -> None:
    shell.environment["XDG_STATE_HOME"] = str(shell.folder / "state")


def test_from_the_kill_of_a_worker_to_a_webhook(
    database: Database, shell: Shell, runtime: Runtime, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    """A supervisor reports, the watch hears of it. How long that took is printed, not asserted."""
    with shell.start("watch", "--webhook", receiver.url, "--position", "here.json") as watching:
        until((shell.folder / "here.json").exists, "it watches")
        until(lambda: "hidden" not in Path(f"/proc/{watching.pid}/cmdline").read_text(), "the URL is no title")
        runtime.start("--threads", "1")
        (held,) = add_jobs(database, NewJob(class_name="hold", args=["secret argument"]))
        pid = runtime.running("secret argument")
        killed_at = time.time()
        kill(pid, signal.SIGKILL)
        (message,) = receiver.wait_for(1)
        watching.terminate()
        out, err = watching.communicate()
    with capsys.disabled():
        print(f" {receiver.posted[0].at - killed_at:.2f} s", end="")  # noqa: T201
    assert watching.returncode == 0
    assert [job["job_id"] for job in message["jobs"]] == [held]
    assert (message["kind"], message["deaths"][0]["signal"], message["deaths"][0]["pid"]) == ("incident", 9, pid)
    assert f"pid {pid}" in out
    assert "secret argument" not in out + json.dumps(message)
    assert "hidden" not in out + err


def test_from_the_kill_of_a_host_to_a_webhook(
    database: Database, shell: Shell, runtime: Runtime, receiver: Receiver
) -> None:
    """A supervisor dies with its children, and nobody prunes.

    The watch begins after that: a short threshold would call workers silent that are only slow.
    """
    runtime.start("--threads", "1")
    (held,) = add_jobs(database, NewJob(class_name="hold", args=["secret argument"]))
    runtime.running("secret argument")
    assert runtime.supervisor is not None
    pids = {runtime.supervisor.pid, *children_of(runtime.supervisor.pid)}
    for pid in (runtime.supervisor.pid, *pids):  # first the one that would notice the others
        kill(pid, signal.SIGKILL)
    line = ("--read-only", "watch", "--since", "1h", "--webhook", receiver.url, "--position", "here.json")
    with shell.start(*line, "--alive-threshold", "3") as watching:
        message = receiver.wait_for(1)[0]
        watching.terminate()
        out, _ = watching.communicate()
    assert (message["kind"], [job["job_id"] for job in message["jobs"]]) == ("silent", [held])
    assert {process["pid"] for process in message["processes"]} <= pids
    assert {process["kind"] for process in message["processes"]} >= {"Worker"}
    assert "all" in message["title"]
    assert "have been silent for" in out
    assert "secret argument" not in out + json.dumps(message)
    assert len(receiver.posted) == 1


@pytest.mark.sqlite_only
def test_killed_at_any_moment_it_repeats_and_misses_nothing(
    database: Database, shell: Shell, receiver: Receiver
) -> None:
    line = ("watch", *OFTEN, "--webhook", receiver.url, "--kind", "death", "-o", "ndjson")
    assert shell.run(*line, "--once").returncode == 0
    for number in range(8):
        with shell.start(*line) as watching:
            add_jobs(database, *plain_jobs(1))
            die(database, silent=1000 + 100 * number)
            if number % 2:
                receiver.wait_for(number // 2 + 1)
            watching.kill()
            watching.communicate()
    last = shell.run(*line, "--once")
    assert last.returncode == 0
    assert {message["name"] for message in receiver.messages} == {f"d{number}" for number in range(1, 9)}
    names: dict[str, str] = {}
    for message in receiver.messages:
        assert names.setdefault(message["id"], message["name"]) == message["name"]
    assert len(names) == 8
    assert shell.run(*line, "--once").stdout == ""


@pytest.mark.only_on("postgresql", "mariadb")
def test_it_outlives_an_outage(database: Database, shell: Shell) -> None:
    with proxied(database.url) as (proxy, url):
        line = ("watch", *OFTEN, "-o", "ndjson", "--kind", "death", "--database", url_text(url))
        with shell.start(*line) as watching:
            assert watching.stderr is not None
            assert watching.stdout is not None
            assert "watching" in watching.stderr.readline()
            proxy.cut()
            assert "the watch goes on when the database is back" in watching.stderr.readline()
            add_jobs(database, *plain_jobs(1))
            die(database)
            proxy.heal()
            assert json.loads(watching.stdout.readline())["kind"] == "death"
            assert "the database is back" in watching.stderr.readline()
            watching.terminate()
            watching.communicate()
        assert watching.returncode == 0


@pytest.mark.sqlite_only
def test_what_a_person_sees(database: Database, shell: Shell) -> None:
    assert shell.run("watch", "--once").returncode == 0
    add_jobs(database, *plain_jobs(2))
    die(database, hostname="web-\x1b[31m1")
    seen = terminal(shell, "watch", "--once")
    assert "died: its heartbeat stopped" in seen
    assert "jq incidents show d1" in seen
    assert "\x1b[31m1" not in seen
    assert shell.run("watch", "--once").stdout == ""
    other = shell.run("--read-only", "watch", "--once", "--name", "other", "--since", "1h", "-o", "ndjson")
    assert [json.loads(line)["kind"] for line in other.stdout.splitlines()] == ["death", "incident"]


@pytest.mark.sqlite_only
def test_what_could_not_be_delivered_is_kept(database: Database, shell: Shell, receiver: Receiver) -> None:
    out = shell.folder / "out"
    line = ("watch", "--once", "--webhook", "@urls", "--exec", f"tee -a {out}", "--webhook-secret-file", "secret")
    (shell.folder / "urls").write_text(f"# ours\n{receiver.url}\n\n")
    (shell.folder / "secret").write_text("a secret that is long enough\n")
    assert shell.run(*line).returncode == 0
    add_jobs(database, *plain_jobs(1))
    die(database)
    receiver.answers += [(500, {})] * 3
    left = shell.run(*line)
    assert (left.returncode, left.stdout.count("died")) == (6, 2)
    assert "1 message could not be delivered" in left.stderr
    assert "hidden" not in left.stderr
    assert json.loads(out.read_text())["kind"] == "incident"
    again = shell.run(*line)
    assert (again.returncode, again.stdout) == (0, "")
    assert len(receiver.posted) == 4
    assert len({posted.headers["webhook-id"] for posted in receiver.posted}) == 1
    assert len(out.read_text().splitlines()) == 1
    (kept,) = (shell.folder / "state").rglob("*.json")
    assert "hidden" not in kept.read_text()
    add_jobs(database, *plain_jobs(1))
    raise_all(database)
    receiver.answers += [(410, {})]
    dropped = shell.run(*line)
    assert (dropped.returncode, "given up after 1 attempt" in dropped.stderr) == (6, True)
    assert shell.run(*line).returncode == 0


@pytest.mark.sqlite_only
def test_wrong_lines(shell: Shell) -> None:
    for line in (
        ["--kind", "deaths"],
        ["--kind", ","],
        ["--class", ","],
        ["--webhook", "hooks.slack.com/x"],
        ["--webhook", "@nowhere"],
        ["--webhook-secret-file", "nowhere"],
        ["--cooldown", "soon"],
        ["--exec", ""],
        ["--name", "a/b"],
        ["--position", ""],
        ["--position", "/"],
        ["--position", str(shell.folder)],
        ["--since", "soon"],
    ):
        ended = shell.run("watch", "--once", *line)
        assert (ended.returncode, ended.stdout) == (2, ""), line
    assert not shell.folder.with_name(f"{shell.folder.name}.lock").exists()
    assert "needs --once" in shell.run("watch", "-o", "csv").stderr
    once = shell.run("watch", "--once", "-o", "json")
    assert (once.returncode, json.loads(once.stdout)) == (0, [])
