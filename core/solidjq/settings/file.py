"""The file ``jq.toml``: how it is read, and the error messages for what is wrong in it."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from solidjq import files
from solidjq.errors import UsageError
from solidjq.text import one_line, printable

FILE_NAME = "jq.toml"
TOP_LEVEL_KEYS = ("default", "classes", "profiles", "default_profile", "mask", "queues", "workers")
MOST_BYTES = 128_000
MOST_DOTS = 64  # in a line: the parser takes quadratic time for a dotted key


class SettingsFile(NamedTuple):
    """A ``jq.toml`` that was read once, so that a command's policy and profiles come from the same text."""

    path: Path
    document: Mapping[str, Any]
    text: str = ""
    weakness: str | None = None  # who else may change it, where that has not been looked at before it was read


def read_file(path: Path) -> SettingsFile:
    """Read the file at ``path``, which may be a pipe. Raises UsageError if it cannot be read or is not TOML."""
    return parse_file(path, read_bytes(path, pipes=True))


def parse_file(path: Path, content: bytes) -> SettingsFile:
    """Parse what was read of the file at ``path``. Raises UsageError if it is not UTF-8 text or not TOML."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    return SettingsFile(path, parse_toml(text, str(path)), text)


def place_of(file: SettingsFile, *keys: str) -> str:
    """Return where a key is set, as ``path:line``; the path alone if it is not on a line of its own.

    ``keys`` lead to it from the top: ``("profiles", "night", "database")``.
    """
    lines = file.text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if keys[-1] in line and _has(lines, number, keys):
            return f"{file.path}:{number}"
    return str(file.path)


def _has(lines: Sequence[str], count: int, keys: Iterable[str]) -> bool:
    """Whether the key is set by then: in the first ``count`` lines, and as many more as the last value has."""
    value: Any = None
    for end in range(count, len(lines) + 1):
        try:
            value = tomllib.loads("".join(lines[:end]))
        except ValueError:  # in the middle of a value
            continue
        break
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def read_bytes(path: Path, *, pipes: bool = False) -> bytes:
    """Read a settings file. Raises UsageError if it cannot be read, or is bigger than any settings file."""
    try:
        return files.read_file(path, MOST_BYTES, pipes=pipes)
    except OSError as error:
        raise UsageError(f"cannot read the settings file {path}: {error.strerror}") from None


def parse_toml(text: str, place: str) -> dict[str, Any]:
    """Parse a TOML document; ``place`` is its name in the message. Raises UsageError with the line."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MOST_DOTS and not line.lstrip().startswith("#"):
            raise UsageError(f"{place} is no settings file: line {number} has more than {MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except ValueError as error:  # a number of thousands of digits, too
        raise UsageError(f"{place} is not TOML: {one_line(str(error))}") from None
    except RecursionError:
        raise UsageError(f"{place} is not TOML: nested too deep") from None


def check_keys(keys: Iterable[str], allowed: tuple[str, ...], place: str, what: str) -> None:
    """Raise UsageError for the first key that is not ``allowed``, with the allowed one that is spelled most alike.

    ``place`` is the table, ``what`` the word for a key in the message.
    """
    for key in keys:
        if key not in allowed:
            close = get_close_matches(key, allowed, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UsageError(
                f"{place.removesuffix('.')}: unknown {what} {quoted(key)}; {hint}allowed: {', '.join(allowed)}"
            )


def check_top_level(file: SettingsFile) -> SettingsFile:
    """Return the file. Raises UsageError for a top-level key or table that no settings file has."""
    check_keys(file.document, TOP_LEVEL_KEYS, str(file.path), "key or table")
    return file


def table(value: Any, place: str) -> dict[str, Any]:
    """Return ``value`` if it is a TOML table; raise UsageError if not."""
    if not isinstance(value, dict):
        raise UsageError(f"{place} is {quoted(value)}; allowed: a table")
    return value


def wrong_value(place: str, value: Any, allowed: str) -> UsageError:
    """Return the error for a value that a key may not have; ``allowed`` describes the values that it may have."""
    return UsageError(f"{place} is {quoted(value)}; allowed: {allowed}")


def quoted(value: Any) -> str:
    """Format a value of the file for a message, with control characters escaped."""
    try:
        return f'"{printable(value)}"' if isinstance(value, str) else one_line(repr(value))
    except ValueError:  # a hexadecimal number that has thousands of digits in decimal
        return "a number of thousands of digits"
