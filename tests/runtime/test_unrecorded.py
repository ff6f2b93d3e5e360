"""Endings that the database refuses: none is forgotten, one that cannot be written keeps no other."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from solidjq.errors import (
    AccessDeniedError,
    ConflictError,
    DatabaseError,
    DatabaseUnreachableError,
    LockedError,
    TookTooLongError,
)
from solidjq.queue.claim import Claim
from solidjq.runtime import unrecorded
from solidjq.runtime.unrecorded import MOST_REFUSED, Ending, Unrecorded


def ended(number: int) -> Ending:
    return Ending(Claim(number, number, None, "default", 0, "Job", None, None))


class Recorder:
    """A database that refuses the endings of some claims."""

    def __init__(self, refused: set[int], error: Exception) -> None:
        self.refused = refused
        self.error = error
        self.recorded: list[int] = []
        self.locked: set[int] = set()
        self.attempts = 0

    def __call__(self, batch: Sequence[Ending]) -> list[Ending]:
        self.attempts += 1
        if self.refused & {ending.claim.id for ending in batch}:
            raise self.error
        left = [ending for ending in batch if ending.claim.id in self.locked]
        self.recorded += [ending.claim.id for ending in batch if ending not in left]
        return left


def hold(count: int) -> Unrecorded:
    endings = Unrecorded()
    for number in range(1, count + 1):
        endings.add(ended(number))
    return endings


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no refused ending becomes due."""
    monkeypatch.setattr(unrecorded, "time", SimpleNamespace(monotonic=lambda: 1000.0))


def ids(endings: Unrecorded) -> list[int]:
    return [ending.claim.id for ending in endings.all]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 500])
@pytest.mark.parametrize("refused", [{1}, {2}, {1, 2}, {400, 7}])
def test_what_is_refused_alone_stays_and_the_others_end(count: int, refused: set[int]) -> None:
    endings = hold(count)
    record = Recorder(refused, DatabaseError("a trigger"))
    endings.record_in_parts(endings.take(count), record)
    assert sorted(record.recorded) == sorted(set(range(1, count + 1)) - refused)
    assert sorted(ids(endings)) == sorted(refused & set(range(1, count + 1)))
    assert record.attempts <= 2 * 9 * len(refused) + 2


@pytest.mark.parametrize("error", [DatabaseError("disk full"), TookTooLongError("57014"), ValueError("unknown")])
def test_when_everything_is_refused_few_attempts_are_made_and_all_stay(error: Exception) -> None:
    endings = hold(500)
    record = Recorder(set(range(1, 501)), error)
    with pytest.raises(type(error)):
        endings.record_in_parts(endings.take(500), record)
    assert sorted(ids(endings)) == list(range(1, 501))
    assert record.attempts <= 9 + 2 * MOST_REFUSED + 2


@pytest.mark.parametrize("error", [DatabaseUnreachableError("gone"), ConflictError("busy"), AccessDeniedError("25006")])
def test_an_error_that_concerns_every_ending_is_not_tried_on_each(error: Exception) -> None:
    endings = hold(4)
    record = Recorder({1, 2, 3, 4}, error)
    with pytest.raises(type(error)):
        endings.record_in_parts(endings.take(4), record)
    assert record.attempts == 1
    assert ids(endings) == [1, 2, 3, 4]


def test_a_refused_ending_is_tried_again_behind_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrecorded, "MOST_REFUSED", 3)
    endings = hold(3)
    record = Recorder({1, 2, 3}, DatabaseError("a trigger"))
    endings.record_in_parts(endings.take(3), record)
    assert endings.retry_refused(record) is None  # too early: no attempt
    assert endings.retry_refused(record, at_once=True) is record.error
    assert ids(endings) == [2, 3, 1]
    record.refused = {3}
    assert endings.retry_refused(record, at_once=True) is record.error
    assert ids(endings) == [1, 3]
    record.refused = set()
    assert endings.retry_refused(record, at_once=True) is None
    assert sorted(record.recorded) == [1, 2, 3]
    assert len(endings) == 0


def test_locked_endings_keep_no_other_and_wait_together() -> None:
    endings = hold(500)
    record = Recorder(set(), DatabaseError("never"))
    record.locked = {1, 7, 400}
    endings.record_in_parts(endings.take(500), record)
    assert record.attempts == 1
    assert ids(endings) == [1, 7, 400]
    assert 0 < endings.pause(60) <= unrecorded.FIRST_DELAY  # as after one refusal, not after three
    record.locked = {1, 400}
    assert isinstance(endings.retry_refused(record, at_once=True), LockedError)
    assert ids(endings) == [1, 400]
    record.locked = set()
    assert endings.retry_refused(record, at_once=True) is None
    assert sorted(record.recorded) == list(range(1, 501))


def test_the_pause_ends_when_a_refused_ending_is_due() -> None:
    endings = hold(1)
    assert endings.pause(5) == 0
    endings.record_in_parts(endings.take(1), Recorder({1}, DatabaseError("a trigger")))
    assert 0 < endings.pause(5) <= unrecorded.FIRST_DELAY
    assert endings.pause(0.001) == 0.001
