"""The jobs that ``jq demo`` runs. Each writes down that it started and that it ended, so that the demo can count."""

from __future__ import annotations

import os
import time
from pathlib import Path

from solidjq import job

JOURNAL = "JQ_DEMO_JOURNAL"  # environment: the file they write to
QUEUE = "jq_demo"


@job(queue=QUEUE, priority=1)
def build_report(number: int) -> None:
    """Work long enough for the demo to kill the worker while this job runs."""
    _run("build_report", number, 1.5)


@job(queue=QUEUE)
def resize_image(number: int) -> None:
    """Work for a short time."""
    _run("resize_image", number, 0.2)


@job(queue=QUEUE, priority=-1)
def send_receipt(number: int) -> None:
    """Work hardly at all."""
    _run("send_receipt", number, 0.0)


def _run(name: str, number: int, seconds: float) -> None:
    _write(f"started {name} {number}\n")
    time.sleep(seconds)
    _write(f"ended {name} {number}\n")


def _write(line: str) -> None:
    # One write of a short line to a file opened for appending is not torn, whoever else writes.
    with Path(os.environ[JOURNAL]).open("a") as journal:
        journal.write(line)
