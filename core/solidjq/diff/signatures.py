"""Signatures: what makes two failures the same. Exception class, message and application frames without what varies.

Every function here is pure, reads a bounded part of the text in linear time, and never raises.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from solidjq.rails.error_text import Death, ErrorInfo, parse_error

READ = 16_000  # characters of an error that are read
MESSAGE = 1_000  # characters of a message that are normalised
MESSAGE_LENGTH = 300  # characters of the normalised message in a signature
FRAMES = 3  # application frames in a signature, the innermost ones
WORD = 200  # characters: a longer word is data, not text
CACHED = 8_192  # entries of a cache


class Signature(NamedTuple):
    """A failure's error without ids, numbers, times, paths and line numbers. Failures of one signature are a group."""

    exception_class: str | None
    message: str
    frames: tuple[str, ...] = ()  # of the application, innermost first: file:method
    death: Death | None = None

    @property
    def name(self) -> str:
        """The name that operators use: ``g`` and seven hexadecimal digits, the same in every run and database."""
        parts = (self.exception_class or "", self.message, *self.frames)
        text = "\0".join(parts).encode("utf-8", "replace")
        return f"g{hashlib.blake2s(text, digest_size=4).hexdigest()[:7]}"

    @property
    def title(self) -> str:
        """Exception class and message in a line."""
        return ": ".join(part for part in (self.exception_class, self.message) if part) or "(no error was recorded)"


def signature_of(error: str | None) -> Signature:
    """Return the signature of an error as ``failed_executions`` stores it; any other text gets one as well."""
    return _signature_of(None if error is None else error[:READ])


