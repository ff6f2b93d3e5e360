"""Bulk work in batches: no statement names more than ``BATCH`` rows."""

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

BATCH = 1000


def in_batches(items: Iterable[T], size: int = BATCH) -> Iterable[list[T]]:
    """Yield ``items`` as lists of at most ``size``, reading no further ahead than one list."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
