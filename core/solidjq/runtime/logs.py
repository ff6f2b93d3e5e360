"""Log lines of the runtime: one event a line, on stderr."""

import logging
import time
from typing import Any

from solidjq.text import mask_secrets, printable


class SafeFormatter(logging.Formatter):
    """Writes one event a line: names from rows and errors cannot forge a line, act on a terminal or show a password."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """Return the line of a record, its message escaped and masked."""
        record.message = printable(mask_secrets(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        """Return a traceback, escaped and masked; it has lines of its own."""
        return printable(mask_secrets(super().formatException(ei)), keep="\n")


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
