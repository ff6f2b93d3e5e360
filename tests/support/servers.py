"""Servers of the tests' own, in a folder of memory where the machine has one: nothing of theirs outlives the tests."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from support.waiting import PATIENCE, until

ROOM = 4 * 2**30  # bytes that the servers and files of a whole run may need
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


@cache
def memory_folder() -> str | None:
    """Return a folder in memory with enough room, in which programs may be run, or None.

    To make a database of a test takes a seventh of the time there that it takes on a disk.
    """
    shm = Path("/dev/shm")  # noqa: S108  (only names that tempfile makes are used in it)
    if not (shm.is_dir() and os.access(shm, os.W_OK)):
        return None
    state = os.statvfs(shm)
    runs = not state.f_flag & os.ST_NOEXEC
    return str(shm) if runs and state.f_bavail * state.f_frsize >= ROOM else None


@contextmanager
def server_folder(name: str) -> Iterator[str]:
    """A folder for a server.

    Not below pytest's own folder: each session that starts there closes it to other users, and a server that is started
    by root is another user.
    """
    prefix = f"solidjq-{name}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=memory_folder(), ignore_cleanup_errors=True) as folder:
        yield folder


@contextmanager
def connected(url: URL, **options: str) -> Iterator[Connection]:
    """Open the one connection of an engine."""
    patient = {"timeout": PATIENCE} if url.get_backend_name() == "sqlite" else {}  # while others write
    engine = create_engine(url, connect_args=patient, **options)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def execute(url: URL, *statements: str, **values: object) -> None:
    """Run statements as they stand, each a transaction of its own.

    A connection of ``Database`` would look for their tables, on PostgreSQL, in its own schema alone.
    """
    with connected(url, isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement), values)


def answers(url: URL) -> bool:
    try:
        execute(url, "SELECT 1")
    except DBAPIError:  # it is still starting
        return False
    return True


def missing_program(names: Sequence[str]) -> str | None:
    """Return the first of these programs that is not installed."""
    return next((name for name in names if shutil.which(name, path=PATH) is None), None)


def mariadb_programs() -> tuple[str, ...]:
    """Return the programs that ``mariadb`` starts: those of MariaDB, or the real MySQL that JQ_TEST_MYSQLD names."""
    mysqld = os.environ.get("JQ_TEST_MYSQLD")  # as ``make test-mysql`` does
    return ("mariadb-install-db", "mariadbd") if mysqld is None else (mysqld, mysqld)


def free_port() -> int:
    """Return a port for a server, not one of those that the system gives to clients before the server listens.

    Each test process chooses among a thousand of its own: what another one has chosen may not be listened on yet.
    """
    first = 20_000 + 1_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12)
    while True:
        port = random.SystemRandom().randrange(first, first + 1_000)  # hypothesis seeds the other one alike everywhere
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def run_program(program: Path, *arguments: str, user: str | None, folder: Path) -> None:
    """Run a program of a server's as a user in a folder, where its messages go to a file; the test fails if it does."""
    # To a file: a server that is started keeps what it inherits open.
    with (folder / f"{program.name}.log").open("w+") as log:
        done = subprocess.run(
            [program, *arguments],
            user=user,
            cwd=folder,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=PATIENCE,
        )
        log.seek(0)
        assert done.returncode == 0, log.read()


@contextmanager
def mariadb(*options: str, folder: str) -> Iterator[URL]:
    """Start a MariaDB or MySQL whose root has no password, and wait until it answers; it syncs nothing to the disk."""
    install, server = (shutil.which(name, path=PATH) for name in mariadb_programs())
    assert install is not None
    assert server is not None
    user = ["--user=root"] if os.geteuid() == 0 else []
    # A server that starts deletes the temporary tables in its tmpdir, those of a server that runs too.
    Path(folder, "temporary").mkdir()
    own_files = [f"--datadir={folder}/data", f"--tmpdir={folder}/temporary"]
    # Several servers at once may ask for more of the kernel's asynchronous input and output than it has.
    common = ["--no-defaults", *own_files, "--innodb-use-native-aio=OFF", *user]
    # MySQL starts with no other than its files were made with.
    common += [option for option in options if option.startswith("--lower-case-table-names")]
    silent: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    making = ["--auth-root-authentication-method=normal", "--skip-test-db"]
    own = []
    if install == server:  # MySQL
        users = Path(folder, "users.sql")
        users.write_text("CREATE USER root@'127.0.0.1';\nGRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n")
        making = ["--initialize-insecure", f"--init-file={users}"]
        own = ["--mysqlx=OFF", "--secure-file-priv=", "--skip-log-bin"]
    made = subprocess.run([install, *common, *making], check=False, timeout=PATIENCE, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    port = free_port()
    listening = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
    careless = ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF", "--skip-name-resolve"]
    process = subprocess.Popen([server, *common, *listening, *careless, *own, *options], **silent)
    url = URL.create("mysql+pymysql", "root", host="127.0.0.1", port=port)
    try:
        until(lambda: answers(url) or process.poll() is not None, "MariaDB answers")
        assert process.poll() is None, f"{server} ended at once"
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE)
