"""The file of a position, and beside it the notes of what was delivered since it was written.

It is a file and not a table, so that a role that may only read can watch. It is written beside itself and renamed, once
what was read has been printed, and before anything is delivered: a watch that is killed repeats, and misses nothing.
A delivery appends a line to the notes instead: to write the whole position after each would take a time that grows with
the square of what waits.
"""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from solidjq.errors import RefusedError, UsageError
from solidjq.files import read_file, remove_leftovers, replaced
from solidjq.home import state_folder
from solidjq.watching.position import Position, Waiting, position_of
from solidjq.watching.typed import built

MOST_BYTES = 200_000_000
OWN_EYES = 0o600  # messages name jobs


@dataclass(frozen=True, slots=True)
class Note:
    """A line of the notes: what became of a message for a target."""

    target: str
    id: str
    attempts: int
    gone: bool  # delivered or given up


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
    """The file of a position, locked for one watch at a time; threads may save it. Raises UsageError for a folder."""

    def __init__(self, path: Path) -> None:
        if not path.name or path.is_dir():
            raise UsageError(f"--position {path}: this is a folder; name a file")
        self.path = path
        self.lock = threading.RLock()  # of the position, which threads that deliver change as well
        self._notes = path.with_name(f"{path.name}.delivered")
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
            remove_leftovers(self.path)
            yield
        finally:
            os.close(descriptor)

    def load(self, database: str) -> Position | None:
        """Return the position; None if there is none yet.

        Raises UsageError if the file is of another database, or holds something else.
        """
        text = _read(self.path)
        if text is None:
            return None
        try:
            position = position_of(text)
            self._apply_notes(position)
        except ValueError as error:
            raise UsageError(f"{self.path} holds no position ({error}); remove it, and the watch begins anew") from None
        if position.database != database:
            raise UsageError(
                f"{self.path} is the position of a watch on {position.database}, and this is {database}; name another "
                "file with --position, or remove it"
            )
        self._written = "" if self._notes.exists() else text  # the next save takes the notes in
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
                self._notes.unlink(missing_ok=True)  # killed before, it would find notes of what no longer waits
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

    def note(
        self, position: Position, target: str, waiting: Waiting, say: Callable[[str], None], *, gone: bool
    ) -> None:
        """Write what became of a message that was waiting for a target, so that a restart does not repeat it.

        The notes reach the disk when the system writes them: after a power failure, messages are repeated.
        """
        with self.lock:
            if self.unsaved or not self._written:
                self.save_if_possible(position, say)
                return
            data = {"target": target, "id": waiting.message["id"], "attempts": waiting.attempts, "gone": gone}
            try:
                descriptor = os.open(self._notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, OWN_EYES)
                line = (json.dumps(data) + "\n").encode()
                try:
                    if os.write(descriptor, line) < len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                finally:
                    os.close(descriptor)
            except OSError:
                self._written = ""  # it must be written, whatever it was
                self.save_if_possible(position, say)

    def _apply_notes(self, position: Position) -> None:
        """Take over the notes. Raises ValueError for a line that is none; the last one may have been cut off."""
        text = _read(self._notes)
        for line in (text or "").split("\n")[:-1]:
            try:
                note = built(Note, json.loads(line))
            except RecursionError:
                raise ValueError("a note is nested too deeply") from None
            except ValueError as error:
                raise ValueError(f"{self._notes.name}: {error}") from None
            waiting = position.outbox.get(note.target, [])
            one = next((one for one in waiting if one.message["id"] == note.id), None)
            if one is not None and note.gone:
                waiting.remove(one)
            elif one is not None:
                one.attempts = max(one.attempts, note.attempts)


def _read(path: Path) -> str | None:
    """Return the text of a file; None if there is none. Raises UsageError if it cannot be read."""
    try:
        return read_file(path, MOST_BYTES).decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
