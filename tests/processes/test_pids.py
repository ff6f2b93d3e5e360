"""A pid may be another's: which process of this host is the one that a row names."""

import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select, update

from solidjq import Database
from solidjq.database import tables
from solidjq.database.times import ago
from solidjq.incidents.incidents import Incident, find_incidents
from solidjq.processes import pids
from solidjq.processes.heartbeat import register
from solidjq.processes.pids import find_local, host_evidence, look_up
from solidjq.processes.samples import boot_id, pid_namespace, write_instant
from solidjq.queue.states import State
from support.processes import idle_process, start_of, stopped_process
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.servers import execute
from support.waiting import until

NO_PID = 2**22 + 7  # above the highest pid of Linux
RUBY = "solid-queue-worker(1.7.0): waiting for jobs in *"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def look(pid: int, *, registered: float = -30, beat: float = 0, **sample: Any) -> pids.LocalProcess:
    """Look for a process that registered and beat so many seconds from now."""
    now = datetime.now(UTC)
    return look_up(
        pid,
        sample,
        registered_at=now + timedelta(seconds=registered),
        last_heartbeat_at=now + timedelta(seconds=beat),
    )


def write(time: datetime) -> str:
    return write_instant(time.timestamp())


def test_a_process_that_was_there_at_its_last_heartbeat_still_runs() -> None:
    with stopped_process() as process:
        found = look(process.pid, registered=60, beat=120)
        assert (found.state, found.runs, found.certain) == ("stopped", True, False)
        assert found.started_at == start_of(process.pid)


def test_a_process_that_started_after_the_last_heartbeat_is_another() -> None:
    """The container was restarted in place, or the machine: its processes have the old ones' pids."""
    with stopped_process() as process:
        for registered, beat in ((-3600, -60), (-3600, -10), (-10, -10), (-60, -3600)):
            found = look(process.pid, registered=registered, beat=beat)
            assert (found.state, found.runs) == ("gone", False)


def test_a_recorded_start_is_exact() -> None:
    with stopped_process() as process:
        started = start_of(process.pid)
        for seconds, state in ((0, "stopped"), (1.9, "stopped"), (-1.9, "stopped"), (2.5, "gone"), (-2.5, "gone")):
            found = look(process.pid, registered=-3600, pid_started=write(started + timedelta(seconds=seconds)))
            assert (found.state, found.certain) == (state, state == "stopped")
        assert look(process.pid, registered=60, beat=60, pid_started="garbage").certain is False


def test_the_title_of_solid_queue_makes_it_certain() -> None:
    with idle_process(RUBY) as process:
        until(lambda: psutil.Process(process.pid).cmdline()[:1] == [RUBY], "the program has its title")
        assert look(process.pid, registered=60, beat=60).certain
        assert look(process.pid, beat=-60).state == "gone"  # a worker of Solid Queue, and a younger one


def test_another_boot_or_container_cannot_be_seen_from_here() -> None:
    """Whoever has the pid here is another process; and that nobody has it here proves nothing."""
    exact = {"pid_started": write(start_of(os.getpid()))}
    for pid in (os.getpid(), NO_PID):
        for other in ({"boot_id": "another"}, {"pid_ns": "pid:[1]"}, {"boot_id": boot_id(), "pid_ns": "pid:[1]"}):
            assert look(pid, **exact, **other).state == "elsewhere"
    ours = {"boot_id": boot_id(), "pid_ns": pid_namespace(), **exact}
    assert look(os.getpid(), **{key: value for key, value in ours.items() if value}).certain
    assert look(NO_PID).state == "gone"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has pid namespaces")
def test_a_process_of_another_pid_namespace_has_another_id() -> None:
    command = ["unshare", "--fork", "--pid", "--mount-proc", "readlink", "/proc/self/ns/pid"]
    try:
        inside = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no pid namespace can be made here")
    assert inside.startswith("pid:[")
    assert inside != pid_namespace()


