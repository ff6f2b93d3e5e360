"""Posts a message to a webhook, by the standard library: signed, with a time limit, without following redirects.

The signature is that of Standard Webhooks (standardwebhooks.com), for which many languages have a library: HMAC-SHA256
of ``id.timestamp.body`` in base64, in the header ``webhook-signature``. The URL of a webhook is a secret itself.
"""

import base64
import binascii
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from solidjq.errors import UsageError
from solidjq.version import VERSION
from solidjq.watching.outcomes import DELIVERED, Outcome
from solidjq.watching.slack import slack_form

TIMEOUT = 10.0  # seconds for a whole delivery
LONGEST_RETRY_AFTER = 3600.0
LEAST_KEY = 16  # bytes of a secret
_MAY_PASS = frozenset({408, 421, 425, 429})  # of 400 to 499; each other one is final
_PREFIX = "whsec_"


class Form(StrEnum):
    """The forms of what is posted."""

    AUTO = "auto"  # slack for hooks.slack.com, else json
    JSON = "json"
    SLACK = "slack"


@dataclass(frozen=True)
class Webhook:
    """One webhook. ``secret`` signs what is posted; without it nothing is signed."""

    url: str = field(repr=False)
    form: Form = Form.AUTO
    secret: bytes | None = field(default=None, repr=False)
    timeout: float = TIMEOUT
    attempts: int = 20

    def __post_init__(self) -> None:
        """Raise UsageError for a URL that cannot be posted to; the message does not show it whole."""
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            usable = False
        if not usable or not self.url.isascii() or any(c <= " " for c in self.url):
            raise UsageError("--webhook: that is no URL such as https://example.com/hook")
        if parts.username or parts.password:
            raise UsageError(f"--webhook {self}: a URL with a user or password is not supported; sign with a secret")

    def __str__(self) -> str:
        """Return it with its host alone: the path is a secret."""
        return masked_url(self.url)

    @cached_property
    def key(self) -> str:
        """The name of its messages in the position, from which nobody can read the URL."""
        return f"webhook-{sha256(self.url.encode()).hexdigest()[:16]}"

    def body(self, message: dict[str, Any]) -> bytes:
        """Return what is posted for a message."""
        slack = self.form is Form.SLACK or (self.form is Form.AUTO and urlsplit(self.url).hostname == "hooks.slack.com")
        posted = slack_form(message) if slack else message
        return json.dumps(posted, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

    def deliver(self, message: dict[str, Any]) -> Outcome:
        """Post a message; it returns within ``timeout``, about. Raises nothing."""
        body = self.body(message)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": f"solidjq/{VERSION}",
            **signed_headers(message["id"], body, self.secret, int(time.time())),
        }
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")  # noqa: S310  (checked)
        watched = _Watched()
        limit = threading.Timer(self.timeout, watched.cut)
        limit.daemon = True
        limit.start()
        try:
            with _opener(watched).open(request, timeout=self.timeout):
                return DELIVERED
        except urllib.error.HTTPError as error:
            with error:
                return _refused(error.code, error.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            words = f"it did not answer within {self.timeout:g} s" if watched.was_cut else _reason(error, self.timeout)
            return Outcome(words, again=True)
        finally:
            limit.cancel()


def masked_url(url: str) -> str:
    """Return a webhook's URL with its scheme and host alone."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    return f"{parts.scheme}://{parts.hostname}/***"


def read_secret(text: str) -> bytes:
    """Return the key that a secret stands for: ``whsec_`` and base64, or the text itself.

    Raises UsageError for one that is too short, or whose base64 is broken.
    """
    text = text.strip()
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else text.encode()
    except (binascii.Error, ValueError):
        raise UsageError("the webhook's secret begins with whsec_, but no base64 follows") from None
    if len(key) < LEAST_KEY:
        raise UsageError(f"the webhook's secret is shorter than {LEAST_KEY} bytes; make one: openssl rand -base64 32")
    return key


def signed_headers(identifier: str, body: bytes, secret: bytes | None, timestamp: int) -> dict[str, str]:
    """Return the headers with the id of the message, the time at which it is posted, and the signature."""
    headers = {"webhook-id": identifier, "webhook-timestamp": str(timestamp)}
    if secret is not None:
        signed = b".".join((identifier.encode(), str(timestamp).encode(), body))
        signature = base64.b64encode(hmac.digest(secret, signed, sha256)).decode()
        headers["webhook-signature"] = f"v1,{signature}"
    return headers


def _refused(code: int, retry_after: str | None) -> Outcome:
    if 300 <= code < 400:  # noqa: PLR2004
        return Outcome(f"it answered {code}; redirects are not followed", again=False)
    again = code >= 500 or code in _MAY_PASS  # noqa: PLR2004
    return Outcome(f"it answered {code}", again=again, after=_seconds(retry_after))


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which has a number or a date; None if it has neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after) if retry_after.strip().isdecimal() else _until(retry_after)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()


def _reason(error: Exception, timeout: float) -> str:
    """Return an error in words that contain no URL."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({cause.verify_message})"
    if isinstance(cause, ssl.SSLError):
        return f"no encrypted connection could be made ({cause.reason or cause.strerror})"
    for kinds, words in _REASONS:
        if isinstance(cause, kinds):
            return words.format(timeout=timeout)
    return (
        f"it cannot be reached: {cause.strerror or cause}" if isinstance(cause, OSError) else "it cannot be posted to"
    )


_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (http.client.RemoteDisconnected, "it closed the connection without an answer"),
    ((ConnectionResetError, BrokenPipeError), "it broke the connection off without an answer"),
    (TimeoutError, "it did not answer within {timeout:g} s"),
    (socket.gaierror, "its host's name has no address"),
    (http.client.HTTPException, "what it answered is not HTTP"),
)


# -- one connection ---------------------------------------------------------------------------------------------------


class _Watched:
    """The connection of one delivery: a server that sends a byte now and then must not hold it for ever."""

    def __init__(self) -> None:
        self.connection: http.client.HTTPConnection | None = None
        self.was_cut = False

    def cut(self) -> None:
        self.was_cut = True
        sock = None if self.connection is None else self.connection.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(2)


def _opener(watched: _Watched) -> urllib.request.OpenerDirector:
    """Return what opens a URL: by the proxies of the environment, never by a redirect."""

    def watch(kind: type[http.client.HTTPConnection]) -> Any:
        def make(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
            watched.connection = kind(*args, **kwargs)
            return watched.connection

        return make

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(watch(http.client.HTTPConnection), request)

    class Encrypted(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(watch(http.client.HTTPSConnection), request, context=ssl.create_default_context())

    class Never(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any, **__: Any) -> None:
            return None

    return urllib.request.build_opener(Plain, Encrypted, Never)
