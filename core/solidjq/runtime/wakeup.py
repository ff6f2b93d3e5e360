"""A sleep that ends early: because of a signal, of another thread, or of the supervisor's end."""

import math
import os
import select
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any


class Wakeup:
    """``wait`` sleeps, but returns at once after a signal, after ``wake``, or when ``lifeline`` reaches end of file.

    Create it in the main thread. ``lifeline`` is a file descriptor whose other end the supervisor keeps open: once the
    supervisor has ended, even by SIGKILL, reading it returns end of file.
    """

    def __init__(self, lifeline: int | None = None) -> None:
        self._lifeline = lifeline
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self.signals: list[int] = []  # all that arrived, in order
        self.orphaned = False  # the lifeline reached end of file
        self.longest = math.inf  # seconds: no wait is longer
        self.turned_at = time.monotonic()  # when the program last came to wait, or went on
        self._before: dict[signal.Signals, Any] = {}  # the handlers that ``listen`` replaced
        self._descriptor_before = -1

    def listen(self, collected: Iterable[signal.Signals], *, waking: Iterable[signal.Signals] = ()) -> None:
        """Append the ``collected`` signals to ``signals``; the ``waking`` ones only end a ``wait``.

        SIGHUP stays ignored where it is: nohup started the program so that it outlives its terminal. A process that a
        job forks gets the handlers of before: it ends at a SIGTERM that is its own. ``restore`` gives them back.
        """
        self._descriptor_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in collected:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, lambda number, _frame: self.signals.append(number))
        for number in waking:
            self._before[number] = signal.signal(number, lambda _number, _frame: None)
        _reset_at_fork(self._before)

    def restore(self) -> None:
        """Put back the handlers that ``listen`` replaced. Call it in the main thread."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor_before)
        self._before.clear()

    def wake(self) -> None:
        """End the current ``wait``, or else the next one. Any thread may call it."""
        with suppress(BlockingIOError):  # the pipe is full: a wake-up is on its way
            os.write(self._write, b"\0")

    def wait(self, timeout: float) -> None:
        """Sleep up to ``timeout`` seconds, or as long as ``longest``."""
        self.turned_at = time.monotonic()
        watched = [self._read]
        if self._lifeline is not None and not self.orphaned:
            watched.append(self._lifeline)
        readable, _, _ = select.select(watched, [], [], max(0.0, min(timeout, self.longest)))
        self.turned_at = time.monotonic()
        if self._read in readable:
            while True:
                try:
                    os.read(self._read, 4096)
                except BlockingIOError:
                    break
        if self._lifeline in readable and not os.read(int(self._lifeline or 0), 4096):
            self.orphaned = True

    def wait_until(self, deadline: float) -> None:
        """Sleep until ``deadline`` on the monotonic clock, unless something ends the sleep early."""
        self.wait(deadline - time.monotonic())


def _reset_at_fork(handlers: Mapping[signal.Signals, Any]) -> None:
    """Make forked processes handle signals themselves, instead of writing them into this process's pipe.

    The signals are blocked meanwhile: one that arrived before the handlers are reset would be lost.
    """
    masks = threading.local()

    def block() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def reset() -> None:
        if handlers:  # they were not restored
            signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=reset)
