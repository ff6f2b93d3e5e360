"""Real supervisors, real workers, real signals."""

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import psutil
import pytest
from sqlalchemy import delete, select

from solidjq import Database, NewJob
from solidjq.database.tables import blocked, claimed, crashes, failed, ready, scheduled
from solidjq.database.tables import processes as process_table
from solidjq.processes import heartbeat, pruning
from solidjq.queue.claim import ALL_QUEUES, claim
from solidjq.queue.states import State
from solidjq.rails.error_text import Death
from solidjq.runtime.children import ChildSlot
from solidjq.runtime.hands import read_hands
from solidjq.untrusted import read_object
from support.databases import DATABASES
from support.paths import PROGRAMS
from support.processes import add_process, silence
from support.program import Shell
from support.queue import add_jobs, claim_all, rows, state_of_each
from support.refusals import UNKNOWN, refusing
from support.runtime import Runtime, freeze, held, is_running, kill
from support.servers import execute
from support.waiting import PATIENCE, until

# -- jobs


def test_jobs_run_with_the_arguments_they_were_given(runtime: Runtime) -> None:
    job_ids = add_jobs(
        runtime.database,
        NewJob(class_name="note", args=[1, "ž", [2.5, None]], kwargs={"key": {"a": 1}}),
        NewJob(class_name="note_collector"),
    )
    runtime.start()
    for job_id in job_ids:
        runtime.wait_for(job_id, State.FINISHED)
    assert sorted(runtime.journal()) == ["(1, 'ž', [2.5, None]) {'key': {'a': 1}}", "collects: True, apart: True"]
    code, _ = runtime.stop()
    assert code == 0
    assert rows(runtime.database, process_table) == []


@pytest.mark.sqlite_only
def test_a_supervisor_registers_its_shutdown_timeout(runtime: Runtime) -> None:
    """``jq doctor shutdown`` compares it with what systemd allows."""
    runtime.start("--shutdown-timeout", "7")
    (first,) = until(lambda: runtime.processes("Supervisor(spawn)"), "the supervisor is registered")
    (later,) = until(
        lambda: [p for p in runtime.processes("Supervisor(spawn)") if p.last_heartbeat_at != first.last_heartbeat_at],
        "the supervisor has sent a heartbeat",
    )
    assert [read_object(row.metadata)["shutdown_timeout"] for row in (first, later)] == [7, 7]


def test_a_worker_leaves_excepted_queues_alone_and_registers_them_beside_its_queues(runtime: Runtime) -> None:
    apart, other, slow, later = add_jobs(
        runtime.database,
        *(NewJob(class_name="note", queue_name=name) for name in ("quarantine", "default", "slow_imports", "z")),
    )
    runtime.start("--queues", "*", "--except", "quarantine", "--except", "slow*,nothing")
    runtime.wait_for(other, State.FINISHED)
    runtime.wait_for(later, State.FINISHED)
    found = state_of_each(runtime.database)
    assert (found[apart], found[slow]) == (State.READY, State.READY)
    (worker,) = runtime.processes("Worker")
    metadata = read_object(worker.metadata)
    assert (metadata["queues"], metadata["except"]) == ("*", "quarantine,slow*,nothing")


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--queues", "a,b", "--except", "a,b"), "leaves no queue of --queues a,b to poll"),
        (("--except", "*"), "leaves no queue"),
        (("--except", "q*z"), "a star can only end"),
        (("--except", " ,"), "names no queue"),
    ],
)
def test_an_exception_that_leaves_nothing_is_refused(shell: Shell, given: tuple[str, ...], why: str) -> None:
    done = shell.run("work", *given)
    assert (done.returncode, why in done.stderr) == (2, True)


def test_a_failing_job_leaves_an_error_that_rails_can_show(runtime: Runtime) -> None:
    failing, leaving, unreadable, after = add_jobs(
        runtime.database,
        NewJob(class_name="fail", args=["boom <b>"]),
        NewJob(class_name="leave"),
        NewJob(class_name="fail_unreadably"),
        NewJob(class_name="note"),
    )
    runtime.start("--threads", "1")
    for job_id in (failing, leaving, unreadable):
        runtime.wait_for(job_id, State.FAILED)
    runtime.wait_for(after, State.FINISHED)  # the one thread is still there
    error = runtime.error(failing)
    assert (error.exception_class, error.message, error.death) == ("ValueError", "boom <b>", None)
    (frame,) = error.backtrace
    assert re.search(r"/sample_jobs\.py:\d+:in `fail'$", frame)
    assert runtime.error(leaving).exception_class == "SystemExit"
    assert runtime.error(unreadable).message == "<sample_jobs.UnreadableError without a readable message>"
    assert len(runtime.processes("Worker")) == 1


