"""Ask programs/zygote.py, which has imported everything, to become the program."""

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

from support.paths import PROGRAMS
from support.waiting import PATIENCE

CHANGES = {"work", "demo", "--import"}  # words of commands that leave their process another than it was
# Python reads these when it starts, and then never again.
AT_START = ("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS", "LC_ALL", "LC_CTYPE", "LANG", "LANGUAGE", "NO_COLOR")


class Running:
    """A program that the zygote became; of subprocess.Popen, what the tests use."""

    def __init__(
        self,
        arguments: Sequence[str],
        connection: socket.socket,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        self.args = ["jq", *arguments]
        self.stdout, self.stderr = stdout, stderr
        self.returncode: int | None = None
        self.stays = False
        self._connection = connection
        self._answers = connection.makefile("rb", buffering=0)  # what a buffer has already read, select does not see
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            answer = self._answers.readline()
            self.returncode = int(answer)
            self.stays = answer.endswith(b"\n")
            if not self.stays:
                self.leave()
        return self.returncode

    def again(self, request: bytes, streams: Sequence[int]) -> None:
        """Let a program that stays run another command."""
        self.returncode = None
        _send(self._connection, request, streams)

    def leave(self) -> None:
        """Let a program that stays end."""
        self._answers.close()
        self._connection.close()

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """Return what is left of its output, once it has ended and nobody else can write there."""
        read: dict[IO[str], str] = {}
        streams = [stream for stream in (self.stdout, self.stderr) if stream is not None and not stream.closed]
        readers = [
            threading.Thread(target=lambda each: read.update({each: each.read()}), args=[stream], daemon=True)
            for stream in streams
        ]
        for reader in readers:
            reader.start()
        deadline = time.monotonic() + timeout
        for reader in readers:
            reader.join(max(0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(max(0, deadline - time.monotonic()))
        for stream in streams:
            stream.close()
        out, err = (read.get(stream, "") for stream in (self.stdout, self.stderr))
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


def _request(
    arguments: Sequence[str],
    env: dict[str, str],
    folder: Path,
    kill_after: float | None = None,
    *,
    stays: bool = True,
) -> bytes:
    assert folder.is_absolute()  # of the process that runs it, "." is the folder of an earlier test
    named = {"arguments": [*arguments], "env": env, "folder": str(folder), "kill_after": kill_after, "stays": stays}
    return json.dumps(named).encode()


def _send(connection: socket.socket, request: bytes, streams: Sequence[int]) -> None:
    socket.send_fds(connection, [len(request).to_bytes(4, "big")], streams)
    connection.sendall(request)


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
        self._stays: Running | None = None  # the process of the last command, which can run the next one

    def command(self) -> str:
        """Return a line of a shell that becomes the program, with the words that follow it."""
        return shlex.join([sys.executable, "-I", "-S", str(PROGRAMS / "ask_zygote.py"), self._path])

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
            streams = [f.fileno() for f in (given, out, err)]
            if kill_after is None and not CHANGES.intersection(arguments) and "PYTHONPATH" not in env:
                status = self._run_beside(arguments, streams, env, folder, patience)
            else:
                status = self.start(arguments, streams, env, folder, kill_after).wait(patience)
            for each in (out, err):
                each.seek(0)
            printed = (each.read().decode() for each in (out, err))
            return subprocess.CompletedProcess(["jq", *arguments], status, *printed)

    def _run_beside(
        self, arguments: Sequence[str], streams: Sequence[int], env: dict[str, str], folder: Path, patience: float
    ) -> int:
        """Run a command in the process that ran the last one, if it stayed; return its status.

        A fork pays for each page of memory that it touches and for each statement that it compiles, the second command
        of a process for few.
        """
        stays, self._stays = self._stays, None  # another thread may run one meanwhile
        if stays is None:
            stays = self.start(arguments, streams, env, folder, stays=True)
        else:
            stays.again(_request(arguments, env, folder), streams)
        status = stays.wait(patience)
        if stays.stays:
            other, self._stays = self._stays, stays
            if other is not None:
                other.leave()
        return status

    def start(
        self,
        arguments: Sequence[str],
        streams: Sequence[int],
        env: dict[str, str],
        folder: Path,
        kill_after: float | None = None,
        *,
        stays: bool = False,
    ) -> Running:
        """Start a command on three open files, or kill it after some seconds; ``stays``: others may follow it."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        _send(connection, _request(arguments, env, folder, kill_after, stays=stays), streams)
        return Running(arguments, connection)

    def start_piped(self, arguments: Sequence[str], env: dict[str, str], folder: Path) -> Running:
        """Start a command on no input, and on pipes that ``stdout`` and ``stderr`` read, as subprocess.Popen does."""
        out, theirs_out = os.pipe()
        err, theirs_err = os.pipe()
        with Path(os.devnull).open("rb") as nothing:
            running = self.start(arguments, [nothing.fileno(), theirs_out, theirs_err], env, folder)
        os.close(theirs_out)
        os.close(theirs_err)
        running.stdout, running.stderr = os.fdopen(out), os.fdopen(err)
        return running
