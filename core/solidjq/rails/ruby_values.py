"""Values that Ruby has and Python lacks: what a job's arguments may hold beside plain data."""

from typing import Self


class Symbol(str):
    """A Ruby symbol: ``Symbol("pdf")`` is Ruby's ``:pdf``, and equal to the text ``"pdf"`` in Python."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Symbol({str(self)!r})"


class GlobalID(str):
    """A record of a Rails application: ``gid://app/User/1``. Rails loads it for its job; Python sees its name.

    Raises ValueError for what is no such name.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Take ``gid://application/Model/id``."""
        named = super().__new__(cls, text)
        if len(named._parts) != len(("application", "model", "id")) or not text.startswith("gid://"):
            raise ValueError(f"{text!r} is no global id; write gid://application/Model/id")
        return named

    def __repr__(self) -> str:
        return f"GlobalID({str(self)!r})"

    @property
    def _parts(self) -> list[str]:
        return [part for part in self.removeprefix("gid://").split("/", 2) if part]

    @property
    def model_name(self) -> str:
        """The record's class."""
        return self._parts[1]

    @property
    def model_id(self) -> str:
        """The record's id, as it stands there."""
        return self._parts[2].partition("?")[0]
