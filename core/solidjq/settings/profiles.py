"""Named databases: the ``[profiles.NAME]`` tables of ``jq.toml``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solidjq.durations import parse_duration
from solidjq.errors import UsageError
from solidjq.settings.file import SettingsFile, check_keys, quoted, table, wrong_value

DEFAULT = "default_profile"  # the key that names the profile in use
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("database", "rails", "env", "schema", "table_prefix"), (str, "a text")),
    "alive_threshold": (str, 'a text such as "90s", "5m"'),
    "read_only": (bool, "true or false"),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """A named queue: a database's URL or a Rails application's folder, and whether it may be changed."""

    name: str
    database: str | None = None
    rails: Path | None = None
    env: str | None = None
    schema: str | None = None
    table_prefix: str | None = None
    alive_threshold: float | None = None  # seconds
    read_only: bool = False


def load_profiles(file: SettingsFile) -> dict[str, Profile]:
    """Return the profiles of a file by name.

    Raises UsageError, with file, key and allowed values, for a setting that is not allowed.
    """
    tables = table(file.document.get("profiles", {}), f"{file.path}: profiles")
    return {name: _profile(name, settings, file.path) for name, settings in tables.items()}


def choose_profile(file: SettingsFile | None, name: str | None = None) -> Profile | None:
    """Return the profile called ``name``, else the file's ``default_profile``, else None.

    Raises UsageError if there is no profile of that name.
    """
    if file is None:
        if name is None:
            return None
        raise UsageError(
            f"there is no jq.toml, so no profile {quoted(name)}; put one here, or name the file with --config"
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
        names = ", ".join(map(quoted, profiles)) or "none"
        raise UsageError(f"{place} has no profile {quoted(name)}; it has {names}")
    return profiles[name]


def _profile(name: str, document: object, path: Path) -> Profile:
    place = f"{path}: profiles.{quoted(name)}"
    settings = table(document, place)
    check_keys(settings, tuple(_KINDS), place, "key")
    for key, value in settings.items():
        kind, allowed = _KINDS[key]
        if not isinstance(value, kind) or value == "":
            raise wrong_value(f"{place}.{key}", value, allowed)
    if ("database" in settings) == ("rails" in settings):
        raise UsageError(f'{place} must have one of: database = "postgres://...", rails = "/path/of/the/application"')
    values: dict[str, Any] = dict(settings)
    if "rails" in settings:
        # A relative folder is relative to the file, wherever jq is started.
        values["rails"] = path.absolute().parent / _home(settings["rails"], f"{place}.rails")
    elif "env" in settings:
        raise UsageError(f"{place}.env chooses an environment of a Rails application; give rails, or leave it out")
    if "alive_threshold" in settings:
        duration = parse_duration(settings["alive_threshold"])
        if not duration:
            raise wrong_value(f"{place}.alive_threshold", settings["alive_threshold"], _KINDS["alive_threshold"][1])
        values["alive_threshold"] = duration.total_seconds()
    return Profile(name, **values)


def _home(text: str, place: str) -> Path:
    """Replace a leading ``~`` by the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise wrong_value(place, text, "a folder; no user has that home folder") from None
