"""What the no-op job of every queue leaves behind: who ran the first one and when, or how long each one waited.

Where to, says BENCH_MARKS. A drain's jobs have the argument 0; those that measure latency have the time of their
enqueuing. Those that measure a recovery have a negative number: each sleeps in its first run until it is killed.
"""

import os
import time
from pathlib import Path

_path = Path(os.environ.get("BENCH_MARKS", os.devnull))
_ran = False
HELD = 3600.0  # seconds


def note(sent: float) -> None:
    """Be the job: do nothing more than that."""
    global _ran  # noqa: PLW0603  (once a process)
    if sent:
        with _path.open("a") as marks:
            marks.write(f"{time.time() - sent}\n")
    elif not _ran:
        _ran = True
        _path.write_text(f"{os.getpid()} {time.time()}")


def hold(number: float) -> float:
    """Leave this run's mark; return how many seconds it is to sleep: long in the first run of the job, else 0."""
    begun = {line.split()[1] for line in _path.read_text().splitlines()} if _path.exists() else set()
    with _path.open("a") as marks:
        marks.write(f"{os.getpid()} {number} {time.time()}\n")
    return 0.0 if str(number) in begun else HELD
