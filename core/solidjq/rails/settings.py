"""What a Rails application says of its workers: settings in Ruby, searched as text, and ``config/queue.yml``, as data.

Nothing is evaluated. A setting counts only as a plain statement with a literal value; wherever else its name stands,
what it is can only be told by Ruby, and that is said instead of guessed.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.engine import URL

from solidjq.errors import UsageError
from solidjq.rails.database_yml import MOST_BYTES, Template, chosen_environment, database_url, pool_size
from solidjq.text import one_line

THRESHOLD, HEARTBEAT = "process_alive_threshold", "process_heartbeat_interval"
SKIP_LOCKED, CONNECTS_TO, SHUTDOWN = "use_skip_locked", "connects_to", "shutdown_timeout"
DEFAULT_THREADS, DEFAULT_POOL = 3, 5  # Solid Queue's, Rails'
DEFAULT_SHUTDOWN = 5.0  # seconds; Solid Queue's
BESIDE_THREADS = 2  # connections of a worker for its polls and its heartbeat

_NAMES = f"{THRESHOLD}|{HEARTBEAT}|{SKIP_LOCKED}|{CONNECTS_TO}|{SHUTDOWN}"
# Active Record's models have a connects_to of their own, other gems a shutdown_timeout.
_MENTIONED = re.compile(rf"\b(?:(?<=solid_queue\.)|(?<=SolidQueue\.)|(?!{CONNECTS_TO}|{SHUTDOWN}))({_NAMES})\b")
_ASSIGNED = re.compile(
    rf"(?:(?P<configured>(?:Rails\.application\.)?config\.solid_queue)|SolidQueue)\.(?:{_NAMES})\s*=(?![=~])\s*(?P<value>.+)"
)
_STATEMENT = re.compile(r"(?!.*(?:;|\b(?:if|unless|while|until|rescue|and|or)\b)).*")  # one, without a condition
_NUMBER = re.compile(r"(?P<number>\d[\d_]*(?:\.\d+)?)(?:\.(?P<unit>second|minute|hour|day)s?)?")
_WRITING = re.compile(r"\{\s*database:\s*\{\s*writing:\s*:(\w+)\s*(?:,[^{}]*)?\}\s*\}")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_COMMENT = re.compile(r"#(?!\{).*")
# What a statement may stand in and still be carried out, once and in any case.
_CARRIED_OUT = re.compile(
    r"(?:module|class)\s+[A-Z][\w:]*(?:\s*<\s*[A-Z][\w:]*)?|[A-Z][\w:]*(?:\.application)?\.configure do"
)
_GOES_ON = (".", "&", "|", "and ", "or ")  # a line that belongs to the one before


class RailsSetting(NamedTuple):
    """A setting of Solid Queue as an application's code has it; None where only Ruby could tell."""

    value: Any  # seconds, a switch, or a name
    place: str  # file and line
    code: str


def read_settings(
    application: Path, environment: str | None = None, *, variables: Mapping[str, str] | None = None
) -> dict[str, RailsSetting]:
    """Return what the application sets, by name; what it leaves to Solid Queue's defaults is absent.

    Read are ``config/application.rb``, the environment's file and the initializers: later ones win, as in Rails.
    """
    given = os.environ if variables is None else variables
    folder = application / "config"
    files = [folder / "application.rb", folder / "environments" / f"{chosen_environment(environment, given)}.rb"]
    found: dict[str, tuple[float, RailsSetting]] = {}
    for rank, path in enumerate((*files, *sorted(folder.glob("initializers/**/*.rb")))):
        initializer = rank >= len(files)
        for name, how, setting in _statements(path, path.relative_to(application)):
            # The engine takes config over after the environment's file and before the initializers: there it is late.
            told = setting._replace(value=None) if how is _How.CONFIG and initializer else setting
            strength = (
                math.inf if how is _How.OTHER else rank + (len(files) if initializer or how is _How.CONFIG else 0)
            )
            if name not in found or found[name][0] <= strength:
                found[name] = strength, told
    return {name: setting for name, (_, setting) in found.items()}


def queue_url(application: Path, environment: str | None = None, *, variables: Mapping[str, str] | None = None) -> URL:
    """Return the URL of the database that the application's Solid Queue connects to.

    Where that is told by Ruby only, or not at all, it is the one that ``rails.database_url`` finds by its name. Raises
    UsageError as that does.
    """
    told = read_settings(application, environment, variables=variables).get(CONNECTS_TO)
    return database_url(application, environment, name=told.value if told else None, variables=variables)


class _How(Enum):
    """How a line comes by a setting."""

    MODULE = auto()  # SolidQueue.use_skip_locked = ...
    CONFIG = auto()  # config.solid_queue.use_skip_locked = ...
    OTHER = auto()  # under a condition, in a block that runs later, or in no way known here: it may win over all others


