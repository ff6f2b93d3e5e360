"""Values that Ruby has and Python lacks, and that a job's arguments may contain: symbols and records."""

from typing import Self


class Symbol(str):
    """A Ruby symbol: ``Symbol("pdf")`` is Ruby's ``:pdf``; in Python it equals the string ``"pdf"``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Symbol({str(self)!r})"


class GlobalID(str):
    """A record of a Rails application, by its global id ``gid://app/User/1``. Rails loads the record; Python does not.

    Raises ValueError for text that is not a global id.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check that ``text`` has the form ``gid://application/Model/id``."""
        value = super().__new__(cls, text)
        if len(value._parts) != len(("application", "model", "id")) or not text.startswith("gid://"):
            raise ValueError(f"{text!r} is not a global id; write gid://application/Model/id")
        return value

    def __repr__(self) -> str:
        return f"GlobalID({str(self)!r})"

    @property
    def _parts(self) -> list[str]:
        return [part for part in self.removeprefix("gid://").split("/", 2) if part]

    @property
    def model_name(self) -> str:
        """The record's class, ``User`` in ``gid://app/User/1``."""
        return self._parts[1]

    @property
    def model_id(self) -> str:
        """The record's id as text, ``1`` in ``gid://app/User/1``; parameters after a ``?`` are left out."""
        return self._parts[2].partition("?")[0]
