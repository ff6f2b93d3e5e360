"""Jobs that the tests' workers run. Each tells the test what happens to it through files in the working directory."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from solidjq import job

JOURNAL = Path("journal")


def write(line: str) -> None:
    with JOURNAL.open("a") as journal:
        journal.write(line + "\n")


@job
def note(*args: Any, **kwargs: Any) -> None:
    write(f"{args} {kwargs}")


@job
def hold(name: str) -> None:
    """Run until the test says that it may end."""
    write(f"{name} runs in {os.getpid()}")
    while not Path(f"{name}.may-end").exists():
        time.sleep(0.01)
    write(f"{name} ended in {os.getpid()}")


@job
def hog(name: str) -> None:
    """Never let go of the interpreter by itself."""
    write(f"{name} runs in {os.getpid()}")
    while not os.path.exists(f"{name}.may-end"):  # noqa: PTH110  (the tighter the loop, the better the test)
        pass


@job
def fail(message: str) -> None:
    raise ValueError(message)


@job
def leave() -> None:
    sys.exit("a job cannot end the worker")


@job
def die(how: int) -> None:
    """End the process: by a signal, or with a status where ``how`` is negative or 0."""
    if how > 0:
        os.kill(os.getpid(), how)
        signal.pause()
    os._exit(-how)


@job(limit=1)
def alone(name: str) -> None:
    write(f"+{name}")
    time.sleep(0.02)
    write(f"-{name}")


@job
def spawn(name: str) -> int:
    """Enqueue another job, in the queue that this worker works on."""
    return note.enqueue(name)
