"""The worker: claims jobs for its free threads, runs them, and ends their claims."""

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import NoReturn

from sqlalchemy import Connection

from solidjq import endings, queue
from solidjq.concurrency import Limits
from solidjq.errors import ConflictError, DatabaseError, DatabaseUnreachableError, ProcessGoneError
from solidjq.failures import error_json
from solidjq.queue import Claim
from solidjq.runtime import registry
from solidjq.runtime.child import Child, Stop
from solidjq.runtime.performing import perform

log = logging.getLogger("solidjq")

MOST_ENDINGS = 500  # in one transaction
FLUSH_TIMEOUT = 2.0  # seconds that a leaving worker gives to the endings of jobs that are over


class Worker(Child):
    """``threads`` job threads, one thread that ends claims, one that beats; the main thread claims.

    Whatever endings came in while the last ones were committed are committed together. A job counts as ended only
    then: a crash before leaves it claimed, and its thread's slot is not filled again before.
    """

    @property
    def metadata(self) -> dict[str, object]:
        """Return what Solid Queue's own worker tells."""
        return {
            "polling_interval": self.config.worker_polling_interval,
            "queues": ",".join(self.config.queues),
            "thread_pool_size": self.config.threads,
        }

    def start(self) -> None:
        """Start the threads. All are daemons: a job that never returns must not keep the process alive."""
        self._limits: Limits = registry.limits()
        self._inbox: SimpleQueue[Claim] = SimpleQueue()
        self._ended: SimpleQueue[tuple[Claim, str | None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._in_hand: set[int] = set()  # claims whose end is not committed
        self._unwritten: set[int] = set()  # those of them whose job is over
        for number in range(self.config.threads):
            threading.Thread(target=self._work, name=f"job-{number}", daemon=True).start()
        threading.Thread(target=self._end, name="endings", daemon=True).start()

    def step(self) -> float:
        """Claim as many jobs as threads are free."""
        free = self.config.threads - len(self._in_hand)
        if not free:
            return self.config.heartbeat_interval  # an ending wakes us
        try:
            claims = self.database.transact(queue.claim, self.registration.id, self.config.queues, free)
        except ProcessGoneError:
            self.leave_pruned()
        with self._lock:
            self._in_hand.update(claim.id for claim in claims)
        for claim in claims:
            self._inbox.put(claim)
        return self.config.worker_polling_interval

    def drain(self) -> None:
        """Let running jobs finish within the shutdown timeout, unless it must be now."""
        deadline = time.monotonic() + self.config.shutdown_timeout
        while self._in_hand and self.stop_requested() < Stop.NOW and time.monotonic() < deadline:
            self.wakeup.wait_until(deadline)
        # What is over must not run again only because we were too quick to leave.
        deadline = time.monotonic() + FLUSH_TIMEOUT
        while self._unwritten and time.monotonic() < deadline:
            self.wakeup.wait_until(deadline)

    def _work(self) -> NoReturn:
        while True:
            claim = self._inbox.get()
            self.sampler.begin(claim.job_id, claim.class_name)
            error = perform(claim)
            self.sampler.end(claim.job_id)
            with self._lock:
                self._unwritten.add(claim.id)
            self._ended.put((claim, error))

    def _end(self) -> NoReturn:
        while True:
            batch = [self._ended.get()]
            try:
                while len(batch) < MOST_ENDINGS:
                    batch.append(self._ended.get_nowait())
            except Empty:
                pass
            self._commit(batch)
            ids = {claim.id for claim, _ in batch}
            with self._lock:
                self._in_hand -= ids
                self._unwritten -= ids
            self.wakeup.wake()

    def _commit(self, batch: list[tuple[Claim, str | None]]) -> None:
        """End these claims, however long the database is away."""
        delay = 0.1
        while True:
            try:
                self.database.transact(_end_claims, self.registration.id, batch, self._limits)
            except (DatabaseUnreachableError, ConflictError) as error:
                log.warning("%s: %d endings wait: %s", self.name, len(batch), error)
                time.sleep(delay)
                delay = min(delay * 2, 5.0)
            except DatabaseError as error:
                self._commit_one_by_one(batch, error)
                return
            else:
                return

    def _commit_one_by_one(self, batch: list[tuple[Claim, str | None]], reason: DatabaseError) -> None:
        """Find the one ending that the database does not take, and fail its job in words that it does take."""
        if len(batch) > 1:
            for ending in batch:
                self._commit([ending])
            return
        ((claim, _),) = batch
        log.error("%s: the end of job %d cannot be written: %s", self.name, claim.job_id, reason)
        plain = error_json("solidjq.errors.DatabaseError", "the job ended, but the database refused to record how")
        try:
            self.database.transact(_end_claims, self.registration.id, [(claim, plain)], self._limits)
        except DatabaseError as error:
            log.error("%s: job %d stays claimed: %s", self.name, claim.job_id, error)  # noqa: TRY400


def _end_claims(connection: Connection, process_id: int, batch: list[tuple[Claim, str | None]], limits: Limits) -> None:
    finished = [claim.id for claim, error in batch if error is None]
    failed = {claim.id: error for claim, error in batch if error is not None}
    if finished:
        endings.finish(connection, endings.held_by(process_id, finished), limits)
    if failed:
        endings.fail(connection, endings.held_by(process_id, failed), failed, limits)
