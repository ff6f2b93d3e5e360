"""What is doubtful is not pruned: a fleet that was cut off is not killed by the first cron job afterwards."""

import os
import socket
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from solidjq import Database, dialects, processes, prune_guard, schema
from solidjq.prune_guard import Seen, judge
from solidjq.states import State
from support import Shell, add_jobs, add_process, claim_all, plain_jobs, rows, state_of_each
from test_pruning import silence
from test_runtime import ON_SQLITE

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
THRESHOLD = timedelta(minutes=5)


def fleet(**silent: float) -> list[Seen]:
    """Make processes, each named after its host and a number, silent for so many minutes."""
    return [
        Seen(number, name, name.rstrip("0123456789"), 1000 + number, NOW - timedelta(minutes=minutes))
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
        (fleet(a1=6, a2=0), 4.99, "in 1 s those that live have told so"),
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
def test_who_looks_dead_may_be_cut_off(seen: list[Seen], up: float | None, words: str | None) -> None:
    came_up = None if up is None else NOW - timedelta(minutes=up)
    refusal = judge(seen, THRESHOLD, NOW, came_up).refusal
    assert (refusal is None) == (words is None)
    assert (words or "") in (refusal or "")


def test_a_process_without_a_heartbeat_is_no_reason(database: Database) -> None:
    assert judge([Seen(1, "a", "a", 1, None), Seen(2, "b", "b", 1, None)], THRESHOLD, NOW, None).refusal is None


def test_a_server_tells_since_when_it_is_up(database: Database, kind: str) -> None:
    with database.read() as connection:
        up, now = dialects.up_since(connection), dialects.clock(connection)
    if kind == "sqlite":
        assert up is None
    else:
        assert up is not None
        assert timedelta() <= now - up < timedelta(days=10_000)


def doubts(database: Database, threshold: float = 1000, hostname: str | None = None) -> prune_guard.Doubts:
    with database.read() as connection:
        return prune_guard.find_doubts(connection, threshold, hostname=hostname)


def at_host(database: Database, process: int, hostname: str) -> None:
    with database.write() as connection:
        connection.execute(update(schema.processes).where(schema.processes.c.id == process).values(hostname=hostname))


def test_hosts_that_fell_silent_together_are_let_be_for_another_threshold(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_guard, "up_since", lambda _: None)
    ids = [add_process(database, f"worker-{host}") for host in ("a", "b")]
    at_host(database, ids[0], "elsewhere")
    assert doubts(database) == prune_guard.Doubts()
    for seconds, refused in ((1500.0, True), (2500.0, False)):
        for process in ids:
            silence(database, process, seconds)
        assert (doubts(database).refusal is not None) == refused
    at_host(database, ids[0], "testhost")
    silence(database, ids[0], 1500)
    silence(database, ids[1], 1500)
    assert doubts(database) == prune_guard.Doubts()


def test_a_process_of_this_host_that_runs_is_spared(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune_guard, "up_since", lambda _: None)
    host = socket.gethostname()
    alive = add_process(database, "alive", pid=1)  # there was one before the oldest heartbeat of this test
    gone = add_process(database, "gone", pid=2**22 + 7)  # above the highest pid of Linux
    younger = add_process(database, "younger", pid=os.getpid())  # this one began after that heartbeat
    for process, seconds in ((alive, 2000), (gone, 2000), (younger, 10 * 365 * 86400)):
        at_host(database, process, host)
        silence(database, process, seconds)
    runs: list[int] = []

    def ran(pid: int, beat: datetime) -> bool:
        runs.append(pid)
        return processes.ran_before(pid, beat) if pid != 1 else True  # in a container pid 1 may be young

    with database.read() as connection:
        found = prune_guard.find_doubts(connection, 1000, hostname=host, runs=ran)
    assert set(found.alive) == {alive}
    assert "pid 1 of this host, alive, still runs" in found.alive[alive]
    assert runs == [1, 2**22 + 7, os.getpid()]
    assert doubts(database, hostname="elsewhere") == prune_guard.Doubts()


# -- the commands


@ON_SQLITE
def test_jq_prune_spares_a_process_that_runs_and_prunes_the_others(database: Database, shell: Shell) -> None:
    shell.environment["JQ_PRUNE_FORCE"] = "0"
    mine, dead = add_process(database, "mine", pid=os.getpid()), add_process(database, "dead")
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
    assert rows(database, schema.operations)[-1]["reason"] == "it hangs"


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
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
    assert rows(database, schema.operations) == []

    shell.environment["JQ_PRUNE_FORCE"] = "1"
    assert shell.run("prune", "--alive-threshold", longer_than_it_is_up).returncode == 0
    assert state_of_each(database) == {job_id: State.FAILED}
