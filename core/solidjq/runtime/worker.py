"""The worker: claims jobs for its free threads, runs them, and ends their claims."""

import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import NoReturn

from sqlalchemy import Connection, select

from solidjq import registry
from solidjq.database.tables import claimed
from solidjq.errors import ConflictError, ProcessGoneError, ValueRefusedError, concerns_all
from solidjq.ledger import crashes
from solidjq.ledger.stop_requests import end_asked
from solidjq.processes.heartbeat import CAN_STOP
from solidjq.processes.samples import write_instant
from solidjq.queue import claim as queue_claim
from solidjq.queue import endings
from solidjq.queue.checkpoint_groups import CheckpointGroups
from solidjq.queue.checkpoints import parted, save_group_within
from solidjq.queue.claim import Claim
from solidjq.queue.concurrency import Limits
from solidjq.queue.scan_start import ScanStart
from solidjq.rails import error_text
from solidjq.runtime import contact
from solidjq.runtime.child import EXIT_LOST, Child, Stop, leave
from solidjq.runtime.config import Config
from solidjq.runtime.contact import Contact
from solidjq.runtime.hands import Hands
from solidjq.runtime.last_words import shown_as, thread_name
from solidjq.runtime.listener import Listener
from solidjq.runtime.performing import perform
from solidjq.runtime.stop_requests import StopRequests
from solidjq.runtime.unrecorded import Ending, Unrecorded
from solidjq.steps import ClaimedBy
from solidjq.text import count_of, first_of, mask_secrets, one_line

log = logging.getLogger("solidjq")

MOST_ENDINGS = 500  # in one transaction
FLUSH_TIMEOUT = 2.0  # seconds that a stopping worker takes to commit the endings of jobs that are done
WATCH_INTERVAL = 0.25  # seconds between two looks at the age of the last heartbeat
DOUBT_INTERVAL = 0.1  # seconds until a job that may not begin is looked at again
LEAST_LOST = 1.0  # seconds for a heartbeat after the process was frozen, whatever the lost timeout is
MOST_NAMED = 20  # job ids that one log line names
LONGEST_ERROR = 200  # characters of an error in a heartbeat
SETTLE_INTERVAL = 60.0  # seconds between two looks for claims that this worker does not hold
SOUND_INTERVAL = 60.0  # seconds in which ready rows that cannot be claimed are passed over
RETRY_INTERVAL = 0.2  # seconds between attempts to commit endings while it stops


