"""Delivers the messages that a position holds: each target in a thread of its own, in order, with back-off.

At least once: a message leaves the position after it was delivered. A target that takes nothing holds up no other.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from solidjq.text import count_of
from solidjq.watching.outcomes import Outcome
from solidjq.watching.position import Position, Waiting
from solidjq.watching.position_file import PositionFile

MOST_WAITING = 500  # messages of a target that does not take them; beyond, the oldest are dropped
MOST_IN_A_BURST = 5_000  # of a target that has not refused the first of them: deaths come faster than commands run
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds between two attempts, doubled each time
ATTEMPTS_ONCE = 3  # within one run of jq watch --once
ENDING = 15.0  # seconds that a delivery under way may take when the watch is stopped

Say = Callable[[str], None]


class Target(Protocol):
    """Where messages are delivered to. ``str()`` names it without secrets."""

    @property
    def key(self) -> str:
        """The name of its messages in the position."""

    @property
    def attempts(self) -> int:
        """How many times a message is tried before it is dropped."""

    def deliver(self, message: dict[str, Any]) -> Outcome:
        """Try once to deliver a message; the outcome has the reason if it failed."""


class Deliveries:
    """The messages that are still to be delivered, and the threads that do it."""

    def __init__(self, targets: Sequence[Target], position: Position, file: PositionFile, say: Say) -> None:
        self._targets = targets
        self._position = position
        self._file = file
        self._say = say
        self._changed = threading.Condition(file.lock)
        self._stopping = False
        self.dropped = 0  # messages that were given up
        self._threads: list[threading.Thread] = []
        for target in targets:
            position.outbox.setdefault(target.key, [])
        for key in position.outbox.keys() - {target.key for target in targets}:
            del position.outbox[key]  # a target that is no longer named

    def add(self, message: dict[str, Any], targets: Sequence[Target]) -> None:
        """Add a message for these targets, which are among its own; the caller holds the file's lock, and saves it."""
        with self._changed:
            for target in targets:
                waiting = self._position.outbox[target.key]
                waiting.append(Waiting(message))
                most = MOST_WAITING if waiting[0].attempts else MOST_IN_A_BURST
                while len(waiting) > most:
                    dropped = waiting.pop(1)  # the first may be under way
                    self.dropped += 1
                    self._say(f"{target} is behind, and {most:,} messages wait: dropped {_named(dropped)}")
            self._changed.notify_all()

    def start(self) -> None:
        """Start the threads."""
        for target in self._targets:
            thread = threading.Thread(target=self._run, args=(target,), name=f"jq-{target.key}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Let the deliveries under way end, for up to ``ENDING`` seconds; what was not delivered is kept."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        until = time.monotonic() + ENDING
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def deliver_now(self, sleep: Callable[[float], None] = time.sleep) -> int:
        """Deliver what waits, in this thread, each message up to ``ATTEMPTS_ONCE`` times; return how many are left."""
        for target in self._targets:
            tried = 0
            while waiting := self._first(target):
                tried += 1
                pause = self._attempt(target, waiting)
                if self._first(target) is not waiting:
                    tried = 0
                elif tried >= ATTEMPTS_ONCE:
                    break
                else:
                    sleep(min(pause, FIRST_PAUSE * 2**tried))
        return sum(len(waiting) for waiting in self._position.outbox.values())

    def _run(self, target: Target) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._position.outbox[target.key])
                if self._stopping:
                    return
            waiting = self._first(target)
            if waiting is None:
                continue
            pause = self._attempt(target, waiting)
            if pause:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, pause)

    def _first(self, target: Target) -> Waiting | None:
        with self._changed:
            waiting = self._position.outbox[target.key]
            return waiting[0] if waiting else None

    def _attempt(self, target: Target, waiting: Waiting) -> float:
        """Try to deliver a message; return how many seconds to wait before the next attempt."""
        outcome = target.deliver(waiting.message)
        waiting.attempts += 1
        keep = outcome.again and waiting.attempts < target.attempts
        pause = 0.0
        if keep:
            pause = pause_after(waiting.attempts) if outcome.after is None else max(outcome.after, FIRST_PAUSE / 2)
        with self._changed:
            if not keep:
                self._position.outbox[target.key].remove(waiting)
            self._file.note(self._position, target.key, waiting, self._say, gone=not keep)
        if not outcome.delivered:
            self.dropped += not keep
            attempts = count_of(waiting.attempts, "attempt")
            what = f"tried again in {pause:.0f} s" if keep else f"given up after {attempts}"
            self._say(f"{target}: {outcome.words}; {_named(waiting)} is {what}")
        return pause


def pause_after(attempts: int, chance: Callable[[], float] = random.random) -> float:
    """Return the seconds between two attempts: doubled each time, at random between a half and all of it."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts - 1, 20))
    return longest * (0.5 + chance() / 2)


def _named(waiting: Waiting) -> str:
    return f"message {waiting.message.get('id')}"
