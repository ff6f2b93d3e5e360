"""Log lines of the runtime: one event a line, on stderr."""

import logging
import time


def set_up(level: int = logging.INFO) -> None:
    """Write the log to stderr, with times in UTC."""
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s pid=%(process)d %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logger = logging.getLogger("solidjq")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)
