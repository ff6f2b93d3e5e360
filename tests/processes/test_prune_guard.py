"""What is doubtful is not pruned: a fleet that was cut off is not killed by the first cron job afterwards."""

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables, times
from solidjq.database.urls import url_text
from solidjq.processes import heartbeat, prune_guard, pruning
from solidjq.processes.heartbeat import list_processes
from solidjq.processes.pids import LocalProcess, find_local
from solidjq.processes.prune_guard import NOBODY, Doubts, ProcessRow, compare, find_long_dead, judge
from solidjq.processes.samples import write_instant
from solidjq.queue.states import State
from solidjq.rails.error_text import Death
from support.processes import add_process, all_silent, silence, start_of
from support.program import Shell
from support.proxies import proxied
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.runtime import Runtime, freeze, held, kill
from support.servers import execute
from support.terminal import raw_terminal
from support.waiting import PATIENCE, until

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
THRESHOLD = timedelta(minutes=5)


def fleet(**silent: float) -> list[ProcessRow]:
    """Make processes, each named after its host and a number, silent for so many minutes."""
    return [
        ProcessRow(number, name, name.rstrip("0123456789"), 1000 + number, NOW - timedelta(minutes=minutes))
        for number, (name, minutes) in enumerate(silent.items())
    ]


@pytest.mark.parametrize(
    ("seen", "up", "words"),
    [
        # nobody is silent
        (fleet(a1=0, a2=1, b1=4.9), 0.1, None),
        ([], 0.1, None),
        # the database came up
        (fleet(a1=6, a2=0), 4, "the database came up 240 s ago, and 1 of 2 processes may only have been unable"),
        (fleet(a1=6, a2=0), 4.99, "in 1 s the live ones have beaten"),
        (fleet(a1=6, a2=0), 5.01, None),
        (fleet(a1=6), None, None),
        # one host died, with all that it had
        (fleet(a1=6, a2=6, a3=6), 60, None),
        (fleet(a1=6, a2=6, b1=0, b2=0), 60, None),
        # a network went
        (fleet(a1=6, b1=6), 60, "2 of 2 processes on 2 hosts look dead at once, rather cut off from the database"),
        (fleet(a1=6, b1=7), 60, "they count as dead in 240 s"),
        (fleet(a1=6, b1=6, c1=0), None, "2 of 3 processes on 2 hosts look dead"),
        (fleet(a1=6, b1=6, c1=0, c2=0), 60, None),  # half is not most
        # who has been dead for long counts on neither side
        (fleet(a1=600, a2=600, b1=6, c1=0), 60, None),
        (fleet(a1=600, b1=600), 60, None),
        (fleet(a1=600, a2=600, b1=6, c1=6, d1=0), 60, "2 of 3 processes on 2 hosts"),
        # they stayed silent
        (fleet(a1=10, b1=10), 60, None),
        (fleet(a1=10, b1=9.9), 60, None),
    ],
)
def test_who_looks_dead_may_be_cut_off(seen: list[ProcessRow], up: float | None, words: str | None) -> None:
    came_up = None if up is None else NOW - timedelta(minutes=up)
    refusal = judge(seen, THRESHOLD, NOW, came_up)
    assert (refusal is None) == (words is None)
    assert (words or "") in (refusal or "")


def beats(**minutes: float) -> dict[int, datetime | None]:
    """Say of some processes how many minutes ago they beat last."""
    return {int(name[1:]): NOW - timedelta(minutes=ago) for name, ago in minutes.items()}


