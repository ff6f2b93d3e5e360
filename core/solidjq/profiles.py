"""Named databases: the ``[profiles.NAME]`` tables of ``jq.toml``."""

from dataclasses import dataclass
from pathlib import Path

from solidjq.errors import UsageError
from solidjq.policy import known_keys, parse_toml, quoted, read_text, table, wrong

KEYS = ("database", "rails", "env", "schema", "read_only")


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a queue is, and whether it may be changed. It has a database's URL, or a Rails application's folder."""

    name: str
    database: str | None = None
    rails: Path | None = None
    env: str | None = None
    schema: str | None = None
    read_only: bool = False


def load(path: Path) -> dict[str, Profile]:
    """Read the profiles of a file, by name.

    Raises UsageError, naming file, key and allowed values, for what is none.
    """
    document = parse_toml(read_text(path), str(path))
    tables = table(document.get("profiles", {}), f"{path}: profiles")
    return {name: _profile(name, given, path) for name, given in tables.items()}


def choose(path: Path | None, name: str) -> Profile:
    """Return the profile of this name. Raises UsageError if there is none."""
    if path is None:
        raise UsageError(
            f"there is no jq.toml with a profile {quoted(name)}; see jq policy show for where it is sought"
        )
    profiles = load(path)
    if name not in profiles:
        there = ", ".join(map(quoted, profiles)) or "none"
        raise UsageError(f"{path} has no profile {quoted(name)}; it has {there}")
    return profiles[name]


def _profile(name: str, given: object, path: Path) -> Profile:
    place = f"{path}: profiles.{quoted(name)}"
    settings = table(given, place)
    known_keys(settings, KEYS, place, "key")
    for key, value in settings.items():
        kind = bool if key == "read_only" else str
        if not isinstance(value, kind) or value == "":
            raise wrong(f"{place}.{key}", value, "true or false" if kind is bool else "a text")
    if ("database" in settings) == ("rails" in settings):
        raise UsageError(f'{place} must have one of: database = "postgres://...", rails = "/path/of/the/application"')
    rails = settings.get("rails")
    # A relative folder is one beside the file, wherever jq is started.
    return Profile(name, **{**settings, **({} if rails is None else {"rails": path.absolute().parent / rails})})
