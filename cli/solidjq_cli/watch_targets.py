"""Where ``jq watch`` delivers to, from options, files and the environment; URLs and secrets are never printed."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from solidjq_cli.exits import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from solidjq.watching.programs import Program
    from solidjq.watching.webhooks import Webhook

URLS, SECRET = "JQ_WEBHOOK", "JQ_WEBHOOK_SECRET"  # of the environment
MOST_BYTES = 100_000  # of a file with URLs, or a secret


class Format(StrEnum):
    """The forms of what is posted, as in solidjq.watching.webhooks."""

    AUTO = "auto"
    JSON = "json"
    SLACK = "slack"


def webhooks(named: Sequence[str], form: Format, secret_file: Path | None) -> list[Webhook]:
    """Return the webhooks of the options, else of the environment; each once.

    Raises UsageError for a URL, a file or a secret that cannot be used.
    """
    from solidjq.watching.webhooks import Form, Webhook, masked_url, read_secret  # noqa: PLC0415

    urls = list(dict.fromkeys(_urls(named or os.environ.get(URLS, "").split())))
    text = _read(secret_file, "--webhook-secret-file") if secret_file is not None else os.environ.get(SECRET)
    secret = None if not text else read_secret(text)
    for url in urls:
        if url.startswith("http://") and not _is_local(url):
            say(f"what is posted to {masked_url(url)} is not encrypted; others can read it on the way")
    return [Webhook(url, Form(form.value), secret) for url in urls]


def programs(line: str | None, timeout: float) -> list[Program]:
    """Return the program of ``--exec``. Raises UsageError for a line that names none."""
    from solidjq.watching.programs import Program  # noqa: PLC0415

    return [] if line is None else [Program(line, timeout)]


def _urls(named: Sequence[str]) -> Iterator[str]:
    for word in named:
        if word.startswith("@"):
            lines = _read(Path(word[1:]), "--webhook").splitlines()
            yield from (line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))
        else:
            yield word


def _read(path: Path, option: str) -> str:
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.files import read_file  # noqa: PLC0415

    try:
        return read_file(path, MOST_BYTES, pipes=True).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{option} {path} cannot be read: {reason}") from None


def _is_local(url: str) -> bool:
    from urllib.parse import urlsplit  # noqa: PLC0415

    try:
        return urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}
    except ValueError:
        return False