@pytest.mark.parametrize(
    ("before", "silent", "back", "dead", "unsure"),
    [
        (beats(), beats(), beats(), [], []),
        # one alone is believed at once, whoever was silent before
        (beats(), beats(p1=6), beats(), [1], []),
        (beats(p1=99, p2=99), beats(p1=99, p2=99, p3=6), beats(), [1, 2, 3], []),
        # several at once are looked at again, however long they are silent
        (beats(), beats(p1=6, p2=6), beats(), [], [1, 2]),
        (beats(), beats(p1=99, p2=999), beats(), [], [1, 2]),
        (beats(p1=99), beats(p1=99, p2=6, p3=6), beats(), [1], [2, 3]),
        (beats(p1=6, p2=6), beats(p1=6, p2=6), beats(), [1, 2], []),
        # who beat and fell silent again is seen for the first time
        (beats(p2=99), beats(p1=6, p2=6), beats(), None, None),
        # one that comes back speaks for all
        (beats(p1=6, p2=6, p3=6), beats(p2=6, p3=6), beats(p1=0), None, None),
        (beats(p1=6, p2=6), beats(), beats(p1=0, p2=0), [], []),
        # one that went for good does not
        (beats(p1=6, p2=6), beats(p2=6), beats(p4=0), [2], []),
    ],
)
def test_several_that_look_dead_are_looked_at_twice(
    before: prune_guard.Beats,
    silent: prune_guard.Beats,
    back: prune_guard.Beats,
    dead: list[int] | None,
    unsure: list[int] | None,
) -> None:
    found = compare(before, silent, {**silent, **back})
    assert found.silent == silent
    if dead is None or unsure is None:
        assert "have sent a heartbeat since: they were cut off" in (found.refusal or "")
        assert not [*found.dead, *found.unsure]
    else:
        assert (found.refusal, sorted(found.dead), sorted(found.unsure)) == (None, dead, unsure)


@pytest.mark.parametrize(
    ("seen", "active", "long_dead"),
    [
        # a threshold is five minutes; somebody worked three minutes ago, while the dead were silent
        (fleet(a1=21, a2=99, b1=0), 3, ["a1", "a2"]),
        (fleet(a1=20, a2=19, b1=0), 3, []),
        (fleet(a1=21, a2=19, b1=0), 3, ["a1"]),
        # nobody lives, or it is not known that anybody worked meanwhile
        (fleet(a1=21, a2=99), 3, []),
        (fleet(a1=21, a2=99, b1=0), None, []),
        # what was done within a threshold of the last heartbeat says nothing: the outage may have begun after that
        (fleet(a1=21, a2=99, b1=0), 17, ["a2"]),
        (fleet(a1=21, a2=99, b1=0), 95, []),
    ],
)
def test_who_is_silent_for_long_while_others_work_needs_no_second_look(
    seen: list[ProcessRow], active: float | None, long_dead: list[str]
) -> None:
    last = None if active is None else NOW - timedelta(minutes=active)
    found = find_long_dead(seen, THRESHOLD, NOW, lambda: last)
    assert [process.name for process in seen if process.id in found] == long_dead
    beat = {process.id: process.last_heartbeat_at for process in seen if NOW - (process.last_heartbeat_at or NOW)}
    assert compare({}, beat, beat, found).dead >= found


def test_a_process_without_a_heartbeat_is_no_reason(database: Database) -> None:
    assert judge([ProcessRow(1, "a", "a", 1, None), ProcessRow(2, "b", "b", 1, None)], THRESHOLD, NOW, None) is None