@pytest.mark.sqlite_only
def test_a_name_that_nobody_registered_fails_and_imports_nothing(runtime: Runtime) -> None:
    names = ["os.system", "module_that_tells", "module_that_tells.run", "eval", ""]
    ids = add_jobs(runtime.database, *(NewJob(class_name=name, args=["touch ran"]) for name in names))
    runtime.start()
    for name, job_id in zip(names, ids, strict=True):
        runtime.wait_for(job_id, State.FAILED)
        error = runtime.error(job_id)
        assert error.exception_class == "solidjq.errors.UnknownJobError"
        assert f"no job named {name!r} is registered in this worker" in str(error.message)
    assert not (runtime.shell.folder / "imported").exists()
    assert not (runtime.shell.folder / "ran").exists()


def test_a_delayed_job_runs_when_it_is_due(runtime: Runtime) -> None:
    (job_id,) = add_jobs(runtime.database, NewJob(class_name="note", args=["late"], delay=0.5))
    assert runtime.state(job_id) is State.SCHEDULED
    runtime.start()
    runtime.wait_for(job_id, State.FINISHED)


def test_limited_jobs_run_one_after_the_other(runtime: Runtime) -> None:
    from sample_jobs import alone

    ids = add_jobs(runtime.database, *(alone.new(str(number)) for number in range(5)))
    runtime.start("--threads", "3", "--processes", "2")
    for job_id in ids:
        runtime.wait_for(job_id, State.FINISHED)
    lines = runtime.journal()
    assert [line[0] for line in lines] == ["+", "-"] * 5
    assert all(lines[at][1:] == lines[at + 1][1:] for at in range(0, 10, 2))


def test_a_job_can_enqueue_another_on_the_same_queue(runtime: Runtime) -> None:
    add_jobs(runtime.database, NewJob(class_name="spawn", args=["child"]))
    runtime.start()
    until(lambda: "('child',) {}" in runtime.journal(), "the second job ran")


@pytest.mark.sqlite_only
def test_a_busy_interpreter_still_beats(runtime: Runtime) -> None:
    add_jobs(runtime.database, NewJob(class_name="hog", args=["pig"]), NewJob(class_name="hog", args=["boar"]))
    runtime.start("--threads", "2")
    runtime.running("pig")
    runtime.running("boar")
    first = runtime.worker().last_heartbeat_at
    until(lambda: (runtime.worker().last_heartbeat_at or 0) != first, "a beat while two jobs hog the interpreter")
    runtime.let_end("pig")
    runtime.let_end("boar")


# -- stopping


def test_sigterm_lets_running_jobs_end_and_releases_the_rest(runtime: Runtime) -> None:
    short, long, waiting = add_jobs(runtime.database, held("short"), held("long"), held("waiting"))
    runtime.start("--threads", "2", "--shutdown-timeout", "8")
    runtime.running("short")
    runtime.running("long")
    runtime.signal(signal.SIGTERM)
    worker = runtime.worker()
    until(lambda: runtime.worker().last_heartbeat_at != worker.last_heartbeat_at, "it beats while it drains")
    runtime.let_end("short")
    code, log = runtime.ended()
    assert code == 0
    assert state_of_each(runtime.database) == {short: State.FINISHED, long: State.READY, waiting: State.READY}
    assert re.search(r"released 1 unfinished job$", log, re.MULTILINE)
    assert rows(runtime.database, process_table) == []
    assert not is_running(worker.pid)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGQUIT), (signal.SIGQUIT,)],
    ids=lambda signals: "+".join(number.name for number in signals),
)
def test_a_second_signal_or_sigquit_releases_at_once(runtime: Runtime, signals: tuple[signal.Signals, ...]) -> None:
    (job_id,) = add_jobs(runtime.database, held("long"))
    runtime.start("--shutdown-timeout", "3600")
    pid = runtime.running("long")
    runtime.signal(signals[0])
    runtime.wait_for_log("stopping")  # two of a kind at once would be one signal
    for number in signals[1:]:
        runtime.signal(number)
    code, _ = runtime.ended()
    assert code == 0
    assert runtime.state(job_id) is State.READY
    assert rows(runtime.database, process_table) == []
    assert not is_running(pid)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGHUP])
