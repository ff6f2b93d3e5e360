"""Runs a command with a message on its standard input: one JSON object, one line."""

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from solidjq.errors import UsageError
from solidjq.watching.outcomes import DELIVERED, Outcome

TIMEOUT = 30.0
SECRETS = ("JQ_WEBHOOK_SECRET", "JQ_WEBHOOK")  # of the environment, which a command does not get


@dataclass(frozen=True)
class Program:
    """A command that is run once a message; no shell reads it, and nothing of a message is in its arguments."""

    line: str
    timeout: float = TIMEOUT
    attempts: int = 5

    def __post_init__(self) -> None:
        """Raise UsageError for a line that names no command."""
        if not self.words:
            raise UsageError("--exec: name a command")

    @cached_property
    def words(self) -> list[str]:
        """The command and its arguments. Raises UsageError for a quote that does not end."""
        try:
            return shlex.split(self.line)
        except ValueError as error:
            raise UsageError(f"--exec: {error}") from None

    def __str__(self) -> str:
        """Return the name of the command."""
        return f"--exec {self.words[0]}"

    @cached_property
    def key(self) -> str:
        """The name of its messages in the position."""
        return f"exec-{sha256(self.line.encode('utf-8', 'replace')).hexdigest()[:16]}"

    def deliver(self, message: dict[str, Any]) -> Outcome:
        """Run the command; after ``timeout`` seconds it is killed with all that it started. Raises nothing.

        What it prints is printed on stderr. What a command that ended left running in the background goes on.
        """
        environment = {key: value for key, value in os.environ.items() if key not in SECRETS}
        environment |= {f"JQ_{key.upper()}": str(message[key]).replace("\0", "") for key in ("id", "kind", "name")}
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            process = subprocess.Popen(  # noqa: S603  (the operator's own command line)
                self.words,
                stdin=subprocess.PIPE,
                stdout=sys.stderr.fileno(),
                env=environment,
                start_new_session=True,  # so that what it started can be killed as well
            )
        except (OSError, ValueError) as error:
            return Outcome(f"it cannot be started: {getattr(error, 'strerror', None) or error}", again=True)
        try:
            process.communicate(text.encode("utf-8", "replace"), self.timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            return Outcome(f"it did not end within {self.timeout:g} s, and was killed", again=True)
        except BaseException:  # the watch is interrupted, and would run the command again
            _kill(process)
            raise
        if process.returncode == 0:
            return DELIVERED
        how = f"with status {process.returncode}" if process.returncode > 0 else f"by signal {-process.returncode}"
        return Outcome(f"it ended {how}", again=True)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a command that has not ended, with its process group."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
