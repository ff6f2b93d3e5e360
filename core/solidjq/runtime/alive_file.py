"""The file of ``--alive-file``: touched as long as the supervisor's loop turns, whether or not the database answers.

A liveness probe reads when it was touched. It must not ask the database: if that hiccups, the probes of all hosts would
fail at once, and every worker would be restarted in the middle of its jobs.
"""

import fcntl
import logging
import os
import stat
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from solidjq.errors import RefusedError, UsageError
from solidjq.ownership import user_name
from solidjq.runtime.wakeup import Wakeup

log = logging.getLogger("solidjq")

INTERVAL = 10.0  # seconds between two touches, at most
STUCK = 120.0  # seconds that a turn of the loop may take: several answers of a database that has stopped answering


class AliveFile:
    """Touches a file in a thread of its own, while ``wakeup`` shows that the loop of the main thread turns.

    The thread is needed because a turn may wait for the database; that the loop turns is looked at because a thread
    goes on when the main thread hangs. Raises UsageError for a file that cannot be made, has contents or belongs to
    another user; RefusedError for one that another process touches. Use it as a context manager; the file is
    removed at the end.
    """

    def __init__(self, path: Path, wakeup: Wakeup, interval: float = INTERVAL) -> None:
        self._path = path.absolute()
        self._wakeup = wakeup
        self._interval = min(interval, INTERVAL)
        self._ended = threading.Event()
        self._failed = False
        with ExitStack() as opened:
            try:
                # Held open: whoever puts a link in the folder's place later does not choose where a file is deleted.
                self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
                opened.callback(os.close, self._folder)
                self._file = self._open()
            except OSError as error:
                raise UsageError(f"--alive-file {path} cannot be made: {error.strerror}") from None
            opened.pop_all()
        wakeup.longest = self._interval
        self._thread = threading.Thread(target=self._run, name="alive-file", daemon=True)

    def __enter__(self) -> Self:
        self._touch()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            if self._is_there():
                os.unlink(self._path.name, dir_fd=self._folder)
        os.close(self._file)
        os.close(self._folder)

    def _open(self) -> int:
        """Create the file, unless it is there, and lock it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        try:
            descriptor, made = os.open(self._path.name, flags | os.O_EXCL, 0o644, dir_fd=self._folder), True
        except FileExistsError:
            descriptor, made = os.open(self._path.name, flags, 0o644, dir_fd=self._folder), False
        try:
            self._require_own(os.fstat(descriptor), made=made)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RefusedError(f"--alive-file {self._path} is that of another jq work, which lives") from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _require_own(self, found: os.stat_result, *, made: bool) -> None:
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            raise UsageError(f"--alive-file {self._path} is not empty: name a file that is for this alone")
        if not made and found.st_uid != os.geteuid():  # who could touch it, so that a dead worker looked alive
            raise UsageError(
                f"--alive-file {self._path} belongs to {user_name(found.st_uid)}: remove it, or name another"
            )

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            if time.monotonic() - self._wakeup.turned_at <= STUCK:
                self._touch()

    def _touch(self) -> None:
        try:
            if not self._is_there():  # somebody cleaned up
                file, self._file = self._file, self._open()
                os.close(file)
            os.utime(self._file)
        except (OSError, UsageError, RefusedError) as error:
            if not self._failed:
                log.warning("%s cannot be touched: %s", self._path, error)
            self._failed = True
        else:
            self._failed = False

    def _is_there(self) -> bool:
        """Whether the name still leads to the file that is touched."""
        try:
            found = os.stat(self._path.name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._file))
