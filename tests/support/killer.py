"""Start the program that kills itself at each of its statements in turn."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.paths import PROGRAMS
from support.program import Shell

KILLED = -signal.SIGKILL


@contextmanager
def killer(url: str, shell: Shell, command: tuple[str, ...]) -> Iterator[Callable[[str], int]]:
    """Start killer.py; give a function that runs the command once and returns its exit status."""
    program = subprocess.Popen(
        [sys.executable, str(PROGRAMS / "killer.py"), url, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=shell.env(url),
        cwd=shell.folder,
    )
    stdin, stdout = program.stdin, program.stdout
    assert stdin is not None
    assert stdout is not None

    def run(given: str) -> int:
        stdin.write(json.dumps(given) + "\n")
        stdin.flush()
        return int(stdout.readline())

    try:
        yield run
    finally:
        program.kill()
        program.communicate()