@pytest.mark.parametrize("pid", [-1, 0, -(2**63), 2**31, 2**63, True, "1", b"\x01", 1.5, None])
def test_what_can_be_no_pid_does_not_run(pid: Any) -> None:
    assert look(pid).state == "gone"


def test_a_row_whose_pid_makes_no_sense_stops_no_prune(database: Database, shell: Shell, kind: str) -> None:
    odd: list[Any] = [-1, 0, *(["text", b"\xff"] if kind == "sqlite" else [])]
    for number, pid in enumerate([*odd, 4242]):
        process = database.transact(
            register, kind="Worker", name=f"w{number}", pid=1, hostname=socket.gethostname(), metadata={}
        )
        with database.write() as connection:
            mine = tables.processes.c.id == process
            connection.execute(update(tables.processes).where(mine).values(last_heartbeat_at=ago(5000)))
        execute(database.url, "UPDATE solid_queue_processes SET pid = :pid WHERE id = :id", pid=pid, id=process)
    done = shell.run("prune", "--force", "-o", "json")
    assert (done.returncode, rows(database, tables.processes)) == (0, []), done.stderr


def test_a_zombie_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, "it has ended and is not reaped")
        assert look(process.pid, registered=60, beat=60).state == "gone"


def test_a_thread_of_the_kernel_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own processes, seen from a row that a container of the host's name wrote."""
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: [])
    assert look(os.getpid(), registered=60, beat=60).state == "gone"


def test_an_older_program_that_executes_no_jobs_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row names pid 1, or one that a program of the machine has: it is not spared for ever."""
    with subprocess.Popen(["sleep", "600"]) as program:
        until(lambda: Path(psutil.Process(program.pid).exe()).name != Path(sys.executable).name, "it is executed")
        assert look(program.pid, registered=60, beat=60).state == "gone"
        exact = write(start_of(program.pid))
        assert look(program.pid, registered=60, beat=60, pid_started=exact).runs  # its row records its start

        def refuse(_: psutil.Process) -> None:
            raise psutil.AccessDenied

        monkeypatch.setattr(psutil.Process, "cmdline", refuse)
        monkeypatch.setattr(psutil.Process, "exe", refuse)
        assert look(program.pid, registered=60, beat=60).runs  # this user may not see what it is
        program.kill()


@pytest.mark.parametrize(
    ("command", "program", "may"),
    [
        ([RUBY], None, True),
        (["solid-queue-worker(1.7.0): waiting for jobs in a/b"], "/usr/bin/x", True),
        (["puma 6.4.0 (tcp://0.0.0.0:3000) [app]"], None, True),
        (["sidekiq"], "/opt/rubies/ruby-3.3/bin/ruby", True),
        (["/app/.venv/bin/python3.11", "-m", "app"], None, True),
        (["/sbin/init"], "/usr/lib/systemd/systemd", False),
        (["/sbin/init"], None, False),
        (["postgres: writer"], "/usr/lib/postgresql/16/bin/postgres", False),
        ([], None, False),
        (None, None, True),
    ],
)
def test_which_programs_may_execute_jobs(command: list[str] | None, program: str | None, may: bool) -> None:  # noqa: FBT001
    assert pids.may_execute_jobs(command, program) == may


def test_a_process_that_is_hidden_from_this_user_is_not_known_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert look(NO_PID).state == "unknown"
    assert not look(NO_PID).runs


@pytest.mark.parametrize(
    ("registered", "beat", "latest"),
    [(-100, 0, -2), (-1, 0, 1), (0, 0, 2), (50, 0, 2), (None, 0, 2), (-5, None, -3)],
)
def test_a_start_is_judged_with_room_for_inexact_clocks(
    registered: float | None, beat: float | None, latest: float
) -> None:
    times = [None if at is None else LONG_AGO + timedelta(seconds=at) for at in (registered, beat)]
    assert pids._latest_start(*times) == LONG_AGO + timedelta(seconds=latest)
    assert pids._latest_start(None, None).year == 9999


# -- rows -------------------------------------------------------------------------------------------------------------


def add_silent(
    database: Database,
    pid: int,
    *,
    beat: datetime,
    lived: timedelta = timedelta(hours=1),
    hostname: str | None = None,
    **sample: Any,
) -> int:
    """Register a process that lived so long until its last heartbeat, with a job in its hands."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    hostname = hostname or socket.gethostname()
    metadata = {"sample": sample} if sample else {}
    process = database.transact(register, kind="Worker", name="w", pid=pid, hostname=hostname, metadata=metadata)
    claim_all(database, process)
    with database.write() as connection:
        mine = update(tables.processes).where(tables.processes.c.id == process)
        connection.execute(mine.values(last_heartbeat_at=beat, created_at=beat - lived))
    return job_id


