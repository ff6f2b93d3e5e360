"""A standby: it says that it is one, and calls nobody dead, since its heartbeats are as old as its lag."""

import json
import re
from typing import Any

import pytest
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database.place import Place, find_place, host_of
from solidjq.database.setup import initialize
from solidjq.database.standby import LAGGING, ReadOnlyServer, Standby, find_standby, judge_replica
from solidjq.database.tables import failed, jobs
from solidjq.database.tables import processes as process_table
from solidjq.database.urls import parse_url, url_text
from solidjq.errors import AccessDeniedError
from solidjq_cli.exits import Exit
from support.databases import is_mysql
from support.every_command import COMMANDS, ON_TERMINALS, PLUGINS
from support.processes import add_process, silence
from support.program import Done, Shell, assert_refused
from support.queue import add_jobs, claim_all, plain_jobs, rows
from support.scenes import something_for_every_command
from support.servers import connected, execute
from support.standbys import ask, follow
from support.terminal import terminal
from support.waiting import until

pytestmark = pytest.mark.xdist_group("standby")  # one process starts the standbys, not each
READ = sorted(
    command for command, code in COMMANDS.items() if code is not Exit.REFUSED and command not in PLUGINS | ON_TERMINALS
)
CHANGE = sorted(COMMANDS.keys() - set(READ) - PLUGINS - ON_TERMINALS)
DOUBT = "only the primary can tell"


def standby_of(url: URL) -> Standby | None:
    database = Database(url)
    with database.read() as connection:
        found = find_standby(connection)
    database.close()
    return found


def silent_worker(database: Database) -> int:
    """A worker that holds a job and has been silent for long."""
    add_jobs(database, *plain_jobs(1))
    worker = add_process(database)
    claim_all(database, worker)
    silence(database, worker, 1000)
    return worker


# -- PostgreSQL, with a real standby


@pytest.fixture
def scene(kind: str, database: Database) -> dict[str, object]:
    """Something for every command; made before the standby has followed."""
    assert kind == "postgresql"
    return something_for_every_command(database)


@pytest.mark.only_on("postgresql")
def test_nobody_is_called_dead_on_a_standby(database: Database, queue_url: URL, standby_url: URL, shell: Shell) -> None:
    worker = silent_worker(database)
    follow(queue_url, standby_url)
    standby = Shell(url_text(standby_url), shell.folder)

    def alive(done: Done) -> object:
        (process,) = json.loads(done.stdout)
        return process["alive"]

    assert alive(shell.run("processes", "list", "-o", "json")) is False
    listed = standby.run("processes", "list", "-o", "json")
    assert alive(listed) is None
    assert DOUBT in listed.stderr
    assert json.loads(shell.run("prune", "--dry-run", "-o", "json").stdout)[0]["process_id"] == worker
    for force in ([], ["--force"]):
        done = standby.run("prune", "--dry-run", "-o", "json", *force)
        assert (done.returncode, done.stdout) == (0, "[]\n")
        assert "would be refused: this is a standby, up to " in done.stderr
        refused = standby.run("prune", *force)
        assert_refused(refused, Exit.REFUSED, "nothing was pruned: this is a standby", DOUBT)
        assert "--force" not in refused.stderr
    found = {row["check"]: row["status"] for row in json.loads(shell.run("doctor", "-o", "json").stdout)}
    assert (found["dead-processes"], found["workers"]) == ("error", "healthy")
    examined = standby.run("doctor", "-o", "json")
    there = {row["check"]: row["status"] for row in json.loads(examined.stdout)}
    assert {there[name] for name in ("dead-processes", "workers", "dispatcher", "heartbeats", "orphans")} == {"skipped"}
    assert there["tables"] == "healthy"
    findings = [row for row in json.loads(examined.stdout) if row["status"] not in {"skipped", "healthy"}]
    assert "jq prune" not in json.dumps(findings)
    assert [row["id"] for row in rows(database, process_table)] == [worker]


@pytest.mark.only_on("postgresql")
def test_a_live_process_is_alive_on_a_standby_too(
    database: Database, queue_url: URL, standby_url: URL, shell: Shell
) -> None:
    add_process(database)
    follow(queue_url, standby_url)
    done = Shell(url_text(standby_url), shell.folder).run("processes", "list", "-o", "json")
    assert [process["alive"] for process in json.loads(done.stdout)] == [True]


