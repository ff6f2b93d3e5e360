"""Reading files that others may have made: only kinds that end, and no more of them than is expected."""

import errno
import os
import select
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

PIPE_PATIENCE = 10.0  # seconds until the first byte of a pipe must be there


def open_file(path: Path, *, pipes: bool = False) -> BinaryIO:
    """Open a regular file for reading, with ``pipes`` also a pipe, such as the shell's ``<(command)``.

    A path that a person typed may be a pipe, one that was found may not. Raises OSError for anything else (a device
    never ends), and for a pipe into which nothing is written within ``PIPE_PATIENCE``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)  # opening a pipe would wait for its writer
    try:
        _check_kind(descriptor, pipes=pipes)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_kind(descriptor: int, *, pipes: bool) -> None:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not (pipes and stat.S_ISFIFO(mode)):
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "It is not a regular file")
    elif not select.select([descriptor], [], [], PIPE_PATIENCE)[0]:
        raise TimeoutError(errno.ETIMEDOUT, f"nothing was written into the pipe for {PIPE_PATIENCE:g} s")


def read_file(path: Path, most: int, *, pipes: bool = False) -> bytes:
    """Return the content of a file. Raises OSError as ``open_file`` does, and for more than ``most`` bytes."""
    with open_file(path, pipes=pipes) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"It is too big: more than {most:,} bytes")
    return content


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write beside a file, and rename: a reader sees the old content or the new one, never half of it.

    Raises OSError; then the file is as it was.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
