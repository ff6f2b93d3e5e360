"""A server that is restarted or crashes within an undo: each batch is taken back whole or not at all, and said so."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from sqlalchemy import select

from solidjq import Database
from solidjq.database.setup import initialize
from solidjq.database.tables import failed, failures, jobs, operations
from solidjq.database.urls import url_text
from solidjq.ledger.operations import Operation
from solidjq.queue.states import State
from support.deaths import ALL, die
from support.locks import sessions
from support.program import Shell
from support.queue import add_jobs, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs
from support.servers import connected, missing_program
from support.standbys import NO_SECOND_SERVER
from support.waiting import until

ADMINISTRATORS = {"postgresql": "postgres", "mariadb": "root"}  # who may see what waits for a lock
COUNT = 1_200  # a batch, and a second one


@pytest.fixture
def server(kind: str) -> Iterator[servers.Database]:
    if kind == "mariadb" and missing_program(servers.MARIADB) is not None:
        pytest.skip(NO_SECOND_SERVER)
    with tempfile.TemporaryDirectory(prefix="solidjq-restarts-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the server of a test run by root is another user
        started = servers.KINDS[kind](Path(folder) / "server")
        yield started
        started.end()


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("how", ["restart", "crash"])
def test_an_undo_goes_on_after_its_server_came_back(server: servers.Database, how: str, tmp_path: Path) -> None:
    database, shell = Database(server.url), Shell(url_text(server.url), tmp_path)
    administrator = Database(server.url.set(username=ADMINISTRATORS[server.kind]))
    initialize(database)
    ids = add_jobs(database, *plain_jobs(COUNT))
    die(database)
    before = rows(database, failed)
    retry_jobs(database, selection=ALL, operation=Operation("retry"))
    with connected(server.url) as holder:
        holder.execute(select(jobs.c.id).where(jobs.c.id == ids[-1]).with_for_update())
        run = shell.start("undo", "1")
        until(lambda: sessions(administrator), "the second batch waits for the lock")
        for idle in (database, administrator):
            idle.close()
        getattr(server, how)()
        holder.invalidate()
    _, said = run.communicate()
    assert run.returncode == 3, said
    # If the server is not back yet when the command asks how far it came, it says what it has counted.
    assert re.search(r"before that, it took back 1,000 jobs (or more )?under operation 2; to go on", said), said
    assert Counter(state_of_each(database).values()) == {State.FAILED: 1000, State.READY: COUNT - 1000}
    assert {row["id"]: row["jobs"] for row in rows(database, operations)} == {1: COUNT, 2: 1000}
    again = shell.run("undo", "1")
    assert (again.returncode, again.stderr) == (0, f"jq: took back {COUNT - 1000} jobs of operation 1\n")
    assert rows(database, failed) == before
    last = rows(database, operations)[-1]["id"]  # not always 3: after a crash, PostgreSQL leaves out some ids
    assert Counter(row["restored_by"] for row in rows(database, failures)) == {2: 1000, last: COUNT - 1000}
    database.close()
