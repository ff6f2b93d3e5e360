"""What a Rails application configures for its workers: settings in Ruby files, and ``config/queue.yml``.

Nothing is evaluated: Ruby files are searched as text. A setting is read only from a plain statement with a literal
value. Anywhere else only Ruby knows its value, which is then None rather than a guess.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.engine import URL

from solidjq.errors import UsageError
from solidjq.files import read_file
from solidjq.rails.database_yml import Template, chosen_environment, database_url, pool_size
from solidjq.text import one_line, parse_id

THRESHOLD, HEARTBEAT = "process_alive_threshold", "process_heartbeat_interval"
SKIP_LOCKED, CONNECTS_TO, SHUTDOWN = "use_skip_locked", "connects_to", "shutdown_timeout"
DEFAULT_THREADS, DEFAULT_POOL = 3, 5  # Solid Queue's, Rails'
DEFAULT_SHUTDOWN = 5.0  # seconds; Solid Queue's
DEFAULT_DRAIN = 30.0  # seconds; Kamal's
MOST_BYTES = 1_000_000  # of a Ruby file
MOST_SECONDS = 10 * 365 * 86400.0  # as of the options
BESIDE_THREADS = 2  # connections that a worker needs beyond one a thread: for polling and for its heartbeat

_NAMES = f"{THRESHOLD}|{HEARTBEAT}|{SKIP_LOCKED}|{CONNECTS_TO}|{SHUTDOWN}"
# Active Record's models have a connects_to too, and other gems a shutdown_timeout: these two must name Solid Queue.
_MENTIONED = re.compile(rf"\b(?:(?<=solid_queue\.)|(?<=SolidQueue\.)|(?!{CONNECTS_TO}|{SHUTDOWN}))({_NAMES})\b")
_ASSIGNED = re.compile(
    rf"(?:(?P<configured>(?:Rails\.application\.)?config\.solid_queue)|SolidQueue)\.(?:{_NAMES})\s*=(?![=~])\s*(?P<value>.+)"
)
_STATEMENT = re.compile(
    r"(?!.*(?:;|\b(?:if|unless|while|until|rescue|and|or)\b)).*"
)  # a single one, without a condition
_TIME_ZONE = re.compile(
    r"(?:config\.active_record|ActiveRecord(?:::Base)?)\.default_timezone\s*=\s*:(?P<zone>utc|local)\b"
)
_NUMBER = re.compile(r"(?P<number>\d[\d_]*(?:\.\d+)?)(?:\.(?P<unit>second|minute|hour|day)s?)?")
_WRITING = re.compile(r"\{\s*database:\s*\{\s*writing:\s*:(\w+)\s*(?:,[^{}]*)?\}\s*\}")
_DRAIN = re.compile(r"drain_timeout:\s*(?:(?P<seconds>\d{1,6})\s*)?(?:.*)")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_BLOCK_BEGINS, _BLOCK_ENDS = re.compile(r"=begin\b"), re.compile(r"=end\b")
_COMMENT = re.compile(r"#(?!\{).*")
# The blocks around a statement in which it is still executed once, unconditionally.
_CARRIED_OUT = re.compile(
    r"(?:module|class)\s+[A-Z][\w:]*(?:\s*<\s*[A-Z][\w:]*)?|[A-Z][\w:]*(?:\.application)?\.configure do"
)
_GOES_ON = (".", "&", "|", "and ", "or ")  # a line that belongs to the one before


class RailsSetting(NamedTuple):
    """A setting of Solid Queue in an application's code; ``value`` is None if only Ruby could evaluate it."""

    value: Any  # seconds, True or False, or a name
    place: str  # file and line
    code: str


def read_settings(
    application: Path, environment: str | None = None, *, variables: Mapping[str, str] | None = None
) -> dict[str, RailsSetting]:
    """Return the settings of Solid Queue that the application sets, by name; settings left at their default are absent.

    They are read from ``config/application.rb``, the environment's file and the initializers. As in Rails, later ones
    win, and ``config.solid_queue`` wins over ``SolidQueue``. A file that cannot be read is skipped.
    """
    files = _ruby_files(application, environment, os.environ if variables is None else variables)
    strongest: dict[str, tuple[tuple[int, int], RailsSetting]] = {}
    for rank, path in enumerate(files):
        for name, how, setting in _statements(path, path.relative_to(application)):
            strength = (how.value, rank)
            if name not in strongest or strongest[name][0] <= strength:
                strongest[name] = strength, setting
    return {name: setting for name, (_, setting) in strongest.items()}


