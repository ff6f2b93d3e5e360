"""Names as operators write them: job ids, incidents and groups of failures; and the likeliest name for a typing error.

A job is named by its id or its Active Job id (``42``, ``0b8e9c1a-...``), an incident by its first death (``d13``,
``f123``), a group of failures by a hash of its signature (``g2569e0c``).
"""

import difflib
import re
from collections.abc import Iterable
from enum import Enum

from solidjq.errors import UsageError

INCIDENT_NAME = re.compile(r"[df]\d+", re.ASCII)
GROUP_NAME = re.compile(r"g[0-9a-f]{5,8}")  # seven digits; with one too many or a few too few it is still no job's id

_LONGEST = 80  # characters of a name that are compared
_MOST_COMPARED = 10_000  # names among which a suggestion is searched for
_ALIKE = 0.6  # the least similarity of a suggestion, of 1


class NameKind(Enum):
    """What a name names."""

    JOB = "job"
    INCIDENT = "incident"
    GROUP = "group"


def kind_of(name: str) -> NameKind:
    """Return what a name names. Raises UsageError for a text that cannot be a name."""
    if INCIDENT_NAME.fullmatch(name):
        return NameKind.INCIDENT
    if GROUP_NAME.fullmatch(name):
        return NameKind.GROUP
    if not any(map(str.isalnum, name)) or not all(c.isalnum() or c in "-_" for c in name):
        raise UsageError(f"{name!r} is not a job id, an incident (d13) or a group of failures (g2569e0c)")
    return NameKind.JOB


def fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern in which each ``*`` stands for any text; in linear time for each piece between."""
    first, *pieces = pattern.split("*")
    if not pieces:
        return name == pattern
    *middle, last = pieces
    if not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        at = name.find(piece, at, end)  # the first place leaves the most to the pieces that follow
        if at < 0:
            return False
        at += len(piece)
    return at <= end


def closest(name: str, names: Iterable[str], count: int = 1) -> list[str]:
    """Return up to ``count`` of the names that are most like this one, the most alike first."""
    by_lower: dict[str, str] = {}
    for other in names:
        by_lower.setdefault(other.lower(), other)
        if len(by_lower) == _MOST_COMPARED:
            break
    likely = difflib.get_close_matches(name[:_LONGEST].lower(), by_lower, count, _ALIKE)
    return [by_lower[lower] for lower in likely]


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return the end of a message on a name that does not exist: ``; did you mean mailers?``, or nothing."""
    return "".join(f"; did you mean {other}?" for other in closest(name, names))
