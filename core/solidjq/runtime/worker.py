"""The worker: claims jobs for its free threads, runs them, and ends their claims."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NoReturn

from sqlalchemy import Connection

from solidjq import registry
from solidjq.database import notices
from solidjq.errors import ConflictError, DatabaseError, DatabaseUnreachableError, ProcessGoneError, SolidJQError
from solidjq.queue import claim as queue_claim
from solidjq.queue import endings
from solidjq.queue.claim import Claim
from solidjq.queue.concurrency import Limits
from solidjq.rails.error_text import error_json
from solidjq.runtime.child import Child, Stop
from solidjq.runtime.config import Config
from solidjq.runtime.hands import Hands
from solidjq.runtime.last_words import shown_as, thread_name
from solidjq.runtime.performing import perform

log = logging.getLogger("solidjq")

MOST_ENDINGS = 500  # in one transaction
FLUSH_TIMEOUT = 2.0  # seconds that a stopping worker takes to commit the endings of jobs that are done
LEAST_INTERVAL = 0.01  # seconds between two claims because of notifications, however many arrive
LISTEN_AGAIN = 5.0  # seconds from a broken connection to the next attempt to listen
RETRY_INTERVAL = 0.2  # seconds between attempts to commit endings while it stops

Ending = tuple[Claim, str | None]  # a claim whose job is done, and the job's error


class Worker(Child):
    """Runs jobs in ``threads`` job threads; the main thread claims jobs and ends their claims.

    Both happen in one transaction: it ends the claims of all jobs that finished during the transaction before, and
    claims as many new ones. A job has ended only with that commit; a crash before it leaves the job claimed, and its
    place stays taken until then. With ``prefetch`` a worker holds that many claims more than it has threads.
    """

    @property
    def metadata(self) -> dict[str, object]:
        """The settings that Solid Queue's own worker registers, and those of ours that are not their default.

        ``except`` names the queues that ``queues`` would take and this worker leaves out.
        """
        settings: dict[str, object] = {
            "polling_interval": self.config.worker_polling_interval,
            "queues": ",".join(self.config.queues),
            "thread_pool_size": self.config.threads,
        }
        own = {"except": ",".join(self.config.excepted_queues), "prefetch": self.config.prefetch}
        return settings | {name: value for name, value in own.items() if value}

    def start(self) -> None:
        """Start the threads, all of them daemons: a job that never returns must not keep the process alive."""
        self._limits: Limits = registry.limits()
        self._places = self.config.threads + self.config.prefetch
        self._hands = Hands(self._places, self._child_config.hands)
        self._inbox: SimpleQueue[Claim] = SimpleQueue()
        self._ended: deque[Ending] = deque()
        self._sleeping = False
        self._in_doubt = False  # a claim may have been committed although its answer was lost
        self._notified = False  # that jobs are ready
        self._notified_claim_at = -math.inf  # when the last claim because of a notification was
        for number in range(self.config.threads):
            name = thread_name(number)
            threading.Thread(target=shown_as(name, self._work), args=[number], name=name, daemon=True).start()
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def step(self) -> float:
        """End the claims of jobs that are done, and claim a job for each free place."""
        self._sleeping = False
        while self._ended and not self.config.prefetch and not self._inbox.empty():
            time.sleep(0)  # let the job threads run: short jobs then end together, in one transaction
        done = min(len(self._ended), MOST_ENDINGS)
        free = self._places - len(self._hands) + done
        # Prefetched claims are refilled by the half: one by one would be a transaction for each job.
        wanted = free if free > self.config.prefetch // 2 or self._inbox.empty() else 0
        if not done and self._notified and (early := self._notified_claim_at + LEAST_INTERVAL - time.monotonic()) > 0:
            return self._pause(early)
        if self._notified:
            self._notified, self._notified_claim_at = False, time.monotonic()
        if wanted or done:
            self._exchange(done, wanted)
        return self._pause(self.config.worker_polling_interval)

    def drain(self) -> None:
        """Release claims whose jobs have not begun; wait for running jobs until the shutdown timeout or Stop.NOW."""
        waiting: list[Claim] = []
        with suppress(Empty):
            while True:
                waiting.append(self._inbox.get_nowait())
        deadline = time.monotonic() + self.config.shutdown_timeout
        while len(self._hands) and self.stop_requested() < Stop.NOW and time.monotonic() < deadline:
            waiting = self._end_or_wait(waiting, deadline)
        # A job that is done must not run again only because its ending was not committed.
        deadline = time.monotonic() + FLUSH_TIMEOUT
        while self._ended and time.monotonic() < deadline:
            waiting = self._end_or_wait(waiting, deadline)

    def _end_or_wait(self, waiting: list[Claim], deadline: float) -> list[Claim]:
        """End the jobs that are done and release ``waiting``, or sleep until one is done; return what is still held."""
        self._sleeping = False
        if not self._ended and not waiting:
            self.wakeup.wait(self._pause(deadline - time.monotonic()))
            return []
        try:
            self._exchange(min(len(self._ended), MOST_ENDINGS), released=waiting)
        except SolidJQError as error:
            log.warning("%s: %s", self.name, error)
            self.wakeup.wait(RETRY_INTERVAL)
            return waiting
        return []

    def _pause(self, seconds: float) -> float:
        """Return how long to sleep; from this call on, the end of a job interrupts the sleep."""
        self._sleeping = True
        return 0.0 if self._ended else seconds

    def _work(self, number: int) -> NoReturn:
        while True:
            claim = self._inbox.get()
            self._hands.begin(claim.id, number)
            self.sampler.begin(claim.job_id, claim.class_name)
            error = perform(claim)
            self.sampler.end(claim.job_id)
            self._hands.end(claim.id)
            self._ended.append((claim, error))
            if self._sleeping:
                self._sleeping = False
                self.wakeup.wake()

    def _listen(self) -> None:
        """Wake the main thread whenever the database notifies that jobs are ready."""
        while True:
            try:
                for _ in notices.listen(self.database):
                    self._notified = True
                    self.wakeup.wake()
            except DatabaseError as error:
                log.info("%s: no notifications of jobs, listening again in %g s: %s", self.name, LISTEN_AGAIN, error)
            else:
                return
            time.sleep(LISTEN_AGAIN)

    def _exchange(self, done: int, wanted: int = 0, released: Sequence[Claim] = ()) -> None:
        """In one transaction: end ``done`` jobs, release the claims ``released``, and claim ``wanted`` jobs."""
        if self._in_doubt:
            self._settle()
        batch = [self._ended.popleft() for _ in range(done)]
        try:
            claims = self._transact(batch, wanted, released)
        except DatabaseError as error:
            self._in_doubt = wanted > 0 and isinstance(error, DatabaseUnreachableError)
            if not batch or isinstance(error, DatabaseUnreachableError | ConflictError):
                self._ended.extendleft(reversed(batch))
                raise
            self._end_one_by_one(batch, error)
            return
        for claim in (*(claim for claim, _ in batch), *released):
            self._hands.let_go(claim.id)
        for claim in claims:
            self._hands.take(claim.id)
        for claim in claims:
            self._inbox.put(claim)

    def _settle(self) -> None:
        """Release claims whose commit succeeded but whose answer was lost: no thread has them, so none would end."""
        lost = self.database.transact(endings.release_others, self.registration.id, self._hands.claims)
        self._in_doubt = False
        if lost:
            log.warning("%s: released %d jobs that were claimed just before the connection broke", self.name, len(lost))

    def _transact(self, batch: Sequence[Ending], wanted: int = 0, released: Sequence[Claim] = ()) -> list[Claim]:
        try:
            if wanted and not released and all(_is_simple(claim, error) for claim, error in batch):
                finished = [claim.id for claim, _ in batch]
                queues, excepted = self.config.queues, self.config.excepted_queues
                claims = queue_claim.exchange(self.database, self.registration.id, finished, queues, wanted, excepted)
                if claims is not None:
                    return claims
            return self.database.transact(
                _exchange, self.registration.id, batch, released, self._limits, self.config, wanted
            )
        except ProcessGoneError:
            self.leave_pruned()

    def _end_one_by_one(self, batch: Sequence[Ending], reason: DatabaseError) -> None:
        """Commit each ending alone; where the database refuses one, fail that job with a plain error instead."""
        for number, (claim, error) in enumerate(batch):
            try:
                try:
                    self._transact([(claim, error)])
                except (DatabaseUnreachableError, ConflictError):
                    raise
                except DatabaseError:
                    log.error("%s: the database refused the ending of job %d: %s", self.name, claim.job_id, reason)  # noqa: TRY400
                    plain = "the job ended, but the database refused to record how"
                    self._transact([(claim, error_json("solidjq.errors.DatabaseError", plain))])
            except (DatabaseUnreachableError, ConflictError):
                self._ended.extendleft(reversed(batch[number:]))
                raise
            except DatabaseError as failure:
                log.error("%s: job %d stays claimed: %s", self.name, claim.job_id, failure)  # noqa: TRY400
            self._hands.let_go(claim.id)


def _is_simple(claim: Claim, error: str | None) -> bool:
    """Whether an ending only deletes a claim: no error to store, no slot of a concurrency limit to free."""
    return error is None and claim.concurrency_key is None


def _exchange(
    connection: Connection,
    process_id: int,
    batch: Sequence[Ending],
    released: Sequence[Claim],
    limits: Limits,
    config: Config,
    wanted: int,
) -> list[Claim]:
    finished = [claim.id for claim, error in batch if error is None]
    failed = {claim.id: error for claim, error in batch if error is not None}
    if finished:
        endings.finish_claims(connection, finished, limits)
    if failed:
        endings.fail(connection, endings.held_by(process_id, failed), failed, limits)
    if released:
        endings.release(connection, endings.held_by(process_id, [claim.id for claim in released]))
    # Last: a job that an ending unblocked may be claimed at once.
    if not wanted:
        return []
    return queue_claim.claim(connection, process_id, config.queues, wanted, config.excepted_queues)
