"""The process's own arguments, which every user of the host can read: passwords in them are overwritten."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from solidjq_cli import view
from solidjq_cli.command_list import COMMANDS

_WITH_ARGUMENTS = "--with-arguments"  # of jq retry; its value may be secret
_WEBHOOK = "--webhook"  # of jq watch; the path of its URL is secret
_HOST = re.compile(r"(?:--webhook=)?[a-z]+://[^/?#]*[/?#]")
_ARGUMENTS_START = 45  # of the fields of /proc/self/stat after the program's name; the end is the next one


def typed_words() -> list[str]:
    """Return this command line without the program's name: what was typed, or what ``jq top`` runs within itself."""
    host = view.host()
    return sys.argv[1:] if host is None else list(host.words)


def program_name() -> str:
    """Return the name this program was called by, however it was started."""
    called = Path(sys.argv[0]).name
    return called if called in {"jq", "solidjq"} else "jq"


def by_own_name(text: str) -> str:
    """Return a text with every command line in it beginning with the name that this program was called by."""
    return with_name(text, program_name())


def with_name(text: str, name: str) -> str:
    """Return a text with every command line in it beginning with this name of the program."""
    if name == "jq":
        return text
    # In a command line, `jq` stands before a command or an option; jq.toml and "jq is ..." are something else.
    commands = "|".join(map(re.escape, COMMANDS))
    return re.sub(rf"(?<![\w./-])jq(?= (?:--?[a-z]|(?:{commands})\b))", name, text)


def typed_with(option: str, value: str) -> str:
    """Return this command line, without the program's name, with another value of an option."""
    from solidjq.text import mask_argument  # noqa: PLC0415

    words: list[str] = []
    typed = iter(typed_words())
    for word in typed:
        if word == option:
            next(typed, None)
        elif not word.startswith(f"{option}="):
            words.append(mask_argument(word))
    return shlex.join([*words, option, value])


def hide_passwords() -> None:
    """Overwrite the passwords in what ``ps`` and ``/proc/PID/cmdline`` show; ``sys.argv`` stays as it is.

    On Linux only, and nothing where the kernel does not allow it. Until then, others could read them.
    """
    if not any("://" in argument or "=" in argument for argument in sys.argv):
        return
    from solidjq.text import mask_argument  # noqa: PLC0415

    secret = {argument: masked for argument in sys.argv if (masked := mask_argument(argument)) != argument}
    secret |= _webhooks(sys.argv)
    if not secret:
        return
    with suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = map(int, fields[_ARGUMENTS_START : _ARGUMENTS_START + 2])
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            before = after = memory.read(end - start)
            for argument, masked in secret.items():
                text = os.fsencode(argument)
                shown = os.fsencode(masked)[: len(text)].ljust(len(text))
                after = after.replace(b"\0" + text + b"\0", b"\0" + shown + b"\0")
            if after != before:
                memory.seek(start)
                memory.write(after)


def _webhooks(arguments: list[str]) -> dict[str, str]:
    """Return the arguments that hold the URL of a webhook, each with what may be shown of it: no path, no query."""
    before = ["", *arguments]
    values = [word for option, word in zip(before, arguments, strict=False) if option == _WEBHOOK]
    values += [word for word in arguments if word.startswith(f"{_WEBHOOK}=")]
    return {word: f"{match[0]}***" for word in values if (match := _HOST.match(word)) is not None}


def recorded(arguments: list[str], masked: Any) -> list[str]:
    """Return a command line as it is recorded: what stands after ``--with-arguments`` is replaced by ``masked``."""
    if masked is None:
        return arguments
    shown: list[str] = []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if shown and shown[-1] == _WITH_ARGUMENTS and argument != "-":
            shown.append(json.dumps(masked, ensure_ascii=False))
        elif name == _WITH_ARGUMENTS and equals:
            shown.append(f"{name}={json.dumps(masked, ensure_ascii=False)}")
        else:
            shown.append(argument)
    return shown
