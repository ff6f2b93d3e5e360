"""Checkpoints of one worker's jobs that fall due together are written in one transaction.

A transaction for each checkpoint of a thousand jobs costs four times as much processor time as one for every ten. The
first job thread that has a checkpoint writes it, with those that other threads add meanwhile; these wait for it.
"""

import logging
import threading
import time
from collections.abc import Sequence

from solidjq.database.transactions import Database
from solidjq.errors import ConflictError, DatabaseUnreachableError
from solidjq.queue import checkpoints
from solidjq.queue.checkpoints import MOST, MOST_CHARACTERS, parted
from solidjq.queue.claim import Claim

log = logging.getLogger("solidjq")


class CheckpointGroups:
    """Writes the checkpoints of the jobs that a process runs. Any thread may call ``save``."""

    def __init__(self, database: Database, process_id: int) -> None:
        self.database = database
        self.process_id = process_id
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._leader: _Waiting | None = None  # the one whose thread writes for all
        self._written_at = float("-inf")

    def save(self, claim: Claim, arguments: str, patience: float) -> bool:
        """Write the arguments of a claimed job, as ``checkpoints.save`` does; return whether the claim is still there.

        When it returns, that is committed. While other jobs have checkpoints too, it may wait ``patience`` seconds for
        more of them. Raises the database's error if this very checkpoint cannot be written.
        """
        if len(arguments) <= MOST_CHARACTERS:
            saved = self._save_with_others(_Waiting(claim, arguments, patience))
            if saved is not None:
                return saved
        return checkpoints.save(self.database, self.process_id, claim, arguments)

    def _save_with_others(self, mine: "_Waiting") -> bool | None:
        """Return True if the checkpoint was written, None if it must be tried alone."""
        with self._lock:
            self._waiting.append(mine)
            leader = self._leader
            if leader is None:
                self._leader = mine
            elif mine.due < leader.due or len(self._waiting) >= MOST:
                leader.hurry()
        if leader is None or mine.leads_at_last():
            try:
                self._write(self._gather(mine))
            finally:
                self._hand_over()
        if mine.error is not None:
            raise type(mine.error)(str(mine.error)) from mine.error  # its own: each thread adds its traceback
        return mine.saved

    def _gather(self, leader: "_Waiting") -> Sequence["_Waiting"]:
        """Wait for more checkpoints, as long as each of them has patience; return those to write, the leader's first.

        Nobody waits for others if none was written lately.
        """
        while True:
            with self._lock:
                wait = min(each.due for each in self._waiting) - time.monotonic()
                quiet = len(self._waiting) == 1 and leader.began - self._written_at > leader.patience
                if quiet or wait <= 0 or len(self._waiting) >= MOST:
                    return self._take()
            leader.wait(wait)

    def _take(self) -> Sequence["_Waiting"]:
        """Remove the checkpoints of one statement from those that wait."""
        count = len(next(parted({each.claim: each.arguments for each in self._waiting})))
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def _write(self, group: Sequence["_Waiting"]) -> None:
        """Write a group. Those that this leaves out are tried alone, each by its own thread, and get their own error.

        One that waits for a lock, or that the database refuses, so keeps no other from being written.
        """
        try:
            saved = checkpoints.save_group(
                self.database, self.process_id, {each.claim: each.arguments for each in group}
            )
            for each in group:
                each.saved = True if each.claim.job_id in saved else None
        except (DatabaseUnreachableError, ConflictError) as error:  # so would each of them be, alone
            for each in group:
                each.error = error
        except Exception as error:  # noqa: BLE001  (whatever it is, each thread finds out by itself)
            log.debug("%d checkpoints were refused together: %s", len(group), error)
        finally:
            self._written_at = time.monotonic()
            for each in group:
                each.end()

    def _hand_over(self) -> None:
        """Let the thread of the next checkpoint that waits write from now on."""
        with self._lock:
            self._leader = self._waiting[0] if self._waiting else None
            if self._leader is not None:
                self._leader.lead()


class _Waiting:
    """A checkpoint that is to be written, and what became of it."""

    def __init__(self, claim: Claim, arguments: str, patience: float) -> None:
        self.claim = claim
        self.arguments = arguments
        self.patience = patience
        self.began = time.monotonic()
        self.due = self.began + patience
        self.saved: bool | None = None
        self.error: DatabaseUnreachableError | ConflictError | None = None
        self._leads = False
        self._event = threading.Event()

    def leads_at_last(self) -> bool:
        """Wait until the checkpoint was written, or this thread is to write; return whether it is."""
        self._event.wait()
        return self._leads

    def lead(self) -> None:
        """Let its thread write."""
        self._leads = True
        self._event.set()

    def hurry(self) -> None:
        """End the wait of the leader's thread for more checkpoints."""
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Wait as the leader for more checkpoints, at most so long."""
        self._event.wait(seconds)
        self._event.clear()

    def end(self) -> None:
        """Let its thread go on: the checkpoint was written, or is to be tried alone."""
        self._event.set()
