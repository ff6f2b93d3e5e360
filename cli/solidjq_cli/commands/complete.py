"""``jq __complete``: the values that a completion script asks for. It never asks, waits, writes, or says a word."""

from __future__ import annotations

import io
import os
import shlex
import sys
from contextlib import redirect_stderr, suppress
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from solidjq.selection.completions import Completion

LIMIT = 0.3  # seconds that the database may take, all in all
LIMIT_ENVIRONMENT = "JQ_COMPLETION_TIMEOUT"  # as many seconds instead, for a server that is far away
# Kinds beside those of the core: the profiles of jq.toml, and queues with commas between them.
PROFILE = "profile"
QUEUES = "queues"
_MOST_CHARACTERS = 60  # of what a value is, beside it
_ACT_AT_ONCE = {"--version", "--which"}  # options that would print while the line is read


def add_to(app: typer.Typer) -> None:
    """Add the command, which no help lists."""
    app.command("__complete", hidden=True, context_settings={"ignore_unknown_options": True})(complete)


def complete(
    context: typer.Context,
    shell: Annotated[str, typer.Argument()],
    kind: Annotated[str, typer.Argument()],
    prefix: Annotated[str, typer.Argument()],
    words: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Print the values that a completion script asks for.

    Each has a line: the value, a tab, and what it is.

    ``words`` is the line as typed, without the program and the word under the cursor; in bash with its quotes.
    """
    with redirect_stderr(io.StringIO()), suppress(Exception):
        if shell == "bash":
            prefix, words = _unquoted(prefix), [*map(_unquoted, words or ())]
        sys.stdout.write(_lines(_find(context, kind, prefix, words or [])))


def _unquoted(word: str) -> str:
    return "".join(shlex.split(word))


def _lines(completions: Iterable[Completion]) -> str:
    """Return the lines; a value that a shell could not insert as one word of one line is left out."""
    return "".join(
        f"{value}\t{''.join(letter for letter in words if letter.isprintable())[:_MOST_CHARACTERS]}\n"
        for value, words in dict(completions).items()
        if value.isprintable() and value
    )


def _find(context: typer.Context, kind: str, prefix: str, words: Sequence[str]) -> list[Completion]:
    from solidjq_cli import session

    root, command = _parsed(context, [word for word in words if word not in _ACT_AT_ONCE])
    session.begin(
        session.Connecting(
            profile=root.get("profile"),
            database=root.get("database"),
            rails=_path(root, "rails"),
            environment=root.get("environment"),
            schema=root.get("schema"),
            table_prefix=root.get("table_prefix"),
            file=_path(root, "config_file"),
            read_only=True,
        )
    )
    current = session.current(command.get("database"), _path(command, "config_file"))
    if kind == PROFILE:
        return _profiles(current, prefix)
    if current.connecting.password_command:  # it may ask its user for a passphrase
        return []
    from solidjq.database.engines import time_limit
    from solidjq.selection.completions import CompletedKind, find_completions

    # A name server, a handshake, a lock, several statements: none of them keeps the shell waiting.
    seconds = float(os.environ.get(LIMIT_ENVIRONMENT) or LIMIT)
    limit = Timer(seconds, os._exit, [0])
    limit.daemon = True
    limit.start()
    database = current.open(watch=False, answer_timeout=seconds)
    try:
        with database.read() as connection, time_limit(connection, seconds):
            if kind != QUEUES:
                return [*find_completions(connection, CompletedKind(kind), prefix)]
            before, comma, last = prefix.rpartition(",")
            queues = find_completions(connection, CompletedKind.QUEUE, last)
            return [queue._replace(value=f"{before}{comma}{queue.value}") for queue in queues]
    finally:
        database.close()
        limit.cancel()


def _parsed(context: typer.Context, words: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options before the command and those behind it, as far as the line has them."""
    from typer._click.shell_completion import _resolve_context

    below: Any = _resolve_context(context.find_root().command, {}, "jq", words)
    return below.find_root().params, below.params if below.parent is not None else {}


def _path(options: dict[str, Any], name: str) -> Path | None:
    text = options.get(name)
    return None if text is None else Path(text)


def _profiles(current: Any, prefix: str) -> list[Completion]:
    from solidjq.selection.completions import Completion
    from solidjq.settings.profiles import load_profiles

    profiles = load_profiles(current.settings).values()
    return [
        Completion(each.name, "read-only" if each.read_only else "")
        for each in profiles
        if each.name.startswith(prefix)
    ]