def test_a_heartbeat_that_is_no_time_is_looked_at_twice(
    database: Database, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A living process writes over it; a dead one is pruned, though its row can say nothing about when it died."""
    monkeypatch.setattr(prune_guard, "up_since", lambda _: None)
    odd = {"sqlite": "text", "postgresql": "infinity", "mariadb": "9999-12-31 00:00:00"}[kind]
    process = add_process(database)
    spoil = "UPDATE solid_queue_processes SET last_heartbeat_at = :odd, created_at = :at"

    def look(before: Doubts = NOBODY) -> Doubts:
        with database.read() as connection:
            return prune_guard.find_doubts(connection, 300, before=before)

    execute(database.url, spoil, odd=odd, at=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
    assert look().silent == {}  # it has only just registered
    execute(database.url, spoil, odd=odd, at="2026-01-01 00:00:00")
    first = look()
    assert (sorted(first.dead), sorted(first.unsure)) == ([], [process])
    assert sorted(look(first).dead) == [process]
    database.transact(heartbeat.heartbeat, process)
    assert look(first) == Doubts()
    execute(database.url, spoil, odd=odd, at=odd)
    assert [pruned.process_id for pruned in pruning.prune(database, 300, only=look(first).dead)] == [process]
    assert rows(database, tables.processes) == []


def test_a_server_tells_since_when_it_is_up(database: Database, kind: str) -> None:
    with database.read() as connection:
        up, now = times.up_since(connection), times.clock(connection)
    if kind == "sqlite":
        assert up is None
    else:
        assert up is not None
        assert timedelta() <= now - up < timedelta(days=10_000)


def doubts(database: Database, threshold: float = 1000, before: Doubts = NOBODY) -> Doubts:
    with database.read() as connection:
        return prune_guard.find_doubts(connection, threshold, before=before)


def at_host(database: Database, process: int, hostname: str, **more: str) -> None:
    with database.write() as connection:
        connection.execute(
            update(tables.processes).where(tables.processes.c.id == process).values(hostname=hostname, **more)
        )


def test_hosts_that_fell_silent_together_are_let_be_for_another_threshold(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_guard, "up_since", lambda _: None)
    ids = [add_process(database, f"worker-{host}") for host in ("a", "b")]
    at_host(database, ids[0], "elsewhere")
    assert doubts(database) == NOBODY
    for seconds, refused in ((1500.0, True), (2500.0, False)):
        for process in ids:
            silence(database, process, seconds)
        assert (doubts(database).refusal is not None) == refused
    at_host(database, ids[0], "testhost")
    silence(database, ids[0], 1500)
    silence(database, ids[1], 1500)
    assert doubts(database).refusal is None


def test_a_fleet_that_was_away_for_long_is_not_pruned_at_the_first_look(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_guard, "up_since", lambda _: None)
    ids = [add_process(database, name) for name in ("supervisor", "worker", "dispatcher")]
    for process in ids:
        silence(database, process, 9300)
    first = doubts(database)
    assert (first.refusal, list(first.dead), set(first.unsure)) == (None, [], set(ids))
    second = doubts(database, before=first)
    assert (set(second.dead), list(second.unsure)) == (set(ids), [])

    assert database.transact(heartbeat.heartbeat, ids[1])
    third = doubts(database, before=first)
    assert "1 of 3 processes that looked dead have sent a heartbeat since" in (third.refusal or "")
    assert not third.dead
    fourth = doubts(database, before=third)
    assert (fourth.refusal, set(fourth.dead)) == (None, {ids[0], ids[2]})
    monkeypatch.setenv("JQ_PRUNE_FORCE", "1")
    assert set(doubts(database).dead) == {ids[0], ids[2]}


def date_back(database: Database, process: int, seconds: float) -> None:
    """Let a process have registered that long ago."""
    with database.write() as connection:
        row = update(tables.processes).where(tables.processes.c.id == process)
        connection.execute(row.values(created_at=times.ago(seconds)))


def test_a_fleet_that_comes_back_is_not_pruned_for_the_first_that_beats(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were all away for long: that one is back says nothing of the others. Work meanwhile would."""
    monkeypatch.setattr(prune_guard, "up_since", lambda _: None)
    first, *others = (add_process(database, name) for name in ("first", "second", "third"))
    for process in (first, *others):
        date_back(database, process, 9000)
    for process in others:
        silence(database, process, 5000)
    assert set(doubts(database).unsure) == set(others)

    date_back(database, first, 400)  # less than half a threshold: it may have registered as the database came back
    assert set(doubts(database).unsure) == set(others)
    date_back(database, first, 600)
    assert (doubts(database).unsure, set(doubts(database).dead)) == (frozenset(), set(others))
    date_back(database, first, 9000)

    (job_id,) = add_jobs(database, *plain_jobs(1))
    for seconds, known in ((400, False), (600, True), (4500, False)):
        with database.write() as connection:
            job = update(tables.jobs).where(tables.jobs.c.id == job_id)
            connection.execute(job.values(finished_at=times.ago(seconds)))
        assert bool(doubts(database).dead) == known
    silence(database, first, 1200)  # nobody lives
    date_back(database, first, 600)
    assert not doubts(database).dead


def test_a_process_of_this_host_that_runs_is_spared(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune_guard, "up_since", lambda _: None)
    host = socket.gethostname()
    alive = add_process(database, "alive", pid=1)  # there was one before the oldest heartbeat of this test
    gone = add_process(database, "gone", pid=2**22 + 7)  # above the highest pid of Linux
    younger = add_process(database, "younger", pid=os.getpid())  # this one began after that heartbeat
    for process, seconds in ((alive, 2000), (gone, 2000), (younger, 10 * 365 * 86400)):
        at_host(database, process, host)
        silence(database, process, seconds)
    looked_for: list[int] = []

    def find(row: Any) -> LocalProcess:
        looked_for.append(row.pid)
        return find_local(row) if row.pid != 1 else LocalProcess("sleeping")  # in a container pid 1 may be young

    with database.read() as connection:
        found = prune_guard.find_doubts(connection, 1000, looks_up=True, find=find)
    assert set(found.alive) == {alive}
    assert set(found.unsure) == {gone, younger}
    assert "pid 1 of this host, alive, still runs" in found.alive[alive]
    assert "another program has its pid by now: ps -o lstart,args -p 1" in found.alive[alive]
    assert looked_for == [1, 2**22 + 7, os.getpid()]
    assert not doubts(database).alive


# -- a beat between the look and the prune


def test_a_process_that_beats_after_it_was_found_dead_is_not_pruned(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solidjq.processes.pruning.AT_ONCE", 1)  # it beats between two transactions
    first, second, third = (add_process(database, name) for name in ("first", "second", "third"))
    for process in (first, second, third):
        silence(database, process, 2000)
    pruned = pruning.prune(database, 1000, only=[first, second, third])
    assert next(pruned).process_id == first
    own = Database(database.url)
    assert own.transact(heartbeat.heartbeat, second)
    own.close()
    assert [process.process_id for process in pruned] == [third]
    assert [row["id"] for row in rows(database, tables.processes)] == [second]


def test_a_process_whose_beat_is_not_yet_committed_is_not_pruned(database: Database, kind: str) -> None:
    process = add_process(database)
    silence(database, process, 2000)
    own = Database(database.url)
    pruned: list[pruning.PrunedProcess] = []
    prune = threading.Thread(target=lambda: pruned.extend(pruning.prune(database, 1000)))
    with own.write() as connection:
        assert heartbeat.heartbeat(connection, process)
        prune.start()
        if kind != "sqlite":  # there it waits for the end of this transaction
            prune.join(PATIENCE)
            assert not prune.is_alive()
    prune.join(PATIENCE)
    own.close()
    assert pruned == []
    assert [row["id"] for row in rows(database, tables.processes)] == [process]


def test_a_process_that_beats_while_it_is_pruned_is_told_so(database: Database) -> None:
    process = add_process(database)
    silence(database, process, 2000)
    own = Database(database.url)
    beaten: list[bool] = []
    beat = threading.Thread(target=lambda: beaten.append(own.transact(heartbeat.heartbeat, process)))
    pruned = list(pruning.prune(database, 1000, record=lambda *_: beat.start()))  # in the transaction that prunes
    beat.join(PATIENCE)
    own.close()
    assert len(pruned) == 1
    assert beaten == [False]


# -- the commands


@pytest.mark.sqlite_only
def test_jq_prune_spares_a_process_that_runs_and_prunes_the_others(database: Database, shell: Shell) -> None:
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    # The start is recorded: of a process that began after its last heartbeat it would else be sure that it is another.
    sample = {"pid_started": write_instant(start_of(os.getpid()).timestamp())}
    mine, dead = (
        add_process(database, "mine", pid=os.getpid(), metadata={"sample": sample}),
        add_process(database, "dead"),
    )
    kept, lost = add_jobs(database, *plain_jobs(2))
    for process in (mine, dead):
        claim_all(database, process, 1)
        silence(database, process, 3)
    at_host(database, mine, socket.gethostname())

    for command in (["prune", "--alive-threshold", "1", "--dry-run", "-o", "ids"], ["prune", "--alive-threshold", "1"]):
        done = shell.run(*command)
        assert done.returncode == 5, done.stderr
        assert f"spared: pid {os.getpid()} of this host, mine, still runs" in done.stderr
        assert "--force" in done.stderr
    assert state_of_each(database) == {kept: State.CLAIMED, lost: State.FAILED}
    assert shell.run("recover", "--alive-threshold", "1").returncode == 5

    forced = shell.run("prune", "--alive-threshold", "1", "--force", "--reason", "it hangs")
    assert forced.returncode == 0, forced.stderr
    assert set(state_of_each(database).values()) == {State.FAILED}
    assert rows(database, tables.operations)[-1]["reason"] == "it hangs"


def up_for(database: Database, seconds: float) -> bool:
    with database.read() as connection:
        up = times.up_since(connection)
        # MariaDB tells whole seconds: of two looks at once, one may see a second less.
        return up is None or times.clock(connection) - up > timedelta(seconds=seconds + 1)


@contextmanager
def looking_again(shell: Shell, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command and go on when it has looked once and waits for its second look."""
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    with shell.start(*arguments) as command:
        assert command.stderr is not None
        assert "processes look dead; waiting" in command.stderr.readline()
        yield command


@pytest.mark.parametrize("command", ["prune", "recover"])
def test_one_beat_after_the_first_look_saves_the_fleet(database: Database, shell: Shell, command: str) -> None:
    until(lambda: up_for(database, 10), "the server has been up for the threshold")
    (job_id,) = add_jobs(database, *plain_jobs(1))
    back, away = add_process(database, "back"), add_process(database, "away")
    claim_all(database, away)
    for process in (back, away):
        silence(database, process, 1000)
    trial = shell.run("prune", "--alive-threshold", "10", "--dry-run")
    with looking_again(shell, command, "--alive-threshold", "10") as started:
        assert database.transact(heartbeat.heartbeat, back)
        _, log = started.communicate(timeout=PATIENCE)
    assert started.returncode == 5, log
    assert "1 of 2 processes that looked dead have sent a heartbeat since" in log
    assert state_of_each(database) == {job_id: State.CLAIMED}
    assert len(rows(database, tables.processes)) == 2
    assert "would" in trial.stderr


@pytest.mark.sqlite_only
def test_who_stays_silent_is_pruned_at_the_second_look(database: Database, shell: Shell) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    dead = [add_process(database, name) for name in ("one", "two")]
    claim_all(database, dead[0])
    for process in dead:
        silence(database, process, 1000)
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    trial = shell.run("prune", "--alive-threshold", "1", "--dry-run", "-o", "ids")
    assert (trial.returncode, trial.stdout.split()) == (0, [str(job_id)])
    assert "would wait 0.5 s and check again" in trial.stderr
    cron = shell.run("prune", "--alive-threshold", "1", "--quiet")
    assert (cron.returncode, cron.stdout, cron.stderr) == (0, "", "")
    assert state_of_each(database) == {job_id: State.FAILED}
    assert rows(database, tables.processes) == []


@pytest.mark.sqlite_only
@pytest.mark.parametrize("command", ["prune", "recover"])
def test_ctrl_c_while_it_waits_changes_nothing(database: Database, shell: Shell, command: str) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    for process in (add_process(database, "one"), add_process(database, "two")):
        claim_all(database, process)
        silence(database, process, 100_000)
    with looking_again(shell, command, "--alive-threshold", "300") as started:
        started.send_signal(signal.SIGINT)
        _, log = started.communicate(timeout=PATIENCE)
    assert (started.returncode, log) == (130, "jq: interrupted; nothing was changed\n")
    assert state_of_each(database) == {job_id: State.CLAIMED}
    assert len(rows(database, tables.processes)) == 2


@pytest.mark.sqlite_only
def test_on_a_terminal_the_wait_counts_down(database: Database, shell: Shell) -> None:
    for process in (add_process(database, "one"), add_process(database, "two")):
        silence(database, process, 1000)
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    shown = raw_terminal(shell, "prune", "--alive-threshold", "8")
    first, countdown, *_ = shown.split("\n")
    assert first == "jq: 2 processes look dead; waiting 4 s to see whether they beat again"
    assert re.match(r"\r[1-4] s left; Ctrl-C changes nothing, --force would prune at once\r", countdown)
    assert "pruned 2 processes and failed 0 jobs" in shown


@pytest.mark.sqlite_only
def test_who_is_dead_for_long_beside_living_processes_is_pruned_without_a_wait(
    database: Database, shell: Shell
) -> None:
    one, two, living = (add_process(database, name) for name in ("one", "two", "living"))
    for process in (one, two):
        silence(database, process, 100_000)
    date_back(database, living, 90_000)
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    trial, done = (shell.run("prune", "--alive-threshold", "3600", *dry) for dry in (["--dry-run"], []))
    assert (done.returncode, "look" in trial.stderr + done.stderr) == (0, False)
    assert [row["id"] for row in rows(database, tables.processes)] == [living]


def test_without_a_ledger_it_says_first_that_the_places_of_the_dead_are_lost(own: Database, tmp_path: Path) -> None:
    shell = Shell(url_text(own.url), tmp_path)
    lost = "neither host nor pid of the dead"
    with own.write() as connection:
        for table in tables.LEDGER:
            table.drop(connection)
    assert lost not in shell.run("prune").stderr
    silence(own, add_process(own), 1000)
    refused = shell.run("recover")
    assert (refused.returncode, "run: jq init" in refused.stderr) == (3, True)
    assert len(rows(own, tables.processes)) == 1
    assert lost in shell.run("prune", "--dry-run").stderr
    first, *others = shell.run("prune").stderr.splitlines()
    assert lost in first
    assert first.endswith("run: jq init")
    assert [line for line in others if lost in line] == []
    assert rows(own, tables.processes) == []


@pytest.mark.only_on("postgresql", "mariadb")
def test_soon_after_the_database_came_up_nobody_is_pruned(database: Database, shell: Shell) -> None:
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    (job_id,) = add_jobs(database, *plain_jobs(1))
    process = add_process(database)
    claim_all(database, process)
    silence(database, process, 9 * 365 * 86400)
    longer_than_it_is_up = str(8 * 365 * 86400)
    for command in ("prune", "recover"):
        done = shell.run(command, "--alive-threshold", longer_than_it_is_up)
        assert done.returncode == 5
        assert "the database came up" in done.stderr
        assert "--force" in done.stderr
    trial = shell.run("prune", "--alive-threshold", longer_than_it_is_up, "--dry-run", "-o", "ids")
    assert (trial.returncode, trial.stdout.split()) == (0, [str(job_id)])
    assert "would be refused: the database came up" in trial.stderr
    assert state_of_each(database) == {job_id: State.CLAIMED}
    assert rows(database, tables.operations) == []

    shell.environment["JQ_PRUNE_FORCE"] = "1"
    assert shell.run("prune", "--alive-threshold", longer_than_it_is_up).returncode == 0
    assert state_of_each(database) == {job_id: State.FAILED}


# -- real processes

# However late the heartbeats of a busy machine are, no worker ends itself.
NEVER_LOST = ("--lost-timeout", "600")


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    """The runtime of other tests, but its supervisors keep to the guard."""
    runtime.shell.environment["JQ_PRUNE_FORCE"] = "0"
    return runtime


def tree_of(runtime: Runtime) -> dict[str, int]:
    """Wait until supervisor, worker and dispatcher are registered; return their pids by kind."""

    def registered() -> dict[str, int] | None:
        with runtime.database.read() as connection:
            found = {each.kind: each.pid for each in list_processes(connection) if each.pid != 4242}
        return found if len(found) == 3 else None

    found: dict[str, int] = until(registered, "supervisor, worker and dispatcher are registered")
    return found


def alive(database: Database, pids: Collection[int], threshold: float) -> bool:
    with database.read() as connection:
        return {each.pid for each in list_processes(connection) if each.is_alive(threshold)} >= set(pids)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("host", ["this", "another"])
def test_a_tree_that_was_killed_is_pruned_though_nobody_is_left(runtime: Runtime, host: str) -> None:
    (job_id,) = add_jobs(runtime.database, held("a"))
    runtime.start("--threads", "1", heartbeat=0.5, threshold=4)
    runtime.running("a")
    pids = tree_of(runtime).values()
    for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody sees another one die, and leaves in good order
        for pid in pids:
            kill(pid, number)
    if host == "another":
        for row in rows(runtime.database, tables.processes):
            at_host(runtime.database, row["id"], "elsewhere")
    until(lambda: all_silent(runtime.database, 4), "all are silent")
    cron = runtime.shell.run("prune", "--alive-threshold", "4", "-o", "ids")
    assert (cron.returncode, cron.stdout.split()) == (0, [str(job_id)]), cron.stderr
    assert "3 processes look dead; waiting 2 s to see whether they beat again" in cron.stderr
    assert runtime.error(job_id).death is Death.PRUNED
    assert rows(runtime.database, tables.processes) == []


@pytest.mark.sqlite_only
@pytest.mark.parametrize("first", ["supervisor", "children"])
def test_a_tree_that_was_frozen_prunes_nothing_of_itself(runtime: Runtime, first: str) -> None:
    """As a laptop's sleep does it, except that the order in which they wake is ours."""
    database, threshold = runtime.database, 6.0
    planted, running = add_jobs(database, *plain_jobs(1), held("a"))
    dead = add_process(database, "dead")
    claim_all(database, dead, 1)
    silence(database, dead, -1000)  # seems to live meanwhile
    runtime.start("--queues", "default", "--threads", "1", *NEVER_LOST, heartbeat=1, threshold=threshold)
    runtime.running("a")
    tree = tree_of(runtime)
    pids = list(tree.values())
    supervisor = tree.pop("Supervisor(spawn)")
    freeze(database, supervisor, *tree.values())
    frozen = {row["id"] for row in rows(database, tables.processes)} - {dead}
    until(lambda: silent_ids(database, threshold) >= frozen, "the whole tree is silent")
    groups: list[Collection[int]] = [[supervisor], tree.values()]
    for group in groups if first == "supervisor" else reversed(groups):
        for pid in group:
            kill(pid, signal.SIGCONT)
        until(lambda group=group: alive(database, group, threshold), "they beat again")
    silence(database, dead, 1000)
    runtime.wait_for(planted, State.FAILED)  # by now the supervisor prunes again
    assert runtime.state(running) is State.CLAIMED
    assert {row["id"] for row in rows(database, tables.processes)} == frozen
    until(lambda: alive(database, pids, threshold), "the whole tree beats")
    runtime.let_end("a")
    runtime.wait_for(running, State.FINISHED)
    code, log = runtime.stop()
    assert code == 0
    assert [line for line in log.splitlines() if ": pruned" in line and "dead: pruned" not in line] == []


def silent_ids(database: Database, threshold: float) -> set[int]:
    with database.read() as connection:
        return {process.process_id for process in pruning.find_dead(connection, threshold) if process.process_id}


def test_a_new_supervisor_looks_twice_before_it_prunes_several(runtime: Runtime) -> None:
    database = runtime.database
    until(lambda: up_for(database, 8), "the server has been up for the threshold")
    saved, lost = add_jobs(database, *plain_jobs(2))
    back, away = add_process(database, "back"), add_process(database, "away")
    for process in (back, away):
        claim_all(database, process, 1)
        silence(database, process, 1000)
    runtime.start("--queues", "nothing", heartbeat=0.5, threshold=8)
    assert runtime.supervisor is not None
    assert runtime.supervisor.stderr is not None
    log = (line for line in runtime.supervisor.stderr if "pruned" in line or "look dead" in line)
    assert "2 processes look dead; looking again in 4 s" in next(log)
    assert database.transact(heartbeat.heartbeat, back)
    silence(database, back, -1000)
    assert "nothing is pruned: 1 of 2 processes that looked dead have sent a heartbeat since" in next(log)
    runtime.wait_for(lost, State.FAILED)
    assert runtime.state(saved) is State.CLAIMED
    done = next(line for line in log if "away: " in line)
    assert f"away: pruned, pid 4242 on testhost; failed jobs {lost}" in done


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_network_that_was_away_for_long_kills_no_fleet(runtime: Runtime, shell: Shell, queue_url: URL) -> None:
    """The server stays up, and the test reaches it; the first that looks after the outage is a line in cron."""
    database, threshold = runtime.database, 10.0
    until(lambda: up_for(database, threshold), "the server has been up for the threshold")
    (job_id,) = add_jobs(database, held("a"))
    with proxied(queue_url) as (network, through):
        runtime.shell = Shell(url_text(through), shell.folder, shell.environment)
        runtime.start("--threads", "1", *NEVER_LOST, heartbeat=0.5, threshold=threshold)
        runtime.running("a")
        pids = tree_of(runtime).values()
        network.cut()
        tree = {row["id"] for row in rows(database, tables.processes)}
        for process in tree:
            silence(database, process, 1000)
            at_host(database, process, "elsewhere", metadata="{}")  # on its own host, cron would see that it runs
        with looking_again(Shell(shell.url, shell.folder), "prune", "--alive-threshold", str(threshold)) as cron:
            network.heal()
            _, log = cron.communicate(timeout=PATIENCE)
        assert cron.returncode in {0, 5}, log  # all are back, or the first of them
        assert {row["id"] for row in rows(database, tables.processes)} == tree
        assert runtime.state(job_id) is State.CLAIMED
        until(lambda: alive(database, pids, threshold), "the whole fleet beats again")
        runtime.let_end("a")
        runtime.wait_for(job_id, State.FINISHED)
