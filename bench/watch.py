"""One worker process and its drain, seen from outside in the same way for every queue.

The clock starts when the first job runs and stops when the database says that nothing is left, which is asked every
25 ms: the start of the interpreter and of the worker is not in it.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

import psutil

HERE = Path(__file__).parent
PACE = 0.025  # seconds
WARM_UP = 4.0  # seconds for a worker to have started and be idle
START = 60.0  # seconds after which a worker that ran nothing is given up
SLOWEST = 50  # jobs a second below which a drain is given up


class CrashedError(Exception):
    """A program of the bench did not do its work; the message is the last line it wrote."""


class Drain(NamedTuple):
    """How long it took, and the resident memory in MB of the process that ran the first job, then and at the end."""

    seconds: float
    memory_first: float
    memory_last: float


def last_line(output: str) -> str:
    """Return the line that tells of an error."""
    lines = output.strip().splitlines() or ["no message"]
    return lines[-1].strip()


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], marks: Path) -> Iterator[Callable[[], None]]:
    """Run a worker for as long as the block; yield what raises CrashedError if it ended by itself."""
    with tempfile.TemporaryFile("w+") as errors:
        worker = subprocess.Popen(  # noqa: S603  (the bench's own commands)
            command,
            env={**os.environ, "PYTHONPATH": str(HERE), **environment, "BENCH_MARKS": str(marks)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )

        def alive() -> None:
            if worker.poll() is not None:
                raise CrashedError(f"exit status {worker.returncode}: {_read(errors)}")

        try:
            yield alive
        finally:
            _stop(worker)


def drain(command: Sequence[str], environment: Mapping[str, str], settled: Callable[[], bool], count: int) -> Drain:
    """Run a worker until nothing is left of ``count`` jobs."""
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "first"
        with running(command, environment, marks) as alive:
            give_up = time.monotonic() + START + count / SLOWEST
            while not (marks.exists() and (mark := marks.read_text())):
                pause(alive, give_up)
            pid, start = mark.split()
            process = psutil.Process(int(pid))
            first = last = _megabytes(process)
            while not settled():
                last = _megabytes(process)
                pause(alive, give_up)
            return Drain(time.time() - float(start), first, last)


def latencies(
    command: Sequence[str], environment: Mapping[str, str], send: Callable[[], object], count: int
) -> list[float]:
    """Run an idle worker, let ``send`` enqueue ``count`` jobs one by one; return how many seconds each one waited."""
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "waits"
        with running(command, environment, marks) as alive:
            pause(alive, time.monotonic() + START, WARM_UP)
            send()
            give_up = time.monotonic() + START + count / SLOWEST
            while len(waits := marks.read_text().split() if marks.exists() else []) < count:
                pause(alive, give_up)
            return [float(wait) for wait in waits]


def pause(alive: Callable[[], None], give_up: float, seconds: float = PACE) -> None:
    """Wait a moment for a worker; raise CrashedError if it ended, or if it is too late."""
    alive()
    if time.monotonic() > give_up:
        raise CrashedError("not done within the deadline")
    time.sleep(seconds)


def _megabytes(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        raise CrashedError("the worker process ended") from None


def _read(errors: IO[str]) -> str:
    errors.seek(0)
    return last_line(errors.read())


def _stop(worker: subprocess.Popen[bytes]) -> None:
    """End the worker and all that it started, in a session of its own."""
    worker.terminate()
    with suppress(subprocess.TimeoutExpired):
        worker.wait(10)
    for process in session(worker.pid):
        process.kill()
    worker.wait()


def session(leader: int) -> list[psutil.Process]:
    """Return the processes of a session: a worker and all that it started."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                found.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return found
