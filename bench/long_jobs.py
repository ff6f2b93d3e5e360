"""The job that runs beside a drain: it moves its cursor every few seconds until its worker stops."""

import os
import random
import time

from solidjq import current_job, job

INTERVAL = "BENCH_CHECKPOINT_INTERVAL"  # the environment's name for the seconds between two checkpoints
PACE = 5.0  # seconds from one move of the cursor to the next


@job(name="BenchLongJob")
def run_long() -> None:
    """Move the cursor; whether that is a checkpoint says the interval."""
    interval = float(os.environ[INTERVAL])
    with current_job().step("work", checkpoint_interval=interval) as step:
        time.sleep(random.uniform(0.0, PACE))  # noqa: S311  (so that not all save at one moment)
        number = 0
        while True:
            number += 1
            step.advance(to=number)
            time.sleep(PACE)