@lru_cache(CACHED // 8)
def _signature_of(error: str | None) -> Signature:
    info = parse_error(error)
    name = None if info.exception_class is None else info.exception_class[:MESSAGE_LENGTH]
    if info.death is not None:
        return Signature(name, _manner(info), (), info.death)
    frames = info.backtrace or tuple(_cut_frames(error or ""))
    return Signature(name, normalize(info.message or ""), application_frames(frames))


def _manner(info: ErrorInfo) -> str:
    """Return how a process ended, in words that are the same for all processes."""
    if info.death is Death.PRUNED:
        return "its heartbeat stopped"
    if info.death is Death.MISSING:
        return "its process was gone"
    if info.signal is not None:
        return f"killed by signal {info.signal}"
    return "exited" if info.exit_status is None else f"exited with status {info.exit_status}"


# -- the beginning of an error ----------------------------------------------------------------------------------------

BACKTRACE = '"backtrace":['
MESSAGE_KEY = '","message":"'
FIRST_FRAME = 100  # characters: backtraces that begin with the same, and are as long, count as equal


def outline(head: str | None, size: int, cut: int) -> tuple[object, ...]:
    """Return a cache key of an error's signature, made from its first ``cut`` characters, ``head``.

    Errors with equal keys have equal signatures: class and normalised message are the same, and the backtraces begin
    with the same characters and are equally long. ``size`` is the length of the whole error in bytes. If the head is
    the whole error, the key is its signature in a tuple; without a ``cut`` it has the whole backtrace of the head.
    """
    if head is None or len(head) < cut:
        return (signature_of(head and _zeroed(head)),)
    before, has_backtrace, backtrace = head.partition(BACKTRACE)
    if not has_backtrace:  # the message is longer than the head, and may be cut in the middle of a number
        name, message = _beginning(_zeroed(head))
        return name, message[: MESSAGE_LENGTH // 2], size
    # The length from the backtrace on is in bytes, as the databases count it.
    length = size - len(before.encode("utf-8", "replace"))
    return *_beginning(_zeroed(before)), length, backtrace[: FIRST_FRAME if cut else None]


@lru_cache(CACHED)
def _beginning(text: str) -> tuple[str | None, str]:
    """Return exception class and normalised message of an error that was cut before its backtrace."""
    info = parse_error(text.removesuffix(",") + "}")
    return info.exception_class, normalize(info.message or "")


def _zeroed(error: str) -> str:
    """Return an error with zeros for the digits of its message, unless that could change its signature.

    Of a hundred thousand errors that differ in a number only one is parsed; the others hit the cache.
    """
    name, has_message, message, rest = _cut_at_message(error)
    if not _may_be_zeroed(name, has_message, message):
        return error
    return f"{name}{has_message}{message.translate(_ZEROS)}{rest}"


def hides_digits(head: str) -> bool:
    """Whether zeros in the message of an error, written there for any digit, may hide a part of the signature.

    What decides on that is the same for all digits, so it is seen in the zeros.
    """
    name, has_message, message, _ = _cut_at_message(head)
    return "0" in message and not _may_be_zeroed(name, has_message, message)


def _cut_at_message(error: str) -> tuple[str, str, str, str]:
    """Return what is before the message, the key between, the message, and what is behind it."""
    name, has_message, rest = error.partition(MESSAGE_KEY)
    message, end, behind = rest.partition('","backtrace":')
    return name, has_message, message, end + behind


def _may_be_zeroed(name: str, has_message: str, message: str) -> bool:
    """Whether an error, cut at its message, has the same signature with zeros for the digits of its message."""
    return bool(
        has_message
        and name.startswith('{"exception_class":"')
        and "SolidQueue::" not in name
        # Without its escapes and double spaces, a digit could follow a word that makes it a code.
        and "\\" not in message
        and "  " not in message
        and message.isascii()
        and not ("(" in message and _NUMBERED.search(message))
        and not _digits_matter(message)
    )


# -- messages ---------------------------------------------------------------------------------------------------------

_ZEROS = str.maketrans("123456789", "0" * 9)
# The number after one of these words is a code, and part of the signature: 404 is another failure than 503.
_CODE_WORDS = ("status", "code", "errno", "signal", "sqlstate", "http", "error")
_CODE_WORD_SET = frozenset(_CODE_WORDS)
_CODE_WORD = re.compile("|".join(_CODE_WORDS))
_CODED = re.compile(rf"(?:{'|'.join(_CODE_WORDS)})[\s(\[{{:=#,]{{0,3}}\d")


def normalize(message: str) -> str:
    """Return a message with placeholders, such as ``<n>`` or ``<uuid>``, for what differs between occurrences."""
    text = " ".join(message[:MESSAGE].split())
    if "(" in text:
        text = _NUMBERED.sub(r"(errno \1, ", text)
    # Many messages are equal from here on, and hit the cache.
    if "-" in text:
        text = _UUID.sub("<uuid>", text)
    return _normalized(text if _digits_matter(text) else text.translate(_ZEROS))


def _digits_matter(text: str) -> bool:
    """Whether digits of a text may be a code or part of a name, so that they must not be replaced by zeros."""
    lowered = text.lower()
    coded = _CODE_WORD.search(lowered) and _CODED.search(lowered)
    return bool(coded or _NAMED.search(text))


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_NUMBERED = re.compile(r"\((\d{1,5}), ['\"]")  # Python's database drivers: (1213, 'Deadlock found ...')
_NAMED = re.compile(r"(?<!\d)[A-Za-z]\d{1,2}(?!\d)")  # digits that belong to a name
_MARKED = re.compile(r"[\d/\\@=]")

_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
# Spans that may contain spaces. Each repetition is bounded, so no text makes the search slower than linear.
_SPANS = re.compile(
    r"""(?x)
      (?<!\w) ["'`] (?P<quoted>[^"'`]{0,200}) ["'] (?!\w)
    | \#<(?P<ruby>[A-Z][\w:]{0,100}) [^<>]{0,300} >
    | =\( [^()]{0,200} \)
    | \b\d{1,2}\ """
    + _MONTH
    + r"""\ \d{4}\b (?:\ \d\d:\d\d(?::\d\d)?(?:\ (?:[+-]\d{4}|GMT|UTC|Z))?)?
    """
)
_IDENTIFIER = re.compile(r"[A-Za-z_@:][\w:.]{0,80}[?!=]?|\[\]=?|[-+*/%<>=!~^&|]{1,3}")
_DIGITS = re.compile(r"\d{3}|\d{2}\Z")
_AROUND = re.compile(r"([(\[{<'\"]*)(.*?)([)\]}>'\",;:.!?]*)\Z", re.DOTALL)
_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("<url>", re.compile(r"[a-z][a-z0-9+.-]{1,20}://.*", re.IGNORECASE)),
    ("<email>", re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")),
    (
        "<time>",
        re.compile(
            r"\d{4}-\d\d-\d\d(?:T\d\d:?\d\d(?::?\d\d(?:[.,]\d{1,12})?)?)?(?:Z|[+-]\d\d:?\d\d)?"
            r"|\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,12})?)?(?:Z|[+-]\d\d:?\d\d)?|\d{4}/\d\d/\d\d|[+-]\d{4}"
        ),
    ),
    ("<ip>", re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2}|:\d{1,5})?")),
    ("<ip>", re.compile(r"\[?(?=[0-9a-f:]{0,39}\d)(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?:\]:\d{1,5})?", re.IGNORECASE)),
    ("<hex>", re.compile(r"0x[0-9a-f]{1,64}|(?=[0-9a-f]{0,64}\d)(?=\d{0,64}[a-f])[0-9a-f]{7,128}", re.IGNORECASE)),
    ("<path>", re.compile(r"(?:~|[A-Za-z]:)?(?:[/\\][^/\\:]{1,200}){2,40}[/\\]?|~[/\\][^:]{1,200}")),
)
_TOKEN = re.compile(r"(?=[^\d]{0,200}\d)(?=[^A-Za-z]{0,200}[A-Za-z])[A-Za-z0-9_+=-]{16,}[A-Za-z0-9_+/=.-]*")
_HEX_INSIDE = re.compile(r"\b0x[0-9a-f]{1,64}|\b(?=[a-f]{0,64}\d)(?=\d{0,64}[a-f])[0-9a-f]{12,128}\b", re.IGNORECASE)
# Digits behind one or two letters, or at the end of a name, belong to the name: S3, utf8, Base64, v2.
_NUMBER = re.compile(r"(?<![A-Za-z0-9])\d(?:[\d_,.]{0,100}\d)?|(?<=[A-Za-z])\d{3,}")
_SEQUENCE = re.compile(r"(?:(?:['\"]?(<[a-z]{1,8}>)['\"]?)(?:[,;]\ ?|\ (?=<time>))){1,400}(?=['\"]?\1)", re.VERBOSE)
_ZONE = re.compile(r"(?:\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6}, )?<time>(?: <time>)*(?: (?:UTC|GMT)\b)?")


@lru_cache(CACHED)
def _normalized(text: str) -> str:
    spanned = _SPANS.sub(_span, text)
    words: list[str] = []
    before = ""
    for word in spanned.split(" "):
        words.append(_word(word, before) if _MARKED.search(word) or len(word) > WORD else word)
        before = word
    joined = " ".join(words)
    if "<" in joined:
        joined = _SEQUENCE.sub("", joined)
        if "<time>" in joined:
            joined = _ZONE.sub("<time>", joined)
    return joined[:MESSAGE_LENGTH]


def _span(match: re.Match[str]) -> str:
    quoted, ruby = match["quoted"], match["ruby"]
    if ruby is not None:
        return f"#<{ruby.rstrip(':')}>"
    if quoted is None:
        return "=(<text>)" if match[0].startswith("=") else "<time>"
    # A quoted identifier is part of the signature, unless it is in the place of a value: `Integer(): "abc"`.
    introduced = match.string[max(0, match.start() - 2) : match.start()].rstrip()[-1:]
    named = introduced not in {":", "=", ">"} and _IDENTIFIER.fullmatch(quoted) and not _DIGITS.search(quoted)
    return f"'{quoted if named else '<text>'}'"


def _word(word: str, before: str) -> str:
    if len(word) > WORD:
        return "<text>"
    around = _AROUND.match(word)
    opening, inner, closing = around.groups() if around else ("", word, "")
    return f"{opening}{_inner(inner, before)}{closing}"


def _inner(word: str, before: str) -> str:
    """Normalise a word without the punctuation around it."""
    if word.isdecimal():
        return word if _is_code(word, before) else "<n>"
    for placeholder, shape in _SHAPES:
        if shape.fullmatch(word):
            return placeholder
    name, equals, value = word.partition("=")
    if equals and value and name.replace("_", "a").isalnum():
        return f"{name}={_inner(value, '')}"
    if _TOKEN.fullmatch(word):
        return "<id>"
    plain = _HEX_INSIDE.sub("<hex>", word)
    return _NUMBER.sub(lambda match: _number(match, plain), plain)


def _number(match: re.Match[str], text: str) -> str:
    return match[0] if _is_code(match[0], text[: match.start()]) else "<n>"


def _is_code(number: str, before: str) -> bool:
    """Whether a number is a code, which the word before it decides."""
    word = before[-20:].lower().strip("([{:=#, ").rpartition("[")[2]
    return word in _CODE_WORD_SET and len(number) <= (5 if word in {"sqlstate", "errno"} else 3)


# -- backtraces -------------------------------------------------------------------------------------------------------

_STRING = re.compile(r'"((?:[^"\\]|\\.){0,2000})"')
_RUBY = re.compile(r"(.{1,1000}?):(\d{1,9})(?::in [`'](.{1,300})')?", re.DOTALL)
_PYTHON = re.compile(r'\s*File "(.{1,1000}?)", line \d{1,9}(?:, in (.{1,300}))?', re.DOTALL)
_BLOCK = re.compile(r"(?:block|rescue|ensure)(?: \(\d{1,4} levels\))? in ")
_LIBRARY = re.compile(
    r"""(?x) /gems/ | site-packages/ | dist-packages/ | /lib/ruby/ | /ruby/\d | lib/python\d | ^/usr/lib/ | ^/usr/share/
    | ^<internal: | ^<frozen | ^<string> | ^\(eval | ^eval: | /vendor/bundle/ | /rubygems/ | /bundler/ | \.zip/
    | (?:^|/)s?bin/ | /solidjq/runtime/ | ^<
    """
)
_RELEASE = re.compile(r"[0-9a-f]{7,64}|\d+", re.IGNORECASE)


def application_frames(backtrace: tuple[str, ...]) -> tuple[str, ...]:
    """Return the innermost ``FRAMES`` frames of the application's own code, as ``file:method`` without line numbers.

    Frames of libraries, of Ruby and of Python are left out; a frame that repeats is returned once.
    """
    frames: dict[str, None] = {}
    for line in backtrace:
        if (frame := _frame(line[:1500])) is not None:
            frames[frame] = None
            if len(frames) == FRAMES:
                break
    return tuple(frames)


def fold_libraries(backtrace: Sequence[str]) -> Iterator[str | int]:
    """Yield the frames of the application as they are, and for each run of other lines how many they are.

    A backtrace without frames of the application begins with its innermost ``FRAMES``: something must be there to read.
    """
    ours = [_frame(line[:1500]) is not None for line in backtrace]
    if not any(ours):
        ours = [at < FRAMES for at in range(len(backtrace))]
    for own, run in groupby(zip(ours, backtrace, strict=True), key=itemgetter(0)):
        lines = [line for _, line in run]
        yield from lines if own else [len(lines)]


@lru_cache(CACHED)
def _frame(frame: str) -> str | None:
    """Return a line of a backtrace as ``file:method``; None if it is a library's, or not a frame."""
    if match := _PYTHON.match(frame):
        path, method = match[1], match[2]
    elif match := _RUBY.match(frame):
        path, method = match[1], match[3]
    else:
        return None
    if _LIBRARY.search(path):
        return None
    # The application's folder differs between releases and hosts; the last folders in it do not.
    parts = [part for part in path.split("/") if part and not _RELEASE.fullmatch(part)]
    return ":".join(part for part in ("/".join(parts[-3:]), _method(method or "")) if part)


def _method(method: str) -> str:
    """Return a method's name without "block in" and without the class that Ruby 3.4 puts before it."""
    while match := _BLOCK.match(method):
        method = method[match.end() :]
    name = re.split(r"[#.]", method)[-1] if not method.startswith("<") else method
    return name or method


def _cut_frames(error: str) -> Iterator[str]:
    """Yield the complete frames of a backtrace that was cut off."""
    _, has_backtrace, backtrace = error.partition(BACKTRACE)
    if has_backtrace:
        yield from (match[1].replace("\\u003c", "<").replace("\\u003e", ">") for match in _STRING.finditer(backtrace))
