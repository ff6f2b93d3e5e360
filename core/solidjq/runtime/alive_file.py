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
from pathlib import Path
from typing import Self

from solidjq.errors import RefusedError, UsageError
from solidjq.runtime.wakeup import Wakeup

log = logging.getLogger("solidjq")

INTERVAL = 10.0  # seconds between two touches, at most
STUCK = 120.0  # seconds that a turn of the loop may take: several answers of a database that has stopped answering


class AliveFile:
    """Touches a file in a thread of its own, while ``wakeup`` shows that the loop of the main thread turns.

    The thread is needed because a turn may wait for the database; that the loop turns is looked at because a thread
    goes on when the main thread hangs. Raises UsageError for a file that cannot be made, or has contents; RefusedError
    for one that another process touches. Use it as a context manager; the file is removed at the end.
    """

    def __init__(self, path: Path, wakeup: Wakeup, interval: float = INTERVAL) -> None:
        self._path = path.absolute()
        self._wakeup = wakeup
        self._interval = min(interval, INTERVAL)
        self._ended = threading.Event()
        self._failed = False
        try:
            self._lock = self._open()
        except OSError as error:
            raise UsageError(f"--alive-file {path} cannot be made: {error.strerror}") from None
        wakeup.longest = self._interval
        self._thread = threading.Thread(target=self._run, name="alive-file", daemon=True)

    def __enter__(self) -> Self:
        self._touch()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)
        os.close(self._lock)

    def _open(self) -> int:
        """Create the file, unless it is there, and lock it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, 0o644)
        try:
            self._require_empty(os.fstat(descriptor))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RefusedError(f"--alive-file {self._path} is that of another jq work, which lives") from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _require_empty(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            raise UsageError(f"--alive-file {self._path} is not empty: name a file that is for this alone")

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            if time.monotonic() - self._wakeup.turned_at <= STUCK:
                self._touch()

    def _touch(self) -> None:
        try:
            try:
                os.utime(self._path, follow_symlinks=False)
            except FileNotFoundError:  # somebody cleaned up
                lock, self._lock = self._lock, self._open()
                os.close(lock)
        except (OSError, UsageError, RefusedError) as error:
            if not self._failed:
                log.warning("%s cannot be touched: %s", self._path, error)
            self._failed = True
        else:
            self._failed = False
