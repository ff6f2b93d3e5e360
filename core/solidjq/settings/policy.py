"""Retry policy: which job classes may be retried, how often, and where to. Read from ``jq.toml`` and from ``@job``."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from solidjq.durations import parse_duration
from solidjq.settings.file import SettingsFile, known_keys, parse_toml, quoted, read_file, table, wrong_value

OF_PROFILES = ("profiles", "default_profile")  # the keys of the file that profiles.py reads
MOST_CHARACTERS = 255  # of a queue's name, in MySQL
MOST_CRASHES = 1_000_000


class Consent(StrEnum):
    """Whether a class may be retried."""

    AUTO = "auto"  # by program too: jq recover
    ASK = "ask"  # when a person asks for it
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """What holds for one class. ``sources`` says of each key where it comes from; a key without one is built in."""

    retry: Consent = Consent.ASK
    max_crashes: int = 3  # a job that crashed so often within the window is not retried
    window: timedelta = timedelta(hours=72)
    max_age: timedelta | None = None  # a failure older than that is not retried
    queue_as: str | None = None  # retried into this queue
    sources: Mapping[str, str] = field(default_factory=dict)


class _Layer(NamedTuple):
    """Settings of one place."""

    source: str
    settings: Mapping[str, Any]


class Policy:
    """Rules by class. A key comes from the most specific place that gives it.

    These are, in turn: the class's own table in the file, the patterns there that match it (the one with more letters
    first), its ``@job``, ``[default]`` in the file, and what is built in.
    """

    def __init__(
        self,
        path: Path | None = None,
        default: Mapping[str, Any] | None = None,
        classes: Mapping[str, Mapping[str, Any]] | None = None,
        registered: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
    ) -> None:
        self.path = path
        self.classes = tuple(classes or ())  # names and patterns, as they stand in the file
        self._default = default or {}
        self._by_name = classes or {}
        self._patterns = sorted(
            ((name, _pattern(name)) for name in self._by_name if "*" in name),
            key=lambda each: -len(each[0].replace("*", "")),
        )
        self._registered = registered or {}
        self._rules: dict[str, ClassPolicy] = {}

    def rule(self, class_name: str) -> ClassPolicy:
        """Return what holds for a class."""
        if class_name not in self._rules:
            rule = ClassPolicy()
            for source, settings in reversed([*self._layers(class_name)]):
                rule = replace(rule, **settings, sources={**rule.sources, **dict.fromkeys(settings, source)})
            self._rules[class_name] = rule
        return self._rules[class_name]

    def _layers(self, class_name: str) -> Iterator[_Layer]:
        """Yield what says something of the class, the most specific first."""
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
    """Return the policy of a file, of the one at this path, or else of the one that ``find`` finds, if any.

    ``registered``: for each class that ``@job`` registered, where that is and its settings. Raises UsageError, naming
    file, key and allowed values, for a file that cannot be read or holds anything else than a policy.
    """
    found = file if isinstance(file, SettingsFile) else read_file(file)
    if found is None:
        return Policy(registered=registered)
    return Policy(found.path, *check(found.document, str(found.path)), registered)


def parse(text: str, place: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Read a TOML document; return the settings of ``[default]`` and of each class. Raises UsageError."""
    return check(parse_toml(text, place), place)


def check(document: Mapping[str, Any], place: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Check what was read; return the settings of ``[default]`` and of each class. Raises UsageError."""
    known_keys(document, ("default", "classes", *OF_PROFILES), place, "table")
    classes = table(document.get("classes", {}), f"{place}: classes")
    return (
        settings(table(document.get("default", {}), f"{place}: default"), f"{place}: default."),
        {
            name: settings(table(given, f"{place}: classes.{quoted(name)}"), f"{place}: classes.{quoted(name)}.")
            for name, given in classes.items()
        },
    )


def settings(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Check the keys of one table, or what ``@job`` was given; return their values. Raises UsageError."""
    known_keys(given, tuple(_CHECKS), place, "key")
    return {key: _CHECKS[key](f"{place}{key}", value) for key, value in given.items()}


def _consent(place: str, value: Any) -> Consent:
    if value not in tuple(Consent):
        raise wrong_value(place, value, ", ".join(quoted(each.value) for each in Consent))
    return Consent(value)


def _count(place: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_CRASHES:
        raise wrong_value(place, value, "a whole number from 1 on")
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
    """Compile a pattern in which only ``*`` is special."""
    return re.compile(".*".join(map(re.escape, name.split("*"))), re.DOTALL)
