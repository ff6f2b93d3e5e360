"""Files that others may have made are read if they are of a kind that ends; files of ours are written whole or not."""

import errno
import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

NOT_REGULAR = "It is not a regular file"
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
            raise OSError(errno.EINVAL, NOT_REGULAR)
    elif not select.select([descriptor], [], [], PIPE_PATIENCE)[0]:
        raise TimeoutError(errno.ETIMEDOUT, f"nothing was written into the pipe for {PIPE_PATIENCE:g} s")


def read_file(path: Path, most: int, *, pipes: bool = False) -> bytes:
    """Return the content of a file. Raises OSError as ``open_file`` does, and for more than ``most`` bytes."""
    with open_file(path, pipes=pipes) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"It is too big: more than {most:,} bytes")
    return content


@contextmanager
def replaced(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Yield a file beside ``path`` that takes its place at the end: a reader sees the old content or the new, no half.

    It is on the disk when the block has ended: a power failure later leaves it.
    ``mode`` are its rights; None: those of any new file, by the umask. Raises OSError, then nothing was changed; also
    where there is a link, since whoever may write the folder would choose the file that is lost, and for a device, a
    pipe or a folder: what root renames to /dev/null is /dev/null from then on.
    """
    _require_replaceable(path)
    beside = path.with_name(f"{_beside(path)}{token_hex(8)}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())  # a name that reached the disk before its content would be an empty file
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    with suppress(OSError):  # a folder that may be written and not read, a file system without it
        _sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove what writers of this file left beside it when they were killed; call it where nobody else can write it."""
    for beside in path.parent.glob(f"{_beside(path)}*.tmp"):
        with suppress(OSError):
            beside.unlink()


def _beside(path: Path) -> str:
    return f".jq-{sha256(os.fsencode(path.name)).hexdigest()[:12]}-"  # short, however long the name is


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_replaceable(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):  # links as well: that of /dev/stdout may lead to a file
        raise OSError(errno.EINVAL, NOT_REGULAR)
