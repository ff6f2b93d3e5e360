"""Which ``jq.toml`` counts, and for what: named by hand, the user's, the system's, or found where the user stands.

A file that is only found may be another's work: an archive that was unpacked, a shared folder, a pull request. It never
names a database, and its policy can only tighten, unless the user trusted exactly this text (see ``trust``).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from solidjq.errors import RefusedError, UsageError
from solidjq.home import config_folder
from solidjq.ownership import weakness
from solidjq.settings import trust
from solidjq.settings.file import FILE_NAME, SettingsFile, check_top_level, parse_file, read_bytes, read_file

FILE_ENVIRONMENT = "JQ_CONFIG"
SYSTEM_FILE = Path("/etc/solidjq") / FILE_NAME
STRICT_KEYS = ("default", "classes", "mask")  # all that a found file may give: they forbid and hide


class Settings(NamedTuple):
    """The settings files of one command.

    ``files`` count in full, the strongest first. ``found`` may only tighten the policy that these give. ``distrust``:
    why a found file counts for less than before, or for nothing, so that rules in it that forbid are missing.
    """

    files: tuple[SettingsFile, ...] = ()
    found: SettingsFile | None = None
    distrust: str | None = None

    def require_trust(self) -> None:
        """Raise RefusedError if the rules of a found file are missing: a command could do what they forbid."""
        if self.distrust is not None:
            raise RefusedError(f"{self.distrust}; nothing was changed")

    def ignored_tables(self) -> tuple[str, ...]:
        """Return the tables and keys of the found file that count for nothing there."""
        document: Any = {} if self.found is None else self.found.document
        return tuple(key for key in document if key not in STRICT_KEYS)


def load_settings(named: Path | None = None, start: Path | None = None) -> Settings:
    """Read the settings files of a command.

    ``named``, else JQ_CONFIG, names the one file that counts. Otherwise these do: a found file that the user trusted,
    the user's own, the system's. Raises UsageError for an empty JQ_CONFIG, and for a file that cannot be read, is not
    TOML, or counts and has an unknown top-level key: if ``jq check`` ignored a misspelt ``[queue.mailers]``, it would
    report OK. Raises RefusedError for a user's or system's file that others may write.
    """
    if (path := named_file() if named is None else named) is not None:
        return Settings((check_top_level(read_file(path))._replace(weakness=weakness(path)),))
    own = own_files()
    files = tuple(_read_own(path) for path in own)
    found = find_file(start)
    if found is None or any(found.samefile(path) for path in own):
        return Settings(files)
    problem = weakness(found)
    try:
        content = read_bytes(found)
    except UsageError as error:  # what others left in a folder that all may write must not end every command
        if problem is None:
            raise
        return Settings(files, distrust=f"{error}, and {problem}; {cure(found)}")
    standing = trust.standing(found, content)
    if standing is trust.Standing.TRUSTED:
        return Settings((check_top_level(parse_file(found, content)), *files))
    if standing is trust.Standing.CHANGED:
        problem = problem or "it was changed since you trusted it"
    if problem is None:
        return Settings(files, parse_file(found, content))
    return Settings(files, distrust=f"{found} is not trusted: {problem}; {cure(found)}")


def cure(path: Path) -> str:
    """Return what to do to let a found file count in full, in words."""
    return f"read it, then: jq config trust {path}, or name it with --config"


def named_file() -> Path | None:
    """Return the file that JQ_CONFIG names, None if it is not set. Raises UsageError if it is empty."""
    named = os.environ.get(FILE_ENVIRONMENT)
    if named == "":
        raise UsageError(f"{FILE_ENVIRONMENT} is empty; set it to a file's path or unset it")
    return None if named is None else Path(named)


def find_file(start: Path | None = None) -> Path | None:
    """Return ``jq.toml`` in ``start`` (the current folder) or the nearest folder above that has one, else None."""
    try:
        here = (start or Path.cwd()).absolute()
    except OSError:  # the folder was removed, or may not be entered
        return None
    return next((place for folder in (here, *here.parents) if _is_file(place := folder / FILE_NAME)), None)


def own_files() -> tuple[Path, ...]:
    """Return the user's and the system's file, the stronger first, as far as they are there."""
    folder = config_folder()
    own = [] if folder is None else [folder / FILE_NAME]
    return tuple(path for path in (*own, SYSTEM_FILE) if _is_file(path))


def describe(named: Path | None = None, start: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Yield each settings file that counts from ``start``, and each that is trusted, with what it may do in words."""
    if (path := named_file() if named is None else named) is not None:
        yield path, "named: counts alone"
        return
    found, own = find_file(start), own_files()
    if found is not None and not any(found.samefile(path) for path in own):
        yield found, f"found: {_standing_words(found)}"
    for path in own:
        problem = weakness(path)
        yield path, f"refused: {problem}" if problem else f"{'system' if path == SYSTEM_FILE else 'user'}: counts"
    for path in trust.trusted_paths():
        if path != found:
            yield path, f"elsewhere: {_standing_words(path) if _is_file(path) else 'trusted, and gone'}"


def _standing_words(path: Path) -> str:
    try:
        standing = trust.standing(path, read_bytes(path))
    except UsageError as error:
        return str(error)
    if standing is trust.Standing.TRUSTED:
        return "trusted, counts"
    if standing is trust.Standing.CHANGED:
        return "changed since it was trusted"
    problem = weakness(path)
    return f"not trusted: {problem}" if problem else "may only tighten"


def _read_own(path: Path) -> SettingsFile:
    if problem := weakness(path):
        raise RefusedError(
            f"{path} is not read: {problem}; give it to this user or root, take the right to write from all others, or "
            f"name a file with --config"
        )
    return check_top_level(read_file(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no right to look into its folder
        return False