def _statements(path: Path, shown: Path) -> Iterator[tuple[str, _How, RailsSetting]]:
    """Yield each line that names a setting: which, in what way, and what it says."""
    lines = _code(path)
    for number, line in enumerate(lines):
        for name in dict.fromkeys(_MENTIONED.findall(line)):
            match = _ASSIGNED.fullmatch(line.strip())
            how, value = _How.OTHER, None
            if match and _STATEMENT.fullmatch(match["value"]) and _is_carried_out(lines, number):
                how = _How.CONFIG if match["configured"] else _How.MODULE
                value = None if _goes_on(lines, number) else _literal(name, match["value"].strip())
            yield name, how, RailsSetting(value, f"{shown}:{number + 1}", line.strip())


def _code(path: Path) -> list[str]:
    """Return a file's lines without comments, tabs as spaces."""
    try:
        text = path.read_bytes()[:MOST_BYTES].decode("utf-8", "replace")
    except OSError:
        return []
    text = re.sub(r"(?ms)^=begin\b.*?^=end\b[^\n]*", lambda block: "\n" * block[0].count("\n"), text)
    text = re.split(r"(?m)^__END__$", text)[0]
    return [_COMMENT.sub("", line).expandtabs().rstrip() for line in text.split("\n")]


def _is_carried_out(lines: Sequence[str], number: int) -> bool:
    """Tell by the indentation whether only modules, classes and configure blocks are around a line."""
    depth = _depth(lines[number])
    for line in reversed(lines[:number]):
        if line and _depth(line) < depth:
            if not _CARRIED_OUT.fullmatch(line.strip()):
                return False
            depth = _depth(line)
    return True


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _goes_on(lines: Sequence[str], number: int) -> bool:
    after = next((line.strip() for line in lines[number + 1 :] if line), "")
    return after.startswith(_GOES_ON)


def _literal(name: str, text: str) -> float | bool | str | None:
    if name == CONNECTS_TO:
        return named[1] if (named := _WRITING.fullmatch(text)) else None
    if name == SKIP_LOCKED:
        return {"true": True, "false": False}.get(text)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    seconds = float(match["number"].replace("_", "")) * _SECONDS[match["unit"] or "second"]
    return seconds if seconds or name == SHUTDOWN else None  # no time at all is one that a worker may be given


# -- config/queue.yml -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RailsWorker:
    """A line of ``workers:``. Threads are None where only Ruby could tell, or where it runs fibers."""

    queues: tuple[str, ...]
    threads: int | None = DEFAULT_THREADS


@dataclass(frozen=True, slots=True)
class Configured:
    """What an application wants to have running. Workers are None where none are told; ``problem``: what was unread."""

    path: str  # of the queue.yml
    workers: tuple[RailsWorker, ...] | None = None
    pool: int | None = None  # connections that a process may have
    settings: Mapping[str, RailsSetting] | None = None
    problem: str | None = None

    @property
    def shutdown_timeout(self) -> float | None:
        """Seconds that a supervisor gives running jobs when it stops; None where only Ruby could tell."""
        told = (self.settings or {}).get(SHUTDOWN)
        return DEFAULT_SHUTDOWN if told is None else told.value


def read_configured(
    application: Path, environment: str | None = None, *, variables: Mapping[str, str] | None = None
) -> Configured:
    """Read ``config/queue.yml``, or the file that SOLID_QUEUE_CONFIG names, and what else concerns the workers.

    What cannot be read is no error: it is in ``problem``.
    """
    given = os.environ if variables is None else variables
    environment = chosen_environment(environment, given)
    path = application / (given.get("SOLID_QUEUE_CONFIG") or "config/queue.yml")
    settings = read_settings(application, environment, variables=given)
    if not path.exists() and "SOLID_QUEUE_CONFIG" not in given:
        return Configured(str(path), settings=settings)  # bin/jobs may be told another file
    try:
        template = Template(path, application.absolute(), given)
        workers = tuple(_workers(template, environment))
        name = settings[CONNECTS_TO].value if CONNECTS_TO in settings else None
        pool = pool_size(application, environment, name=name, variables=given)
    except UsageError as error:
        return Configured(str(path), settings=settings, problem=one_line(str(error)))
    return Configured(str(path), workers, DEFAULT_POOL if pool is None else pool, settings)


def _workers(template: Template, environment: str) -> Iterator[RailsWorker]:
    data = template.data if isinstance(template.data, Mapping) else {}
    settings = data.get(environment) or data
    entries = settings.get("workers") if isinstance(settings, Mapping) else None
    if entries is None and not (isinstance(settings, Mapping) and settings.get("dispatchers")):
        entries = [{}]  # Solid Queue's own default
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, Mapping):
            yield _worker(template, entry, f"{environment}.workers[{number}]")


def _worker(template: Template, entry: Mapping[str, Any], place: str) -> RailsWorker:
    told = entry.get("queues")
    names = [template.text(name, f"{place}.queues") or "" for name in (told if isinstance(told, list) else [told])]
    queues = tuple(name.strip() for name in names if name.strip()) or ("*",)
    if "fibers" in entry:
        return RailsWorker(queues, None)
    try:
        threads = template.text(entry.get("threads"), f"{place}.threads")
    except UsageError:  # Etc.nprocessors and the like
        return RailsWorker(queues, None)
    return RailsWorker(
        queues, int(threads) if threads and threads.isdecimal() else None if threads else DEFAULT_THREADS
    )
