"""``mask``: names of arguments whose values are not shown, beside those that Rails filters."""

from typing import Any

from solidjq.settings.file import wrong_value
from solidjq.settings.sources import Settings

KEY = "mask"
_MOST_NAMES = 1_000
_MOST_CHARACTERS = 255


def masked_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of all files, that of a found file too: it hides more, never less.

    Raises UsageError for a value that is no list of names.
    """
    files = [*settings.files, *([] if settings.found is None else [settings.found])]
    names = (name for file in files for name in _check(file.document.get(KEY, []), f"{file.path}: {KEY}"))
    return tuple(dict.fromkeys(names))


def _check(value: Any, place: str) -> list[str]:
    if not isinstance(value, list) or len(value) > _MOST_NAMES or not all(map(_is_name, value)):
        raise wrong_value(place, value, 'a list of names of arguments, such as ["iban", "^pin$"]')
    return value


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip("^$")) <= _MOST_CHARACTERS
