"""Bulk work in batches: no statement names more than ``BATCH`` rows, or ``LOCKED`` of those that are locked."""

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

BATCH = 1000
# Of a transaction that has locked all its rows already, as a prune of one process: shorter statements would not end it
# sooner, and each of them costs the program as much as a hundred rows.
LOCKED = 10_000


def in_batches(items: Iterable[T], size: int = BATCH) -> Iterable[list[T]]:
    """Yield ``items`` as lists of at most ``size``, reading no further ahead than one list."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
