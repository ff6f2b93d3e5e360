"""The user's own folders; a user may have none: a container with a random user id, a cron job without HOME."""

from collections.abc import Callable
from pathlib import Path

from solidjq.errors import UsageError

NO_HOME = "this user has no home folder: HOME is not set and the system does not know the user; set HOME"


def config_folder() -> Path | None:
    """Return the user's configuration folder, on Linux ``~/.config/solidjq``; None for a user without a home."""
    from platformdirs import user_config_path  # noqa: PLC0415  (it is not always needed)

    return _folder(user_config_path)


def state_folder() -> Path:
    """Return the user's state folder, on Linux ``~/.local/state/solidjq``.

    Raises UsageError for a user without a home.
    """
    from platformdirs import user_state_path  # noqa: PLC0415  (not needed if a database is named)

    if (folder := _folder(user_state_path)) is None:
        raise UsageError(f"no database is named, and {NO_HOME}, or name a database")
    return folder


def _folder(find: Callable[[str], Path]) -> Path | None:
    try:
        folder = find("solidjq")
    except RuntimeError:
        return None
    # Earlier versions of platformdirs return ~/.config as it is: a path in whatever folder one stands in.
    return folder if folder.is_absolute() else None
