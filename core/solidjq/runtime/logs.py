"""Log lines of the runtime: one event a line, on stderr."""

import logging
import time
from typing import Any

from solidjq.text import mask_secrets, printable

FIRST_REPEAT, LONGEST_REPEAT = 60.0, 3600.0  # seconds between two log lines with the same warning


class SafeFormatter(logging.Formatter):
    """Writes one event a line: names from rows and errors cannot forge a line, act on a terminal or show a password."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """Return the line of a record, its message escaped and masked."""
        record.message = printable(mask_secrets(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        """Return a traceback, escaped and masked; it has lines of its own."""
        return printable(mask_secrets(super().formatException(ei)), keep="\n")


class Repeats:
    """Decides which of many warnings about one thing are logged: the first, and each that has other words.

    The same words are logged again after a minute, and then after twice as long each time, an hour at most. After a
    minute without any warning, the next one is logged.
    """

    def __init__(self) -> None:
        self._words: str | None = None
        self._last = self._next = self._pause = 0.0

    def is_due(self, words: str, now: float) -> bool:
        """Whether a warning is to be logged ``now``, by the monotonic clock."""
        over = now - self._last >= FIRST_REPEAT
        self._last = now
        if over or words != self._words:
            self._words, self._pause = words, FIRST_REPEAT
        elif now < self._next:
            return False
        else:
            self._pause = min(2 * self._pause, LONGEST_REPEAT)
        self._next = now + self._pause
        return True

    def end(self) -> None:
        """Note that what the warnings were about is over: the next one is logged."""
        self._words = None


def set_up(level: int = logging.INFO) -> None:
    """Write the log to stderr, with times in UTC."""
    formatter = SafeFormatter("%(asctime)s.%(msecs)03dZ %(levelname)s pid=%(process)d %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logger = logging.getLogger("solidjq")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)
