"""Standard input: words or lines, of which none is longer and no more are read than a command can take."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_WORD = 1_000  # characters; the longest name of a job has 255
MOST_WORDS = 1_000_000
LONGEST_LINE = 1_000_000  # characters
MOST_LINES = 100_000  # they are enqueued in one transaction
MOST_CHARACTERS = 100_000_000  # blanks included, which are neither words nor end
_CHUNK = 65_536
_MARK = "|"


def words() -> Iterator[str]:
    """Yield the words of standard input. Raises UsageError for too many, one that is too long, or no UTF-8 text."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    rest, count, read = "", 0, 0
    while chunk := _read(_CHUNK):
        read = _count(read, chunk)
        *complete, rest = f"{rest}{chunk}{_MARK}".split()  # the mark tells a word that goes on from one that has ended
        rest = rest.removesuffix(_MARK)
        count += len(complete)
        if count > MOST_WORDS:
            raise UsageError(f"standard input has more than {MOST_WORDS:,} words; split it")
        if max(map(len, [*complete, rest])) > LONGEST_WORD:
            raise UsageError(f"standard input has a word of more than {LONGEST_WORD:,} characters")
        yield from complete
    if rest:
        yield rest


def lines() -> Iterator[tuple[int, str]]:
    """Yield the lines of standard input with their numbers. Raises UsageError as ``words`` does."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    number = read = 0
    while line := _read(LONGEST_LINE + 1, line=True):
        number += 1
        read = _count(read, line)
        if len(line) > LONGEST_LINE:
            raise UsageError(f"line {number} of standard input has more than {LONGEST_LINE:,} characters")
        if number > MOST_LINES:
            raise UsageError(f"standard input has more than {MOST_LINES:,} lines; split it")
        yield number, line


def _count(read: int, text: str) -> int:
    """Return how many characters were read with this text. Raises UsageError if they are too many."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    if (read := read + len(text)) > MOST_CHARACTERS:
        raise UsageError(f"standard input has more than {MOST_CHARACTERS:,} characters; split it")
    return read


def _read(size: int, *, line: bool = False) -> str:
    """Return at most ``size`` characters, with ``line`` not beyond the end of the line; nothing at the end."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    if sys.stdin is None:
        raise UsageError("standard input is closed")
    try:
        text = sys.stdin.readline(size) if line else sys.stdin.read(size)
        text.encode()  # in the C locale, Python escapes what is not UTF-8
    except UnicodeError:
        raise UsageError("standard input is not UTF-8 text") from None
    except OSError as error:  # it is a folder
        raise UsageError(f"standard input cannot be read: {error.strerror}") from None
    return text
