"""Which claims a worker holds, and which of their jobs have begun: a few bytes in a file that outlives the process.

A job that had not begun cannot have killed its worker, so the supervisor, which has the same file open, reads those
claims here and releases them. A claim that is not in the file had not reached the worker's memory when it died: reading
its row may have killed the worker.
"""

import mmap
import os
from collections.abc import Collection
from typing import IO

_SIZE = 8  # bytes: a claim's id; negative until its job begins, 0 where there is none


class Hands:
    """A fixed number of places for claims. Any thread may call ``begin``, one thread alone the other methods."""

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
        self._memory[place] = -claim_id

    def begin(self, claim_id: int) -> None:
        """Note that the job of a claim begins."""
        self._memory[self._places[claim_id]] = claim_id

    def let_go(self, claim_id: int) -> None:
        """Note that a claim has ended."""
        place = self._places.pop(claim_id)
        self._memory[place] = 0
        self._free.append(place)


def not_begun(file: IO[bytes]) -> list[int]:
    """Return the claims that a dead worker held without having begun their jobs."""
    file.seek(0)
    data = file.read()
    numbers = memoryview(data[: len(data) // _SIZE * _SIZE]).cast("q")
    return sorted(-number for number in numbers if number < 0)
