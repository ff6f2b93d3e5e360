"""Jobs that the tests' workers run. Each tells the test what happens to it through files in the working directory."""

import asyncio
import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from solidjq import Stopping, current_job, job
from solidjq.errors import DatabaseUnreachableError

JOURNAL = Path("journal")


def write(line: str) -> None:
    with JOURNAL.open("a") as journal:
        journal.write(line + "\n")


@job
def note(*args: Any, **kwargs: Any) -> None:
    write(f"{args} {kwargs}")


@job
def note_collector() -> None:
    """Say whether garbage is collected, and whether the collector leaves what was imported alone."""
    write(f"collects: {gc.isenabled()}, apart: {gc.get_freeze_count() > 10_000}")


@job
def note_slowly(*args: Any) -> None:
    time.sleep(0.02)
    write(f"{args} {{}}")


@job
def hold(name: str, *_: Any) -> None:
    """Run until the test says that it may end."""
    write(f"{name} runs in {os.getpid()}")
    while not Path(f"{name}.may-end").exists():
        time.sleep(0.01)
    write(f"{name} ended in {os.getpid()}")


@job
def hold_until_told(name: str) -> None:
    """Run until its worker wants it to stop, then say whether it is still this worker's."""
    write(f"{name} runs in {os.getpid()}")
    while not current_job().should_stop():
        time.sleep(0.01)
    try:
        mine = str(current_job().still_mine())
    except DatabaseUnreachableError:
        mine = "unknown"
    write(f"{name} was told to stop, still mine: {mine}")
    raise Stopping


@job
def leave_behind() -> None:
    """Start a process whose parent ends before it does, and write its pid."""
    left = subprocess.run(["sh", "-c", "sleep 0.1 >&- & echo $!"], capture_output=True, text=True, check=True)
    write(f"left {left.stdout.strip()}")


def ask() -> None:
    """Ask whether the job is still its worker's, in a process that it forked."""
    sys.exit(3 if current_job().still_mine() else 4)


@job
def fork(name: str, how: str) -> None:
    """Start a process and write its pid: one that ``asks``, or sleeps: ``terminate`` it, or let it outlive this job."""
    current_job().still_mine()
    target = (ask, ()) if how == "ask" else (time.sleep, (3600,))
    child = multiprocessing.get_context("fork").Process(target=target[0], args=target[1])
    child.start()
    write(f"{name} runs in {child.pid}")
    if how == "terminate":
        child.terminate()
    child.join()
    write(f"{name} ended with {child.exitcode}, still mine: {current_job().still_mine()}")


@job
async def stop_async() -> None:
    """Ask the current job on the event loop."""
    write(f"job {current_job().id}")
    raise Stopping


@job
async def hold_async(name: str) -> None:
    """Do the same on the event loop."""
    write(f"{name} runs in {os.getpid()} {threading.get_ident()}")
    while not Path(f"{name}.may-end").exists():  # noqa: ASYNC110, ASYNC240  (only a file reaches another process)
        await asyncio.sleep(0.01)
    write(f"{name} ended in {os.getpid()}")


@job
async def fail_async(how: str) -> None:
    await asyncio.sleep(0)
    if how == "exit":
        sys.exit("a job cannot end the event loop")
    raise ValueError(how)


@job
def hog(name: str) -> None:
    """Never let go of the interpreter by itself."""
    write(f"{name} runs in {os.getpid()}")
    while not os.path.exists(f"{name}.may-end"):  # noqa: PTH110  (the tighter the loop, the better the test)
        pass


@job
def fail(message: str) -> None:
    raise ValueError(message)


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise SystemExit("nor can an error's words")


@job
def fail_unreadably() -> None:
    raise UnreadableError


@job
def leave() -> None:
    sys.exit("a job cannot end the worker")


@job
def die(how: int) -> None:
    """End the process: by a signal, or with a status where ``how`` is negative or 0."""
    if how > 0:
        signal.raise_signal(how)  # to this thread, as a crash is
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


@job
def grow(megabytes: int) -> None:
    """Take memory, one megabyte after the other, and keep it."""
    kept = []
    for _ in range(megabytes):
        kept.append(bytearray(b"x" * 2**20))
        time.sleep(0.001)


@job
def exceed() -> None:
    """Ask for more address space than the process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**31, hard))
    try:
        bytearray(2**32)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
