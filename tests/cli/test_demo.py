"""``jq demo`` kills what it started, and nothing else: what the rows say is another's word."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from solidjq import Database
from solidjq.database import tables
from solidjq.processes import heartbeat
from solidjq_cli.commands.demo import _Demo, _program, _say
from support.processes import idle_process
from support.program import Shell

IDLE = [sys.executable, "-c", "input()"]


def test_only_its_own_processes_are_killed(database: Database, tmp_path: Path) -> None:
    demo = _Demo(database, tmp_path)
    with idle_process() as victim, subprocess.Popen(IDLE, stdin=subprocess.PIPE, start_new_session=True) as own:
        demo._work = own
        pids = (victim.pid, own.pid, os.getpid(), 1, -1, 0)
        for host in (socket.gethostname(), "elsewhere"):
            for pid in pids:
                database.transact(heartbeat.register, kind="Worker", name="w", pid=pid, hostname=host, metadata={})
        assert [(each.pid, each.hostname) for each in demo._own()] == [(own.pid, socket.gethostname())]
        assert own.poll() is None
        demo._kill(demo._processes())
        demo._kill_everything()
        assert own.poll() is not None
        assert victim.poll() is None


@pytest.mark.sqlite_only
def test_a_demo_ends_well_on_a_database_that_names_it_victims(database: Database, shell: Shell) -> None:
    """A trigger registers somebody else's process beside each worker of the demo."""
    with idle_process() as victim:
        host = socket.gethostname()
        with database.write() as connection:
            connection.execute(
                text(
                    f"CREATE TRIGGER frame AFTER INSERT ON {tables.processes.name} WHEN NEW.name <> 'framed' BEGIN "  # noqa: S608
                    f"INSERT INTO {tables.processes.name} (kind, name, pid, hostname, last_heartbeat_at, created_at) "
                    f"VALUES ('Worker', 'framed', {victim.pid}, '{host}', NEW.last_heartbeat_at, NEW.created_at); END"
                )
            )
        told = shell.run("demo", "-d", str(database.url))
        assert told.returncode == 0, told.stderr
        assert victim.poll() is None
        assert "Only" not in told.stdout
        assert str(victim.pid) not in told.stdout.split("kill -9", 1)[1].split("\n", 1)[0]


def test_it_uses_the_name_that_it_was_called_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/solidjq", "demo"])
    _say("Now your own queue: jq --help")
    assert capsys.readouterr().out == "Now your own queue: solidjq --help\n"
    shown = subprocess.run(_program(["failed", "--help"]), check=True, capture_output=True, text=True).stdout
    assert "Usage: solidjq failed" in shown
