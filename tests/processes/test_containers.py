"""Containers of one host name, whose processes have the same pids; and a host that was renamed while they ran."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select, update

from solidjq import Database
from solidjq.database.tables import crashes, deaths, processes
from solidjq.database.times import ago
from solidjq.processes import pids, pruning
from solidjq.processes.heartbeat import register
from solidjq.processes.pids import are_two, find_local, host_evidence
from solidjq.processes.samples import boot_id, pid_namespace, write_instant
from solidjq.queue.states import State
from solidjq.recovery.verdicts import Verdict
from support.paths import PROGRAMS
from support.processes import silence, start_of, stopped_process
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import safe
from support.runtime import Runtime, children_of, freeze, held, kill
from support.waiting import PATIENCE, until

IN_POD = str(PROGRAMS / "in_pod.py")


def pod(name: str, **more: Any) -> dict[str, Any]:
    """Return a worker's metadata, with the sample that it would record in a pid namespace of this name."""
    return {"sample": {"boot_id": "one", "pid_ns": f"pid:[{name}]", **more}}


@pytest.mark.parametrize(
    ("sample", "other", "two"),
    [
        ({}, {}, False),
        ({"pid_ns": "a", "boot_id": "x"}, {}, False),
        ({"pid_ns": "a"}, {"boot_id": "x"}, False),
        ({"pid_ns": "a", "boot_id": "x"}, {"pid_ns": "a", "boot_id": "x"}, False),
        ({"pid_ns": "a", "boot_id": "x"}, {"pid_ns": "b", "boot_id": "x"}, True),
        ({"pid_ns": "a", "boot_id": "x"}, {"pid_ns": "a", "boot_id": "y"}, True),
        ({"pid_started": "2026-01-01T00:00:00Z"}, {"pid_started": "2026-01-01T00:00:02Z"}, False),
        ({"pid_started": "2026-01-01T00:00:00Z"}, {"pid_started": "2026-01-01T00:00:03Z"}, True),
        ({"pid_started": "2026-01-01T00:00:03Z"}, {"pid_started": "2026-01-01T00:00:00Z"}, True),
        ({"pid_started": "2026-01-01T00:00:03Z"}, {"pid_started": ["no time"]}, False),
        ({"pid_ns": ["a"]}, {"pid_ns": {"a": 1}}, True),
    ],
)
def test_samples_show_that_one_address_is_of_two_processes(
    sample: dict[str, Any], other: dict[str, Any], *, two: bool
) -> None:
    assert are_two(sample, other) is are_two(other, sample) is two


def register_at(database: Database, name: str, metadata: dict[str, Any], pid: int = 7, hostname: str = "pod") -> int:
    return database.transact(register, kind="Worker", name=name, pid=pid, hostname=hostname, metadata=metadata)


