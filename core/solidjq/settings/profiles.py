"""Named databases: the ``[profiles.NAME]`` tables of ``jq.toml``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solidjq.durations import parse_duration
from solidjq.errors import RefusedError, UsageError
from solidjq.home import config_folder
from solidjq.settings.file import FILE_NAME, check_keys, quoted, table, wrong_value
from solidjq.settings.password_command import parse_command
from solidjq.settings.sources import SYSTEM_FILE, Settings, cure

DEFAULT = "default_profile"  # the key that names the profile in use
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("database", "rails", "env", "schema", "table_prefix"), (str, "a text")),
    "password_command": (str, "a command line, with every quote closed"),
    "alive_threshold": (str, 'a text such as "90s", "5m"'),
    "read_only": (bool, "true or false"),
    "confirm": (str, '"yes" or "name"'),
}
BY_NAME = "name"  # the value of confirm that asks for the profile's name
_CHOICES = {"confirm": ("yes", BY_NAME)}


@dataclass(frozen=True, slots=True)
class Profile:
    """A named queue: a database's URL or a Rails application's folder, and whether it may be changed."""

    name: str
    place: str  # the file and the table, for messages
    database: str | None = None
    rails: Path | None = None
    env: str | None = None
    schema: str | None = None
    table_prefix: str | None = None
    password_command: tuple[str, ...] = ()  # its standard output is the password
    alive_threshold: float | None = None  # seconds
    read_only: bool = False
    confirm: str = "yes"  # how a bulk change is confirmed: "yes", or the profile's own "name"


def load_profiles(settings: Settings) -> dict[str, Profile]:
    """Return the profiles of the files that may name databases, by name; of two of one name the stronger file's.

    Raises UsageError, with file, key and allowed values, for a setting that is not allowed.
    """
    return {
        name: _profile(name, table_of_profile, file.path)
        for file in reversed(settings.files)
        for name, table_of_profile in table(file.document.get("profiles", {}), f"{file.path}: profiles").items()
    }


def choose_profile(settings: Settings, name: str | None = None) -> Profile | None:
    """Return the profile called ``name``, else the ``default_profile``, else None.

    Raises UsageError if there is no profile of that name, RefusedError if it runs a command and others may write it.
    """
    file = next((file for file in settings.files if DEFAULT in file.document), None)
    place = " and ".join(str(file.path) for file in settings.files)
    if name is None:
        if file is None:
            return None
        name, place = file.document[DEFAULT], f"{file.path}: {DEFAULT} is {quoted(file.document[DEFAULT])}, and it"
        if not isinstance(name, str):
            raise wrong_value(f"{file.path}: {DEFAULT}", name, "the name of a profile")
    profiles = load_profiles(settings)
    if name in profiles:
        return _checked(settings, profiles[name])
    found = settings.found
    if found is not None and name in table(found.document.get("profiles", {}), f"{found.path}: profiles"):
        raise UsageError(
            f"profile {quoted(name)} is in {found.path} only, and a file that is found where you stand names no "
            f"databases; {cure(found.path)}"
        )
    hint = "" if settings.distrust is None else f"; {settings.distrust}"
    if not settings.files:
        raise UsageError(
            f"no settings file names databases, so there is no profile {quoted(name)}; write "
            f"{config_folder() or SYSTEM_FILE.parent}/{FILE_NAME}, or name a file with --config{hint}"
        )
    names = ", ".join(map(quoted, profiles)) or "none"
    raise UsageError(f"{place} has no profile {quoted(name)}; it has {names}{hint}")


def _checked(settings: Settings, profile: Profile) -> Profile:
    """Return the profile. Raises RefusedError if its command could be another's, as in a file that is only named."""
    weakness = next((file.weakness for file in settings.files if file.weakness), None)
    if profile.password_command and weakness:
        raise RefusedError(
            f"{profile.place}.password_command is not run: {weakness}; give the file to this user or root, and take "
            f"the right to write from all others"
        )
    return profile


def _profile(name: str, document: object, path: Path) -> Profile:
    place = f"{path}: profiles.{quoted(name)}"
    settings = table(document, place)
    check_keys(settings, tuple(_KINDS), place, "key")
    for key, value in settings.items():
        kind, allowed = _KINDS[key]
        if not isinstance(value, kind) or value == "" or value not in _CHOICES.get(key, (value,)):
            raise wrong_value(f"{place}.{key}", value, allowed)
    if ("database" in settings) == ("rails" in settings):
        raise UsageError(f'{place} must have one of: database = "postgres://...", rails = "/path/of/the/application"')
    values: dict[str, Any] = dict(settings)
    if "rails" in settings:
        # A relative folder is relative to the file, wherever jq is started.
        values["rails"] = path.absolute().parent / _home(settings["rails"], f"{place}.rails")
    elif "env" in settings:
        raise UsageError(f"{place}.env chooses an environment of a Rails application; give rails, or leave it out")
    if "password_command" in settings:
        command = parse_command(settings["password_command"])
        if command is None:
            raise wrong_value(f"{place}.password_command", "***", _KINDS["password_command"][1])
        values["password_command"] = tuple(command)
    if "alive_threshold" in settings:
        duration = parse_duration(settings["alive_threshold"])
        if not duration:
            raise wrong_value(f"{place}.alive_threshold", settings["alive_threshold"], _KINDS["alive_threshold"][1])
        values["alive_threshold"] = duration.total_seconds()
    return Profile(name, place, **values)


def _home(text: str, place: str) -> Path:
    """Replace a leading ``~`` by the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise wrong_value(place, text, "a folder; no user has that home folder") from None