class Worker(Child):
    """Runs jobs in ``threads`` job threads; the main thread claims jobs and ends their claims.

    Both happen in one transaction: it ends the claims of all jobs that finished during the transaction before, and
    claims as many new ones. A job has ended only with that commit; a crash before it leaves the job claimed, and its
    place stays taken until then. With ``prefetch`` a worker holds that many claims more than it has threads.
    """

    LOCK_TIMEOUT = 2.0  # then what others have locked is left, and the rest goes on

    @property
    def metadata(self) -> dict[str, object]:
        """The settings that Solid Queue's own worker registers, and those of ours that are not their default.

        ``except`` names the queues that ``queues`` would take and this worker leaves out; ``can_stop`` says that its
        jobs can be asked to stop.
        """
        settings: dict[str, object] = {
            "polling_interval": self.config.worker_polling_interval,
            "queues": ",".join(self.config.queues),
            "thread_pool_size": self.config.threads,
        }
        own = {"except": ",".join(self.config.excepted_queues), "prefetch": self.config.prefetch}
        return settings | {name: value for name, value in own.items() if value} | {CAN_STOP: True}

    def start(self) -> None:
        """Start the threads, all of them daemons: a job that never returns must not keep the process alive."""
        self._limits: Limits = registry.limits()
        self._places = self.config.threads + self.config.prefetch
        self._hands = Hands(self._places, self._child_config.hands)
        self._inbox: SimpleQueue[Claim] = SimpleQueue()
        self._unrecorded = Unrecorded()
        self._checkpoints = CheckpointGroups(self.database, self.registration.id)
        self._stop_requests = StopRequests(self.database, self.registration.id, self.sampler)
        self._scan_start = ScanStart()
        self._scan_cost = partial(queue_claim.scan_cost, self.database)
        self._sleeping = False
        self._sound_until = -math.inf
        self._settle_at = time.monotonic() + SETTLE_INTERVAL
        self._listener = Listener(self.database, self.wakeup, self.name, self.config.worker_polling_interval)
        for number in range(self.config.threads):
            name = thread_name(number)
            threading.Thread(target=shown_as(name, self._work), args=[number], name=name, daemon=True).start()
        os.register_at_fork(after_in_child=self.database.forget_connections)
        self._listener.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._stop_requests.start()

    def step(self) -> float:
        """End the claims of jobs that are done, and claim a job for each free place."""
        self._sleeping = False
        while self._unrecorded.new and not self.config.prefetch and not self._inbox.empty():
            time.sleep(0)  # let the job threads run: short jobs then end together, in one transaction
        if error := self._unrecorded.retry_refused(self._record):
            log.warning("%s: the ending of a job was refused again: %s", self.name, error)
        done = min(self._unrecorded.new, MOST_ENDINGS)
        free = self._places - len(self._hands) + done
        # Prefetched claims are refilled by the half: one by one would be a transaction for each job.
        wanted = free if free > self.config.prefetch // 2 or self._inbox.empty() else 0
        if self._contact() is not Contact.SURE:
            wanted = 0
        if not done and (early := self._listener.seconds_too_early()):
            return self._pause(early)
        self._listener.begin_claim()
        if wanted:
            self._scan_start.begin(time.monotonic())
        found = self._exchange(done, wanted) if wanted or done else 0
        if self._scan_start.must_look_again(found=found, wanted=wanted):
            return 0.0
        if wanted and found == wanted:  # it is busy; who finds less than it wants has time
            self._scan_start.measure_if_due(self._scan_cost, time.monotonic())
        self._listener.check_if_due()
        return self._pause(self._listener.polling_interval)

    def drain(self) -> None:
        """Release claims whose jobs have not begun; wait for running jobs until the shutdown timeout or Stop.NOW.

        Endings that the database does not take are tried until then, and for two seconds after it at least.
        """
        waiting: list[Claim] = []
        with suppress(Empty):
            while True:
                waiting.append(self._inbox.get_nowait())
        deadline = time.monotonic() + self.config.shutdown_timeout
        while len(self._hands) and self.stop_requested() < Stop.NOW and time.monotonic() < deadline:
            waiting = self._end_or_wait(waiting, deadline)
        # A job that is done must not run again only because its ending was not committed.
        deadline = time.monotonic() + FLUSH_TIMEOUT
        while len(self._unrecorded) and time.monotonic() < deadline:
            waiting = self._end_or_wait(waiting, deadline)
        if self._unrecorded:
            ids = first_of([ending.claim.job_id for ending in self._unrecorded.all], MOST_NAMED)
            log.error("%s: jobs %s are done, but the database has not recorded it; they stay claimed", self.name, ids)

    def unrecorded_claims(self) -> list[int]:
        """Return the claims of jobs that are done, which the database has not recorded."""
        return [ending.claim.id for ending in self._unrecorded.all]

    def _end_or_wait(self, waiting: list[Claim], deadline: float) -> list[Claim]:
        """End the jobs that are done and release ``waiting``, or sleep until one is done; return what is still held."""
        self._sleeping = False
        try:
            if self._unrecorded.new:
                self._exchange(min(self._unrecorded.new, MOST_ENDINGS))
            if waiting:
                self._release(waiting)
                waiting = []
            refusal = self._unrecorded.retry_refused(self._record, at_once=True)
        except Exception as error:  # noqa: BLE001  (what is done must not run again, whatever this is)
            refusal = error
        if refusal is not None:
            log.warning("%s: %s", self.name, refusal)
            self.wakeup.wait(RETRY_INTERVAL)
        elif not self._unrecorded and len(self._hands):
            self.wakeup.wait(self._pause(deadline - time.monotonic()))
        return waiting

    def _release(self, waiting: Sequence[Claim]) -> None:
        ids = [claim.id for claim in waiting]
        self.database.transact(_release_waiting, self.registration.id, {claim.id: claim.job_id for claim in waiting})
        for claim_id in ids:
            self._hands.let_go(claim_id)

    def _pause(self, seconds: float) -> float:
        """Return how long to sleep; from this call on, the end of a job interrupts the sleep."""
        self._sleeping = True
        return self._unrecorded.pause(seconds)

    def _work(self, number: int) -> NoReturn:
        while True:
            claim = self._inbox.get()
            if self._contact() is not Contact.SURE:  # until a heartbeat shows that the claim is still this worker's
                self._inbox.put(claim)
                time.sleep(DOUBT_INTERVAL)
                continue
            self._hands.begin(claim.id, number)
            self.sampler.begin(claim.job_id, claim.class_name)
            cancelled = partial(self._stop_requests.words, claim.id)
            has_crashed = partial(crashes.has_crashed, self.database, claim.job_id, claim.active_job_id)
            ending = perform(ClaimedBy(claim, self._checkpoints, self._should_stop, cancelled, has_crashed))
            self.sampler.end(claim.job_id)
            if ending.stopped:
                self._hands.stop(claim.id)
            else:
                self._hands.end(claim.id, succeeded=ending.error is None)
            self._unrecorded.add(ending)
            if self._sleeping:
                self._sleeping = False
                self.wakeup.wake()

    # -- contact with the database ------------------------------------------------------------------------------------

    def _contact(self) -> Contact:
        silence = self.registration.silence
        return contact.judge(silence, interval=self.config.heartbeat_interval, threshold=self.config.alive_threshold)

    def _should_stop(self) -> bool:
        return self.stop_requested() > Stop.NO or self._contact() is Contact.LOST

    def _watch(self) -> NoReturn:
        """End this process if a job still runs ``lost_timeout`` seconds after contact with the database was lost.

        A thread of its own: the main thread and the one of the heartbeats may both wait for the database.
        """
        lost_at: float | None = None
        while True:
            if self._contact() is not Contact.LOST:
                if lost_at is not None:
                    log.info("%s: a heartbeat succeeded again; its jobs are still its own", self.name)
                lost_at = None
            elif lost_at is None:
                # A machine that was suspended, or a process that was frozen, may beat again at once.
                lost_at = contact.now()
                self.registration.beat_soon()
                log.error(
                    "%s: no heartbeat for %g s: others may take it for dead; begins no job, and ends itself if one "
                    "still runs in %g s",
                    self.name,
                    self.config.alive_threshold,
                    self.config.lost_timeout,
                )
            elif self.sampler.running and contact.now() - lost_at >= max(self.config.lost_timeout, LEAST_LOST):
                ids = first_of(self.sampler.running, MOST_NAMED)
                log.error("%s: jobs %s still run without contact with the database; stopping at once", self.name, ids)
                leave(EXIT_LOST)
            time.sleep(WATCH_INTERVAL)

    def _exchange(self, done: int, wanted: int = 0) -> int:
        """In one transaction: end ``done`` jobs and claim ``wanted`` others; return how many were claimed.

        Where the database refuses the endings of some jobs, the others end, and those are tried again later.
        """
        if wanted and time.monotonic() >= self._settle_at:
            self._settle()
        batch = self._unrecorded.take(done)
        try:
            claims = self._transact(batch, wanted)
        except Exception as error:
            self._unrecorded.put_back(batch)
            if wanted and not isinstance(error, ConflictError):  # its claims may have been committed all the same
                self._settle_at = -math.inf
            self._report_unrecorded(error)
            if not batch or concerns_all(error):
                raise
            log.warning("%s: the endings of %d jobs were refused together: %s", self.name, done, error)
            self._unrecorded.record_in_parts(self._unrecorded.take(done), self._record)
            self._report_unrecorded(error)
            return 0
        self._let_go(batch)
        for claim in claims:
            self._hands.take(claim.id)
        for claim in claims:
            self._inbox.put(claim)
        return len(claims)

    def _let_go(self, batch: Sequence[Ending]) -> None:
        for ending in batch:
            self._hands.let_go(ending.claim.id)
        if batch and not self._unrecorded and self.sampler.unrecorded is not None:
            self.sampler.unrecorded = None
            self.registration.beat_soon()

    def _report_unrecorded(self, error: Exception) -> None:
        """Let the next heartbeat say that endings cannot be recorded; the first time, send it at once."""
        if not self._unrecorded:
            return
        before = self.sampler.unrecorded
        self.sampler.unrecorded = {
            "jobs": len(self._unrecorded),
            "since": write_instant(time.time()) if before is None else before["since"],
            "error": one_line(mask_secrets(str(error) or type(error).__name__))[:LONGEST_ERROR],
        }
        if before is None:
            self.registration.beat_soon()

    def _settle(self) -> None:
        """Release claims whose commit succeeded but whose answer was lost: no thread has them, so none would end.

        Not only after an error: a statement on a connection that went silent may be executed much later.
        """
        lost = self.database.transact(endings.release_others, self.registration.id, self._hands.claims)
        self._settle_at = time.monotonic() + SETTLE_INTERVAL
        if lost:
            jobs = count_of(len(lost), "job")
            log.warning("%s: released %s claimed just before the connection broke", self.name, jobs)

    def _transact(self, batch: Sequence[Ending], wanted: int = 0) -> list[Claim]:
        """Commit endings and claim ``wanted`` jobs. A ready row that cannot be claimed keeps no other from a worker."""
        sound = time.monotonic() < self._sound_until
        try:
            return self._transact_once(batch, wanted, sound=sound)
        except ValueRefusedError as error:
            if not wanted or sound:
                raise
            claims = self._transact_once(batch, wanted, sound=True)
            words = (
                "%s: ready jobs that are gone or claimed already are passed over: %s; to see such: jq doctor two-states"
            )
            log.error(words, self.name, error)  # noqa: TRY400  (the error is named)
            self._sound_until = time.monotonic() + SOUND_INTERVAL
            return claims

    def _transact_once(self, batch: Sequence[Ending], wanted: int, *, sound: bool) -> list[Claim]:
        try:
            if wanted and not sound and all(_is_simple(ending) for ending in batch):
                finished = _jobs_by_claim(batch)
                queues, excepted = self.config.queues, self.config.excepted_queues
                claims = queue_claim.exchange(
                    self.database, self.registration.id, finished, queues, wanted, excepted, self._scan_start
                )
                if claims is not None:
                    return claims
            return self.database.transact(
                _exchange,
                self.registration.id,
                batch,
                self._limits,
                self.config,
                wanted,
                sound=sound,
                scan_start=self._scan_start,
            )
        except ProcessGoneError:
            self.leave_pruned()

    def _record(self, batch: Sequence[Ending]) -> Sequence[Ending]:
        """Commit endings; return those of which another transaction has locked a row.

        The database may refuse a value of a single one: then it is written without that value. A job that stopped
        early has none, and is not done: it stays until it can go back to its queue.
        """
        left: set[int] = set()
        try:
            left = self.database.transact(_end_free, self.registration.id, batch, self._limits, self.config)
        except ValueRefusedError as error:
            if len(batch) > 1 or batch[0].stopped:
                raise
            claim, failure, *_ = batch[0]
            log.error("%s: the database refused a detail of the ending of job %d: %s", self.name, claim.job_id, error)  # noqa: TRY400
            plain = None if failure is None else error_text.without_details(failure)
            self.database.transact(endings.end_plainly, self.registration.id, claim.id, plain, self._limits)
        except Exception as error:
            self._report_unrecorded(error)
            raise
        self._let_go([ending for ending in batch if ending.claim.id not in left])
        return [ending for ending in batch if ending.claim.id in left]


