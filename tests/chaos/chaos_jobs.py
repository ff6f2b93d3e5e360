"""The jobs of a run. Each has a number, and writes into the history when it begins and when it ends."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from history import VARIABLE, History

from solidjq import job

LIMIT = 2  # of the limited jobs of one key
NEVER = 86400.0  # seconds: no slot comes free by expiring, so one that is lost is found
_histories: dict[str, History] = {}


def _history() -> History:
    path = os.environ[VARIABLE]
    if path not in _histories:
        _histories[path] = History(Path(path))
    return _histories[path]


@contextmanager
def _running(number: int, key: str | None = None) -> Iterator[None]:
    history = _history()
    more = {} if key is None else {"key": key}
    history.add("invoke", "run", job=number, process=os.getpid(), **more)
    try:
        yield
    except Exception:
        history.add("fail", "run", job=number, process=os.getpid(), **more)
        raise
    history.add("ok", "run", job=number, process=os.getpid(), **more)


@job
def quick(number: int) -> None:
    with _running(number):
        pass


@job
def slow(number: int, seconds: float) -> None:
    with _running(number):
        time.sleep(seconds)


@job(limit=LIMIT, limit_by=lambda _, key: key, limit_duration=NEVER)
def limited(number: int, key: str) -> None:
    with _running(number, key):
        time.sleep(0.03)


@job
def broken(number: int) -> None:
    with _running(number):
        raise ValueError(number)


@job
def poison(number: int) -> None:
    """Kill the worker."""
    with _running(number):
        os.kill(os.getpid(), signal.SIGKILL)
