"""The settings of a command line: each value, and where it comes from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from solidjq_cli.session import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from solidjq.settings.profiles import Profile
    from solidjq_cli.session import Session

BUILT_IN = "built in"
# Environment variables that are no option's, and what counts without them.
_VARIABLES = {
    "JQ_RELEASE": None,
    "JQ_DEBUG": None,
    "NO_COLOR": None,
    "PAGER": "less",
}


class Setting(NamedTuple):
    """A setting, and where its value comes from: an option, an environment variable, ``file:line``, or ``built in``."""

    name: str
    value: str | float | bool | None
    source: str


def settings_in_force(command: Session, root: Any) -> Iterator[Setting]:
    """Yield the settings of this command line; ``root`` is the context of the options before the command.

    Passwords are masked, and no password command is run. Raises what connecting with these settings would raise.
    """
    profile = _profile(command)
    yield from _files(command, root)
    yield from _connection(command, root, profile)
    yield from _policy(command)
    for name, default in _VARIABLES.items():
        value = os.environ.get(name)
        yield Setting(name, default if value is None else value, BUILT_IN if value is None else "environment")


def _profile(command: Session) -> Profile | None:
    """Return the profile in use: the one that is named, else the default one where no database is named."""
    from solidjq.settings.profiles import choose_profile

    name = command.connecting.profile
    if name is None and (command.named.names_a_database() or ENVIRONMENT in os.environ):
        return None
    return choose_profile(command.settings, name)


def _files(command: Session, root: Any) -> Iterator[Setting]:
    from solidjq.settings import sources

    named = command.config_file
    how = "found" if named is None else _given(root, "config_file", "--config", "JQ_CONFIG") or "--config"
    if named is None and sources.named_file() is not None:
        how = "JQ_CONFIG"
    for path, standing in sources.describe(named):
        yield Setting("config", str(path), how if how != "found" else standing)


def _connection(command: Session, root: Any, profile: Profile | None) -> Iterator[Setting]:
    from solidjq.rails.database_yml import chosen_environment
    from solidjq.settings.profiles import DEFAULT

    connecting = command.connecting
    typed = _given(root, "profile", "--profile", "JQ_PROFILE")
    default = _set_in(command, DEFAULT) if profile is not None and typed is None else None
    yield Setting("profile", None if profile is None else profile.name, typed or default or BUILT_IN)
    yield _database(command, profile)
    own = {} if profile is None or connecting.profile_place is None else _keys_of(command, profile)
    environment = None if connecting.rails is None else chosen_environment(None, os.environ)
    for name, option, variable, value, built_in in (
        ("rails", "--rails", "", connecting.rails, None),
        ("env", "--env", "", connecting.environment, environment),
        ("schema", "--schema", "JQ_SCHEMA", connecting.schema, None),
        ("table_prefix", "--table-prefix", "JQ_TABLE_PREFIX", connecting.table_prefix, "solid_queue_"),
    ):
        source = _given(root, "environment" if name == "env" else name, option, variable) or own.get(name)
        if source is None and name == "env" and connecting.rails is not None and os.environ.get("RAILS_ENV"):
            source = "RAILS_ENV"
        shown = built_in if value is None else str(value)
        yield Setting(name, shown, source or BUILT_IN)
    read_only = None if profile is None or not profile.read_only else _keys_of(command, profile).get("read_only")
    source = _given(root, "read_only", "--read-only", "JQ_READ_ONLY") if root.params.get("read_only") else None
    yield Setting("read_only", connecting.read_only, source or read_only or BUILT_IN)
    yield Setting("confirm", "yes" if connecting.confirm_name is None else "name", own.get("confirm", BUILT_IN))
    yield Setting(
        "password_command", " ".join(connecting.password_command) or None, own.get("password_command", BUILT_IN)
    )
    yield _alive_threshold(command, own)
    csv_raw = bool(root.params.get("csv_raw"))
    yield Setting(
        "csv_raw", csv_raw, (_given(root, "csv_raw", "--csv-raw", "JQ_CSV_RAW") if csv_raw else None) or BUILT_IN
    )


def _database(command: Session, profile: Profile | None) -> Setting:
    from solidjq.database.opening import embedded_url
    from solidjq.database.urls import masked_url, parse_url
    from solidjq.rails.settings import queue_url

    connecting = command.connecting
    if connecting.rails is not None:
        url = queue_url(connecting.rails, connecting.environment)
        return Setting("database", masked_url(url), f"{connecting.rails}/config/database.yml")
    if connecting.database is not None:
        in_file = (
            None if connecting.profile_place is None or profile is None else _keys_of(command, profile)["database"]
        )
        return Setting("database", masked_url(parse_url(connecting.database)), in_file or "--database")
    if (text := os.environ.get(ENVIRONMENT)) is not None:
        return Setting("database", masked_url(parse_url(text)) if text.strip() else "", ENVIRONMENT)
    return Setting("database", masked_url(embedded_url()), f"{BUILT_IN}: no database is named")


def _alive_threshold(command: Session, own: dict[str, str]) -> Setting:
    from solidjq.processes.heartbeat import ALIVE_THRESHOLD
    from solidjq.rails.settings import THRESHOLD, read_settings

    if text := os.environ.get("JQ_ALIVE_THRESHOLD"):
        return Setting("alive_threshold", text, "JQ_ALIVE_THRESHOLD")
    connecting = command.connecting
    if connecting.alive_threshold is not None:
        return Setting("alive_threshold", connecting.alive_threshold, own.get("alive_threshold", BUILT_IN))
    if connecting.rails is not None:
        setting = read_settings(connecting.rails, connecting.environment).get(THRESHOLD)
        if setting is not None:
            return Setting("alive_threshold", setting.code if setting.value is None else setting.value, setting.place)
    return Setting("alive_threshold", ALIVE_THRESHOLD, BUILT_IN)


def _policy(command: Session) -> Iterator[Setting]:
    from datetime import timedelta

    from solidjq.durations import spell_duration
    from solidjq.settings.policy import KEYS

    rule = command.policy(None, quiet=True).rule("")
    for key in KEYS:
        value = getattr(rule, key)
        shown = spell_duration(value) if isinstance(value, timedelta) else value
        source = _set_in(command, "default", key) if key in rule.sources else None
        yield Setting(
            f"default.{key}", None if shown is None else str(shown), source or rule.sources.get(key, BUILT_IN)
        )


# -- where ------------------------------------------------------------------------------------------------------------


def _given(root: Any, parameter: str, option: str, variable: str) -> str | None:
    """Return what gives this option: its name, its environment variable, or nothing."""
    source = getattr(root.get_parameter_source(parameter), "name", None)
    return {"COMMANDLINE": option, "ENVIRONMENT": variable}.get(source or "")


def _set_in(command: Session, *keys: str) -> str | None:
    """Return the place of a key in the strongest file that has it."""
    from solidjq.settings.file import place_of

    found = command.settings.found
    for file in (*command.settings.files, *([] if found is None else [found])):
        at: Any = file.document
        for key in keys:
            at = at.get(key) if isinstance(at, dict) else None
        if at is not None:
            return place_of(file, *keys)
    return None


def _keys_of(command: Session, profile: Profile) -> dict[str, str]:
    """Return the keys that a profile sets, with their places; of two files that have it the stronger's."""
    from solidjq.settings.file import place_of

    for file in command.settings.files:
        table = file.document.get("profiles", {}).get(profile.name)
        if table is not None:
            return {key: place_of(file, "profiles", profile.name, key) for key in table}
    return {}