@pytest.mark.only_on("postgresql")
def test_how_far_behind_it_is(database: Database, queue_url: URL, standby_url: URL, shell: Shell) -> None:
    assert standby_of(queue_url) is None
    # A standby that has replayed nothing knows no time to measure from.
    execute(queue_url, "CREATE TABLE replayed ()", "DROP TABLE replayed")
    until(lambda: ask(standby_url, "SELECT pg_last_xact_replay_timestamp() IS NOT NULL"), "something is replayed")
    until(lambda: standby_of(standby_url) == Standby(0.0), "the standby has all of it")
    execute(standby_url, "SELECT pg_wal_replay_pause()")
    until(lambda: ask(standby_url, "SELECT pg_get_wal_replay_pause_state() = 'paused'"), "the replay stops")
    add_process(database)
    until(
        lambda: ask(standby_url, "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()"), "something is received"
    )
    first = standby_of(standby_url)
    second = standby_of(standby_url)
    assert first is not None
    assert second is not None
    assert 0 < (first.lag or 0) < (second.lag or 0)
    shown = terminal(Shell(url_text(standby_url), shell.folder), "processes", "list", width=120)
    assert f"{queue_url.database} (standby, up to " in shown
    assert " s behind, read-only)" in shown
    assert Shell(url_text(standby_url), shell.folder).run("processes", "list", "-o", "ids").stdout == ""


@pytest.mark.only_on("postgresql")
def test_every_command_on_a_standby(
    database: Database, scene: dict[str, object], queue_url: URL, standby_url: URL, shell: Shell
) -> None:
    """What reads works; what would change something is refused, and says why."""
    (shell.folder / "plan.json").write_text("{}")
    follow(queue_url, standby_url)
    standby = Shell(url_text(standby_url), shell.folder)
    ended = {command: standby.run(*command.format(**scene).split()) for command in READ}
    planned = ["retry", "--died", "--dry-run"]
    assert "no worker lives" in shell.run(*planned).stderr
    assert "lives" not in standby.run(*planned).stderr
    unread = {command: done.stderr for command, done in ended.items() if done.returncode not in {0, Exit.PARTLY}}
    assert unread == {}
    refused = {command: standby.run(*command.format(**scene).split()) for command in CHANGE}
    accepted = {command for command, done in refused.items() if done.returncode not in {2, 3, 5}}
    assert accepted <= {"init", "init --indexes"}  # nothing is missing: nothing is changed
    assert [done.stderr for done in refused.values() if "unexpected" in done.stderr] == []
    assert "takes no writes" in refused["retry {failed}"].stderr
    assert "name its primary" in refused["retry {failed}"].stderr


# -- a server that takes no writes, and replays nobody's changes


def nobody_is_called_dead(shell: Shell, setting: str, remedy: str) -> None:
    """Check what the commands say on a server that takes no writes, of a worker that has been silent for long."""
    why = f"this is a server that takes no writes ({setting}); no heartbeat can be written here"
    listed = shell.run("processes", "list", "-o", "json")
    assert [process["alive"] for process in json.loads(listed.stdout)] == [None]
    assert why in listed.stderr
    for command in (["prune"], ["prune", "--force"], ["recover"]):
        assert_refused(shell.run(*command), Exit.REFUSED, why, remedy)
    assert shell.run("prune", "--dry-run", "-o", "ids").stdout == ""
    status = terminal(shell, "status", width=200)
    assert re.search("read-only +this is a server that takes no writes", status)
    assert "prune" not in status
    assert "dead" not in status.replace("nobody is called dead", "")
    checked = shell.run("check", "processes")
    assert (checked.returncode, why in checked.stdout) == (3, True)
    assert 'solid_queue_processes{kind="Worker",status="silent"} 0' in shell.run("metrics").stdout
    examined = shell.run("doctor", "writes", "dead-processes", "-o", "json")
    dead, writes = json.loads(examined.stdout)
    assert (examined.returncode, writes["status"], dead["status"]) == (Exit.PARTLY, "error", "skipped")
    assert setting in writes["finding"]
    assert remedy in writes["fix"]


