"""The evidence of a recorded death as its row has it: parsed when a rule looks, for its text is a fifth as large."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from solidjq.untrusted import read_object

MOST_PARSED = 500  # texts whose objects are kept, of a few kB each: rules look at one death many times

_parsed = lru_cache(maxsize=MOST_PARSED)(read_object)


class StoredEvidence(Mapping[str, Any]):
    """The evidence in a JSON text; empty if that is no object. What it returns is shared: do not change it."""

    __slots__ = ("_text",)

    def __init__(self, text: str | None) -> None:
        self._text = text

    def __getitem__(self, key: str) -> Any:
        return _parsed(self._text)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(_parsed(self._text))

    def __len__(self) -> int:
        return len(_parsed(self._text))

    def __repr__(self) -> str:
        return f"StoredEvidence({self._text!r})"