def the_row(database: Database) -> Any:
    with database.read() as connection:
        return connection.execute(select(tables.processes)).one()


def the_incident(database: Database) -> Incident:
    with database.read() as connection:
        (incident,) = find_incidents(connection)
    return incident


def test_a_row_of_another_host_is_not_looked_for(database: Database) -> None:
    add_silent(database, os.getpid(), beat=database.now(), hostname="elsewhere")
    assert find_local(the_row(database)).state == "elsewhere"
    assert host_evidence(the_row(database)) == {}


@pytest.mark.sqlite_only
@pytest.mark.parametrize("sampled", [False, True])
def test_a_container_that_was_restarted_in_place_is_not_hung(
    database: Database, shell: Shell, *, sampled: bool
) -> None:
    """Its main process has the pid of the dead one, and started after that one's last heartbeat."""
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    with idle_process(RUBY) as restarted:
        beat = start_of(restarted.pid) - timedelta(seconds=400)
        sample = {"pid_started": write(beat - timedelta(days=1)), "boot_id": boot_id()} if sampled else {}
        job_id = add_silent(database, restarted.pid, beat=beat, **sample)
        pruned = shell.run("prune", "--alive-threshold", "300")
        assert (pruned.returncode, "spared" in pruned.stderr) == (0, False), pruned.stderr
        assert state_of_each(database) == {job_id: State.FAILED}
        incident = the_incident(database)
        assert incident.deaths[0].evidence["here"]["process"] == "gone"
        assert incident.finding.cause.value != "hung"
        retried = shell.run("retry", "--safe", "--yes")
        assert (retried.returncode, restarted.poll()) == (0, None), retried.stderr
        assert state_of_each(database) == {job_id: State.READY}


@pytest.mark.sqlite_only
@pytest.mark.parametrize(("title", "words"), [(RUBY, "hung (certain)"), (sys.executable, "hung (likely)")])
def test_only_a_process_that_surely_has_its_pid_still_is_certainly_hung(
    database: Database, shell: Shell, title: str, words: str
) -> None:
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    with stopped_process(title) as frozen:
        started = start_of(frozen.pid)
        job_id = add_silent(database, frozen.pid, beat=started, lived=timedelta())
        until(lambda: database.now() - started > timedelta(seconds=1), "it is silent for the threshold")
        spared = shell.run("prune", "--alive-threshold", "1")
        assert spared.returncode == 5, spared.stderr
        assert ("another program has its pid by now" in spared.stderr) == ("likely" in words)
        assert state_of_each(database) == {job_id: State.CLAIMED}
        assert shell.run("prune", "--alive-threshold", "1", "--force").returncode == 0
        assert the_incident(database).finding.words == words
        held = shell.run("retry", "--safe", "--yes", "-o", "json")
        assert state_of_each(database) == {job_id: State.FAILED}
        assert "still runs on this host" in held.stdout
        assert ("another program has its pid" in held.stdout) == ("likely" in words)
        frozen.send_signal(signal.SIGKILL)
        frozen.wait()
    assert shell.run("retry", "--safe", "--yes").returncode == 0
    assert rows(database, tables.failed) == []