@pytest.mark.only_on("postgresql")
def test_a_postgresql_that_takes_no_writes_calls_nobody_dead(database: Database, queue_url: URL, shell: Shell) -> None:
    silent_worker(database)
    database.close()
    name = queue_url.database
    execute(queue_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    try:
        assert standby_of(queue_url) == ReadOnlyServer(setting="default_transaction_read_only")
        nobody_is_called_dead(shell, "default_transaction_read_only is on", "ALTER SYSTEM RESET")
    finally:
        own = queue_url.update_query_dict({"options": "-c default_transaction_read_only=off"})
        execute(own, f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    assert standby_of(queue_url) is None


@pytest.mark.only_on("postgresql")
def test_a_role_that_may_only_read_by_itself_is_no_read_only_server(database: Database, queue_url: URL) -> None:
    """Others can write heartbeats: who has none is dead."""
    database.close()
    own = queue_url.update_query_dict({"options": "-c default_transaction_read_only=on"})
    assert standby_of(own) is None
    execute(queue_url, "DROP ROLE IF EXISTS reporter", "CREATE ROLE reporter LOGIN SUPERUSER")
    execute(queue_url, "ALTER ROLE reporter SET default_transaction_read_only = on")
    try:
        assert standby_of(queue_url.set(username="reporter")) is None
    finally:
        execute(queue_url, "DROP ROLE reporter")


# -- MariaDB and MySQL


def test_a_mariadb_that_takes_no_writes_is_no_standby_unless_it_replicates(
    mariadb_standby: URL, mariadb_server: URL, tmp_path: Any
) -> None:
    url = mariadb_standby.set(database="queue")
    execute(mariadb_standby, "SET GLOBAL read_only = 0")
    database = _empty_queue(mariadb_standby, url)
    silent_worker(database)
    execute(mariadb_standby, "SET GLOBAL read_only = 1")
    assert standby_of(url) == ReadOnlyServer(setting="read_only")
    assert standby_of(mariadb_server) is None
    assert str(database.place()) == f"queue on 127.0.0.1:{url.port} (read_only is on, read-only)"
    shell = Shell(url_text(url), tmp_path)
    (process,) = json.loads(shell.run("processes", "list", "-o", "json").stdout)
    assert process["alive"] is None
    nobody_is_called_dead(shell, "read_only is on", "SET GLOBAL read_only = OFF")
    execute(url, "SET GLOBAL read_only = 0")
    try:
        (process,) = json.loads(shell.run("processes", "list", "-o", "json").stdout)
        assert process["alive"] is False
        # A replica that was promoted still has its status, with both threads stopped.
        with connected(url) as connection:
            change = "REPLICATION SOURCE TO SOURCE" if is_mysql(connection) else "MASTER TO MASTER"
        execute(url, f"CHANGE {change}_HOST = '127.0.0.1'")
        assert standby_of(url) is None
    finally:
        execute(url, "SET GLOBAL read_only = 1")
    assert standby_of(url) == Standby(None)
    assert_refused(shell.run("prune"), Exit.REFUSED, "nothing was pruned: this is a standby, an unknown time behind")
    database.close()


def test_an_administrator_writes_to_no_mariadb_that_is_read_only(mariadb_standby: URL, tmp_path: Any) -> None:
    """Though the server would let it: the row would be missing on the primary."""
    url = mariadb_standby.set(database="queue")
    (tmp_path / "plan.json").write_text("{}")
    shell = Shell(url_text(url), tmp_path)
    execute(mariadb_standby, "SET GLOBAL read_only = 0")
    database = _empty_queue(mariadb_standby, url)
    scene = something_for_every_command(database)
    execute(mariadb_standby, "SET GLOBAL read_only = 1")
    before = rows(database, jobs), rows(database, failed)
    ended = {command: shell.run(*command.format(**scene).split()) for command in READ}
    assert {done.stderr for done in ended.values() if done.returncode not in {0, Exit.PARTLY}} == set()
    refused = {command: shell.run(*command.format(**scene).split()) for command in CHANGE}
    accepted = {command for command, done in refused.items() if done.returncode not in {2, 3, 5}}
    assert accepted <= {"init", "init --indexes"}  # nothing is missing: nothing is changed
    assert "takes no writes: the server is set read-only" in refused["retry {failed}"].stderr
    assert "name its primary" in refused["retry {failed}"].stderr
    opened = Database(url)
    for write in (opened.transact, opened.each_alone):
        with pytest.raises(AccessDeniedError, match="takes no writes"):
            write(lambda connection: connection.execute(jobs.delete()))
    with pytest.raises(AccessDeniedError, match="takes no writes"), opened.outside_transactions():
        pass
    opened.close()
    assert (rows(database, jobs), rows(database, failed)) == before
    database.close()


def _empty_queue(server: URL, url: URL) -> Database:
    execute(server, "DROP DATABASE IF EXISTS queue", "CREATE DATABASE queue")
    database = Database(url)
    initialize(database)
    return database


RUNS = {"Slave_IO_Running": "Yes", "Slave_SQL_Running": "Yes"}
STOPPED = {"Slave_IO_Running": "No", "Slave_SQL_Running": "No", "Seconds_Behind_Master": None}


@pytest.mark.parametrize(
    ("status", "read_only", "standby"),
    [
        (None, False, None),
        (None, True, Standby(None)),
        ({**RUNS, "Seconds_Behind_Master": 42}, True, Standby(42)),
        ({**RUNS, "Seconds_Behind_Master": 0}, True, Standby(0)),
        ({**RUNS, "Seconds_Behind_Master": 0}, False, None),  # one of a ring, which follows closely
        ({**RUNS, "Seconds_Behind_Master": LAGGING}, False, Standby(LAGGING)),
        (
            {"Replica_IO_Running": "Yes", "Replica_SQL_Running": "No", "Seconds_Behind_Source": None},
            False,
            Standby(None),
        ),
        (STOPPED, False, None),  # it was promoted
        (STOPPED, True, Standby(None)),
    ],
    ids=str,
)
def test_what_a_replicas_status_means(
    status: dict[str, Any] | None, read_only: object, standby: Standby | None
) -> None:
    assert judge_replica(status, read_only=bool(read_only)) == standby


# -- the name of a place


def test_a_place_names_the_database_and_whether_it_may_be_written_to(database: Database, queue_url: URL) -> None:
    name = queue_url.database if queue_url.get_backend_name() == "sqlite" else f"{queue_url.database}"
    assert str(database.place()).startswith(str(name))
    assert str(database.place()).endswith(" (read-write)")
    looking = Database(queue_url, read_only=True)
    assert str(looking.place()).endswith(" (read-only)")
    looking.close()


@pytest.mark.only_on("postgresql")
def test_a_role_that_may_only_read_is_read_only(database: Database, queue_url: URL) -> None:
    execute(queue_url, "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN")
    granted = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"
    execute(queue_url, granted)
    reader = Database(queue_url.set(username="reader", password="hunter2"))  # noqa: S106
    try:
        assert str(reader.place()) == f"{queue_url.database} (read-only)"
        assert str(database.place()) == f"{queue_url.database} (read-write)"
    finally:
        reader.close()
        execute(queue_url, "DROP OWNED BY reader", "DROP ROLE reader")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgres://u:hunter2@db1/q", "db1"),
        ("postgres://u@db1:5432/q", "db1"),
        ("postgres://u@db1:6432/q", "db1:6432"),
        ("postgres:///q?host=/run/postgresql", None),
        ("postgres:///q?host=db2", "db2"),
        ("mysql2://u@db3:3306/q", "db3"),
        ("sqlite:queue.sqlite3", None),
    ],
)
def test_the_host_of_a_url(url: str, host: str | None) -> None:
    assert host_of(parse_url(url)) == host


