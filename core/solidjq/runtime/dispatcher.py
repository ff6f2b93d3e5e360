"""The dispatcher: makes scheduled jobs ready when they are due, and frees expired slots of concurrency limits."""

import time

from solidjq import registry
from solidjq.batching import in_batches
from solidjq.queue import dispatch, slot_maintenance
from solidjq.runtime.child import Child


class Dispatcher(Child):
    """One is enough for a queue; several do no harm."""

    _next_maintenance = 0.0

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
        moved = self.database.transact(dispatch.dispatch, size, registry.limits())
        return 0.0 if len(moved) == size else self.config.dispatcher_polling_interval

    def _maintain_concurrency(self, size: int) -> None:
        limits = registry.limits()
        self.database.transact(slot_maintenance.expire_semaphores)
        for key in self.database.transact(slot_maintenance.expired_keys, size):
            self.database.transact(slot_maintenance.unblock_one, key, limits)
        for keys in in_batches(self.database.transact(slot_maintenance.find_short, limits, size)):
            self.database.transact(slot_maintenance.refill, keys, limits)
