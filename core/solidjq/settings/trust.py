"""Found files that the user trusts: ``jq config trust``. Recorded by path and content, so an edit ends the trust."""

import hashlib
import json
import os
from enum import StrEnum
from pathlib import Path

from solidjq.errors import RefusedError, UsageError
from solidjq.files import read_file, replaced
from solidjq.home import NO_HOME, config_folder
from solidjq.ownership import weakness

RECORD_NAME = "trusted.json"
MOST_BYTES = 1_000_000  # a path and a hash for each trusted file


class Standing(StrEnum):
    """Whether the user trusts a file with its present content."""

    TRUSTED = "trusted"
    CHANGED = "changed"  # trusted once, with another content
    UNKNOWN = "unknown"


def record_path() -> Path | None:
    """Return the path of the record, in the user's configuration folder; None for a user without a home."""
    folder = config_folder()
    return None if folder is None else folder / RECORD_NAME


def standing(path: Path, content: bytes) -> Standing:
    """Return whether the user trusts the file at this path with this content."""
    digest = _read().get(_key(path))
    if digest is None:
        return Standing.UNKNOWN
    return Standing.TRUSTED if digest == _digest(content) else Standing.CHANGED


def trusted_paths() -> tuple[Path, ...]:
    """Return the paths that were trusted, in the order of their names."""
    return tuple(map(Path, sorted(_read())))


def trust(path: Path, content: bytes) -> str:
    """Trust the file at this path as long as it has this content; return its SHA-256.

    Raises RefusedError if others may write the record, UsageError if it cannot be written.
    """
    digest = _digest(content)
    _write({**_read(), _key(path): digest})
    return digest


def untrust(path: Path) -> bool:
    """Trust the file at this path no longer; return whether it was trusted. Raises as ``trust`` does."""
    record = _read()
    if record.pop(_key(path), None) is None:
        return False
    _write(record)
    return True


def _key(path: Path) -> str:
    # The folder's real path, as the working directory has it; the file's own name may be a link that others can set.
    return str(path.absolute().parent.resolve() / path.name)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read() -> dict[str, str]:
    """Return the record; empty if there is none. Under sudo with the caller's HOME it is the caller's, not root's."""
    path = record_path()
    if path is None or not path.is_file() or weakness(path) is not None:
        return {}
    try:
        record = json.loads(read_file(path, MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(record, dict):
        return {}
    return {key: value for key, value in record.items() if isinstance(value, str)}


def _write(record: dict[str, str]) -> None:
    path = record_path()
    if path is None:
        raise UsageError(f"cannot keep what you trust: {NO_HOME}, or name the file with --config")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if problem := weakness(path.parent):
            raise RefusedError(
                f"cannot keep what you trust in {path.parent}: {problem}; take the right to write from all others; "
                f"under sudo use sudo -H"
            )
        with replaced(path, mode=0o600) as file:
            file.write(json.dumps(record, indent=1, sort_keys=True).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
