"""The task of with_ox.py, in a module that a worker can import by its name."""

import time

from django.tasks import task

import marks


@task
def noop(sent: float) -> None:
    """Do nothing, or sleep until it is killed."""
    if sent < 0:
        time.sleep(marks.hold(sent))
    else:
        marks.note(sent)
