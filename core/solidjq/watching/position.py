"""The position of a watch: how far it has read, what it has told, what it still has to deliver. A file.

It is a file and not a table, so that a role that may only read can watch. It is written beside itself and renamed, once
what was read has been printed, and before anything is delivered: a watch that is killed repeats, and misses nothing.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from solidjq.errors import RefusedError, UsageError
from solidjq.files import read_file, replaced
from solidjq.home import state_folder
from solidjq.watching.id_windows import IdWindow, window_of

FORMAT = 1
MOST_BYTES = 200_000_000
MOST_ANNOUNCED = 5_000  # deaths whose incident is remembered
MOST_GROUPS = 2_000  # failure groups that are remembered
MOST_REMEMBERED = 200  # deaths that Rails noticed, to which further jobs may belong
OWN_EYES = 0o600  # messages name jobs


@dataclass(slots=True)
class Remembered:
    """A death that nobody recorded, put together from failures: further ones may belong to it."""

    failure_id: int
    error: str
    first_at: float  # seconds since 1970, when its first job failed
    last_at: float
    hostname: str | None = None
    pid: int | None = None


@dataclass(slots=True)
class GroupSeen:
    """A failure group that has been told, or was there before the watch began."""

    place: str  # in the code: groups of one place may be one problem
    last_at: float  # seconds since 1970


@dataclass(slots=True)
class Held:
    """What a cooldown holds back: messages of one sort, counted."""

    until: float  # seconds since 1970
    title: str
    messages: int = 0
    jobs: int = 0
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Waiting:
    """A message that is still to be delivered to a target."""

    message: dict[str, Any]
    attempts: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it; ``asdict`` would copy each message at each save."""
        return {"message": self.message, "attempts": self.attempts}


@dataclass(slots=True)
class Position:
    """The state of one watch."""

    database: str
    deaths: IdWindow = field(default_factory=IdWindow)
    failures: IdWindow = field(default_factory=IdWindow)
    remembered: list[Remembered] = field(default_factory=list)
    announced: dict[str, str] = field(default_factory=dict)  # by death, the incident that it was told with
    groups: dict[str, GroupSeen] = field(default_factory=dict)  # by name, the one seen last at the end
    cooldowns: dict[str, Held] = field(default_factory=dict)
    outbox: dict[str, list[Waiting]] = field(default_factory=dict)  # by target

    def draft(self) -> "Position":
        """Return a copy to work on, without the messages to deliver; ``take`` takes it over, once all is read."""
        return Position(
            self.database,
            replace(self.deaths, gaps=list(self.deaths.gaps)),
            replace(self.failures, gaps=list(self.failures.gaps)),
            [replace(one) for one in self.remembered],
            dict(self.announced),
            dict(self.groups),
            {key: replace(held, names=list(held.names)) for key, held in self.cooldowns.items()},
        )

    def take(self, draft: "Position") -> None:
        """Take over what a draft has; the messages to deliver stay."""
        self.deaths, self.failures, self.remembered = draft.deaths, draft.failures, draft.remembered
        self.announced, self.groups, self.cooldowns = draft.announced, draft.groups, draft.cooldowns

    def trim(self) -> None:
        """Drop the oldest of what is remembered beyond its limits."""
        del self.remembered[:-MOST_REMEMBERED]
        for mapping, most in ((self.announced, MOST_ANNOUNCED), (self.groups, MOST_GROUPS)):
            for name in list(mapping)[: max(0, len(mapping) - most)]:
                del mapping[name]

    def as_text(self) -> str:
        """Return it as the file has it."""
        data = {
            "format": FORMAT,
            "database": self.database,
            "deaths": self.deaths.as_data(),
            "failures": self.failures.as_data(),
            "remembered": [asdict(one) for one in self.remembered],
            "announced": self.announced,
            "groups": {name: asdict(seen) for name, seen in self.groups.items()},
            "cooldowns": {key: asdict(held) for key, held in self.cooldowns.items()},
            "outbox": {key: [one.as_data() for one in waiting] for key, waiting in self.outbox.items() if waiting},
        }
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode()


def position_of(text: str) -> Position:
    """Return the position that a file holds. Raises ValueError if it holds none of this format."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError("no position of this format")
    try:
        return Position(
            database=str(data["database"]),
            deaths=window_of(data["deaths"]),
            failures=window_of(data["failures"]),
            remembered=[Remembered(**one) for one in data["remembered"]],
            announced={str(death): str(incident) for death, incident in data["announced"].items()},
            groups={str(name): GroupSeen(**seen) for name, seen in data["groups"].items()},
            cooldowns={str(key): Held(**held) for key, held in data["cooldowns"].items()},
            outbox={str(key): [Waiting(**one) for one in waiting] for key, waiting in data["outbox"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a part is missing or of another kind: {error}") from error


def default_path(database: str, name: str) -> Path:
    """Return where the position of a watch of this name on this database is kept, in the user's state folder.

    Raises UsageError for a user without a home, and for a name that cannot be part of a file's name.
    """
    if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 100:  # noqa: PLR2004
        raise UsageError(f"--name {name}: letters, digits, - and _ only, at most 100")
    try:
        folder = state_folder()
    except UsageError:
        raise UsageError("this user has no home folder to keep the position in; name a file: --position") from None
    return folder / "watch" / f"{name}-{sha256(database.encode()).hexdigest()[:12]}.json"


class PositionFile:
    """The file of a position, locked for one watch at a time; threads may save it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()  # of the position, which threads that deliver change as well
        self._written = ""
        self.unsaved = False  # whether the last attempt to write failed

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this file; raises RefusedError if another watch holds it, UsageError if it cannot be made.

        The lock is a file beside it: the position itself is replaced by each save.
        """
        beside = self.path.with_name(f"{self.path.name}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, OWN_EYES)
        except OSError as error:
            raise UsageError(f"{beside} cannot be written: {error.strerror}; name another file: --position") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RefusedError(
                    f"another jq watch keeps its position in {self.path}; give this one a --name of its own"
                ) from None
            yield
        finally:
            os.close(descriptor)

    def load(self, database: str) -> Position | None:
        """Return the position; None if there is none yet.

        Raises UsageError if the file is of another database, or holds something else.
        """
        try:
            text = read_file(self.path, MOST_BYTES).decode()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path} cannot be read: {error}") from None
        try:
            position = position_of(text)
        except ValueError as error:
            raise UsageError(f"{self.path} holds no position ({error}); remove it, and the watch begins anew") from None
        if position.database != database:
            raise UsageError(
                f"{self.path} is the position of a watch on {position.database}, and this is {database}; name another "
                "file with --position, or remove it"
            )
        self._written = text
        return position

    def save(self, position: Position) -> None:
        """Write the position if it has changed. Raises UsageError if that cannot be done."""
        with self.lock:
            position.trim()
            text = position.as_text()
            if text == self._written:
                return
            try:
                with replaced(self.path, OWN_EYES) as file:
                    file.write(text.encode())
            except OSError as error:
                raise UsageError(f"{self.path} cannot be written: {error.strerror}") from None
            self._written = text

    def save_if_possible(self, position: Position, say: Callable[[str], None]) -> None:
        """Write the position if it has changed; if that fails, say so once, and once when it succeeds again.

        A watch that runs goes on meanwhile: a full disk kills workers too, and they are what it is for.
        """
        with self.lock:
            try:
                self.save(position)
            except UsageError as error:
                if not self.unsaved:
                    say(f"{error}; the watch goes on, and would repeat messages if it were started again now")
                self.unsaved = True
                return
            if self.unsaved:
                say(f"{self.path} is written again")
            self.unsaved = False
