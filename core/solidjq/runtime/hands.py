"""What a worker has in hand, and what of it was begun: a few bytes that outlive the process.

A job that had not begun cannot have killed the process. Its supervisor, which holds the same file open, reads here
which ones those are; they go back to their queues. A claim that stands here in no way had not even reached the worker:
reading it may be what killed it.
"""

import mmap
import os
from collections.abc import Collection
from typing import IO

_SIZE = 8  # bytes: a claim's id; negative until its job begins, 0 where there is none


class Hands:
    """Places for so many claims. ``begin`` may be called by any thread, the others by one only."""

    def __init__(self, places: int, descriptor: int | None = None) -> None:
        if descriptor is not None:
            os.ftruncate(descriptor, places * _SIZE)
        memory = mmap.mmap(-1 if descriptor is None else descriptor, places * _SIZE)
        self._written = memoryview(memory).cast("q")
        self._free = list(range(places))
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def claims(self) -> Collection[int]:
        """The ids of the claims in hand."""
        return self._places.keys()

    def take(self, claim_id: int) -> None:
        """Write down that a claim is in hand."""
        place = self._places[claim_id] = self._free.pop()
        self._written[place] = -claim_id

    def begin(self, claim_id: int) -> None:
        """Write down that its job begins."""
        self._written[self._places[claim_id]] = claim_id

    def let_go(self, claim_id: int) -> None:
        """Write down that the claim has ended."""
        place = self._places.pop(claim_id)
        self._written[place] = 0
        self._free.append(place)


def not_begun(file: IO[bytes]) -> list[int]:
    """Read which claims the dead process had in hand without having begun their jobs."""
    file.seek(0)
    data = file.read()
    numbers = memoryview(data[: len(data) // _SIZE * _SIZE]).cast("q")
    return sorted(-number for number in numbers if number < 0)
