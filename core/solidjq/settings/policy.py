"""Retry policy: which job classes may be retried, how often, and into which queue; from ``jq.toml`` and ``@job``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from solidjq.durations import parse_duration
from solidjq.names import fits
from solidjq.settings.file import SettingsFile, check_keys, check_top_level, quoted, table, wrong_value
from solidjq.settings.sources import Settings

MOST_CHARACTERS = 255  # of a queue's name, in MySQL
MOST_CRASHES = 1_000_000


class Consent(StrEnum):
    """Whether the jobs of a class may be retried."""

    AUTO = "auto"  # by jq recover too, which nobody watches
    ASK = "ask"  # by jq retry only: a person asked for it
    NEVER = "never"  # by nobody, unless jq retry --force says so


class CrashCounting(StrEnum):
    """Which of a job's crashes count together; it makes a difference for jobs with checkpoints only."""

    POSITION = "position"  # those at the step and cursor where it died last: progress starts the count again
    JOB = "job"  # all


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """The policy of one class. ``sources`` names where each key comes from; a key without a source is built in."""

    retry: Consent = Consent.ASK
    max_crashes: int = 3  # a job with so many crashes within the window is not retried
    window: timedelta = timedelta(hours=72)
    count: CrashCounting = CrashCounting.POSITION
    max_age: timedelta | None = None  # a failure older than that is not retried
    queue_as: str | None = None  # retried into this queue
    sources: Mapping[str, str] = field(default_factory=dict)


class _Layer(NamedTuple):
    """The settings that one source, such as a table of the file, gives a class."""

    source: str
    settings: Mapping[str, Any]


class PolicyFile(NamedTuple):
    """The policy of one settings file, checked."""

    path: Path | str
    default: Mapping[str, Any]
    classes: Mapping[str, Mapping[str, Any]]

    def class_layers(self, class_name: str) -> Iterator[_Layer]:
        """Yield the tables of the file that name the class or match it, the most specific first."""
        patterns = sorted((name for name in self.classes if "*" in name), key=lambda name: -len(name.replace("*", "")))
        matching = [class_name] if class_name in self.classes else []
        matching += [name for name in patterns if name != class_name and fits(name, class_name)]
        for name in matching:
            yield _Layer(f'{self.path} [classes."{name}"]', self.classes[name])

    def default_layer(self) -> _Layer:
        """Return the settings of ``[default]``."""
        return _Layer(f"{self.path} [default]", self.default)


class Policy:
    """The policy of every class. A key comes from the most specific source that has it.

    The sources, most specific first: the class's own table in a file, the file's patterns that match it (those with
    more letters first), its ``@job``, ``[default]`` in a file, and the built-in values. ``files`` has the strongest
    first. ``found`` is a file that may only tighten what these give.
    """

    def __init__(
        self,
        files: Sequence[PolicyFile] = (),
        *,
        found: PolicyFile | None = None,
        registered: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
    ) -> None:
        self.files = tuple(files)
        self.found = found
        self._registered = registered or {}
        self._rules: dict[str, ClassPolicy] = {}

    def words(self) -> str:
        """Name the files that give this policy, and the found file that makes it stricter; empty if it is built in."""
        files = " and ".join(str(file.path) for file in self.files if file.default or file.classes)
        if self.found is None or not self._tightens(self.found):
            return files
        return f"{files or 'built in'}, made stricter by {self.found.path}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names and patterns, as written in the files."""
        files = self.files if self.found is None else (*self.files, self.found)
        return tuple(dict.fromkeys(name for file in files for name in file.classes))

    def rule(self, class_name: str) -> ClassPolicy:
        """Return the policy of a class; ``""`` for that of a class without rules of its own."""
        if class_name not in self._rules:
            rule = self._base_rule(class_name)
            if self.found is not None:
                rule = tightened(rule, [*self.found.class_layers(class_name), self.found.default_layer()])
            self._rules[class_name] = rule
        return self._rules[class_name]

    def ignored(self) -> tuple[str, ...]:
        """Return the keys of the found file that count for nothing, because they would loosen what the others give."""
        if self.found is None:
            return ()
        tables = {"default": ("", self.found.default)} | {
            f"classes.{quoted(name)}": (name, settings) for name, settings in self.found.classes.items()
        }
        return tuple(
            f"{place}.{key}"
            for place, (name, settings) in tables.items()
            for key, value in settings.items()
            if not is_at_least_as_strict(key, value, getattr(self._base_rule(name), key))
        )

    def _tightens(self, found: PolicyFile) -> bool:
        """Whether a key of the found file is stricter than what the others give to a class that it may apply to."""
        names = ("", *self.classes, *self._registered)
        return any(
            is_stricter(key, value, getattr(self._base_rule(name), key))
            for pattern, settings in [("*", found.default), *found.classes.items()]
            for name in names
            if _may_match(pattern, name)
            for key, value in settings.items()
        )

    def _base_rule(self, class_name: str) -> ClassPolicy:
        """Return the policy of a class without the found file."""
        rule = ClassPolicy()
        for source, settings in reversed([*self._layers(class_name)]):
            rule = replace(rule, **settings, sources={**rule.sources, **dict.fromkeys(settings, source)})
        return rule

    def _layers(self, class_name: str) -> Iterator[_Layer]:
        """Yield the sources that have settings for the class, the most specific first."""
        for file in self.files:
            yield from file.class_layers(class_name)
        if class_name in self._registered:
            place, settings = self._registered[class_name]
            yield _Layer(f"@job of {place}", settings)
        for file in self.files:
            yield file.default_layer()


