"""Starts ``jq`` by fork: a process that has imported everything, and for each request becomes the program.

    python zygote.py SOCKET

The tests run the program thousands of times, and an import of everything takes most of such a run. What a run does with
its arguments, environment, folder, streams and exit status is that of a fresh process.
"""

import contextlib
import contextvars
import ctypes
import gc
import importlib
import json
import math
import os
import pkgutil
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import compiled_statements
import nursery
import typer
import unhurried
from sqlalchemy import select as select_rows
from sqlalchemy.engine import make_url
from typer.core import TyperGroup

import solidjq_cli.__main__ as program
from solidjq import Database, registry
from solidjq.database import tables
from solidjq_cli.app import app

MOST = 2**20  # bytes of a request
LARGE = 2**21  # bytes of a large page
COLLAPSE = 25  # madvise(2), MADV_COLLAPSE, since Linux 6.1


def import_everything() -> None:
    """Import all that any command may, so that no fork of this process has to."""
    for package in ("solidjq", "solidjq_cli"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if module.name.rpartition(".")[2] not in {"__main__", "generate", "demo_jobs"}:  # the last registers jobs
                importlib.import_module(module.name)
    for module_name in ("rich.table", "rich.progress", "psycopg", "pymysql", "psutil", "yaml"):
        importlib.import_module(module_name)
    for dialect in ("sqlite", "postgresql", "mysql"):
        importlib.import_module(f"sqlalchemy.dialects.{dialect}")


def warm_up() -> None:
    """Do once what every command does first, and keep what comes of it: its options, and parts of statements."""
    sys.argv = [str(program.__file__)]  # the help has the program's name in it
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    for _command in root.commands.values():
        pass
    typer.main.get_command = lambda _: root
    with tempfile.NamedTemporaryFile(suffix=".sqlite3") as file:
        database = Database(make_url(f"sqlite:///{file.name}"))
        with database.write() as connection:
            for metadata in (tables.solid_queue, tables.jq):
                metadata.create_all(connection)
                for table in metadata.sorted_tables:
                    first = table.c[0]
                    connection.execute(select_rows(table).where(first == 0).order_by(first).limit(1)).all()
        database.close()
    gc.collect()
    gc.freeze()  # no fork looks at these objects again, to find that none of them is garbage
    use_large_pages()


def use_large_pages() -> None:
    """Move this process's memory into pages of 2 MB, where the kernel can.

    A fork copies the table of its parent's pages, and its end clears it: for 68 MB in pages of 4 KB, that is half of
    what a short command costs.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines():
        area, rights, _, _, _, *name = line.split()
        if rights == "rw-p" and name in ([], ["[heap]"]):  # not of a file
            first, last = (int(address, 16) for address in area.split("-"))
            for page in range(-(-first // LARGE) * LARGE, last - LARGE + 1, LARGE):
                madvise(page, LARGE, COLLAPSE)  # an older kernel refuses, and nothing is lost


class Zygote:
    """Becomes the program for whoever asks, and tells it the program's pid, and then its exit status."""

    def __init__(self, path: str) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen(64)
        self._running: dict[int, socket.socket] = {}
        self._doomed: dict[int, float] = {}  # when each is to be killed
        self._ended, write = os.pipe()
        os.set_blocking(write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def serve(self) -> NoReturn:
        """Do so until the tests have ended."""
        while True:
            wait = min(self._doomed.values(), default=math.inf) - time.monotonic()
            waits = None if wait == math.inf else max(0, wait)
            readable, _, _ = select.select([self._server, self._ended, 0], [], [], waits)
            if 0 in readable:
                os._exit(0)
            if self._server in readable:
                self._start(self._server.accept()[0])
            if self._ended in readable:
                os.read(self._ended, 4096)
                self._reap()
            for child in [child for child, then in self._doomed.items() if then <= time.monotonic()]:
                os.kill(child, signal.SIGKILL)  # it is not reaped yet, so no other process has its number
                del self._doomed[child]

    def _start(self, connection: socket.socket) -> None:
        received = _receive(connection)
        if received is None:
            connection.close()
            return
        request, descriptors = received
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for open_here in (self._server, *self._running.values()):
                open_here.close()
            os.close(self._ended)
            if request["stays"]:
                _stay(connection, request, descriptors)
            connection.close()
            _become(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._running[child] = connection
        if request["kill_after"] is not None:
            self._doomed[child] = time.monotonic() + request["kill_after"]
        if not request["stays"]:
            connection.sendall(f"{child}\n".encode())

    def _reap(self) -> None:
        while self._running:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            self._doomed.pop(child, None)
            with self._running.pop(child) as connection, contextlib.suppress(BrokenPipeError):  # nobody waits for it
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the next request and the three files of its streams; None if none comes any more."""
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    if not size:
        return None
    received = b""
    while len(received) < int.from_bytes(size, "big"):
        received += connection.recv(MOST)
    return json.loads(received), descriptors


def _stay(connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Run one command after the other, as ``jq top`` does, as long as each leaves this process as it was.

    One that does not is the last; then the zygote tells its status. So is one that leaves a connection open: its locks
    end with the process.
    """
    connection.sendall(f"{os.getpid()}\n".encode())  # the zygote might be later than the first status
    own_path = sys.path[1:]
    mask = os.umask(0)
    while True:
        sys.path[1:] = own_path
        os.umask(mask)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _set_up(request, descriptors)
        before = _traces()
        status, clean = contextvars.Context().run(_run, program.program)
        if not clean or _traces() != before:
            os._exit(status)
        connection.sendall(f"{status}\n".encode())
        received = _receive(connection)
        if received is None:
            os._exit(0)
        request, descriptors = received


def _traces() -> tuple[object, ...]:
    """Return what a command may leave behind: jobs, threads, open files, the prefix of the tables' names."""
    opened = len(os.listdir("/dev/fd"))  # noqa: PTH208
    return len(registry._jobs), threading.active_count(), opened, tables.prefix()


def _become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Run one command, and end as it does."""
    _set_up(request, descriptors)
    if "work" in request["arguments"] and sys.platform == "linux":
        nursery.fork_children(_end)
    _end(program.program)


def _set_up(request: dict[str, Any], descriptors: list[int]) -> None:
    """Give this process the arguments, environment, folder and streams of a request."""
    env = request["env"]
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    tempfile.tempdir = None  # it depends on the environment
    os.chdir(request["folder"])
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    # As python -m has it: the folder that it was started in comes first, instead of this file's.
    sys.path[0:1] = [os.getcwd(), *(part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part)]  # noqa: PTH109
    sys.argv = [str(program.__file__), *request["arguments"]]


def _end(run: Callable[[], object]) -> NoReturn:
    """Run a program to its end, and end as it does."""
    os._exit(_run(run)[0])


def _run(run: Callable[[], object]) -> tuple[int, bool]:
    """Run a program; return the status that it ends with, and whether all that it printed is written."""
    code: object = 1
    try:
        code = run()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  (as the interpreter does)
        traceback.print_exc()
    status = code if isinstance(code, int) else 0 if code is None else 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return status, False
    return status, True


if __name__ == "__main__":
    where = sys.argv[1]
    compiled_statements.share()
    unhurried.give_time()
    import_everything()
    warm_up()
    zygote = Zygote(where)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    zygote.serve()
