"""Which classes a Rails application's files name, and which of its ``retry_on`` wait for errors that no job raises.

Nothing is executed: Ruby files below ``app`` and ``lib`` are searched as text, each and all of them within limits. What
engines and gems define is not there, nor what Ruby makes up while it runs.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from solidjq.rails.settings import ruby_lines

MOST_FILES = 20_000  # Ruby files that are read
MOST_CHARACTERS = 500  # of a line; code that people write is shorter
MOST_LINES = 20  # of one statement
FOLDERS = ("app", "lib")  # of the application, and of each of its packs, packages, components and engines
PARTS = ("packs", "packages", "components", "engines")

_DEFINED = re.compile(
    r"(?P<indent> *)(?:(?:class|module) +(?P<name>[A-Z]\w*(?:::[A-Z]\w*)*)|"
    r"(?P<constant>[A-Z]\w*) *= *\w+(?:::\w+)*\.new\b)"
)
_HANDLER = re.compile(r" *(?P<handler>retry_on|discard_on|rescue_from|rescue)\b")
# Solid Queue stores these in the failures of jobs whose process died; none is ever raised in a job.
_STORED_ONLY = re.compile(r"\b(?:SolidQueue::)?(?:Processes::)?(?P<error>Process(?:Pruned|Exit|Missing)Error)\b")
_GOES_ON = (",", "\\", "(", "|", "&&", "[")  # at the end of a line: the statement is longer


class IdleHandler(NamedTuple):
    """A handler of an error that Solid Queue stores and never raises: it never runs."""

    place: str  # file and line
    class_name: str | None  # in which it stands
    handler: str  # retry_on, discard_on, rescue_from or rescue
    error: str  # ProcessPrunedError and the like


@dataclass(frozen=True, slots=True)
class JobCode:
    """The classes and idle handlers of an application's Ruby files. ``complete``: whether all its files were read."""

    names: frozenset[str]  # keys of classes that are defined
    paths: frozenset[str]  # keys that the names of files stand for, and each end of them
    idle_handlers: tuple[IdleHandler, ...] = ()
    complete: bool = True

    def has(self, class_name: str) -> bool:
        """Whether a class is defined somewhere, or a file has the name that Zeitwerk expects of it."""
        key = _key(class_name)
        return key in self.names or key in self.paths


def read_job_code(application: Path) -> JobCode:
    """Read the Ruby files of an application; one that cannot be read, or is too long, counts by its name."""
    names: set[str] = set()
    paths: set[str] = set()
    handlers: list[IdleHandler] = []
    files = list(islice(_files(application), MOST_FILES + 1))
    for path in files[:MOST_FILES]:
        paths.update(_path_keys(path.relative_to(application).with_suffix("").parts))
        lines = [line[:MOST_CHARACTERS] for line in ruby_lines(path)]
        defined = list(_definitions(lines))
        names.update(_key(name) for _, name in defined)
        handlers.extend(_idle(lines, defined, str(path.relative_to(application))))
    return JobCode(frozenset(names), frozenset(paths), tuple(handlers), complete=len(files) <= MOST_FILES)


def _files(application: Path) -> Iterator[Path]:
    parts = [application, *(part for kind in PARTS for part in sorted((application / kind).glob("*")))]
    for root in (part / folder for part in parts for folder in FOLDERS):
        for folder, folders, files in os.walk(root):  # follows no links, so it ends
            folders[:] = sorted(name for name in folders if not name.startswith((".", "node_modules")))
            yield from (Path(folder, name) for name in sorted(files) if name.endswith(".rb"))


def _key(class_name: str) -> str:
    """Return what a class and its file have in common whatever the application's acronyms: ``api::v1::syncjob``."""
    return class_name.removeprefix("::").replace("_", "").casefold()


def _path_keys(parts: Sequence[str]) -> Iterator[str]:
    """Yield each end of a path, as any folder may be one where constants begin."""
    words = [part.replace("_", "").casefold() for part in parts]
    return ("::".join(words[start:]) for start in range(len(words)))


def _definitions(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each line that defines a class or module, and its whole name, by indentation."""
    around: list[tuple[int, str]] = []
    for number, line in enumerate(lines):
        if (match := _DEFINED.match(line)) is None:
            continue
        depth = len(match["indent"])
        while around and around[-1][0] >= depth:
            around.pop()
        name = "::".join([*(outer for _, outer in around), match["name"] or match["constant"]])
        yield number, name
        if match["name"]:
            around.append((depth, match["name"]))


def _idle(lines: Sequence[str], defined: Sequence[tuple[int, str]], path: str) -> Iterator[IdleHandler]:
    for number, line in enumerate(lines):
        if handler := _HANDLER.match(line):
            for error in dict.fromkeys(match["error"] for match in _STORED_ONLY.finditer(_statement(lines, number))):
                within = [name for at, name in defined if at < number]
                yield IdleHandler(f"{path}:{number + 1}", within[-1] if within else None, handler["handler"], error)


def _statement(lines: Sequence[str], number: int) -> str:
    """Return a line and the lines that continue it, as long as the end of a line shows that the statement goes on."""
    statement = ""
    for line in lines[number : number + MOST_LINES]:
        statement += line + "\n"
        if line and not line.endswith(_GOES_ON):
            break
    return statement