BUILT_IN = Policy()
KEYS = tuple(field.name for field in fields(ClassPolicy) if field.name != "sources")  # of a class's policy


def tightened(rule: ClassPolicy, layers: Sequence[_Layer]) -> ClassPolicy:
    """Return the policy with each key that the layers, the most specific first, make stricter; no key gets looser."""
    settings: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in reversed(layers):
        settings |= values
        sources |= dict.fromkeys(values, source)
    stricter = {key: value for key, value in settings.items() if is_stricter(key, value, getattr(rule, key))}
    return replace(rule, **stricter, sources={**rule.sources, **{key: sources[key] for key in stricter}})


def is_at_least_as_strict(key: str, value: Any, than: Any) -> bool:
    """Whether a key's value lets no job move that ``than`` holds back. A queue's name never is, unless it is the same.

    A longer window counts more crashes, so it is stricter; so does the count by job.
    """
    if value == than:
        return True
    match key:
        case "retry" | "count":
            order: list[StrEnum] = [*(Consent if key == "retry" else CrashCounting)]
            return order.index(value) > order.index(than)
        case "max_crashes":
            return bool(value < than)
        case "window":
            return bool(value > than)
        case "max_age":
            return than is None or bool(value < than)
        case _:
            return False


def is_stricter(key: str, value: Any, than: Any) -> bool:
    """Whether a key's value holds back jobs that ``than`` lets move, and none the other way round."""
    return bool(value != than) and is_at_least_as_strict(key, value, than)


def load_policy(
    settings: Settings | SettingsFile | None = None,
    *,
    registered: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
) -> Policy:
    """Return the policy of settings files that were read; without any it is built in.

    ``registered`` has, for each class that ``@job`` registered, the place in the code and the settings. Raises
    UsageError, with file, key and allowed values, for a setting that is not allowed.
    """
    if isinstance(settings, SettingsFile):
        settings = Settings((settings,))
    settings = settings or Settings()
    return Policy(
        [_policy_file(file) for file in settings.files],
        found=None if settings.found is None else _policy_file(settings.found),
        registered=registered,
    )


def _policy_file(file: SettingsFile) -> PolicyFile:
    return PolicyFile(file.path, *_check_document(check_top_level(file).document, str(file.path)))


def _check_document(document: Mapping[str, Any], place: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Check the tables of the policy; return the settings of ``[default]`` and of each class. Raises UsageError."""
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


def _counting(place: str, value: Any) -> CrashCounting:
    if value not in tuple(CrashCounting):
        raise wrong_value(place, value, ", ".join(quoted(counting.value) for counting in CrashCounting))
    return CrashCounting(value)


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
    "count": _counting,
    "max_age": _duration,
    "queue_as": _queue,
}


def _may_match(pattern: str, name: str) -> bool:
    """Whether a class may have this name and match the pattern; ``name`` may be a pattern too, or "" for any class."""
    return not name or ("*" in name and "*" in pattern) or fits(pattern, name) or fits(name, pattern)