def test_a_place_says_what_is_unusual_only() -> None:
    assert str(Place("q", "db1", "public")) == "q on db1 (read-write)"
    assert str(Place("q", "db1", "jobs", "my_", writable=False)) == "q on db1, schema jobs, tables my_* (read-only)"
    lagging = Place("q", "db1", "public", writable=False, standby=Standby(42.4))
    assert str(lagging) == "q on db1 (standby, up to 42 s behind, read-only)"


def test_the_place_is_read_in_one_transaction(database: Database, queue_url: URL) -> None:
    with database.read() as connection:
        assert find_place(connection, queue_url, read_only=True).writable is False


# -- headings and prompts


def test_off_a_terminal_no_heading_is_printed(database: Database, shell: Shell) -> None:
    add_process(database)
    done = shell.run("processes", "list")
    assert done.stdout.startswith("process_id\t")
    assert done.stderr == ""


@pytest.mark.sqlite_only
def test_a_prompt_names_the_database(database: Database, shell: Shell) -> None:
    something_for_every_command(database)
    database.close()
    name = str(database.url.database).rpartition("/")[2]
    shown = terminal(shell, "discard", "--died", typed="n\n", width=200)
    assert f"{name} (read-write): discard 1 job? [y/N]" in shown
    assert shown.count(f"{name}\n") == 1  # the heading, once; that one may write there is left out
    looking = terminal(shell, "--read-only", "operations", "list", width=200)
    assert f"{name} (read-only)\n" in looking
    for command in ("queues pause default", "undo 2"):
        assert f"{name}\n" in terminal(shell, *command.split(), width=200)
    shown = terminal(shell, "operations", "show", "1", width=200)
    assert f"{name}\n" in shown
