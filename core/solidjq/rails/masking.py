"""Masks the values of secret keys in a job's arguments, as Rails filters the parameters of a request in its log.

A key is secret if it contains one of the masked names, in any case: ``passw`` masks ``password`` and ``old_passwd``.
``^pin$`` masks the key ``pin`` alone.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from solidjq.text import MASK, SHORT_KEY, has_no_secrets, mask_secrets, names_a_secret

# What a new Rails 8 application filters: config/initializers/filter_parameter_logging.rb.
RAILS_NAMES = (
    *("passw", "email", "secret", "token", "_key", "crypt", "salt", "certificate", "otp", "ssn", "cvv", "cvc"),
)
_OWN_KEYS = "_aj_"  # of Active Job: they mark the kind of a value
_CACHED = 1024  # keys, and objects
_MOST_KEYS = 20  # of an object that is kept


class Harmless(list[Any]):
    """A list in which nothing is secret: neither this room's masks nor that of passwords in texts change it."""


class Mask:
    """The names whose values are masked."""

    def __init__(self, names: Iterable[str] = RAILS_NAMES) -> None:
        self.names = tuple(dict.fromkeys(names))
        self._hidden: dict[str, bool] = {}  # a list has the same keys in each of its rows
        self._harmless: dict[tuple[str, ...], bool] = {}  # the same cache for all keys of an object
        self._pattern = re.compile("|".join(map(_pattern, self.names)) or r"(?!)", re.IGNORECASE)

    def hides(self, key: str) -> bool:
        """Whether the value of this key is masked."""
        if (hidden := self._hidden.get(key)) is None:
            hidden = not key.startswith(_OWN_KEYS) and self._pattern.search(key) is not None
            if len(key) <= SHORT_KEY and len(self._hidden) < _CACHED:
                self._hidden[key] = hidden
        return hidden

    def applied_to_document(self, value: Any, document: str) -> Any:
        """Return what ``applied`` does of a value from a document of JSON: a Harmless list if nothing is secret."""
        if type(value) is list and has_no_secrets(document) and self._is_harmless(value):
            return Harmless(value)
        return self.applied(value)

    def _is_harmless(self, value: Any) -> bool:
        """Whether no key in a value of JSON, however deep, names a secret."""
        if type(value) is dict:
            keys = tuple(value)
            harmless = self._harmless.get(keys)
            if harmless is None:
                harmless = not any(self.hides(key) or names_a_secret(key) for key in keys)
                if len(keys) <= _MOST_KEYS and len(self._harmless) < _CACHED:
                    self._harmless[keys] = harmless
            if not harmless:
                return False
            value = value.values()
        for item in value:
            kind = type(item)
            if (kind is dict or kind is list) and not self._is_harmless(item):
                return False
        return True

    def applied(self, value: Any) -> Any:
        """Return a value of JSON with the secrets in it masked: values of secret keys, and passwords in texts."""
        kind = type(value)
        if kind is str:
            return mask_secrets(value)
        if kind is dict:
            return {
                key: MASK if self.hides(key) and item not in (None, MASK) else self.applied(item)
                for key, item in value.items()
            }
        return [self.applied(item) for item in value] if kind is list else value


def _pattern(name: str) -> str:
    begins = r"\A" if name.startswith("^") else ""
    ends = r"\Z" if name.endswith("$") else ""
    return f"{begins}{re.escape(name.removeprefix('^').removesuffix('$'))}{ends}"


def contains_mask(value: Any) -> bool:
    """Whether a value of JSON contains a mask in the place of a value."""
    match value:
        case dict():
            return any(map(contains_mask, value.values()))
        case list():
            return any(map(contains_mask, value))
        case _:
            return bool(value == MASK)


# -- the application's own filter -------------------------------------------------------------------------------------

_FILTERED = re.compile(r"\bfilter_parameters\s*(?:\+=|=(?![=~])|<<|\.(?:push|concat|append)\b)")
_ITEM = re.compile(
    r"""%[iIwW]\[(?P<words>[^\]]*)\]|:(?P<symbol>\w+)|:?"(?P<double>[^"\\#]*)"|:?'(?P<single>[^'\\]*)'"""
    r"""|/(?P<regexp>(?:[^/\\\n]|\\.)+)/[a-z]*"""
)
# A regular expression of Ruby is read only if it is a plain name, perhaps anchored.
_PLAIN = re.compile(r"(\^|\\A)?([\w-]+)(\$|\\z|\\Z)?")
_MOST_CHARACTERS = 10_000  # of one list


def application_names(
    application: Path, environment: str | None = None, *, variables: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return the names that a Rails application filters: ``config.filter_parameters`` in its Ruby files.

    Nothing is evaluated. Names that only Ruby knows, such as those of a lambda, are left out.
    """
    from solidjq.rails.settings import ruby_code  # noqa: PLC0415  (it parses YAML too, and every -o json masks)

    names: dict[str, None] = {}
    for _, lines in ruby_code(application, environment, variables=variables):
        text = "\n".join(lines)
        for match in _FILTERED.finditer(text):
            names |= dict.fromkeys(_names(_list_at(text, match.end())))
    return tuple(names)


def _list_at(text: str, start: int) -> str:
    """Return the list of a Ruby statement: up to the bracket that closes it, else the rest of the line."""
    rest = text[start : start + _MOST_CHARACTERS]
    opened = re.match(r"[\s(]*%?[iIwW]?\[", rest)
    return rest[: rest.find("]", opened.end()) + 1] if opened else rest.partition("\n")[0]


def _names(ruby: str) -> Iterator[str]:
    for item in _ITEM.finditer(ruby):
        if item["words"] is not None:
            yield from item["words"].split()
        elif item["regexp"] is not None:
            if plain := _PLAIN.fullmatch(item["regexp"]):
                yield f"{'^' if plain[1] else ''}{plain[2]}{'$' if plain[3] else ''}"
        elif name := item["symbol"] or item["double"] or item["single"]:
            yield name


def with_own(names: Collection[str]) -> Mask:
    """Return the mask of the names that Rails filters, and of these."""
    return Mask([*RAILS_NAMES, *names])
