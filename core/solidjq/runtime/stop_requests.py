"""The requests of ``jq jobs stop``, as a worker sees them: which of its jobs an operator asked to stop."""

import logging
import threading
import time
from typing import NoReturn

from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError
from solidjq.ledger.stop_requests import StopRequest, requests_of
from solidjq.queue.endings import claims_of
from solidjq.runtime.sampler import Sampler

log = logging.getLogger("solidjq")

INTERVAL = 2.0  # seconds between two looks; a job that has not run as long costs none


class StopRequests:
    """Reads the requests for a worker's claims in a thread of its own, while one of its jobs has run for a while.

    A job that checkpoints a thousand times a second costs no more queries than one that never does.
    """

    def __init__(self, database: Database, process_id: int, sampler: Sampler) -> None:
        self._database = database
        self._process_id = process_id
        self._sampler = sampler
        self._requests: dict[int, StopRequest] = {}
        self._failed = False

    def start(self) -> None:
        """Start the thread, a daemon."""
        threading.Thread(target=self._look_always, name="stop requests", daemon=True).start()

    def words(self, claim_id: int) -> str | None:
        """Return who asked the job of a claim to stop, and why; None if nobody did. Costs no query."""
        request = self._requests.get(claim_id)
        return None if request is None else request.words

    def look(self) -> None:
        """Read the requests once. Of several errors of the database in a row the first is logged."""
        try:
            with self._database.read() as connection:
                found = requests_of(connection, claims_of(self._process_id))
        except DatabaseError as error:
            if not self._failed:
                log.info("no requests to stop a job can be read at the moment: %s", error)
            self._failed = True
            return
        self._failed = False
        new, self._requests = found.keys() - self._requests.keys(), found
        for claim_id in new:
            log.info("job %s: %s", found[claim_id].job_id, found[claim_id].words)

    def _look_always(self) -> NoReturn:
        while True:
            time.sleep(INTERVAL)
            since = self._sampler.running_since
            if since is not None and time.time() - since >= INTERVAL:
                self.look()
