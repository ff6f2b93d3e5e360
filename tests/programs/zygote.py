"""Starts ``jq`` by fork: a process that has imported everything, and for each request becomes the program.

    python zygote.py SOCKET

The tests run the program thousands of times, and an import of everything takes most of such a run. What a run does with
its arguments, environment, folder, streams and exit status is that of a fresh process.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import nursery

import solidjq_cli.__main__ as program

MOST = 2**20  # bytes of a request


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


def serve(path: str) -> NoReturn:
    """Import everything, then become the program for whoever asks."""
    import_everything()
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        readable, _, _ = select.select([server, 0], [], [])
        if 0 in readable:
            os._exit(0)
        with server.accept()[0] as connection:
            if os.fork() == 0:  # this one waits for the program, so that several can run at once
                server.close()
                _answer(connection)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _answer(connection: socket.socket) -> NoReturn:
    """Run the program in a child of our own, and send its pid, and then its exit status."""
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    received = b""
    while len(received) < int.from_bytes(size, "big"):
        received += connection.recv(MOST)
    request = json.loads(received)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(request, descriptors)
    connection.sendall(f"{child}\n".encode())
    if request["kill_after"] is not None:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, request["kill_after"])
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # until it is reaped, no other process has its number
        signal.setitimer(signal.ITIMER_REAL, 0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(status).encode())
    os._exit(0)


def _become(request: dict[str, object], descriptors: list[int]) -> NoReturn:
    env = request["env"]
    assert isinstance(env, dict)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(str(request["folder"]))
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    # As python -m has it: the folder that it was started in comes first, instead of this file's.
    sys.path[0:1] = [os.getcwd(), *(part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part)]  # noqa: PTH109
    arguments = request["arguments"]
    assert isinstance(arguments, list)
    sys.argv = [str(program.__file__), *arguments]
    if "work" in arguments and sys.platform == "linux":
        nursery.fork_children(_end)
    _end(program.program)


def _end(run: Callable[[], object]) -> NoReturn:
    """Run a program to its end, and end with its status as the interpreter would."""
    code: object = 1
    try:
        code = run()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  (as the interpreter does)
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    serve(sys.argv[1])
