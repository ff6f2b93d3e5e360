"""The program on a pseudo-terminal, and what no terminal should be sent."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import unicodedata
from typing import Self

from support.program import Shell, zygote
from support.waiting import PATIENCE

UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def unprintable(text: str) -> set[str]:
    return {character for character in text if unicodedata.category(character) in UNPRINTABLE} - {"\n"}


def terminal(
    shell: Shell, *arguments: str, width: int = 80, typed: str = "", stdout: int | None = None, **environment: str
) -> str:
    """Run a command on a terminal of this width; return what it shows, without colours and the bold of its headings.

    With ``stdout`` its standard output goes to that open file instead.
    """
    plain = {"NO_COLOR": "1", **environment}  # an escape that is left is somebody else's
    shown = raw_terminal(shell, *arguments, width=width, typed=typed, stdout=stdout, **plain)
    return re.sub(r"\x1b\[(0|1|22)?m", "", shown)


def raw_terminal(
    shell: Shell, *arguments: str, width: int = 80, typed: str = "", stdout: int | None = None, **environment: str
) -> str:
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    deciding = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    kept = {key: value for key, value in shell.env().items() if key not in deciding}
    env = {**kept, "TERM": "xterm-256color", "PAGER": "cat", **environment}
    running = zygote().start(arguments, [theirs, theirs if stdout is None else stdout, theirs], env, shell.folder)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    running.wait()
    return shown.decode().replace("\r\n", "\n")


def below_heading(shown: str) -> str:
    """Return what a terminal shows below the line that names the database."""
    heading, _, rest = shown.partition("\n")
    assert re.search(r"\S( \(read-(write|only)\))?$", heading), shown
    return rest


class Session:
    """The program on a terminal of 80 by 24 that is its own, while it runs."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "solidjq_cli", *arguments],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**shell.env(), "TERM": "xterm-256color"},
            cwd=shell.folder,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._bytes = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._theirs)
        self._reader.join()
        os.close(self._ours)

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # the other side is closed
                return
            self._bytes += part

    @property
    def shown(self) -> str:
        """All that was written, with its escapes."""
        return self._bytes.decode(errors="replace")

    def describe(self) -> str:
        return f": {self.shown[-2000:]!r}"

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Wait until it has ended; return its exit code."""
        return self._process.wait(timeout=PATIENCE)

    @property
    def echoes(self) -> bool:
        """Whether the terminal is as a shell wants it: it echoes, and waits for whole lines."""
        flags = termios.tcgetattr(self._theirs)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)
