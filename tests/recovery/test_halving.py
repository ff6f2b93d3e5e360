"""How many transactions it takes to find the jobs that are refused, and which of the others move."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

import pytest

from solidjq.errors import AccessDeniedError, DatabaseError
from solidjq.ledger.operations import Operation
from solidjq.recovery.refusals import MOST_IN_VAIN, Halving, Moves, Refusals

BATCH = 1000


class Server:
    """Moves ids, unless it refuses one of them."""

    def __init__(self, refused: Callable[[int], bool], error: type[DatabaseError] = DatabaseError) -> None:
        self.refuses = refused
        self.error = error
        self.transactions = 0
        self.moved: list[int] = []

    def move(self, ids: Sequence[int]) -> Sequence[int]:
        self.transactions += 1
        if any(map(self.refuses, ids)):
            raise self.error("refused")
        self.moved += ids
        return ids

    def move_all(self, count: int) -> Refusals:
        refusals = Refusals()
        halving: Halving[Sequence[int]] = Halving(refusals, Operation("retry"), bool)
        for first in range(0, count, BATCH):
            ids = range(first, min(first + BATCH, count))
            moves = Moves(partial(self.move, ids), self.move, [*zip(ids, ids, strict=True)].copy)
            for _ in halving.move(moves):
                pass
        for _ in halving.rest():
            pass
        return refusals


@pytest.mark.parametrize(
    ("refused", "most"),
    [
        ({500}, 30),
        (range(11), 60),
        (range(9_000), 400),  # all of nine batches: they wait, and the last thousand moves
        (range(0, 10_000, 1000), 250),
        (range(0, 10_000, 100), 2500),
    ],
)
def test_the_others_move(refused: Collection[int], most: int) -> None:
    server = Server(lambda number: number in refused)
    if len(refused) > 1000:
        with pytest.raises(DatabaseError, match="in a row"):  # at last: a thousand of those that had waited
            server.move_all(10_000)
        assert server.transactions < most + 3000
    else:
        assert sorted(server.move_all(10_000).errors) == sorted(refused)
        assert server.transactions < most
    assert sorted(server.moved) == [number for number in range(10_000) if number not in refused]


def test_a_server_that_refuses_everything_is_asked_some_hundred_times() -> None:
    server = Server(lambda _: True)
    with pytest.raises(DatabaseError, match=f"it refused {MOST_IN_VAIN + 1} jobs in a row"):
        server.move_all(1_000_000)
    assert server.transactions < 600


def test_what_is_about_all_rows_ends_it_at_once() -> None:
    server = Server(lambda _: True, AccessDeniedError)
    with pytest.raises(AccessDeniedError):
        server.move_all(1_000_000)
    assert server.transactions == 1
