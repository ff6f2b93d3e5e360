"""Ask programs/killer.py, which has imported everything, to run commands that kill themselves at one of their steps."""

import itertools
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from support.paths import PROGRAMS
from support.program import Shell

KILLED = -signal.SIGKILL


class Killer:
    """The process, one for all tests of this test process."""

    def __init__(self) -> None:
        self.messages = tempfile.TemporaryFile("w+")  # noqa: SIM115  (not a pipe: nobody reads it while a command runs)
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "killer.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.messages,
            text=True,
        )

    def run(self, request: dict[str, object]) -> int:
        """Run a command, and return its exit status."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        status = stdout.readline()
        assert status, f"killer.py ended with {self._process.wait()}; its messages are printed below"
        return int(status)


@cache
def _the_killer() -> Killer:
    return Killer()


@contextmanager
def killer(
    url: str, shell: Shell, command: tuple[str, ...], *, steps: str = "moments", first: int = 1, stride: int = 1
) -> Iterator[Callable[..., int]]:
    """Give a function that runs the command once, and returns its exit status.

    It takes the command's standard input, and the step at which to kill it: by default a stride further each time. What
    counts as one, ``moments`` or ``commits``, is in killer.py.

    What the runs print on stderr is printed at the end, where pytest shows it if the test failed.
    """
    counted = itertools.count(first, stride)
    process = _the_killer()
    begin = process.messages.seek(0, 2)

    def run(given: str, step: int | None = None) -> int:
        where = {"url": url, "env": shell.env(url), "folder": str(shell.folder)}
        chosen = next(counted) if step is None else step
        return process.run({**where, "command": command, "steps": steps, "step": chosen, "stdin": given})

    try:
        yield run
    finally:
        process.messages.seek(begin)
        print(process.messages.read())  # noqa: T201
