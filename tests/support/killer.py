"""Start the program that kills itself at each of its statements in turn."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.paths import PROGRAMS
from support.program import Shell

KILLED = -signal.SIGKILL


@contextmanager
def killer(url: str, shell: Shell, command: tuple[str, ...]) -> Iterator[Callable[[str], int]]:
    """Start killer.py; give a function that runs the command once and returns its exit status.

    What the runs print on stderr is printed at the end, where pytest shows it if the test failed.
    """
    stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  (not a pipe: nobody reads it while the command runs)
    program = subprocess.Popen(
        [sys.executable, str(PROGRAMS / "killer.py"), url, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
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
        status = stdout.readline()
        assert status, f"killer.py ended with {program.wait()}; its messages are printed below"
        return int(status)

    try:
        yield run
    finally:
        program.kill()
        program.communicate()
        with stderr:
            stderr.seek(0)
            print(stderr.read())  # noqa: T201
