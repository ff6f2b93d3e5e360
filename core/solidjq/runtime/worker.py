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
from solidjq.runtime.hands import Hands
from solidjq.runtime.performing import perform

log = logging.getLogger("solidjq")

MOST_ENDINGS = 500  # in one transaction
FLUSH_TIMEOUT = 2.0  # seconds that a leaving worker gives to the endings of jobs that are over
LEAST_INTERVAL = 0.01  # seconds between two looks for jobs because somebody told of some, however often they do
LISTEN_AGAIN = 5.0  # seconds after the connection broke
RETRY_INTERVAL = 0.2  # seconds, while it leaves, to the next attempt to end them

Ending = tuple[Claim, str | None]  # and its error


class Worker(Child):
    """``threads`` job threads, and one that beats; the main thread claims jobs and ends their claims.

    It does both in one transaction: whatever ended while the last one was under way ends in the next, and as many are
    claimed anew. A job counts as ended only with that commit: a crash before leaves it claimed, and its place is not
    filled again before. With ``prefetch`` so many more are in hand than there are threads.
    """

    @property
    def metadata(self) -> dict[str, object]:
        """Return what Solid Queue's own worker tells."""
        told: dict[str, object] = {
            "polling_interval": self.config.worker_polling_interval,
            "queues": ",".join(self.config.queues),
            "thread_pool_size": self.config.threads,
        }
        return {**told, "prefetch": self.config.prefetch} if self.config.prefetch else told

    def start(self) -> None:
        """Start the threads. All are daemons: a job that never returns must not keep the process alive."""
        self._limits: Limits = registry.limits()
        self._places = self.config.threads + self.config.prefetch
        self._hands = Hands(self._places, self._child_config.hands)
        self._inbox: SimpleQueue[Claim] = SimpleQueue()
        self._ended: deque[Ending] = deque()
        self._sleeping = False
        self._in_doubt = False  # whether a claim was committed though the answer was lost
        self._told = False  # of jobs that are ready
        self._told_before = -math.inf  # when a look because of it was
        for number in range(self.config.threads):
            threading.Thread(target=self._work, name=f"job-{number}", daemon=True).start()
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def step(self) -> float:
        """End what is over, and claim as many jobs as there are places free."""
        self._sleeping = False
        while self._ended and not self.config.prefetch and not self._inbox.empty():
            time.sleep(0)  # a thread for each is about to begin: short jobs end together then, not the first one alone
        over = min(len(self._ended), MOST_ENDINGS)
        free = self._places - len(self._hands) + over
        # Half of what is fetched ahead at a time: one by one would be a transaction for each job.
        wanted = free if free > self.config.prefetch // 2 or self._inbox.empty() else 0
        if not over and self._told and (early := self._told_before + LEAST_INTERVAL - time.monotonic()) > 0:
            return self._pause(early)
        if self._told:
            self._told, self._told_before = False, time.monotonic()
        if wanted or over:
            self._exchange(over, wanted)
        return self._pause(self.config.worker_polling_interval)

    def drain(self) -> None:
        """Put back what has not begun, and let running jobs end within the shutdown timeout, unless it must be now."""
        waiting: list[Claim] = []
        with suppress(Empty):
            while True:
                waiting.append(self._inbox.get_nowait())
        deadline = time.monotonic() + self.config.shutdown_timeout
        while len(self._hands) and self.stop_requested() < Stop.NOW and time.monotonic() < deadline:
            waiting = self._leave_some(waiting, deadline)
        # What is over must not run again only because we were too quick to leave.
        deadline = time.monotonic() + FLUSH_TIMEOUT
        while self._ended and time.monotonic() < deadline:
            waiting = self._leave_some(waiting, deadline)

    def _leave_some(self, waiting: list[Claim], deadline: float) -> list[Claim]:
        """End what is over and release these claims, else sleep until a job is over; return the claims still held."""
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
        """Return how long to sleep; from here on the end of a job ends it."""
        self._sleeping = True
        return 0.0 if self._ended else seconds

    def _work(self) -> NoReturn:
        while True:
            claim = self._inbox.get()
            self._hands.begin(claim.id)
            self.sampler.begin(claim.job_id, claim.class_name)
            error = perform(claim)
            self.sampler.end(claim.job_id)
            self._ended.append((claim, error))
            if self._sleeping:
                self._sleeping = False
                self.wakeup.wake()

    def _listen(self) -> None:
        """Look for jobs at once when somebody tells of some."""
        while True:
            try:
                for _ in notices.listen(self.database):
                    self._told = True
                    self.wakeup.wake()
            except DatabaseError as error:
                log.info("%s: nobody tells of new jobs for %g s: %s", self.name, LISTEN_AGAIN, error)
            else:
                return
            time.sleep(LISTEN_AGAIN)

    def _exchange(self, over: int, wanted: int = 0, released: Sequence[Claim] = ()) -> None:
        """End so many of the jobs that are over, release these, and claim so many others."""
        if self._in_doubt:
            self._settle()
        batch = [self._ended.popleft() for _ in range(over)]
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
        """Put back what was claimed without our hearing of it: it is in no hands, and nobody would ever end it."""
        lost = self.database.transact(endings.release_others, self.registration.id, self._hands.claims)
        self._in_doubt = False
        if lost:
            log.warning("%s: put back %d jobs whose claim was answered to nobody", self.name, len(lost))

    def _transact(self, batch: Sequence[Ending], wanted: int = 0, released: Sequence[Claim] = ()) -> list[Claim]:
        try:
            if wanted and not released and all(_is_simple(claim, error) for claim, error in batch):
                finished = [claim.id for claim, _ in batch]
                claims = queue_claim.exchange(self.database, self.registration.id, finished, self.config.queues, wanted)
                if claims is not None:
                    return claims
            return self.database.transact(
                _exchange, self.registration.id, batch, released, self._limits, self.config.queues, wanted
            )
        except ProcessGoneError:
            self.leave_pruned()

    def _end_one_by_one(self, batch: Sequence[Ending], reason: DatabaseError) -> None:
        """Find the one ending that the database does not take, and fail its job in words that it does take."""
        for number, (claim, error) in enumerate(batch):
            try:
                try:
                    self._transact([(claim, error)])
                except (DatabaseUnreachableError, ConflictError):
                    raise
                except DatabaseError:
                    log.error("%s: the end of job %d cannot be written: %s", self.name, claim.job_id, reason)  # noqa: TRY400
                    plain = "the job ended, but the database refused to record how"
                    self._transact([(claim, error_json("solidjq.errors.DatabaseError", plain))])
            except (DatabaseUnreachableError, ConflictError):
                self._ended.extendleft(reversed(batch[number:]))
                raise
            except DatabaseError as failure:
                log.error("%s: job %d stays claimed: %s", self.name, claim.job_id, failure)  # noqa: TRY400
            self._hands.let_go(claim.id)


def _is_simple(claim: Claim, error: str | None) -> bool:
    """Tell whether nothing else may be claimed because of this end: it gives back no slot of a limit."""
    return error is None and claim.concurrency_key is None


def _exchange(
    connection: Connection,
    process_id: int,
    batch: Sequence[Ending],
    released: Sequence[Claim],
    limits: Limits,
    queues: Sequence[str],
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
    # Last: what an ending has let go may be claimed at once.
    return queue_claim.claim(connection, process_id, queues, wanted) if wanted else []
