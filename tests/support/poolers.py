"""PgBouncer in front of the tests' PostgreSQL, in each of its modes."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from support.servers import free_port
from support.standbys import POSTGRESQL_USER
from support.waiting import PATIENCE, until

NO_POOLER = "pgbouncer is not on the PATH"
Pooled = Callable[..., URL]


@pytest.fixture
def pooled(postgresql_server: URL) -> Iterator[Pooled]:
    """Return what starts a pooler with these settings and returns a database's URL through it."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip(NO_POOLER)
    user = POSTGRESQL_USER if os.geteuid() == 0 else None  # pgbouncer never runs as root
    with ExitStack() as stack:

        def start(url: URL, *, users: str = "", **settings: str | int) -> URL:
            port = free_port()
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="solidjq-pooler-"))
            Path(folder).chmod(0o755)
            written = {
                "listen_addr": "127.0.0.1",
                "listen_port": port,
                "unix_socket_dir": "",
                "auth_type": "any",
                "default_pool_size": 3,
                "query_wait_timeout": PATIENCE,
                **settings,
            }
            if users:
                Path(folder, "users").write_text(f"{users}\n")
                written["auth_file"] = f"{folder}/users"
            lines = ["[databases]", f"* = host={postgresql_server.query['host']} user=postgres", "[pgbouncer]"]
            file = Path(folder, "pgbouncer.ini")
            file.write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in written.items())]))
            process = subprocess.Popen([program, "-q", file], user=user, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, PATIENCE)
            stack.callback(process.kill)
            through = URL.create("postgresql+psycopg", "postgres", host="127.0.0.1", port=port, database=url.database)
            until(lambda: _listens(port), "the pooler listens")
            return through

        yield start


def unprepared() -> dict[str, int]:
    """Return the setting by which a pooler keeps no prepared statements for its clients; before 1.21 none does."""
    said = subprocess.run(["pgbouncer", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"(\d+)\.(\d+)", said)
    return {"max_prepared_statements": 0} if version and (int(version[1]), int(version[2])) >= (1, 21) else {}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
