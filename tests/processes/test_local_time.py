"""Times in another zone than UTC: the server's, the columns', or Rails' own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from solidjq import Database
from solidjq.database import tables
from solidjq.processes import heartbeat, local_time, prune_guard, pruning
from support.doctor import findings
from support.processes import add_process, silence
from support.program import Bare, Shell
from support.queue import rows
from support.servers import execute

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
THRESHOLD = timedelta(minutes=5)


def beats(*minutes: float) -> list[datetime]:
    return [NOW - timedelta(minutes=number) for number in minutes]


@pytest.mark.parametrize(
    ("silent", "words"),
    [
        ((300.2, 300.9), "5 h behind UTC"),
        ((300.2, 300.9, 417), "5 h behind UTC"),  # one of them is dead
        ((-119.5, -120), "2 h ahead of UTC"),
        ((-330, -329.1), "5 h 30 min ahead of UTC"),
        ((15.1, 15.2), "15 min behind UTC"),
        ((0.2, 0.9), None),
        ((300.2, 300.9, 0.5), None),  # somebody beats in UTC
        ((300.2,), None),  # one alone may have died then
        ((300.2, 360.2), None),
        ((302, 303), None),
        ((900.1, 900.1), None),  # no zone is that far
        ((), None),
    ],
)
def test_the_zone_of_heartbeats(silent: tuple[float, ...], words: str | None) -> None:
    offset = local_time.find_offset([*beats(*silent), None], NOW, THRESHOLD)
    assert (None if offset is None else local_time.words(offset)) == words


@pytest.mark.parametrize("hours", [5, -2])
def test_a_fleet_that_writes_local_time_is_not_pruned(database: Database, hours: int) -> None:
    for number in range(3):
        silence(database, add_process(database, f"worker-{number}"), hours * 3600 + 20 * number)
    with database.read() as connection:
        doubts = prune_guard.find_doubts(connection, 300)
        assert doubts.dead == frozenset()
        assert "default_timezone = :local" in str(doubts.refusal)
        assert prune_guard.find_doubts(connection, 300, force=True).dead or hours < 0
    assert "local time" in findings(database, "clock-skew")[0].what


def test_beside_a_worker_of_ours_a_local_fleet_is_looked_at_twice(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours writes UTC, and works while Rails' processes seem silent for hours."""
    monkeypatch.setattr(prune_guard, "up_since", lambda _: None)  # the tests' servers came up a moment ago
    add_process(database, "ours")
    theirs = [add_process(database, f"worker-{number}") for number in range(2)]
    for process in theirs:
        silence(database, process, 5 * 3600)
    execute(database.url, "UPDATE solid_queue_processes SET created_at = last_heartbeat_at")
    with database.read() as connection:
        doubts = prune_guard.find_doubts(connection, 300)
        assert (doubts.dead, doubts.unsure) == (frozenset(), frozenset(theirs))
    silence(database, theirs[0], 5 * 3600 - 30)
    with database.read() as connection:
        assert prune_guard.find_doubts(connection, 300, before=doubts).refusal


@pytest.mark.sqlite_only
def test_the_setting_of_the_application_is_read(shell: Shell, tmp_path: Path, database: Database) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "application.rb").write_text("config.active_record.default_timezone = :local\n")
    entry = f"production:\n  adapter: sqlite3\n  database: {database.url.database}\n"
    (tmp_path / "config" / "database.yml").write_text(entry)
    silence(database, add_process(database), 1000)
    without = Bare(shell.url, shell.folder, {"RAILS_ENV": "production", "JQ_PRUNE_FORCE": "0"})
    refused = without.run("--rails", str(tmp_path), "prune")
    assert refused.returncode == 5
    assert "config/application.rb:1 lets Rails write local time" in refused.stderr
    assert len(rows(database, tables.processes)) == 1
    assert without.run("--rails", str(tmp_path), "prune", "--force").returncode == 0
    assert rows(database, tables.processes) == []


@pytest.mark.only_on("postgresql", "mariadb")
def test_columns_with_a_zone_and_a_server_far_from_utc(kind: str, own: Database) -> None:
    """PostgreSQL's timestamptz and MySQL's TIMESTAMP are read and compared in the session's zone."""
    typed = {
        (table.name, column.name): column.nullable
        for table in tables.solid_queue.sorted_tables
        for column in table.columns
        if column.name.endswith("_at")
    }
    if kind == "postgresql":
        execute(own.url, f"ALTER DATABASE {own.url.database} SET timezone = 'America/St_Johns'")
        changes = [f"ALTER TABLE {table} ALTER {column} TYPE timestamptz" for table, column in typed]
    else:
        changes = [
            f"ALTER TABLE {table} MODIFY {column} timestamp(6) {'NULL' if nullable else 'NOT NULL DEFAULT NOW(6)'}"
            for (table, column), nullable in typed.items()
        ]
    execute(own.url, *changes)
    database = Database(own.url)
    alive, dead = add_process(database, "alive"), add_process(database, "dead")
    silence(database, dead, 3700)
    assert [process.process_id for process in pruning.prune(database, 300)] == [dead]
    with database.read() as connection:
        (process,) = heartbeat.list_processes(connection)
        now = connection.scalar(text("SELECT " + ("CURRENT_TIMESTAMP(6)" if kind == "mariadb" else "now()::timestamp")))
    assert process.id == alive
    assert process.is_alive(300)
    assert abs(database.now() - now.replace(tzinfo=UTC)) < timedelta(minutes=1)
    database.close()
