"""The jobs that are drained, and those that are killed."""

import time

import marks
from solidjq import job


@job(name="BenchJob")
def noop(sent: float) -> None:
    """Do nothing."""
    marks.note(sent)


@job(name="BenchHeldJob", retry="auto")
def held(number: float) -> None:
    """Sleep until it is killed; do nothing in the next run."""
    time.sleep(marks.hold(number))
