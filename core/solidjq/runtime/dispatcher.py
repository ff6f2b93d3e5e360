"""The dispatcher: makes scheduled jobs ready when they are due, and frees expired slots of concurrency limits."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from solidjq import registry
from solidjq.batching import in_batches
from solidjq.database.faults import words_of
from solidjq.errors import DatabaseError, LockedError, concerns_all, concerns_rows
from solidjq.queue import dispatch, slot_maintenance
from solidjq.runtime.child import Child
from solidjq.text import first_of

log = logging.getLogger("solidjq")

PASSED_FOR = 60.0  # seconds until jobs that the database refused to dispatch are tried again
MOST_NAMED = 20  # job ids that one log line names
MOST_PASSED = 1000  # jobs; then the database refuses them all
LOOK_AGAIN = 2.0  # seconds; a Rails worker ends a job and gives its slot back in two transactions


class Dispatcher(Child):
    """One is enough for a queue; several do no harm."""

    LOCK_TIMEOUT = 2.0  # then what others have locked is left, and the rest goes on

    _next_maintenance = 0.0
    _refill_at = 0.0
    _short: frozenset[str] = frozenset()  # keys with too few free slots, which are looked at again

    _passed: frozenset[int] = frozenset()  # jobs that the database refused to dispatch
    _try_again_at = 0.0

    @property
    def metadata(self) -> dict[str, object]:
        """The settings that Solid Queue's own dispatcher registers, and the limits of the classes that it knows."""
        return {
            "polling_interval": self.config.dispatcher_polling_interval,
            "batch_size": self.config.dispatcher_batch_size,
            "concurrency_maintenance_interval": self.config.concurrency_maintenance_interval,
            "limits": {name: limit.to for name, limit in registry.limits().items()},  # for doctor: see slots.py
        }

    def step(self) -> float:
        """Dispatch one batch; return 0 if it was full, so that the next follows at once."""
        size = self.config.dispatcher_batch_size
        if time.monotonic() >= self._next_maintenance:
            self._next_maintenance = time.monotonic() + self.config.concurrency_maintenance_interval
            self._maintain_concurrency(size)
        if self._passed and time.monotonic() >= self._try_again_at:
            self._passed = frozenset()
        if self._short and time.monotonic() >= self._refill_at:
            self._refill(size)
        moved = self._dispatch(size)
        return 0.0 if len(moved) == size else self.config.dispatcher_polling_interval

    def _dispatch(self, size: int) -> list[int]:
        """Dispatch one batch. Jobs that the database refuses keep no other: they are passed over for a while.

        So are those whose concurrency key another transaction has locked for long.
        """
        limits = registry.limits()
        try:
            return self.database.transact(dispatch.dispatch, size, limits, passed=self._passed)
        except DatabaseError as error:
            waited = isinstance(error, LockedError)
            if not (waited or concerns_rows(error)) or len(self._passed) >= MOST_PASSED:
                raise
        moved, refused, locked = self.database.transact(
            dispatch.dispatch_but_refused, size, limits, passed=self._passed
        )
        for job_id, refusal in refused.items():
            log.error("%s: job %d stays scheduled: the database refused: %s", self.name, job_id, words_of(refusal))
        if waited and locked:
            ids = first_of(sorted(locked), MOST_NAMED)
            log.warning("%s: stay scheduled, since others have locked their concurrency keys: jobs %s", self.name, ids)
        if not self._passed:
            self._try_again_at = time.monotonic() + PASSED_FOR
        self._passed |= refused.keys() | (locked if waited else set())
        return moved

    def _maintain_concurrency(self, size: int) -> None:
        limits = registry.limits()
        with self._passing_over("expired semaphores"):
            for _ in slot_maintenance.expire_semaphores(self.database):
                pass
        for key in self.database.transact(slot_maintenance.expired_keys, size):
            with self._passing_over(key):
                self.database.transact(slot_maintenance.unblock_one, key, limits)
        if not self._short:
            self._short = frozenset(self.database.transact(slot_maintenance.find_short, limits, size))
            self._refill_at = time.monotonic() + LOOK_AGAIN

    def _refill(self, size: int) -> None:
        """Refill the keys that are still short: not those whose slot a Rails worker was about to give back."""
        limits = registry.limits()
        still = self._short.intersection(self.database.transact(slot_maintenance.find_short, limits, size))
        self._short = frozenset()
        for keys in in_batches(sorted(still)):
            try:
                self.database.transact(slot_maintenance.refill, keys, limits)
            except DatabaseError as error:
                if concerns_all(error):
                    raise
                for key in keys:
                    with self._passing_over(key):
                        self.database.transact(slot_maintenance.refill, [key], limits)

    @contextmanager
    def _passing_over(self, key: str) -> Iterator[None]:
        """Around the move of one key: if it is refused or locked, the others are moved all the same."""
        try:
            yield
        except DatabaseError as error:
            if concerns_all(error):
                raise
            log.error("%s: slots of %s are not maintained: %s", self.name, key, error)  # noqa: TRY400
