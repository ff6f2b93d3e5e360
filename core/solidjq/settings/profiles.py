"""Named databases: the ``[profiles.NAME]`` tables of ``jq.toml``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solidjq.durations import parse_duration
from solidjq.errors import UsageError
from solidjq.settings.file import SettingsFile, known_keys, quoted, table, wrong_value

DEFAULT = "default_profile"
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("database", "rails", "env", "schema", "table_prefix"), (str, "a text")),
    "alive_threshold": (str, 'a text such as "90s", "5m"'),
    "read_only": (bool, "true or false"),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a queue is, and whether it may be changed. It has a database's URL, or a Rails application's folder."""

    name: str
    database: str | None = None
    rails: Path | None = None
    env: str | None = None
    schema: str | None = None
    table_prefix: str | None = None
    alive_threshold: float | None = None  # seconds
    read_only: bool = False


def load_profiles(file: SettingsFile) -> dict[str, Profile]:
    """Return the profiles of a file, by name.

    Raises UsageError, naming file, key and allowed values, for what is none.
    """
    tables = table(file.document.get("profiles", {}), f"{file.path}: profiles")
    return {name: _profile(name, given, file.path) for name, given in tables.items()}


def choose_profile(file: SettingsFile | None, name: str | None = None) -> Profile | None:
    """Return the profile of this name, else the one that the file names as ``default_profile``, else None.

    Raises UsageError if there is none of that name.
    """
    if file is None:
        if name is None:
            return None
        raise UsageError(
            f"there is no jq.toml with a profile {quoted(name)}; see jq policy show for where it is sought"
        )
    place = str(file.path)
    if name is None:
        if DEFAULT not in file.document:
            return None
        name, place = file.document[DEFAULT], f"{file.path}: {DEFAULT} is {quoted(file.document[DEFAULT])}, and it"
        if not isinstance(name, str):
            raise wrong_value(f"{file.path}: {DEFAULT}", name, "the name of a profile")
    profiles = load_profiles(file)
    if name not in profiles:
        there = ", ".join(map(quoted, profiles)) or "none"
        raise UsageError(f"{place} has no profile {quoted(name)}; it has {there}")
    return profiles[name]


def _profile(name: str, given: object, path: Path) -> Profile:
    place = f"{path}: profiles.{quoted(name)}"
    settings = table(given, place)
    known_keys(settings, tuple(_KINDS), place, "key")
    for key, value in settings.items():
        kind, allowed = _KINDS[key]
        if not isinstance(value, kind) or value == "":
            raise wrong_value(f"{place}.{key}", value, allowed)
    if ("database" in settings) == ("rails" in settings):
        raise UsageError(f'{place} must have one of: database = "postgres://...", rails = "/path/of/the/application"')
    read: dict[str, Any] = dict(settings)
    if "rails" in settings:
        # A relative folder is one beside the file, wherever jq is started.
        read["rails"] = path.absolute().parent / _home(settings["rails"], f"{place}.rails")
    elif "env" in settings:
        raise UsageError(f"{place}.env chooses an environment of a Rails application; give rails, or leave it out")
    if "alive_threshold" in settings:
        duration = parse_duration(settings["alive_threshold"])
        if not duration:
            raise wrong_value(f"{place}.alive_threshold", settings["alive_threshold"], _KINDS["alive_threshold"][1])
        read["alive_threshold"] = duration.total_seconds()
    return Profile(name, **read)


def _home(text: str, place: str) -> Path:
    """Put the home folder in for a leading ``~``."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise wrong_value(place, text, "a folder; nobody has that home") from None
