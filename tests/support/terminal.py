"""The program on a pseudo-terminal, and what no terminal should be sent."""

import fcntl
import os
import pty
import re
import struct
import termios
import unicodedata

from support.program import Shell, zygote

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
