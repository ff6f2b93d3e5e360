"""On databases that Rails left: waiting jobs are listed, moved and discarded, and undone to the very same rows."""

from datetime import UTC, datetime

import pytest

from solidjq import Database
from solidjq.database.setup import initialize
from solidjq.database.tables import blocked, jobs, ready, scheduled, semaphores
from solidjq.ledger.operations import Operation
from solidjq.queue.listing import JobFilter, list_jobs
from solidjq.queue.states import State
from solidjq.queue.waiting import WAITING
from solidjq.recovery.undo import undo
from solidjq.recovery.waiting import WaitingTerms, WaitingVerb, move_waiting
from support import rails
from support.queue import rows

ALL_TERMS = (
    WaitingTerms(verb=WaitingVerb.DISCARD),
    WaitingTerms(verb=WaitingVerb.RUN_NOW),
    WaitingTerms(verb=WaitingVerb.POSTPONE, until=datetime(2099, 1, 1, tzinfo=UTC)),
    WaitingTerms(verb=WaitingVerb.MOVE, queue_name="elsewhere"),
)


@pytest.mark.parametrize("scenario", ["5a", "5c"])
def test_the_list_has_the_states_that_rails_wrote(left: Database, kind: str, scenario: str) -> None:
    rails.load(left.url, rails.read(kind, scenario))
    states = rails.reading(kind, scenario).states
    for state in State:
        listed = [view.job_id for view in list_jobs(left, JobFilter(states=(state,)))]
        assert listed == sorted(states.get(state.value, []), reverse=True), state


@pytest.mark.parametrize("terms", ALL_TERMS, ids=lambda terms: terms.verb.value)
def test_an_undo_leaves_rails_rows_as_they_were(left: Database, kind: str, terms: WaitingTerms) -> None:
    rails.load(left.url, rails.read(kind, "5a"))
    initialize(left)
    before = _rows(left)
    limited = [view.job_id for view in list_jobs(left, JobFilter(states=WAITING)) if view.concurrency_key]
    free = [view.job_id for view in list_jobs(left, JobFilter(states=WAITING)) if not view.concurrency_key]
    assert limited
    operation = Operation(terms.verb.recorded)
    batches = list(move_waiting(left, JobFilter(job_ids=free, states=WAITING), terms, operation))
    assert any(decision.moves for batch in batches for decision in batch)
    assert _rows(left) != before
    assert operation.id is not None
    restored = [each for batch in undo(left, operation.id, Operation("undo")) for each in batch]
    assert all(each.restored for each in restored)
    assert _rows(left) == before


def _rows(database: Database) -> dict[str, list[dict[str, object]]]:
    """Return the rows of jobs, and those of waiting executions without what is of the row itself."""
    own = {"id", "created_at"}
    waiting = {
        table.name: sorted(({k: v for k, v in row.items() if k not in own} for row in rows(database, table)), key=str)
        for table in (ready, scheduled, blocked)
    }
    return {jobs.name: rows(database, jobs), **waiting}


def test_all_waiting_jobs_are_discarded_and_their_slots_given_back(left: Database, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "5a"))
    initialize(left)
    terms = WaitingTerms(verb=WaitingVerb.DISCARD)
    for _ in move_waiting(left, JobFilter(states=WAITING), terms, Operation(terms.verb.recorded)):
        pass
    assert list(list_jobs(left, JobFilter(states=WAITING))) == []
    assert all(row["value"] > 0 for row in rows(left, semaphores))
