"""Kill -9 between any two statements of any command: nothing is lost, nothing doubled, and it can be run again."""

from pathlib import Path

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import setup
from solidjq.database import tables as database_tables
from solidjq.database.urls import url_text
from support.databases import DATABASES
from support.killable import CASES, check, held
from support.killer import KILLED, killer
from support.program import Shell
from support.queue import state_of_each
from support.servers import connected
from support.snapshots import snapshot
from support.waiting import until


@pytest.mark.parametrize("name", CASES)
def test_killed_between_any_two_statements(database: Database, shell: Shell, kind: str, name: str) -> None:
    case = CASES[name]
    # The longer commands have many steps: together the databases see each of them.
    short = name in {"enqueue", "claim", "deregister", "dispatch", "pause"}
    first, stride = (1, 1) if short else (DATABASES.index(kind) + 1, len(DATABASES))
    killed = 0
    case.prepare(database)
    prepare_again = snapshot(database)
    with killer(shell.url, shell, case.command, first=first, stride=stride) as run:
        code = KILLED
        while code == KILLED:
            prepare_again()
            code = run(case.stdin(database))
            found = state_of_each(database)  # one state each, whenever it was killed
            if name == "discarding":
                assert len(found) in {0, 1, 3, 5}
            else:
                assert len(found) in ({0, 3} if name == "enqueue" else {sum(case.expected.values())})
            if code == KILLED:
                killed += 1
                # A server may notice late that the other side is dead; its locks hold until then.
                until(lambda: (case.again(database), held(database) == case.expected)[1], "the next run completes it")
            check(database, case)
    assert code == 0
    assert killed >= 4


def test_an_init_killed_anywhere_is_completed_by_the_next(kind: str, empty_url: URL, tmp_path: Path) -> None:
    url = url_text(empty_url)
    # Each statement is a step, and the tables are made anew for each.
    stride = {"mariadb": 4, "postgresql": 3}.get(kind, 2)
    database = Database(empty_url)
    everything = {
        table.name for metadata in (database_tables.solid_queue, database_tables.jq) for table in metadata.sorted_tables
    }
    killed = 0
    with killer(url, Shell(url, tmp_path), ("init",), stride=stride) as run:
        code = KILLED
        while code == KILLED:
            database.transact(database_tables.jq.drop_all)
            database.transact(database_tables.solid_queue.drop_all)
            code = run("")
            if code == KILLED:
                killed += 1
                setup.initialize(database)
            with connected(empty_url) as connection:
                assert set(inspect(connection).get_table_names()) - {"sqlite_sequence"} == everything
                assert connection.scalars(select(database_tables.schema_migrations.c.version)).all() == [
                    migration.version for migration in setup.MIGRATIONS
                ]
    database.close()
    assert code == 0
    assert killed >= 10