def test_what_a_terminal_sends_still_lets_running_jobs_end(runtime: Runtime, sent: signal.Signals) -> None:
    (job_id,) = add_jobs(runtime.database, held("short"))
    runtime.start("--shutdown-timeout", "3600")
    pid = runtime.running("short")
    runtime.signal(sent)
    runtime.wait_for_log("stopping")
    if sent is signal.SIGINT:
        kill(pid, sent)  # as a terminal of old, or kill -INT of the whole tree, sends it to the children too
    else:
        runtime.signal(sent)  # a shell passes on what the terminal sent already
    until(lambda: is_running(pid), "the worker goes on")
    runtime.let_end("short")
    code, _ = runtime.ended()
    assert code == 0
    assert runtime.state(job_id) is State.FINISHED


@pytest.mark.sqlite_only
def test_a_hung_worker_does_not_keep_the_supervisor(runtime: Runtime) -> None:
    """Stopped with SIGSTOP it can answer no signal; what it held goes back to its queue, since nothing crashed."""
    (job_id,) = add_jobs(runtime.database, held("long"))
    runtime.start("--shutdown-timeout", "0")
    pid = runtime.running("long")
    freeze(runtime.database, pid)
    runtime.signal(signal.SIGQUIT)
    code, _ = runtime.ended()
    assert code == 0
    assert not is_running(pid)
    assert runtime.state(job_id) is State.READY
    assert rows(runtime.database, process_table) == []


# -- dying


@pytest.mark.parametrize(
    ("kind", "how", "status", "number"),
    [
        *((kind, 9, None, 9) for kind in DATABASES),
        *(("sqlite", *end) for end in ((11, None, 11), (-3, 3, None), (0, 0, None))),
    ],
    indirect=["kind"],
)
def test_a_worker_that_dies_fails_its_jobs_and_is_replaced(
    runtime: Runtime, how: int, status: int | None, number: int | None
) -> None:
    (killer,) = add_jobs(runtime.database, NewJob(class_name="die", args=[how]))
    runtime.start()
    runtime.wait_for(killer, State.FAILED)
    error = runtime.error(killer)
    assert (error.death, error.exit_status, error.signal) == (Death.EXITED, status, number)
    assert error.pid is not None
    (after,) = add_jobs(runtime.database, NewJob(class_name="note"))
    runtime.wait_for(after, State.FINISHED)
    assert runtime.worker().pid != error.pid
    assert len(runtime.processes("Worker")) == 1


@pytest.mark.sqlite_only
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process other than 1 take in orphans")
def test_a_supervisor_that_is_process_1_collects_what_jobs_leave_behind(runtime: Runtime) -> None:
    """And it takes no status of a child of its own for that of an orphan."""
    *_, killer = add_jobs(
        runtime.database, *[NewJob(class_name="leave_behind")] * 3, NewJob(class_name="die", args=[signal.SIGKILL])
    )
    runtime.start("--threads", "1", program=[str(PROGRAMS / "as_reaper.py")])
    runtime.wait_for(killer, State.FAILED)
    assert runtime.error(killer).signal == signal.SIGKILL
    left = {int(line.removeprefix("left ")) for line in runtime.journal()}
    assert len(left) == 3
    assert runtime.supervisor is not None
    children = psutil.Process(runtime.supervisor.pid).children
    until(lambda: not left & {child.pid for child in children()}, "the orphans are collected")


def test_a_worker_killed_from_outside_fails_all_that_it_held(runtime: Runtime) -> None:
    ids = add_jobs(runtime.database, held("one"), held("two"))
    runtime.start("--threads", "2")
    pid = runtime.running("one")
    runtime.running("two")
    kill(pid, signal.SIGKILL)
    for job_id in ids:
        runtime.wait_for(job_id, State.FAILED)
        error = runtime.error(job_id)
        assert error.message == f"Process pid={pid} exited unexpectedly. Received unhandled signal 9."


