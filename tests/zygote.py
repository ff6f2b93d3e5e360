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
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NoReturn

import solidjq_cli.__main__ as program

MOST = 2**20  # bytes of a request
# Python reads these when it starts, and then never again.
AT_START = ("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS", "LC_ALL", "LC_CTYPE", "LANG", "LANGUAGE", "NO_COLOR")


class Zygote:
    """The process, and how to ask it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="solidjq-zygote-", ignore_cleanup_errors=True)
        self._path = f"{self._folder.name}/socket"
        # Its end of this pipe tells it when the tests have ended, however they did.
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def run(
        self, arguments: list[str], stdin: str, env: dict[str, str], folder: Path, patience: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as subprocess.run would."""
        request = json.dumps({"arguments": arguments, "env": env, "folder": str(folder)}).encode()
        with contextlib.ExitStack() as stack:
            given, out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            given.write(stdin.encode())
            given.seek(0)
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(patience)
            connection.connect(self._path)
            socket.send_fds(connection, [len(request).to_bytes(4, "big")], [f.fileno() for f in (given, out, err)])
            connection.sendall(request)
            status = connection.recv(16)
            assert status, "the program ended without a status"
            for each in (out, err):
                each.seek(0)
            return subprocess.CompletedProcess(
                ["jq", *arguments], int(status), *(each.read().decode() for each in (out, err))
            )


def import_everything() -> None:
    """Import all that any command may, so that no fork of this process has to."""
    for package in ("solidjq", "solidjq.doctor", "solidjq_cli", "solidjq_cli.commands"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name not in {"__main__", "generate", "demo_jobs"}:  # the last registers jobs
                importlib.import_module(f"{package}.{module.name}")
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
    """Run the program in a child of our own, and send its exit status."""
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += connection.recv(MOST)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(json.loads(request), descriptors)
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
    code = 1
    try:
        code = int(program.main())
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001  (as the interpreter does)
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
