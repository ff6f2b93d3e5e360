"""The job that is drained."""

import marks
from solidjq import job


@job(name="BenchJob")
def noop(sent: float) -> None:
    """Do nothing."""
    marks.note(sent)
