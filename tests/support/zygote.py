"""Ask programs/zygote.py, which has imported everything, to become the program."""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from support.paths import PROGRAMS

# Python reads these when it starts, and then never again.
AT_START = ("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS", "LC_ALL", "LC_CTYPE", "LANG", "LANGUAGE", "NO_COLOR")


class Zygote:
    """The process, and how to ask it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="solidjq-zygote-", ignore_cleanup_errors=True)
        self._path = f"{self._folder.name}/socket"
        # Its end of this pipe tells it when the tests have ended, however they did.
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "zygote.py"), self._path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def run(
        self,
        arguments: list[str],
        stdin: str,
        env: dict[str, str],
        folder: Path,
        patience: float,
        *,
        kill_after: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as subprocess.run would, or kill it after some seconds: then its status is -9."""
        with contextlib.ExitStack() as stack:
            given, out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            given.write(stdin.encode())
            given.seek(0)
            with self.start(
                arguments, [f.fileno() for f in (given, out, err)], env, folder, patience, kill_after
            ) as connection:
                status = connection.recv(16)
            assert status, "the program ended without a status"
            for each in (out, err):
                each.seek(0)
            return subprocess.CompletedProcess(
                ["jq", *arguments], int(status), *(each.read().decode() for each in (out, err))
            )

    def start(
        self,
        arguments: list[str],
        streams: list[int],
        env: dict[str, str],
        folder: Path,
        patience: float,
        kill_after: float | None = None,
    ) -> socket.socket:
        """Start a command on three open files; its exit status comes through the socket when it has ended."""
        request = json.dumps(
            {"arguments": arguments, "env": env, "folder": str(folder), "kill_after": kill_after}
        ).encode()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(patience)
        connection.connect(self._path)
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], streams)
        connection.sendall(request)
        return connection