@pytest.mark.parametrize(
    ("sample", "verdict"), [(pod("other"), Verdict.RETRY), (pod("dead"), Verdict.ALIVE), ({}, Verdict.ALIVE)]
)
def test_a_container_of_the_same_name_and_pid_keeps_no_job_of_the_dead_one(
    database: Database, sample: dict[str, Any], verdict: Verdict
) -> None:
    """Both ran before the crash, and one beats since; where the samples do not tell them apart, it may be the same."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    dead, lives = register_at(database, "dead", pod("dead")), register_at(database, "lives", sample)
    with database.write() as connection:
        connection.execute(update(processes).values(created_at=ago(9000)))
    claim_all(database, dead)
    silence(database, dead, 1000)
    assert [pruned.job_ids for pruned in pruning.prune(database, 300)] == [[job_id]]
    assert [row["id"] for row in rows(database, processes)] == [lives]
    assert safe(database) == {job_id: verdict}


def seen_from_here(**more: Any) -> dict[str, Any]:
    return {"sample": {"boot_id": boot_id(), "pid_ns": pid_namespace(), **more}}


def test_a_host_that_was_renamed_is_still_this_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(metadata: dict[str, Any], pid: int) -> tuple[str, object, object]:
        process = register_at(database, "w", metadata, pid, hostname="before")
        with database.read() as connection:
            row = connection.execute(select(processes).where(processes.c.id == process)).one()
        here = host_evidence(row)
        return find_local(row).state, here.get("process"), here.get("elsewhere")

    with stopped_process() as process:
        started = {"pid_started": write_instant(start_of(process.pid).timestamp())}
        assert look(seen_from_here(**started), process.pid) == ("stopped", "stopped", None)
        assert look(seen_from_here(pid_started="2026-01-01T00:00:00Z"), process.pid) == ("gone", "gone", None)
        for other in ({"boot_id": "another"}, {"pid_ns": "pid:[1]"}, {"boot_id": None}, {"pid_ns": None}):
            assert look(seen_from_here(**started, **other), process.pid) == ("elsewhere", None, None)
        monkeypatch.setattr(pids, "pid_namespace", lambda: None)  # a kernel without: nothing shows that it is this host
        assert look(seen_from_here(**started, pid_ns=None), process.pid) == ("elsewhere", None, None)


# -- real processes


@pytest.fixture
def start(database: Database, shell: Shell) -> Iterator[Callable[..., Runtime]]:
    """Start ``jq work`` under another host name, as ``in_pod.py`` does. Their pids may be those of a pid namespace."""
    if subprocess.run(["unshare", "--uts", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespace can be made here")
    shell.environment["PYTHONPATH"] = str(PROGRAMS)
    begun: list[Runtime] = []

    def run(*name: str) -> Runtime:
        begun.append(Runtime(database, shell))
        begun[-1].start("--threads", "1", "--lost-timeout", "600", program=[IN_POD, *name])
        return begun[-1]

    yield run
    for each in begun:
        end(each)


def end(runtime: Runtime) -> None:
    """Kill a tree, and wait until it is gone."""
    assert runtime.supervisor is not None
    if runtime.supervisor.poll() is None:
        for pid in (*children_of(runtime.supervisor.pid), runtime.supervisor.pid):
            kill(pid, signal.SIGKILL)
        runtime.supervisor.communicate(timeout=PATIENCE)


def registered(database: Database, count: int) -> set[int]:
    """Wait until so many processes are registered; return their rows' ids."""

    def all_of_them() -> set[int] | None:
        ids = {row["id"] for row in rows(database, processes)}
        return ids if len(ids) == count else None

    found: set[int] = until(all_of_them, f"{count} processes are registered")
    return found


def test_of_two_containers_of_one_name_each_has_its_own_jobs(
    database: Database, shell: Shell, start: Callable[..., Runtime]
) -> None:
    dead, lives = add_jobs(database, held("dead"), held("lives"))
    first = start("pod")
    first.running_async("dead")
    of_first = registered(database, 3)
    second = start("pod")
    second.running_async("lives")
    of_second = registered(database, 6) - of_first
    supervisors = [row for row in rows(database, processes) if row["kind"].startswith("Supervisor")]
    assert [(row["hostname"], row["pid"]) for row in supervisors] == [("pod", 1)] * 2
    end(first)
    for process in of_first:
        silence(database, process, 1000)
    pruned = shell.run("prune", "-o", "ids")
    assert (pruned.returncode, pruned.stdout.split()) == (0, [str(dead)]), pruned.stderr
    assert {row["id"] for row in rows(database, processes)} == of_second
    assert state_of_each(database) == {dead: State.FAILED, lives: State.CLAIMED}
    with database.write() as connection:  # as if both had run for hours, and with one pid, whichever the kernel gave
        connection.execute(update(processes).values(created_at=ago(9000)))
        connection.execute(update(crashes).values(pid=1))
    assert safe(database) == {dead: Verdict.RETRY}
    second.let_end("lives")
    second.let_end("dead")
    for job_id in (lives, dead):
        second.wait_for(job_id, State.FINISHED)


@pytest.mark.sqlite_only
def test_a_process_of_a_host_that_was_renamed_is_spared_while_it_runs(
    database: Database, shell: Shell, start: Callable[..., Runtime]
) -> None:
    (job_id,) = add_jobs(database, held("one"))
    before = start("--pids-of-host", "name-before")
    before.running("one")
    tree = registered(database, 3)
    assert {row["hostname"] for row in rows(database, processes)} == {"name-before"}
    freeze(database, *[row["pid"] for row in rows(database, processes)])
    for process in tree:
        silence(database, process, 1000)
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    spared = shell.run("prune")
    assert spared.returncode == 5, spared.stderr
    assert spared.stderr.count("of this host, ") == spared.stderr.count("still runs") == 3, spared.stderr
    assert state_of_each(database) == {job_id: State.CLAIMED}
    end(before)
    assert shell.run("prune", "--force").returncode == 0
    assert state_of_each(database) == {job_id: State.FAILED}
    with database.read() as connection:
        evidence = [json.loads(text)["here"] for text in connection.scalars(select(deaths.c.evidence))]
    assert [here["process"] for here in evidence] == ["gone"] * 3
