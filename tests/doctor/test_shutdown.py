"""How long supervisors let their jobs end, and processes that were killed at a shutdown."""

import json
import os
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from solidjq import Database
from solidjq.database import tables
from solidjq.database.times import utcnow
from solidjq.doctor import shutdown
from solidjq.processes import heartbeat
from solidjq.processes.heartbeat import Process
from solidjq.rails.settings import SHUTDOWN, RailsConfig, RailsSetting
from solidjq.runtime.sampler import Sampler
from support.doctor import findings
from support.scenes import DAY, age_of, change


@pytest.mark.sqlite_only
def test_processes_killed_at_shutdown(database: Database) -> None:
    now = datetime.now(UTC)
    told = {"sample": {"term_at": (now - timedelta(seconds=5)).isoformat(), "at": now.isoformat()}}
    death = {
        "kind": "Worker", "name": "w", "pid": 1, "noticed_at": utcnow(), "last_heartbeat_at": utcnow(),
        "noticed_by": "supervisor", "signal": 9, "evidence": json.dumps(told),
    }  # fmt: skip
    change(database, insert(tables.deaths).values(death))
    (found,) = findings(database, "shutdown")
    assert "1 process killed while shutting down" in found.what
    change(database, age_of(tables.deaths, 8 * DAY, "noticed_at"))
    assert findings(database, "shutdown") == []


RUBY = ["solid-queue-fork-supervisor(1.5.0): supervising 101, 102", "", ""]


def application(timeout: float | None) -> RailsConfig:
    return RailsConfig("queue.yml", settings={SHUTDOWN: RailsSetting(timeout, "x.rb:1", "code")})


def supervisor(database: Database, name: str, hostname: str = socket.gethostname(), **metadata: Any) -> Process:
    """Register this very process as a supervisor."""
    row = {"kind": "Supervisor(fork)", "name": name, "pid": os.getpid(), "hostname": hostname, "metadata": metadata}
    process_id = database.transact(heartbeat.register, **row)
    with database.read() as connection:
        return next(process for process in heartbeat.list_processes(connection) if process.id == process_id)


@pytest.mark.parametrize(
    ("configured", "seconds"),
    [(None, None), (RailsConfig("queue.yml"), 5.0), (application(25.0), 25.0), (application(None), None)],
)
@pytest.mark.parametrize("title", [RUBY, ["solid-queue-supervisor[a](1.7.0): starting"]])
@pytest.mark.sqlite_only
def test_the_shutdown_timeout_of_ruby(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    title: list[str],
    configured: RailsConfig | None,
    seconds: float | None,
) -> None:
    process = supervisor(database, "supervisor-1")
    for command in (["ruby", "bin/jobs"], ["solid-queue-worker(1.7.0): waiting"], []):
        monkeypatch.setattr(shutdown, "_command_line", lambda _, command=command: command)
        assert shutdown.shutdown_timeout(process, configured) is None
    monkeypatch.setattr(shutdown, "_command_line", lambda _: title)
    assert shutdown.shutdown_timeout(process, configured) == seconds


@pytest.mark.sqlite_only
def test_a_supervisor_of_ruby_that_systemd_gives_too_little_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no sample, and so no boot id: it is known by its title."""
    supervisor(database, "supervisor-1")
    supervisor(database, "supervisor-2", "elsewhere")
    monkeypatch.setattr(shutdown, "_command_line", lambda _: RUBY)
    monkeypatch.setattr(shutdown, "_systemd", lambda _: ("jobs.service", 30.0))
    assert findings(database, "shutdown") == findings(database, "shutdown", application=application(20.0)) == []
    (found,) = findings(database, "shutdown", application=application(25.0))
    assert found.what == "systemd kills supervisor-1 (jobs.service) 30 s after SIGTERM; its shutdown timeout is 25 s"
    monkeypatch.setattr(shutdown, "_command_line", lambda _: ["someone", "else"])
    assert findings(database, "shutdown", application=application(25.0)) == []


@pytest.mark.sqlite_only
def test_a_supervisor_of_ours_that_systemd_gives_too_little_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row stores its own shutdown timeout; its command line, and what Rails configures, do not matter."""
    here = Sampler().take({})
    supervisor(database, "supervisor-1", shutdown_timeout=25.0, sample=here)
    supervisor(database, "enough", shutdown_timeout=20, sample=here)
    supervisor(database, "elsewhere", "elsewhere", shutdown_timeout=25.0, sample=here)
    supervisor(database, "another-boot", shutdown_timeout=25.0, sample={**here, "boot_id": "another"})
    supervisor(database, "pid-reused", shutdown_timeout=25.0, sample={**here, "pid_started": "2026-01-01T00:00:00Z"})
    monkeypatch.setattr(shutdown, "_command_line", lambda _: ["jq", "work", "--shutdown-timeout", "99"])
    monkeypatch.setattr(shutdown, "_systemd", lambda _: ("jobs.service", 30.0))
    for terms in ({}, {"application": application(99.0)}):
        (found,) = findings(database, "shutdown", **terms)
        assert (
            found.what == "systemd kills supervisor-1 (jobs.service) 30 s after SIGTERM; its shutdown timeout is 25 s"
        )


@pytest.mark.sqlite_only
def test_nothing_is_said_of_a_supervisor_whose_shutdown_timeout_is_not_registered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older jq did not register it, and a row may hold anything."""
    here = Sampler().take({})
    for name, metadata in (("older", {}), ("text", {"shutdown_timeout": "25"}), ("none", {"shutdown_timeout": None})):
        supervisor(database, name, sample=here, **metadata)
    monkeypatch.setattr(shutdown, "_command_line", lambda _: ["jq", "work", "--shutdown-timeout", "99"])
    monkeypatch.setattr(shutdown, "_systemd", lambda _: ("jobs.service", 1.0))
    assert findings(database, "shutdown", application=application(25.0)) == []


def test_systemd() -> None:
    assert [shutdown.systemd_seconds(told) for told in ("1min 30s\n", "2min", "45s", "1h", "infinity", "")] == [
        90, 120, 45, 3600, None, None,
    ]  # fmt: skip
    assert shutdown._service(["12:memory:/", "0::/system.slice/jobs.service"]) == "jobs.service"
    assert shutdown._service(["0::/user.slice/user@1000.service/app.slice/tmux.scope"]) is None
    assert [
        *shutdown.judge_grace("s", 25, "jobs.service", 35),
        *shutdown.judge_grace("s", 25, "jobs.service", None),
    ] == []
    (found,) = shutdown.judge_grace("s", 25, "jobs.service", 30)
    assert "TimeoutStopSec=35" in found.advice
