"""The job that is drained."""

from solidjq import job


@job(name="BenchJob")
def noop(_number: int) -> None:
    """Do nothing."""
