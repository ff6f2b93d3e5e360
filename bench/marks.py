"""What the no-op job of every queue leaves behind: who ran the first one and when, or how long each one waited.

Where to, says BENCH_MARKS. A drain's jobs have the argument 0; those that measure latency have the time of their
enqueuing.
"""

import os
import time
from pathlib import Path

_path = Path(os.environ.get("BENCH_MARKS", os.devnull))
_ran = False


def note(sent: float) -> None:
    """Be the job: do nothing more than that."""
    global _ran  # noqa: PLW0603  (once a process)
    if sent:
        with _path.open("a") as marks:
            marks.write(f"{time.time() - sent}\n")
    elif not _ran:
        _ran = True
        _path.write_text(f"{os.getpid()} {time.time()}")