def test_a_death_whose_report_is_refused_keeps_no_other(runtime: Runtime, kind: str) -> None:
    """An application's trigger takes no failure of the first worker's job; the second worker dies after it."""
    bad, other = ids = add_jobs(runtime.database, held("one"), held("two"))
    runtime.start("--threads", "1", "--processes", "2")
    pids = [runtime.running("one"), runtime.running("two")]
    with refusing(runtime.database, kind, "INSERT", failed.name, f"NEW.job_id = {bad}", UNKNOWN):
        kill(pids[0], signal.SIGKILL)
        runtime.wait_for_log("its death cannot be reported yet")
        kill(pids[1], signal.SIGKILL)
        runtime.wait_for(other, State.FAILED)
        assert runtime.state(bad) is State.CLAIMED
    runtime.wait_for(bad, State.FAILED)
    assert all(
        f"Process pid={pid} exited" in runtime.error(job_id).message for pid, job_id in zip(pids, ids, strict=True)
    )


def test_a_supervisor_that_cannot_deregister_exits_as_a_command_without_its_database(runtime: Runtime) -> None:
    runtime.start()
    runtime.worker()
    until(lambda: runtime.processes("Dispatcher"), "a dispatcher is registered")
    name = process_table.name
    execute(runtime.database.url, f"ALTER TABLE {name} RENAME TO hidden")
    try:
        code, log = runtime.stop()
    finally:
        execute(runtime.database.url, f"ALTER TABLE hidden RENAME TO {name}")
    assert code == 3
    assert "cannot deregister" in log
    assert "Traceback" not in log


# The program jq, for which every child dies quickly, however long its start takes on a busy machine.
PATIENT = (
    "import math, sys; from solidjq.runtime import children; children.QUICK_DEATH = math.inf; "
    "from solidjq_cli.__main__ import main; sys.exit(main())"
)


@pytest.mark.sqlite_only
def test_a_worker_that_keeps_dying_at_its_start_is_started_ever_more_slowly(runtime: Runtime) -> None:
    runtime.start(module="module_that_dies", program=("-c", PATIENT))
    deaths = (line for line in runtime.log_lines() if "worker-" in line and "replacing it in " in line)
    first = [*islice(deaths, 3)]
    assert all("exited with status 9" in line for line in first)
    delays = [line.rsplit("replacing it in ", 1)[1].strip() for line in first]
    assert delays == ["0.5 s", "1 s", "2 s"]
    code, _ = runtime.stop()
    assert code == 0


@pytest.mark.sqlite_only
def test_a_dispatcher_that_dies_is_replaced(runtime: Runtime) -> None:
    runtime.start()
    first = until(lambda: runtime.processes("Dispatcher"), "a dispatcher is registered")[0]
    kill(first.pid, signal.SIGKILL)
    until(
        lambda: [p.pid for p in runtime.processes("Dispatcher") if p.pid != first.pid],
        "another dispatcher is registered",
    )


