"""How long supervisors let their jobs end, and processes that were killed at a shutdown."""

import json
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.times import ago, utcnow
from solidjq.doctor import local_units, shutdown
from solidjq.doctor.checks import DoctorTerms, Severity
from solidjq.doctor.local_units import Unit
from solidjq.doctor.shutdown import Grace
from solidjq.processes import heartbeat
from solidjq.processes.heartbeat import Process
from solidjq.queue.job_times import JobTimes
from solidjq.rails.settings import SHUTDOWN, RailsConfig, RailsSetting, drain_timeout, read_config
from solidjq.runtime.sampler import Sampler
from support.doctor import findings
from support.queue import add_jobs, claim_all
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
        monkeypatch.setattr(local_units, "_command_line", lambda _, command=command: command)
        assert shutdown.shutdown_timeout(process, configured) is None
    monkeypatch.setattr(local_units, "_command_line", lambda _: title)
    assert shutdown.shutdown_timeout(process, configured) == seconds


@pytest.mark.sqlite_only
def test_a_supervisor_of_ruby_that_systemd_gives_too_little_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no sample, and so no boot id: it is known by its title."""
    supervisor(database, "supervisor-1")
    supervisor(database, "supervisor-2", "elsewhere")
    monkeypatch.setattr(local_units, "_command_line", lambda _: RUBY)
    monkeypatch.setattr(local_units, "find_unit", lambda _: Unit("jobs.service", 30.0, "continue"))
    assert findings(database, "shutdown") == findings(database, "shutdown", application=application(20.0)) == []
    (found,) = findings(database, "shutdown", application=application(25.0))
    assert found.what == "systemd kills supervisor-1 (jobs.service) 30 s after SIGTERM; its shutdown timeout is 25 s"
    monkeypatch.setattr(local_units, "_command_line", lambda _: ["someone", "else"])
    assert findings(database, "shutdown", application=application(25.0)) == []


@pytest.mark.sqlite_only
def test_a_supervisor_of_ours_that_systemd_gives_too_little_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row stores its own shutdown timeout; its command line, and what Rails configures, do not matter."""
    here = Sampler().take({})
    supervisor(database, "supervisor-1", shutdown_timeout=25.0, sample=here)
    supervisor(database, "enough", shutdown_timeout=20, sample=here)
    supervisor(database, "elsewhere", "elsewhere", shutdown_timeout=25.0, sample={**here, "boot_id": "of that host"})
    supervisor(database, "another-boot", shutdown_timeout=25.0, sample={**here, "boot_id": "another"})
    supervisor(database, "pid-reused", shutdown_timeout=25.0, sample={**here, "pid_started": "2026-01-01T00:00:00Z"})
    monkeypatch.setattr(local_units, "_command_line", lambda _: ["jq", "work", "--shutdown-timeout", "99"])
    monkeypatch.setattr(local_units, "find_unit", lambda _: Unit("jobs.service", 30.0, "continue"))
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
    monkeypatch.setattr(local_units, "_command_line", lambda _: ["jq", "work", "--shutdown-timeout", "99"])
    monkeypatch.setattr(local_units, "find_unit", lambda _: Unit("jobs.service", 1.0, "continue"))
    assert findings(database, "shutdown", application=application(25.0)) == []


def test_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [local_units.systemd_seconds(told) for told in ("1min 30s\n", "2min", "45s", "1h", "infinity", "")] == [
        90, 120, 45, 3600, None, None,
    ]  # fmt: skip
    assert local_units.service_of(["12:memory:/", "0::/system.slice/jobs.service"]) == "jobs.service"
    assert local_units.service_of(["0::/user.slice/user@1000.service/app.slice/tmux.scope"]) is None
    monkeypatch.setattr(local_units, "CGROUPS", tmp_path)
    group = tmp_path / "system.slice" / "jobs.service" / "memory.oom.group"
    group.parent.mkdir(parents=True)
    seen = []
    for content in ("0\n", "1\n", "\xff"):
        group.write_text(content, encoding="latin-1")
        seen.append(local_units._is_grouped(["1:cpu:/", "0::/system.slice/jobs.service"]))
    assert seen == [False, True, False]
    assert not local_units._is_grouped(["0::/elsewhere"])


