"""The file ``jq.toml``: where it is searched for, how it is read, and the error messages for what is wrong in it."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from platformdirs import user_config_path

from solidjq.errors import UsageError
from solidjq.text import one_line, printable

FILE_ENVIRONMENT = "JQ_CONFIG"
FILE_NAME = "jq.toml"


def find_file(start: Path | None = None) -> Path | None:
    """Return the path of the settings file, None if there is none.

    JQ_CONFIG names it; else it is ``jq.toml`` in ``start`` (the current folder), in the nearest folder above, or in the
    user's configuration folder. Raises UsageError if JQ_CONFIG is empty; a file that it names need not exist.
    """
    if (named := os.environ.get(FILE_ENVIRONMENT)) is not None:
        if not named:
            raise UsageError(f"{FILE_ENVIRONMENT} is empty; set it to a file's path or unset it")
        return Path(named)
    here = (start or Path.cwd()).absolute()
    places = [folder / FILE_NAME for folder in (here, *here.parents)] + [user_config_path("solidjq") / FILE_NAME]
    return next((place for place in places if place.is_file()), None)


class SettingsFile(NamedTuple):
    """A ``jq.toml`` that was read once, so that a command's policy and profiles come from the same text."""

    path: Path
    document: Mapping[str, Any]


def read_file(path: Path | None = None) -> SettingsFile | None:
    """Read the file at ``path``, by default the one of ``find_file``; None if there is none.

    Raises UsageError for a file that cannot be read or is not TOML.
    """
    chosen = find_file() if path is None else path
    return None if chosen is None else SettingsFile(chosen, parse_toml(read_text(chosen), str(chosen)))


def read_text(path: Path) -> str:
    """Read a file as UTF-8 text. Raises UsageError if it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"cannot read the settings file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8") from None


def parse_toml(text: str, place: str) -> dict[str, Any]:
    """Parse a TOML document; ``place`` is its name in the message. Raises UsageError with the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{place} is not TOML: {one_line(str(error))}") from None


def check_keys(keys: Iterable[str], allowed: tuple[str, ...], place: str, what: str) -> None:
    """Raise UsageError for the first key that is not ``allowed``, with the allowed one that is spelled most alike.

    ``place`` is the table, ``what`` the word for a key in the message.
    """
    for key in keys:
        if key not in allowed:
            alike = get_close_matches(key, allowed, 1)
            hint = f"did you mean {alike[0]}? " if alike else ""
            raise UsageError(
                f"{place.removesuffix('.')}: unknown {what} {quoted(key)}; {hint}allowed: {', '.join(allowed)}"
            )


def table(value: Any, place: str) -> dict[str, Any]:
    """Return ``value`` if it is a TOML table; raise UsageError if not."""
    if not isinstance(value, dict):
        raise UsageError(f"{place} is {quoted(value)}; allowed: a table")
    return value


def wrong_value(place: str, value: Any, allowed: str) -> UsageError:
    """Return the error for a value that a key may not have; ``allowed`` says what it may have."""
    return UsageError(f"{place} is {quoted(value)}; allowed: {allowed}")


def quoted(value: Any) -> str:
    """Format a value of the file for a message, with control characters escaped."""
    return f'"{printable(value)}"' if isinstance(value, str) else one_line(repr(value))
