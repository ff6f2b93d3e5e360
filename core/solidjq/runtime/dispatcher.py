"""The dispatcher: makes scheduled jobs ready when they are due, and frees expired slots of concurrency limits."""

import time

from solidjq import registry
from solidjq.batching import in_batches
from solidjq.queue import dispatch, slot_maintenance
from solidjq.runtime.child import Child

LOOK_AGAIN = 2.0  # seconds; a Rails worker ends a job and gives its slot back in two transactions


class Dispatcher(Child):
    """One is enough for a queue; several do no harm."""

    _next_maintenance = 0.0
    _refill_at = 0.0
    _short: frozenset[str] = frozenset()  # keys with too few free slots, which are looked at again

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
        if self._short and time.monotonic() >= self._refill_at:
            self._refill(size)
        moved = self.database.transact(dispatch.dispatch, size, registry.limits())
        return 0.0 if len(moved) == size else self.config.dispatcher_polling_interval

    def _maintain_concurrency(self, size: int) -> None:
        limits = registry.limits()
        self.database.transact(slot_maintenance.expire_semaphores)
        for key in self.database.transact(slot_maintenance.expired_keys, size):
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
            self.database.transact(slot_maintenance.refill, keys, limits)
