"""Retry policy: which job classes may be retried, how often, and into which queue; from ``jq.toml`` and ``@job``."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from solidjq.durations import parse_duration
from solidjq.settings.file import SettingsFile, check_keys, quoted, read_file, table, wrong_value

PROFILE_KEYS = ("profiles", "default_profile")  # top-level keys of the file that profiles.py reads
MOST_CHARACTERS = 255  # of a queue's name, in MySQL
MOST_CRASHES = 1_000_000


class Consent(StrEnum):
    """Whether the jobs of a class may be retried."""

    AUTO = "auto"  # by jq recover too, which nobody watches
    ASK = "ask"  # by jq retry only: a person asked for it
    NEVER = "never"  # by nobody, unless jq retry --force says so


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """The policy of one class. ``sources`` names where each key comes from; a key without a source is built in."""

    retry: Consent = Consent.ASK
    max_crashes: int = 3  # a job with so many crashes within the window is not retried
    window: timedelta = timedelta(hours=72)
    max_age: timedelta | None = None  # a failure older than that is not retried
    queue_as: str | None = None  # retried into this queue
    sources: Mapping[str, str] = field(default_factory=dict)


class _Layer(NamedTuple):
    """The settings that one source, such as a table of the file, gives a class."""

    source: str
    settings: Mapping[str, Any]


class Policy:
    """The policy of every class. A key comes from the most specific source that has it.

    The sources, most specific first: the class's own table in the file, the file's patterns that match it (those with
    more letters first), its ``@job``, ``[default]`` in the file, and the built-in values.
    """

    def __init__(
        self,
        path: Path | None = None,
        default: Mapping[str, Any] | None = None,
        classes: Mapping[str, Mapping[str, Any]] | None = None,
        registered: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
    ) -> None:
        self.path = path
        self.classes = tuple(classes or ())  # names and patterns, as written in the file
        self._default = default or {}
        self._by_name = classes or {}
        self._patterns = sorted(
            ((name, _pattern(name)) for name in self._by_name if "*" in name),
            key=lambda pattern: -len(pattern[0].replace("*", "")),
        )
        self._registered = registered or {}
        self._rules: dict[str, ClassPolicy] = {}

    def rule(self, class_name: str) -> ClassPolicy:
        """Return the policy of a class; ``""`` for that of a class without rules of its own."""
        if class_name not in self._rules:
            rule = ClassPolicy()
            for source, settings in reversed([*self._layers(class_name)]):
                rule = replace(rule, **settings, sources={**rule.sources, **dict.fromkeys(settings, source)})
            self._rules[class_name] = rule
        return self._rules[class_name]

    def _layers(self, class_name: str) -> Iterator[_Layer]:
        """Yield the sources that have settings for the class, the most specific first."""
        named = [class_name] if class_name in self._by_name else []
        named += [name for name, matches in self._patterns if name != class_name and matches.fullmatch(class_name)]
        for name in named:
            yield _Layer(f'{self.path} [classes."{name}"]', self._by_name[name])
        if class_name in self._registered:
            place, settings = self._registered[class_name]
            yield _Layer(f"@job of {place}", settings)
        yield _Layer(f"{self.path} [default]", self._default)


BUILT_IN = Policy()


def load_policy(
    file: SettingsFile | Path | None = None, *, registered: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None
) -> Policy:
    """Return the policy of a settings file that was read, or of the one at a path, by default of ``find_file``.

    ``registered`` has, for each class that ``@job`` registered, the place in the code and the settings. Raises
    UsageError, with file, key and allowed values, for a file that cannot be read or has a setting that is not allowed.
    """
    settings_file = file if isinstance(file, SettingsFile) else read_file(file)
    if settings_file is None:
        return Policy(registered=registered)
    return Policy(settings_file.path, *_check_document(settings_file.document, str(settings_file.path)), registered)


def _check_document(document: Mapping[str, Any], place: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Check the tables of the policy; return the settings of ``[default]`` and of each class. Raises UsageError."""
    check_keys(document, ("default", "classes", *PROFILE_KEYS), place, "table")
    classes = table(document.get("classes", {}), f"{place}: classes")
    return (
        check_settings(table(document.get("default", {}), f"{place}: default"), f"{place}: default."),
        {
            name: check_settings(
                table(settings, f"{place}: classes.{quoted(name)}"), f"{place}: classes.{quoted(name)}."
            )
            for name, settings in classes.items()
        },
    )


def check_settings(settings: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Check the settings of one class, from a table or from ``@job``; return them as ``ClassPolicy`` has them.

    ``place`` comes before the key in a message. Raises UsageError for an unknown key or a value that is not allowed.
    """
    check_keys(settings, tuple(_CHECKS), place, "key")
    return {key: _CHECKS[key](f"{place}{key}", value) for key, value in settings.items()}


def _consent(place: str, value: Any) -> Consent:
    if value not in tuple(Consent):
        raise wrong_value(place, value, ", ".join(quoted(consent.value) for consent in Consent))
    return Consent(value)


def _count(place: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_CRASHES:
        raise wrong_value(place, value, f"a whole number from 1 to {MOST_CRASHES}")
    return value


def _duration(place: str, value: Any) -> timedelta:
    duration = parse_duration(value) if isinstance(value, str) else None
    if duration is None or not duration:
        raise wrong_value(place, value, 'a text such as "90s", "15m", "72h", "7d"')
    return duration


def _queue(place: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MOST_CHARACTERS:
        raise wrong_value(place, value, f"a queue's name, of 1 to {MOST_CHARACTERS} characters")
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "retry": _consent,
    "max_crashes": _count,
    "window": _duration,
    "max_age": _duration,
    "queue_as": _queue,
}


def _pattern(name: str) -> re.Pattern[str]:
    """Compile a pattern of the file, in which only ``*`` is special."""
    return re.compile(".*".join(map(re.escape, name.split("*"))), re.DOTALL)
