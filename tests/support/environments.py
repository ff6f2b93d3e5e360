"""Every command in turn on one queue, in which each finds something to do: how it ends, and whether it changes rows."""

from pathlib import Path
from typing import NamedTuple

import pytest
from compatibility import COMMANDS, Generation
from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables
from solidjq.database.setup import initialize
from solidjq_cli import session
from support.commands import run
from support.scenes import something_for_every_command
from support.servers import connected, execute

NAMED = "to see what it lacks: jq doctor tables"
WRITTEN = {
    "sqlite": {"id": "integer PRIMARY KEY", "time": "datetime(6)", "now": "'2026-01-01 00:00:00'", "on_processes": ""},
    "postgresql": {
        "id": "bigserial PRIMARY KEY",
        "time": "timestamp(6)",
        "now": "'2026-01-01 00:00:00'",
        "on_processes": "",
    },
    "mysql": {
        "id": "bigint NOT NULL AUTO_INCREMENT PRIMARY KEY",
        "time": "datetime(6)",
        "now": "'2026-01-01 00:00:00'",
        "on_processes": " ON solid_queue_processes",
    },
}


def make(url: URL, generation: Generation) -> dict[str, object]:
    """Make a queue of this generation, in which every command finds something to do; return what it is called by."""
    database = Database(url)
    initialize(database)
    names = something_for_every_command(database)
    database.close()
    words = WRITTEN[url.get_backend_name()]
    execute(url, *(statement.format(**words) for statement in generation.statements))
    return names


def contents(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table, as the database has it."""
    return {
        name: sorted((tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name}")), key=str)  # noqa: S608
        for name in inspect(connection).get_table_names()
    }


class Ended(NamedTuple):
    """How a command ended, and how it should have."""

    outcome: tuple[object, ...]
    expected: tuple[object, ...]


def run_every_command(
    url: URL,
    names: dict[str, object],
    generation: Generation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *options: str,
) -> list[Ended]:
    """Run the commands on the queue that the environment names; ``url`` is a direct way to the same one."""
    monkeypatch.setenv("JQ_PRUNE_FORCE", "1")
    monkeypatch.setenv("JQ_CONFIG", "own.toml")
    Path("own.toml").write_text('[default]\nretry = "auto"\n')
    ended = []
    with connected(url, isolation_level="AUTOCOMMIT") as own:
        before = contents(own)
        for tried in COMMANDS:
            if tried.after and tried.is_refused(generation):
                continue
            last = own.scalar(select(func.max(tables.operations.c.id)))
            code = run([*options, *tried.command.format(**names, last=last).split()])
            printed = capsys.readouterr()
            told = printed.err + printed.out * tried.command.startswith("check ")  # a plugin's answer is its output
            session.close()  # a program would have ended
            after = contents(own)
            exit_code, changes = tried.outcome(generation)
            refused = tried.is_refused(generation)
            ended.append(
                Ended(
                    (tried.command, code, after != before, NAMED in told, told if code != exit_code else ""),
                    (tried.command, int(exit_code), changes, refused, ""),
                )
            )
            before = after
    return ended