def test_grace_and_shutdown_timeout() -> None:
    systemd = Grace(30, "systemd", "TimeoutStopSec in jobs.service")
    assert list(shutdown.judge_grace("s (jobs.service)", 20, systemd)) == []
    (found,) = shutdown.judge_grace("s (jobs.service)", 25, systemd)
    assert (found.severity, "set TimeoutStopSec in jobs.service to 35 s" in found.advice) == (Severity.WARNING, True)
    (default,) = shutdown.judge_grace("s", 25, Grace(30, "Kamal", "drain_timeout in config/deploy.yml", chosen=False))
    assert (default.severity, "by default, in a role without the proxy" in default.what) == (Severity.NOTE, True)
    assert [shutdown.room_for(grace).severity for grace in (10, 11)] == [Severity.WARNING, Severity.NOTE]
    assert "may be up to 20 s" in shutdown.room_for(30).what


def test_memory() -> None:
    units = [Unit("a.service", 90, "stop"), Unit(oom_group=True), Unit("a.service", 90, "continue"), Unit()]
    found = [[finding.what.split(":")[0] for finding in shutdown.judge_memory("s", unit)] for unit in units]
    assert found == [["OOMPolicy of a.service is stop"], ["memory.oom.group is 1 in the cgroup of s"], [], []]


def test_an_alive_threshold_that_a_shutdown_reaches() -> None:
    seconds = {240.0: 1, 239.0: 0, None: 0}
    for timeout, notes in seconds.items():
        assert len(list(shutdown.judge_threshold(DoctorTerms(application=application(timeout))))) == notes, timeout


def test_kamal(tmp_path: Path) -> None:
    path = tmp_path / "config" / "deploy.yml"
    assert drain_timeout(tmp_path) is None
    path.parent.mkdir()
    for text, seconds, code in (
        ("service: shop\n# drain_timeout: 9\n", 30.0, ""),
        ("service: shop\ndrain_timeout: 40  # s\n", 40.0, "drain_timeout: 40  # s"),
        ("drain_timeout: <%= ENV['DRAIN'] %>", None, "drain_timeout: <%= ENV['DRAIN'] %>"),
    ):
        path.write_text(text)
        read = drain_timeout(tmp_path)
        assert (read.value, read.code) == (seconds, code)
    path.write_text("drain_timeout: 10\n")
    config = read_config(tmp_path, variables={})
    (grace,) = shutdown.deployment_graces(DoctorTerms(application=config))
    assert (grace.seconds, grace.setting) == (10, "drain_timeout in config/deploy.yml:1")


def test_jobs_that_take_longer_than_the_grace(database: Database) -> None:
    """One that runs, one that ran until its process died, and one that finished; each class once."""
    finished, _quick = add_jobs(database, NewJob(class_name="Finished"), NewJob(class_name="Quick"))
    change(
        database,
        delete(tables.ready),
        update(tables.jobs).values(finished_at=utcnow()),
        update(tables.jobs).where(tables.jobs.c.id == finished).values(created_at=ago(7230), scheduled_at=ago(7230)),
    )
    add_jobs(database, NewJob(class_name="Running"))
    claim_all(database, supervisor(database, "elsewhere", "elsewhere", shutdown_timeout=25.0).id)
    change(database, age_of(tables.claimed, 330))
    found = findings(database, "shutdown", grace=30.0)
    assert [(each.severity, each.what.split(" (")[0]) for each in found] == [
        (Severity.WARNING, "a deployment kills elsewhere 30 s after SIGTERM; its shutdown timeout is 25 s"),
        (Severity.NOTE, shutdown.room_for(30).what),
        (Severity.NOTE, "jobs of 2 classes took longer than the grace period of 30 s in the last 7 days: Finished"),
    ]
    assert "Finished (2h from due to finished), Running (5m held by a worker now)" in found[-1].what
    assert not [each for each in findings(database, "shutdown", grace=10_000.0) if each.severity is not Severity.NOTE]
    assert findings(database, "shutdown") == []  # no grace is known


def test_how_long_jobs_ran_before_their_process_died(database: Database) -> None:
    """A process that was reaped lived until then; one that was pruned, until its last heartbeat."""
    for number, noticed_by in enumerate(("supervisor", "prune"), 1):
        death = {"id": number, "noticed_by": noticed_by, "noticed_at": ago(100), "last_heartbeat_at": ago(160)}
        crash = {"subject": "a", "class_name": f"Long{number}", "death_id": number, "crashed_at": ago(100)}
        change(
            database,
            insert(tables.deaths).values(death),
            insert(tables.crashes).values({**crash, "failure_id": number, "job_id": number, "started_at": ago(220)}),
        )
    (_, note) = findings(database, "shutdown", grace=90.0)
    assert note.subjects == {"Long1"}
    assert shutdown.long_classes(JobTimes(), [("Long", 120.0), ("Long", 60.0)], 60) == [
        ("Long", 120, "until its process died")
    ]
