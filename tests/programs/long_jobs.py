"""A long job whose worker the tests kill. It writes a line for each record into the working directory."""

import os
import signal
from pathlib import Path

from solidjq import current_job, job


@job
def import_poisoned(count: int, poison: int) -> None:
    """Import ``count`` records, one of which kills the process; a checkpoint would come after an hour."""

    def left(cursor: int | None) -> range:
        return range((cursor or 0) + 1, count + 1)

    for number in current_job().iterate("import", left, cursor=lambda number: number, checkpoint_interval=3600):
        if number == poison:
            os.kill(os.getpid(), signal.SIGKILL)
        with Path("records").open("a") as records:
            records.write(f"{number}\n")


@job
def import_records(count: int, stop_after: int) -> None:
    """Import ``count`` records; after some, wait until the file ``go-on`` is there."""

    def left(cursor: int | None) -> range:
        return range((cursor or 0) + 1, count + 1)

    for number in current_job().iterate("import", left, cursor=lambda number: number, checkpoint_interval=0):
        with Path("records").open("a") as records:
            records.write(f"{number}\n")
        while number == stop_after and not Path("go-on").exists():
            pass
