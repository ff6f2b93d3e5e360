"""Promises: how long jobs of a queue may wait, and how many workers there should be.

``[queues.NAME]`` has ``latency`` and ``expect``, ``[workers]`` has ``expect``. A queue's name may promise its latency
itself: ``within_5_minutes``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from solidjq.durations import SECONDS, parse_duration
from solidjq.names import fits
from solidjq.settings.file import SettingsFile, check_keys, quoted, table, wrong_value
from solidjq.settings.sources import Settings

QUEUES, WORKERS = "queues", "workers"
MOST_WORKERS = 1_000_000
_WITHIN = re.compile(r"(?:^|[^a-z0-9])within[_-](\d{1,6})[_-](second|minute|hour|day)s?(?![a-z0-9])", re.IGNORECASE)


def latency_in_name(queue: str) -> float | None:
    """Return the seconds that a queue's name promises: 300 for ``within_5_minutes``; None if it promises none."""
    match = _WITHIN.search(queue)
    return float(int(match[1]) * SECONDS[match[2][0].lower()]) or None if match else None


@dataclass(frozen=True, slots=True)
class Promises:
    """What is promised. A pattern of queues, such as ``mail*``, counts where no table names the queue itself."""

    latencies: Mapping[str, float] = field(default_factory=dict)  # seconds, by queue or pattern
    expected: Mapping[str, int] = field(default_factory=dict)  # workers that poll a queue, by its name
    workers: int | None = None  # of all queues together

    def latency(self, queue: str) -> float | None:
        """Return how many seconds a job of the queue may wait: from a file, else from its name, else None."""
        if queue in self.latencies:
            return self.latencies[queue]
        patterns = sorted(
            (name for name in self.latencies if "*" in name), key=lambda name: -len(name.replace("*", ""))
        )
        promised = next((self.latencies[pattern] for pattern in patterns if fits(pattern, queue)), None)
        return latency_in_name(queue) if promised is None else promised


def load_promises(settings: Settings) -> Promises:
    """Return the promises of the settings files; of two for one queue, that of the stronger file.

    A file that was merely found promises nothing: it could hide that jobs wait. Raises UsageError, with file, key and
    allowed values, for a setting that is not allowed.
    """
    latencies: dict[str, float] = {}
    expected: dict[str, int] = {}
    workers: int | None = None
    for file in reversed(settings.files):
        for name, settings_of_queue in _queues(file).items():
            if "latency" in settings_of_queue:
                latencies[name] = settings_of_queue["latency"]
            if "expect" in settings_of_queue:
                expected[name] = int(settings_of_queue["expect"])
        workers = _workers(file, workers)
    return Promises(latencies, expected, workers)


def _queues(file: SettingsFile) -> dict[str, dict[str, float]]:
    tables = table(file.document.get(QUEUES, {}), f"{file.path}: {QUEUES}")
    return {name: _queue(name, settings, f"{file.path}: {QUEUES}.{quoted(name)}") for name, settings in tables.items()}


def _queue(name: str, document: Any, place: str) -> dict[str, float]:
    settings = table(document, place)
    check_keys(settings, ("latency", "expect"), place, "key")
    checked: dict[str, float] = {}
    if "latency" in settings:
        latency = parse_duration(settings["latency"]) if isinstance(settings["latency"], str) else None
        if not latency:
            raise wrong_value(f"{place}.latency", settings["latency"], 'a text such as "30s", "5m"')
        checked["latency"] = latency.total_seconds()
    if "expect" in settings:
        if "*" in name:
            raise wrong_value(f"{place}.expect", settings["expect"], "none: only the table of one queue has it")
        checked["expect"] = _count(settings["expect"], f"{place}.expect")
    return checked


def _workers(file: SettingsFile, weaker: int | None) -> int | None:
    place = f"{file.path}: {WORKERS}"
    settings = table(file.document.get(WORKERS, {}), place)
    check_keys(settings, ("expect",), place, "key")
    return _count(settings["expect"], f"{place}.expect") if "expect" in settings else weaker


def _count(value: Any, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_WORKERS:
        raise wrong_value(place, value, f"a whole number from 0 to {MOST_WORKERS}")
    return value
