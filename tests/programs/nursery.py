"""Starts the children of a supervisor by fork, as zygote.py starts the supervisor: a child's imports cost most.

A process with threads cannot be forked safely, and the supervisor has threads. So a helper, forked from it before it
begins, forks the children; the kernel gives them to the supervisor, as children of its own. Linux only.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, NoReturn

from solidjq.runtime import __main__ as program
from solidjq.runtime import children

SUBREAPER = 36  # prctl(2), PR_SET_CHILD_SUBREAPER
MOST = 2**20  # bytes of a request
MOST_DESCRIPTORS = 8
FREE = 200  # descriptors from here on are nobody's

End = Callable[[Callable[[], object]], NoReturn]


def fork_children(end: End) -> None:
    """Let the supervisor that this process becomes start its children by fork; ``end`` runs a program to its end."""
    here, there = socket.socketpair()
    if os.fork() == 0:
        here.close()
        _serve(there, end)
    there.close()

    def start(_: Sequence[str], **settings: Any) -> Child:
        return Child(here, **settings)

    children.subprocess = SimpleNamespace(Popen=start, PIPE=subprocess.PIPE)  # type: ignore[assignment]


class Child:
    """A child of the supervisor; of subprocess.Popen, what it uses."""

    def __init__(
        self,
        helper: socket.socket,
        *,
        stdin: int,
        bufsize: int,
        process_group: int,
        pass_fds: Sequence[int],
        env: Mapping[str, str],
    ) -> None:
        assert (stdin, bufsize, process_group) == (subprocess.PIPE, 0, 0)
        theirs, ours = os.pipe()
        request = json.dumps({"env": {**env}, "pass_fds": [*pass_fds]}).encode()
        _adopt(1)
        try:
            socket.send_fds(helper, [len(request).to_bytes(4, "big")], [theirs, *pass_fds])
            helper.sendall(request)
            self.pid = int.from_bytes(helper.recv(4), "big")
        finally:
            _adopt(0)
            os.close(theirs)
        if self.pid == 0:  # nor did the helper answer
            raise ChildProcessError("the child could not be forked")
        self.stdin = os.fdopen(ours, "wb", buffering=0)
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _adopt(adopts: int) -> None:
    """Set whether (1 or 0) a process below this one whose parent ends becomes a child of this one."""
    assert ctypes.CDLL(None).prctl(SUBREAPER, adopts, 0, 0, 0) == 0


def _serve(connection: socket.socket, end: End) -> NoReturn:
    """Fork a child for each request, until the supervisor ends, perhaps by a SIGKILL in the middle of a request."""
    while request := _request(connection):
        received, descriptors = request
        told, tell = os.pipe()
        between = os.fork()
        if between == 0:  # it ends at once, so that the child becomes the supervisor's
            child = os.fork()
            if child == 0:
                _become(json.loads(received), descriptors, end)
            os.setpgid(child, child)
            os.write(tell, child.to_bytes(4, "big"))
            os._exit(0)
        os.waitpid(between, 0)
        os.close(tell)
        with suppress(ConnectionError):
            connection.sendall(os.read(told, 4) or bytes(4))
        for descriptor in (told, *descriptors):
            os.close(descriptor)
    os._exit(0)


def _request(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """Wait for a request and its descriptors; return None if the supervisor has ended."""
    received = b""
    with suppress(ConnectionError):
        size, descriptors, _, _ = socket.recv_fds(connection, 4, MOST_DESCRIPTORS)
        while size and len(received) < int.from_bytes(size, "big"):
            part = connection.recv(MOST)
            if not part:
                return None
            received += part
        return (received, descriptors) if size else None
    return None


def _become(request: Mapping[str, Any], descriptors: Sequence[int], end: End) -> NoReturn:
    """Be what ``python -P -m solidjq.runtime`` is, with its input and these files open, and no others."""
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, FREE) for descriptor in descriptors]
    os.closerange(3, FREE)
    for copy, wanted in zip(copies, [0, *request["pass_fds"]], strict=True):
        os.dup2(copy, wanted)  # inheritable, as they are in a program that is started with them
    os.closerange(FREE, max(copies) + 1)
    del sys.path[0]  # the folder that the supervisor was started in
    sys.argv = [str(program.__file__)]
    end(program.main)
