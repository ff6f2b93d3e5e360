"""Logging of the runtime: one line an event on stderr."""

import logging
import time


def set_up(level: int = logging.INFO) -> None:
    """Write to stderr, times in UTC."""
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
