"""``password_command``: a program of the user's whose standard output is a database's password."""

import os
import select
import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, cast

from solidjq.errors import UsageError

PATIENCE = 60.0  # seconds: the program may ask its user for a passphrase
MOST_BYTES = 10_000


def parse_command(text: str) -> list[str] | None:
    """Return the program and its arguments as a shell splits them; None if there is none, or a quote is not closed."""
    try:
        return shlex.split(text) or None
    except ValueError:
        return None


def read_password(command: Sequence[str], place: str) -> str:
    """Run a command without a shell, and return the first line of its standard output.

    It gets no standard input, and writes its own messages to standard error: neither they nor its output are in the
    UsageError that is raised if it cannot be run, fails, takes longer than ``PATIENCE``, or prints no password.
    ``place`` names the setting there.
    """
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603  (the user's)
    except (OSError, ValueError) as error:
        raise UsageError(f"{place}: {command[0]!r} cannot be run: {getattr(error, 'strerror', error)}") from None
    with process:
        try:
            output = _output(process, time.monotonic() + PATIENCE)
        except TimeoutError:
            raise UsageError(f"{place}: {command[0]!r} took longer than {PATIENCE:g} s") from None
        finally:
            process.kill()  # which does nothing once it has ended
    if len(output) > MOST_BYTES:
        raise UsageError(f"{place}: {command[0]!r} printed more than {MOST_BYTES:,} bytes, which is no password")
    if process.returncode != 0:
        raise UsageError(f"{place}: {command[0]!r} failed with exit code {process.returncode}")
    try:
        password = output.partition(b"\n")[0].removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise UsageError(f"{place}: {command[0]!r} printed no UTF-8 text") from None
    if not password or "\0" in password:
        raise UsageError(f"{place}: {command[0]!r} printed no password in its first line")
    return password


def _output(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Return what a program prints until it ends, or the first bytes if they are too many. Raises TimeoutError."""
    pipe, output = cast("IO[bytes]", process.stdout), b""
    while len(output) <= MOST_BYTES:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        chunk = os.read(pipe.fileno(), MOST_BYTES)
        output += chunk
        if not chunk:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
                return output
            raise TimeoutError
    return output
