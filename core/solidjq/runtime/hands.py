"""Which claims a worker holds, and which thread executes which: a few bytes in a file that outlives the process.

A job that had not begun cannot have killed its worker, so the supervisor, which has the same file open, reads those
claims here and releases them. A job that had ended well is done, although the worker died before that was committed:
its supervisor records it. After a crash it finds here the job that the crashed thread was executing. A claim that
is not in the file had not reached the worker's memory when it died: reading its row may have killed the worker.

Threads are numbered, from 0.
"""

import mmap
import os
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import IO, NamedTuple

# A place: a claim's id, negative until its job begins; and the thread that executes it, plus 1, or how the job ended.
_NUMBERS = 2
_SUCCEEDED, _FAILED = -1, 0
_SIZE = 8 * _NUMBERS  # bytes


class Hands:
    """A fixed number of places for claims. Job threads call ``begin`` and ``end``, one thread alone the rest."""

    def __init__(self, places: int, descriptor: int | None = None) -> None:
        if descriptor is not None:
            os.ftruncate(descriptor, places * _SIZE)
        memory = mmap.mmap(-1 if descriptor is None else descriptor, places * _SIZE)
        self._memory = memoryview(memory).cast("q")
        self._free = list(range(places))
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def claims(self) -> Collection[int]:
        """The ids of the claims that the worker holds."""
        return self._places.keys()

    def take(self, claim_id: int) -> None:
        """Note that the worker holds a claim."""
        place = self._places[claim_id] = self._free.pop()
        self._memory[_NUMBERS * place] = -claim_id

    def begin(self, claim_id: int, thread: int) -> None:
        """Note that a thread begins the job of a claim."""
        place = self._places[claim_id]
        self._memory[_NUMBERS * place + 1] = thread + 1
        self._memory[_NUMBERS * place] = claim_id

    def end(self, claim_id: int, *, succeeded: bool) -> None:
        """Note that the job of a claim is done; the claim is held until that is committed."""
        self._memory[_NUMBERS * self._places[claim_id] + 1] = _SUCCEEDED if succeeded else _FAILED

    def stop(self, claim_id: int) -> None:
        """Note that the job of a claim was told to stop and did: it is as if it had not begun."""
        self._memory[_NUMBERS * self._places[claim_id]] = -claim_id

    def let_go(self, claim_id: int) -> None:
        """Note that a claim has ended."""
        place = self._places.pop(claim_id)
        self._memory[_NUMBERS * place] = self._memory[_NUMBERS * place + 1] = 0
        self._free.append(place)


class LastHands(NamedTuple):
    """What a dead worker's hands held."""

    not_begun: Sequence[int] = ()  # claims whose jobs had not begun
    by_thread: Mapping[int, int] = MappingProxyType({})  # the claim that each thread was executing
    succeeded: Sequence[int] = ()  # claims whose jobs had ended well, which was not committed yet


def read_hands(file: IO[bytes]) -> LastHands:
    """Read what a dead worker left in its file."""
    file.seek(0)
    data = file.read()
    numbers = memoryview(data[: len(data) // _SIZE * _SIZE]).cast("q")
    places = list(zip(numbers[::_NUMBERS], numbers[1::_NUMBERS], strict=True))
    return LastHands(
        sorted(-claim for claim, _ in places if claim < 0),
        {thread - 1: claim for claim, thread in places if claim > 0 and thread > 0},
        sorted(claim for claim, thread in places if claim > 0 and thread == _SUCCEEDED),
    )
