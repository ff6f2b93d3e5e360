"""Wait for a database that is away when a process starts."""

import logging
from collections.abc import Callable
from typing import TypeVar

from solidjq.errors import DatabaseUnreachableError
from solidjq.runtime.backoff import jittered
from solidjq.runtime.wakeup import Wakeup

T = TypeVar("T")

log = logging.getLogger("solidjq")

FIRST_DELAY = 0.5  # seconds
LONGEST_DELAY = 8.0


def when_reachable(attempt: Callable[[], T], *, name: str, wakeup: Wakeup, stop: Callable[[], object]) -> T | None:
    """Call ``attempt`` until it reaches the database, and return its result; None if ``stop`` says so before.

    Any error but DatabaseUnreachableError is raised.
    """
    failures = 0
    while True:
        try:
            return attempt()
        except DatabaseUnreachableError as error:
            failures += 1
            delay = jittered(FIRST_DELAY, failures, LONGEST_DELAY)
            log.warning("%s: waits for the database: %s; trying again in %.1f s", name, error, delay)
        wakeup.wait(delay)
        if stop():
            return None
