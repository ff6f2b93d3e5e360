"""Who takes a queue's jobs: the living workers, what they poll, and whom a killer in the queue would kill."""

import json
from collections.abc import Sequence

import pytest

from solidjq import Database
from solidjq.database.standby import Standby
from solidjq.processes import attendance
from solidjq.processes.attendance import Attendance, is_dedicated, polled_by, read_attendance
from solidjq.processes.heartbeat import Process
from solidjq.queue import pauses
from support.processes import add_process, add_worker_of, silence
from support.program import Shell

POD = {"pid_ns": "pid:[1]"}


def worker(name: str = "w1", *, metadata: str | None = None, pid: int = 1, hostname: str | None = "a") -> Process:
    return Process(
        id=1,
        kind="Worker",
        name=name,
        hostname=hostname,
        pid=pid,
        supervisor_id=None,
        last_heartbeat_at=None,
        heartbeat_age=1.0,
        silence=1.0,
        created_at=None,
        claimed=0,
        metadata=metadata,
    )


def polling(queues: str, name: str = "w1", *, pid: int = 1, **more: object) -> Process:
    return worker(name, metadata=json.dumps({"polling_interval": 0.1, "queues": queues, **more}), pid=pid)


@pytest.mark.parametrize(
    ("metadata", "taken"),
    [
        ('{"polling_interval":0.1,"queues":"*","thread_pool_size":3}', ["quarantine", "mailers", "mail"]),
        ('{"queues":"mail*,low"}', ["mailers", "mail"]),
        ('{"queues":"mailers, quarantine"}', ["quarantine", "mailers"]),
        ('{"queues":["q*","mail"]}', ["quarantine", "mail"]),
        ('{"queues":"*","except":"quarantine"}', ["mailers", "mail"]),
        ('{"queues":"*","except":"mail*"}', ["quarantine"]),
        ('{"queues":"*","except":7}', ["quarantine", "mailers", "mail"]),
        ("{}", ["quarantine", "mailers", "mail"]),
        (None, ["quarantine", "mailers", "mail"]),
        ("no JSON", ["quarantine", "mailers", "mail"]),
    ],
)
def test_a_worker_takes_what_its_metadata_name(metadata: str | None, taken: list[str]) -> None:
    polled = polled_by(worker(metadata=metadata))
    assert [name for name in ("quarantine", "mailers", "mail") if polled.takes(name)] == taken


def test_a_dedicated_worker_polls_one_queue_and_no_other() -> None:
    assert is_dedicated(polling("quarantine"), "quarantine")
    for others in ("*", "quarantine,low", "quarantine*", "low", ""):
        assert not is_dedicated(polling(others), "quarantine"), others


@pytest.mark.parametrize(
    ("workers", "endangered"),
    [
        ([polling("quarantine", "own")], []),
        ([polling("quarantine", "own"), polling("*", "all", pid=2)], ["all"]),
        ([polling("q*", "prefix"), polling("mail*", "mail", pid=2)], ["prefix"]),
        ([polling("*", "spared", **{"except": "quarantine"})], []),
        ([polling("quarantine", "own", pid=7), polling("low", "beside", pid=7)], ["beside"]),
        ([polling("quarantine", "own", pid=7), polling("low", "apart", pid=8)], []),
        ([polling("quarantine", "own", sample=POD), polling("low", "in-another", sample={"pid_ns": "pid:[2]"})], []),
        ([polling("quarantine", "own", sample=POD), polling("low", "in-the-same", sample=POD)], ["in-the-same"]),
        ([polling("quarantine", "own", sample=POD), polling("low", "unknown")], ["unknown"]),
        ([], []),
    ],
)
def test_workers_of_other_queues_are_endangered(workers: Sequence[Process], endangered: list[str]) -> None:
    """Those that take the queue's jobs too, and those that share the process of one that does."""
    there = Attendance(workers)
    assert [process.name for process in there.endangered("quarantine")] == endangered
    warning = there.warning("quarantine", 2)
    assert (warning is None) == (not endangered)
    assert there.warning("quarantine", 0) is None
    if warning is not None:
        assert all(f"{name} (host a, pid " in warning for name in endangered)
        assert "jq work --except quarantine" in warning


def test_what_keeps_jobs_waiting_is_said_with_the_cure() -> None:
    there = Attendance([polling("mail*")], dispatches=False, paused=frozenset({"mailers", "idle"}))
    assert there.obstacles({"mail": 3}, 0) == []
    assert there.obstacles({}, 0) == []
    assert there.obstacles({"low": 0}, 0) == []
    assert there.obstacles({"mail": 3}, 2) == [
        "no dispatcher lives: 2 scheduled jobs wait until one starts (bin/jobs, or jq work)"
    ]
    assert there.obstacles({"low": 1, "mail": 1, "my queue": 2}, 0) == [
        (
            "no living worker polls queues my queue (2 jobs), low (1 job): 3 jobs wait until one starts "
            "(bin/jobs, or jq work --queues 'low,my queue')"
        )
    ]
    assert there.obstacles({"mailers": 1}, 0) == [
        "queue mailers is paused: 1 job waits until you resume it (jq queues resume mailers)"
    ]
    nobody = Attendance(dispatches=True)
    assert nobody.obstacles({"a": 1, "b": 1}, 2) == [
        "no worker lives: 2 jobs wait until one starts (bin/jobs, or jq work)"
    ]


def test_only_the_living_are_there(database: Database) -> None:
    add_worker_of(database, "mail*,low", "worker-alive")
    silence(database, add_worker_of(database, "*", "worker-dead"), 301)
    silence(database, add_process(database, "dispatcher-dead", kind="Dispatcher"), 301)
    database.transact(pauses.pause, "low")
    with database.read() as connection:
        there = read_attendance(connection, 300)
        assert [process.name for process in there.workers] == ["worker-alive"]
        assert (there.dispatches, there.paused) == (False, {"low"})
        assert read_attendance(connection, 1000).dispatches


def test_on_a_standby_nobody_is_called_dead(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    silence(database, add_worker_of(database, "*", "worker-silent"), 1000)
    monkeypatch.setattr(attendance, "find_standby", lambda _: Standby(1000.0))
    with database.read() as connection:
        assert read_attendance(connection, 300).obstacles({"default": 1}, 0) == []


@pytest.mark.sqlite_only
def test_the_list_of_processes_names_their_queues(database: Database, shell: Shell) -> None:
    add_worker_of(database, "mail*,low", "worker-1")
    add_worker_of(database, "*", "worker-2", **{"except": "quarantine"})
    add_process(database, "dispatcher-1", kind="Dispatcher")
    listed = json.loads(shell.run("processes", "list", "-o", "json").stdout)
    assert [row["queues"] for row in listed] == ["mail*,low", "* except quarantine", None]
