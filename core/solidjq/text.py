"""Text: escaping and masking what a database or a person wrote, the one parser of row ids, numbers before nouns."""

import json
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from signal import Signals
from urllib.parse import unquote

# A URL with credentials: scheme://user:password@host. The password may contain '@': the word's last '@' ends it.
_WORD = re.compile(r"[^\s\"]+")
_USER = re.compile(r"://[^:/?#@]*:")
# key=value as libpq, ODBC, query strings and environments write it: key = 'two words', key="two words" too. The key is
# percent-decoded before it is compared. A key begins at a boundary and is never taken back: linear time.
_KEY = re.compile(r"(?<![\w%-])([\w%-]++)[ \t]{0,3}=[ \t]{0,3}")
_VALUE = re.compile(
    r"""'(?:[^'\\]|\\.)*+'?|"(?:[^"\\]|\\.)*+"?|\\"(?:[^"\\]|\\[^"])*+(?:\\")?|(?:\\.|[^\s&"';\\]|\\)++""",
    re.DOTALL,
)
_SECRET = re.compile(
    r"(?i)(?:password|passwd|pwd|passphrase|secret|token|(?:api|access|secret|private)[-_]?key(?:[-_]base)?)\Z"
)
MASK = "***"
SHORT_KEY = 100  # characters of a key that may be kept in a cache
# A word of more characters than any id, name or hash has.
_LONG_WORD = re.compile(r"([\w-]{40})[\w-]{90,}")

_BIGINT = 2**63
_MOST_DIGITS = 100  # of an id, leading zeros included; Python raises ValueError for text of thousands of digits

# Cc controls, Cf formatting (bidirectional overrides, zero-width), Cs lone surrogates, Zl/Zp line separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def parse_id(text: str) -> int | None:
    """Return the id of a row that ``text`` is, leading zeros allowed; None for text that is no BIGINT of 0 or more."""
    if len(text) > _MOST_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number < _BIGINT else None


def count_of(count: int, noun: str) -> str:
    """Return ``1 death``, ``2,000 deaths``, ``3 classes``; of a noun of several words the last one changes."""
    return f"{count:,} {noun if count == 1 else plural_of(noun)}"


def its(count: int) -> str:
    """Return ``its``, for what one job has, or ``their``, for what any other number of jobs has."""
    return "its" if count == 1 else "their"


def times_of(count: int) -> str:
    """Return ``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def plural_of(noun: str) -> str:
    """Return the plural of a regular English noun: ``jobs``, ``classes``, ``crashes``, ``retries``."""
    if noun.endswith(("s", "sh", "ch", "x")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def with_article(noun: str) -> str:
    """Return ``a retry``, ``an undo``."""
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` for 9; ``signal 99`` for a number that is none here."""
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def first_of(items: Sequence[object], most: int, *, separator: str = ", ") -> str:
    """Return the first items in words, and how many more there are: ``users, orders and 55 more``."""
    shown = separator.join(map(str, items[:most]))
    if len(items) <= most:
        return shown
    return f"{shown}{separator.strip(', ')} and {len(items) - most:,} more"


def mask_secrets(text: str) -> str:
    """Replace passwords in URLs and in pairs (``password=x``, ``token = 'x y'``) with ``***``, in linear time."""
    masked = _WORD.sub(lambda word: _mask_url(word[0]), text) if "@" in text and "://" in text else text
    return _mask_pairs(masked) if "=" in masked else masked


def has_no_secrets(document: str) -> bool:
    """Whether no text in a document of JSON is one that ``mask_secrets`` changes; False if that is not certain."""
    # An escape may stand for any of these characters.
    return "=" not in document and "\\" not in document and ("@" not in document or "://" not in document)


def names_a_secret(key: str) -> bool:
    """Whether a key, percent-encoded or not, is that of a password, token or the like: ``sslpassword``, ``api_key``."""
    return (_names_a_secret if len(key) <= SHORT_KEY else _names_a_secret.__wrapped__)(key)


@lru_cache(1024)  # a list has the same keys in each of its rows
def _names_a_secret(key: str) -> bool:
    return _SECRET.search(unquote(key) if "%" in key else key) is not None


def _mask_pairs(text: str) -> str:
    parts, end = [], 0
    for key in _KEY.finditer(text):  # not of whole pairs: the value of url= or command= may contain a pair
        if key.start() >= end and names_a_secret(key[1]) and (value := _VALUE.match(text, key.end())):
            parts += [text[end : key.end()], MASK]
            end = value.end()
    return "".join([*parts, text[end:]])


def mask_argument(argument: str) -> str:
    """Mask the passwords in one argument of a command line.

    In a URL that is everything between the user and the last ``@``, spaces included.
    """
    return mask_secrets(_mask_url(argument))


def _mask_url(word: str) -> str:
    end = word.rfind("@")
    user = _USER.search(word, 0, end) if end > 0 else None
    return word if user is None or user.end() == end else f"{word[: user.end()]}{MASK}{word[end:]}"


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape the characters that a terminal would act on (``\x1b`` for ESC), except those in ``keep``."""
    if text.isprintable():  # the usual case, at C speed; private and unassigned characters take the slow path
        return text
    return "".join(
        c
        if c in keep or unicodedata.category(c) not in _UNPRINTABLE
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def one_line(text: str) -> str:
    """Collapse white space into single spaces and escape control characters, so that a message fits one row."""
    return printable(" ".join(text.split()))


def cut_words(message: str) -> str:
    """Return a message with its absurdly long words cut: an id of thousands of digits fills no terminal."""
    return _LONG_WORD.sub(lambda word: f"{word[1]}... ({len(word[0]):,} characters)", message)


def escape_json(document: str) -> str:
    r"""Escape what JSON leaves raw and a terminal would act on: DEL, C1 controls, bidirectional overrides."""
    # isprintable takes 30 times as long. Controls below DEL are escaped in JSON.
    if (document.isascii() and "\x7f" not in document) or document.isprintable():
        return document
    return "".join(json.dumps(c)[1:-1] if unicodedata.category(c) in _UNPRINTABLE else c for c in document)
