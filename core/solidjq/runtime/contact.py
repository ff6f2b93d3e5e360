"""Contact with the database: how long the last heartbeat is ago, and what a process may still do."""

import time
from enum import IntEnum

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Contact(IntEnum):
    """How sure a process may be that nobody takes it for dead."""

    SURE = 0
    DOUBTFUL = 1  # somebody may within one heartbeat's interval: begin no job
    LOST = 2  # somebody may at any moment, and may run its jobs elsewhere


def now() -> float:
    """Return seconds on a clock that nobody sets, and that goes on while the machine is suspended (on Linux)."""
    return time.clock_gettime(_CLOCK)


def judge(silence: float, *, interval: float, threshold: float) -> Contact:
    """Judge a process whose last heartbeat that succeeded was begun ``silence`` seconds ago.

    Heartbeats are sent every ``interval`` seconds; other programs take the process for dead after ``threshold``.
    """
    if silence >= threshold:
        return Contact.LOST
    return Contact.DOUBTFUL if silence >= threshold - interval else Contact.SURE
