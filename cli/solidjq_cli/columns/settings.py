"""Columns of settings, settings files, profiles and retry policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from solidjq_cli.columns.column import Column, Fields

if TYPE_CHECKING:
    from solidjq.settings.profiles import Profile
    from solidjq_cli.effective import Setting


def setting_fields() -> Fields[Setting]:
    """Fields of a setting of the command line."""
    from solidjq.text import mask_secrets

    return Fields(
        (
            Column("name", lambda s: s.name, "SETTING"),
            Column(
                "value", lambda s: mask_secrets(s.value) if isinstance(s.value, str) else s.value, "VALUE", wide=True
            ),
            Column("source", lambda s: s.source, "FROM", wide=True),
        ),
        lambda _: [],
    )


class ConfigFile(NamedTuple):
    """A settings file, and what it may do."""

    path: str
    standing: str


def config_file_fields() -> Fields[ConfigFile]:
    """Fields of a settings file."""
    return Fields(
        (
            Column("path", lambda f: f.path, "FILE", wide=True),
            Column("standing", lambda f: f.standing, "STANDING", wide=True),
        ),
        lambda _: [],
    )


def profile_fields() -> Fields[Profile]:
    """Fields of a named database."""
    from solidjq.text import mask_secrets

    return Fields(
        (
            Column("name", lambda p: p.name, "PROFILE"),
            Column("database", lambda p: p.database and mask_secrets(p.database), "DATABASE", wide=True),
            Column("rails", lambda p: p.rails and str(p.rails), "RAILS", wide=True),
            Column("env", lambda p: p.env, "ENV"),
            Column("schema", lambda p: p.schema, "SCHEMA"),
            Column("table_prefix", lambda p: p.table_prefix, "PREFIX"),
            Column("alive_threshold", lambda p: p.alive_threshold, "THRESHOLD"),
            Column("read_only", lambda p: p.read_only, "READ-ONLY"),
            Column("confirm", lambda p: p.confirm, "CONFIRM"),
        ),
        lambda _: [],
    )


class PolicySetting(NamedTuple):
    """One key of a class's retry policy."""

    class_name: str
    key: str
    value: Any
    source: str


def policy_setting_fields() -> Fields[PolicySetting]:
    """Fields of one key of a class's retry policy."""
    return Fields(
        (
            Column("class_name", lambda s: s.class_name, "CLASS", wide=True),
            Column("key", lambda s: s.key, "KEY"),
            Column("value", lambda s: s.value, "VALUE"),
            Column("source", lambda s: s.source, "FROM", wide=True),
        ),
        lambda _: [],
    )