def test_a_child_that_keeps_dying_for_days_is_started_again_each_time() -> None:
    slot = ChildSlot("Worker")
    delays = [slot.put_off() for _ in range(2000)]
    assert delays[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert delays[-1] == 30
    assert slot.put_off(lived=60) == 0


@pytest.mark.sqlite_only
def test_a_child_that_cannot_be_started_is_tried_again(runtime: Runtime) -> None:
    """As where memory, processes or disk have run out; here it is the folder for temporary files that is away."""
    folder = runtime.shell.folder / "temporary"
    folder.mkdir()
    runtime.shell.environment["TMPDIR"] = str(folder)
    (job_id,) = add_jobs(runtime.database, held("one"))
    runtime.start("--threads", "1")
    first = runtime.running("one")
    folder.rmdir()
    kill(first, signal.SIGKILL)
    runtime.wait_for_log("cannot be started")
    runtime.wait_for(job_id, State.FAILED)
    folder.mkdir()
    until(lambda: [p for p in runtime.processes("Worker") if p.pid != first], "another worker is registered")
    code, _ = runtime.stop()
    assert code == 0


def test_when_the_supervisor_is_killed_its_children_stop_by_themselves(runtime: Runtime) -> None:
    done, left = add_jobs(runtime.database, held("done"), held("left"))
    runtime.start("--threads", "2", "--shutdown-timeout", "8")
    pid = runtime.running("done")
    runtime.running("left")
    runtime.signal(signal.SIGKILL)
    runtime.let_end("done")
    until(lambda: not is_running(pid), "the worker stopped")
    until(lambda: not runtime.processes("Dispatcher"), "the dispatcher stopped")
    assert state_of_each(runtime.database) == {done: State.FINISHED, left: State.READY}
    assert [row["kind"] for row in rows(runtime.database, process_table)] == ["Supervisor(spawn)"]


def test_when_the_whole_tree_is_killed_a_prune_finds_all_it_held(runtime: Runtime) -> None:
    ids = add_jobs(runtime.database, held("one"), held("two"))
    runtime.start("--processes", "2", "--threads", "1")
    runtime.running("one")
    runtime.running("two")
    until(lambda: runtime.processes("Dispatcher"), "the dispatcher is registered")
    tree = [row["pid"] for row in rows(runtime.database, process_table)]
    assert len(tree) == 4
    for pid in tree:
        kill(pid, signal.SIGKILL)
    assert set(state_of_each(runtime.database).values()) == {State.CLAIMED}
    for row in rows(runtime.database, process_table):
        silence(runtime.database, row["id"], 1000)
    pruned = runtime.shell.run("prune", "-o", "ids")
    assert (pruned.returncode, sorted(map(int, pruned.stdout.split()))) == (0, ids)
    assert set(state_of_each(runtime.database).values()) == {State.FAILED}
    assert rows(runtime.database, process_table) == []


# -- async def


@pytest.mark.sqlite_only
def test_async_jobs_share_one_event_loop_and_run_at_once(runtime: Runtime) -> None:
    ids = add_jobs(runtime.database, *(NewJob(class_name="hold_async", args=[name]) for name in ("one", "two")))
    runtime.start("--threads", "2")
    runtime.running_async("one")
    runtime.running_async("two")
    assert len({line.rsplit(" ", 1)[1] for line in runtime.journal()}) == 1
    for name in ("one", "two"):
        runtime.let_end(name)
    for job_id in ids:
        runtime.wait_for(job_id, State.FINISHED)


@pytest.mark.sqlite_only
def test_an_async_job_that_fails_leaves_its_error_and_ends_nothing_else(runtime: Runtime) -> None:
    failing, leaving, after = add_jobs(
        runtime.database,
        NewJob(class_name="fail_async", args=["boom"]),
        NewJob(class_name="fail_async", args=["exit"]),
        NewJob(class_name="hold_async", args=["after"]),
    )
    runtime.let_end("after")
    runtime.start("--threads", "1")
    runtime.wait_for(after, State.FINISHED)
    assert (runtime.error(failing).exception_class, runtime.error(failing).message) == ("ValueError", "boom")
    assert runtime.error(leaving).exception_class == "SystemExit"
    assert "sample_jobs.py" in runtime.error(failing).backtrace[0]


# -- fetched ahead


def test_what_was_fetched_ahead_goes_back_to_its_queue_when_the_worker_dies(runtime: Runtime) -> None:
    killer, *ahead = add_jobs(
        runtime.database, held("killer"), *(NewJob(class_name="note", args=[n]) for n in range(5))
    )
    runtime.start("--threads", "1", "--prefetch", "5")
    pid = runtime.running("killer")
    assert set(state_of_each(runtime.database).values()) == {State.CLAIMED}
    kill(pid, signal.SIGKILL)
    for job_id in ahead:
        runtime.wait_for(job_id, State.FINISHED)
    assert runtime.error(killer).death is Death.EXITED
    assert [row["job_id"] for row in rows(runtime.database, crashes)] == [killer]


def test_what_was_fetched_ahead_goes_back_as_soon_as_the_worker_is_told_to_stop(runtime: Runtime) -> None:
    first, *ahead = add_jobs(runtime.database, held("first"), *(NewJob(class_name="note", args=[n]) for n in range(5)))
    runtime.start("--threads", "1", "--prefetch", "5", "--shutdown-timeout", "3600")
    runtime.running("first")
    runtime.signal(signal.SIGTERM)
    for job_id in ahead:
        runtime.wait_for(job_id, State.READY)
    assert runtime.state(first) is State.CLAIMED
    runtime.let_end("first")
    code, _ = runtime.ended()
    assert code == 0
    assert state_of_each(runtime.database) == {first: State.FINISHED, **dict.fromkeys(ahead, State.READY)}
    assert [line.split(" in ")[0] for line in runtime.journal()] == ["first runs", "first ended"]


def test_it_does_not_fetch_more_than_it_was_told(runtime: Runtime) -> None:
    ids = add_jobs(runtime.database, *(held(f"job{n}") for n in range(10)))
    runtime.start("--threads", "2", "--prefetch", "3")
    runtime.running("job1")
    runtime.let_end("job0")
    runtime.wait_for(ids[0], State.FINISHED)
    runtime.running("job2")
    states = list(state_of_each(runtime.database).values())
    assert (states.count(State.FINISHED), states.count(State.CLAIMED)) == (1, 4)
    for number in range(len(ids)):
        runtime.let_end(f"job{number}")
    for job_id in ids:
        runtime.wait_for(job_id, State.FINISHED)


TAKES_AND_DIES = """
import os, signal, sys
from solidjq.runtime.hands import Hands
hands = Hands(7, int(sys.argv[1]))
for claim_id in (11, 12, 2**62):
    hands.take(claim_id)
hands.begin(12, 3)
hands.begin(11, 0)
hands.let_go(11)
hands.take(14)
hands.take(15)
for claim_id, thread in ((16, 0), (17, 1), (18, 2)):
    hands.take(claim_id)
    hands.begin(claim_id, thread)
hands.end(16, succeeded=True)
hands.end(17, succeeded=False)
hands.stop(18)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_had_begun_and_what_had_ended_well_outlives_the_worker(tmp_path: Path) -> None:
    with (tmp_path / "hands").open("w+b", buffering=0) as file:
        # Not a fork of this process: where that fails it goes on as a second pytest.
        program = [sys.executable, "-c", TAKES_AND_DIES, str(file.fileno())]
        died = subprocess.run(program, pass_fds=[file.fileno()], timeout=PATIENCE, check=False)
        assert died.returncode == -signal.SIGKILL
        assert read_hands(file) == ([14, 15, 18, 2**62], {3: 12}, [16])


# -- frozen


def test_a_worker_pruned_while_frozen_stops_and_ends_nothing(runtime: Runtime) -> None:
    (job_id,) = add_jobs(runtime.database, held("frozen"))
    runtime.start("--threads", "1")
    pid = runtime.running("frozen")
    freeze(runtime.database, pid)
    worker = runtime.worker()
    silence(runtime.database, worker.id, 1000)
    (pruned,) = pruning.prune(runtime.database, 300)
    assert (pruned.pid, pruned.job_ids) == (pid, [job_id])
    runtime.let_end("frozen")  # so that it tries to finish as soon as it wakes
    kill(pid, signal.SIGCONT)
    until(lambda: not is_running(pid), "the pruned worker stopped by itself")
    assert runtime.state(job_id) is State.FAILED
    assert runtime.error(job_id).death is Death.PRUNED
    until(lambda: runtime.processes("Worker"), "another worker took its place")
    assert runtime.worker().pid != pid


def test_a_supervisor_kills_the_frozen_child_that_it_prunes(runtime: Runtime) -> None:
    (job_id,) = add_jobs(runtime.database, held("frozen"))
    runtime.start("--threads", "1", heartbeat=0.2, threshold=1.5)
    pid = runtime.running("frozen")
    freeze(runtime.database, pid)
    runtime.wait_for(job_id, State.FAILED)
    assert runtime.error(job_id).death is Death.PRUNED
    until(lambda: not is_running(pid), "the frozen worker is dead")
    (after,) = add_jobs(runtime.database, NewJob(class_name="note"))
    runtime.wait_for(after, State.FINISHED)


def test_a_supervisor_whose_row_is_gone_stops_everything(runtime: Runtime) -> None:
    (job_id,) = add_jobs(runtime.database, held("long"))
    runtime.start("--shutdown-timeout", "0")
    pid = runtime.running("long")
    with runtime.database.write() as connection:
        connection.execute(delete(process_table).where(process_table.c.kind == "Supervisor(spawn)"))
    code, log = runtime.ended()
    assert code == 1
    assert "pruned by another process" in log
    assert not is_running(pid)
    assert runtime.state(job_id) is State.READY


# -- maintenance


def test_a_supervisor_prunes_and_finds_orphans_at_its_start(runtime: Runtime) -> None:
    pruned, orphan = add_jobs(runtime.database, held("pruned"), held("orphan"))
    dead, gone = add_process(runtime.database, "dead"), add_process(runtime.database, "gone")
    claim_all(runtime.database, dead, 1)
    claim_all(runtime.database, gone, 1)
    silence(runtime.database, dead, 1000)
    with runtime.database.write() as connection:
        connection.execute(delete(process_table).where(process_table.c.id == gone))
    runtime.start("--queues", "nothing")
    runtime.wait_for(pruned, State.FAILED)
    runtime.wait_for(orphan, State.FAILED)
    assert runtime.error(pruned).death is Death.PRUNED
    assert runtime.error(orphan).death is Death.MISSING


def test_a_supervisor_finds_orphans_at_every_round(runtime: Runtime) -> None:
    runtime.start("--queues", "nothing", heartbeat=0.2, threshold=1)
    runtime.worker()
    (orphan,) = add_jobs(runtime.database, held("orphan"))
    with runtime.database.write() as connection:  # at once: silent for a second, the process would be pruned
        gone = heartbeat.register(connection, kind="Worker", name="gone", pid=4242, hostname="h", metadata={})
        assert claim(connection, gone, ALL_QUEUES, 1)
        connection.execute(delete(process_table).where(process_table.c.id == gone))
    runtime.wait_for(orphan, State.FAILED)


# -- chaos


def catch_with_jobs(runtime: Runtime) -> int | None:
    """Freeze a worker that holds jobs, so that they are still in its hands when it is killed; return its pid."""
    for worker in runtime.processes("Worker"):
        kill(worker.pid, signal.SIGSTOP)
        if any(p.claimed for p in runtime.processes("Worker") if p.pid == worker.pid):
            return worker.pid
        kill(worker.pid, signal.SIGCONT)
    return None


def nothing_waits(database: Database) -> bool:
    """Ask for little: while workers are at it, to look at every job would keep them from it."""
    with database.read() as connection:
        return not any(connection.scalar(select(table.c.id).limit(1)) for table in (ready, claimed, scheduled, blocked))


@pytest.mark.parametrize(
    ("settings", "job"),
    [(("--threads", "3"), "note"), (("--threads", "10", "--prefetch", "500"), "note_slowly")],
    ids=["one by one", "ahead"],
)
def test_no_job_is_lost_while_workers_are_killed(runtime: Runtime, settings: Sequence[str], job: str) -> None:
    """Kill -9 worker after worker under load, retry what died, until everything has finished."""
    ids = add_jobs(runtime.database, *(NewJob(class_name=job, args=[number]) for number in range(1500)))
    runtime.start("--processes", "2", *settings, heartbeat=0.1, threshold=2)
    for _ in range(3):
        pid = until(lambda: catch_with_jobs(runtime), "a worker holds jobs")
        state_of_each(runtime.database)
        kill(pid, signal.SIGKILL)
        until(lambda pid=pid: pid not in {p.pid for p in runtime.processes("Worker")}, "its row is gone")
    died = None
    while died != []:  # on a busy machine, a worker that is only slow may be pruned, too
        until(lambda: nothing_waits(runtime.database), "all jobs ended")
        died = runtime.shell.run("failed", "list", "--died", "-o", "ids").stdout.split()
        assert len(died) == list(state_of_each(runtime.database).values()).count(State.FAILED)
        if died:
            assert runtime.shell.run("retry", "-", stdin="\n".join(died)).returncode == 0
    assert state_of_each(runtime.database) == dict.fromkeys(ids, State.FINISHED)
    ran = {line.removeprefix("(").split(",")[0] for line in runtime.journal()}
    assert ran == {str(number) for number in range(1500)}
    code, _ = runtime.stop()
    assert code == 0