def _is_simple(ending: Ending) -> bool:
    """Whether an ending only deletes a claim: nothing to store of its job, no slot of a concurrency limit to free."""
    return ending[1:] == (None, False, None) and ending.claim.concurrency_key is None


def _end_free(
    connection: Connection, process_id: int, batch: Sequence[Ending], limits: Limits, config: Config
) -> set[int]:
    """End the claims whose rows no other transaction has locked; return the others."""
    left = endings.locked_elsewhere(connection, [ending.claim.id for ending in batch])
    free = [ending for ending in batch if ending.claim.id not in left]
    _exchange(connection, process_id, free, limits, config, wanted=0, sound=False)
    return left


def _exchange(
    connection: Connection,
    process_id: int,
    batch: Sequence[Ending],
    limits: Limits,
    config: Config,
    wanted: int,
    *,
    sound: bool,
    scan_start: ScanStart | None = None,
) -> list[Claim]:
    paused = queue_claim.lock_process(connection, process_id) if wanted else None
    finished = [ending for ending in batch if ending.error is None and not ending.stopped]
    failed = {ending.claim.id: ending.error for ending in batch if ending.error is not None}
    stopped = _jobs_by_claim([ending for ending in batch if ending.stopped])
    for part in parted({one.claim: one.arguments for one in batch if one.arguments is not None}):
        save_group_within(connection, process_id, part)
    if finished:
        endings.finish_claims(connection, process_id, _jobs_by_claim(finished), limits)
    if failed:
        held = _jobs_by_claim([ending for ending in batch if ending.error is not None])
        endings.fail(connection, endings.claims_of(process_id, held), failed, limits)
    if stopped:
        end_asked(connection, endings.claims_of(process_id, stopped), limits)
        _release(connection, process_id, stopped)
    # Last: a job that an ending unblocked may be claimed at once.
    if not wanted:
        return []
    queues, excepted = config.queues, config.excepted_queues
    return queue_claim.claim(
        connection, process_id, queues, wanted, excepted, sound=sound, paused=paused, scan_start=scan_start
    )


def _jobs_by_claim(batch: Iterable[Ending]) -> dict[int, int]:
    return {ending.claim.id: ending.claim.job_id for ending in batch}


def _release(connection: Connection, process_id: int, held: Mapping[int, int]) -> None:
    endings.release(connection, endings.claims_of(process_id, held))


def _release_waiting(connection: Connection, process_id: int, held: Mapping[int, int]) -> None:
    """Release claims whose jobs have not begun; those that the database refuses stay until the worker deregisters."""
    own = connection.scalars(select(claimed.c.id).where(endings.claims_of(process_id, held))).all()
    endings.release_but_refused(connection, process_id, own)
