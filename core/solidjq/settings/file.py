"""The file jq.toml: where it is found, how it is read, and the words for what is wrong in it."""

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from platformdirs import user_config_path

from solidjq.errors import UsageError
from solidjq.text import one_line, printable

FILE_ENVIRONMENT = "JQ_CONFIG"
FILE_NAME = "jq.toml"


def find_file(start: Path | None = None) -> Path | None:
    """Return the file in use: JQ_CONFIG, else jq.toml here or in the nearest folder above, else in the user's own."""
    if (named := os.environ.get(FILE_ENVIRONMENT)) is not None:
        if not named:
            raise UsageError(f"{FILE_ENVIRONMENT} is empty; name a file or unset it")
        return Path(named)
    here = (start or Path.cwd()).absolute()
    places = [folder / FILE_NAME for folder in (here, *here.parents)] + [user_config_path("solidjq") / FILE_NAME]
    return next((place for place in places if place.is_file()), None)


class SettingsFile(NamedTuple):
    """A ``jq.toml`` that was read: policy and profiles of one command come from the same text."""

    path: Path
    document: Mapping[str, Any]


def read_file(path: Path | None = None) -> SettingsFile | None:
    """Read the file at ``path``, else the one that ``find`` finds, if any.

    Raises UsageError for one that cannot be read, or is not TOML.
    """
    chosen = find_file() if path is None else path
    return None if chosen is None else SettingsFile(chosen, parse_toml(read_text(chosen), str(chosen)))


def read_text(path: Path) -> str:
    """Read the file. Raises UsageError if that cannot be done."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"the policy file cannot be read: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text") from None


def parse_toml(text: str, place: str) -> dict[str, Any]:
    """Read a TOML document. Raises UsageError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{place}: not TOML: {one_line(str(error))}") from None


def known_keys(given: Mapping[str, Any], allowed: tuple[str, ...], place: str, what: str) -> None:
    """Raise UsageError, with what may have been meant, if a key is none of these."""
    for key in given:
        if key not in allowed:
            meant = get_close_matches(key, allowed, 1)
            hint = f"did you mean {meant[0]}? " if meant else ""
            raise UsageError(
                f"{place.removesuffix('.')}: unknown {what} {quoted(key)}; {hint}allowed: {', '.join(allowed)}"
            )


def table(value: Any, place: str) -> dict[str, Any]:
    """Return a value that must be a table. Raises UsageError."""
    if not isinstance(value, dict):
        raise UsageError(f"{place} is {quoted(value)}; allowed: a table")
    return value


def wrong_value(place: str, value: Any, allowed: str) -> UsageError:
    """Say what a key may hold."""
    return UsageError(f"{place} is {quoted(value)}; allowed: {allowed}")


def quoted(value: Any) -> str:
    """Write a value of the file as it may be printed."""
    return f'"{printable(value)}"' if isinstance(value, str) else one_line(repr(value))