def local_time_setting(
    application: Path, environment: str | None = None, *, variables: Mapping[str, str] | None = None
) -> RailsSetting | None:
    """Return the last setting by which the application writes local time instead of UTC into the database, if any."""
    setting = None
    for path, lines in ruby_code(application, environment, variables=variables):
        for number, line in enumerate(lines):
            if match := _TIME_ZONE.search(line):
                place = f"{path.relative_to(application)}:{number + 1}"
                setting = RailsSetting(match["zone"], place, line.strip())
    return setting if setting and setting.value == "local" else None


def ruby_code(
    application: Path, environment: str | None = None, *, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield the application's Ruby files of settings in Rails' order, each with its lines without comments."""
    for path in _ruby_files(application, environment, os.environ if variables is None else variables):
        yield path, ruby_lines(path)


def _ruby_files(application: Path, environment: str | None, variables: Mapping[str, str]) -> list[Path]:
    folder = application / "config"
    files = [
        folder / "application.rb",
        folder / "environments" / f"{chosen_environment(environment, variables)}.rb",
    ]
    return [*files, *sorted(folder.glob("initializers/**/*.rb"))]


def queue_url(application: Path, environment: str | None = None, *, variables: Mapping[str, str] | None = None) -> URL:
    """Return the URL of the database that the application's Solid Queue connects to.

    That is the one that ``connects_to`` names; if it is not set, or only Ruby knows it, ``database_yml.database_url``
    chooses: ``queue``, else ``primary``. Raises UsageError for a missing or malformed ``database.yml``, and for a
    needed setting that only Ruby can read.
    """
    setting = read_settings(application, environment, variables=variables).get(CONNECTS_TO)
    return database_url(application, environment, name=setting.value if setting else None, variables=variables)


class _How(Enum):
    """The form in which a line sets a setting; a greater value overrides a smaller one, wherever either stands."""

    MODULE = 1  # SolidQueue.use_skip_locked = ...
    CONFIG = (
        2  # config.solid_queue.use_skip_locked = ...: the engine copies it after all of the application's initializers
    )
    OTHER = 3  # conditional, in a block that runs later, or of unknown form: it may override all others


def _statements(path: Path, relative: Path) -> Iterator[tuple[str, _How, RailsSetting]]:
    """Yield the name, form and value of the setting in each line that mentions one."""
    lines = ruby_lines(path)
    carried_out, goes_on = _carried_out(lines), _goes_on(lines)
    for number, line in enumerate(lines):
        for name in dict.fromkeys(_MENTIONED.findall(line)):
            match = _ASSIGNED.fullmatch(line.strip())
            how, value = _How.OTHER, None
            if match and _STATEMENT.fullmatch(match["value"]) and carried_out[number]:
                how = _How.CONFIG if match["configured"] else _How.MODULE
                value = None if goes_on[number] else _literal(name, match["value"].strip())
            yield name, how, RailsSetting(value, f"{relative}:{number + 1}", line.strip())


def ruby_lines(path: Path) -> list[str]:
    """Return a Ruby file's lines without comments, tabs as spaces; empty if it cannot be read."""
    try:
        text = read_file(path, MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [_COMMENT.sub("", line).expandtabs().rstrip() for line in _without_blocks(text.split("\n"))]


def _without_blocks(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines before ``__END__``, those of comments from ``=begin`` to ``=end`` as empty ones."""
    inside = False
    for line in lines:
        if line == "__END__" and not inside:
            return
        opens, closes = _BLOCK_BEGINS.match(line), inside and _BLOCK_ENDS.match(line)
        yield "" if inside or opens else line
        inside = (inside or bool(opens)) and not closes


def _carried_out(lines: Sequence[str]) -> list[bool]:
    """Return for each line whether only modules, classes and configure blocks are around it, by indentation."""
    carried_out: list[bool] = []
    around: list[tuple[int, bool]] = []  # of each line that may have opened a block: its depth, what is in it
    for line in lines:
        if not line:
            carried_out.append(True)
            continue
        while around and around[-1][0] >= _depth(line):
            around.pop()
        carried_out.append(not around or around[-1][1])
        around.append((_depth(line), carried_out[-1] and _CARRIED_OUT.fullmatch(line.strip()) is not None))
    return carried_out


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _goes_on(lines: Sequence[str]) -> list[bool]:
    """Return for each line whether the next one that is not empty belongs to it."""
    goes_on: list[bool] = []
    after = ""
    for line in reversed(lines):
        goes_on.append(after.startswith(_GOES_ON))
        after = line.strip() or after
    return goes_on[::-1]


def _literal(name: str, text: str) -> float | bool | str | None:
    if name == CONNECTS_TO:
        return named[1] if (named := _WRITING.fullmatch(text)) else None
    if name == SKIP_LOCKED:
        return {"true": True, "false": False}.get(text)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    seconds = float(match["number"].replace("_", "")) * _SECONDS[match["unit"] or "second"]
    if seconds > MOST_SECONDS:
        return None
    return seconds if seconds or name == SHUTDOWN else None  # only a shutdown timeout may be 0


# -- config/queue.yml -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RailsWorker:
    """An entry of ``workers:``. ``threads`` is None if Ruby computes the number, or if the worker runs fibers."""

    queues: tuple[str, ...]
    threads: int | None = DEFAULT_THREADS


@dataclass(frozen=True, slots=True)
class RailsConfig:
    """The workers that an application configures. ``workers`` is None if unknown; ``problem`` is the reason."""

    path: str  # of queue.yml
    workers: tuple[RailsWorker, ...] | None = None
    pool: int | None = None  # connections that a process may have
    settings: Mapping[str, RailsSetting] | None = None
    problem: str | None = None
    drain_timeout: RailsSetting | None = None  # seconds that Kamal gives a stopping container; no code: its default

    @property
    def shutdown_timeout(self) -> float | None:
        """Seconds that a stopping supervisor gives running jobs; None if only Ruby could evaluate it."""
        setting = (self.settings or {}).get(SHUTDOWN)
        return DEFAULT_SHUTDOWN if setting is None else setting.value


def read_config(
    application: Path, environment: str | None = None, *, variables: Mapping[str, str] | None = None
) -> RailsConfig:
    """Read an application's workers from ``config/queue.yml`` or SOLID_QUEUE_CONFIG's file, its settings and pool size.

    Never raises UsageError: if something cannot be read, ``problem`` says what.
    """
    variables = os.environ if variables is None else variables
    environment = chosen_environment(environment, variables)
    path = application / (variables.get("SOLID_QUEUE_CONFIG") or "config/queue.yml")
    settings = read_settings(application, environment, variables=variables)
    drain = drain_timeout(application)
    if not path.exists() and "SOLID_QUEUE_CONFIG" not in variables:
        return RailsConfig(
            str(path), settings=settings, drain_timeout=drain
        )  # bin/jobs may be started with another file
    try:
        template = Template(path, application.absolute(), variables)
        workers = tuple(_workers(template, environment))
        name = settings[CONNECTS_TO].value if CONNECTS_TO in settings else None
        pool = pool_size(application, environment, name=name, variables=variables)
    except UsageError as error:
        return RailsConfig(str(path), settings=settings, problem=one_line(str(error)), drain_timeout=drain)
    return RailsConfig(str(path), workers, DEFAULT_POOL if pool is None else pool, settings, drain_timeout=drain)


def drain_timeout(application: Path) -> RailsSetting | None:
    """Return the ``drain_timeout`` of Kamal's ``config/deploy.yml``, or its default; None without such a file."""
    path = application / "config" / "deploy.yml"
    try:
        lines = read_file(path, MOST_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    relative = path.relative_to(application)
    for number, line in enumerate(lines):
        if match := _DRAIN.fullmatch(line):
            seconds = float(match["seconds"]) if match["seconds"] else None
            return RailsSetting(seconds, f"{relative}:{number + 1}", line.strip())
    return RailsSetting(DEFAULT_DRAIN, str(relative), "")


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
    listed = entry.get("queues")
    texts = [template.text(name, f"{place}.queues") for name in (listed if isinstance(listed, list) else [listed])]
    names = [(text or "").strip() for text in texts]
    queues = tuple(filter(None, names)) or ("*",)
    if "fibers" in entry:
        return RailsWorker(queues, None)
    try:
        threads = template.text(entry.get("threads"), f"{place}.threads")
    except UsageError:  # Etc.nprocessors and the like
        return RailsWorker(queues, None)
    return RailsWorker(queues, parse_id(threads) if threads else DEFAULT_THREADS)
