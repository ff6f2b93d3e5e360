"""``jq help``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

import typer

from solidjq_cli.arguments import by_own_name


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("help")(show_help)


def show_help(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOPIC|COMMAND...]", help="A topic, or a command.", show_default=False),
    ] = None,
) -> None:
    """Explain a topic, such as policy or exit-codes, or a command.

    Without a word, the topics. The same text is in the docs.

    \b
    Examples:
      jq help
      jq help policy
      jq help retry
      jq help failed list
    """
    from solidjq_cli.topics import TOPICS, text_of

    if not words:
        width = max(map(len, TOPICS))
        typer.echo("\n".join(f"{name.ljust(width)}  {topic.summary}" for name, topic in TOPICS.items()))
        return
    if (command := _command(context, words)) is not None:
        typer.echo(command)
        return
    name = words[0]
    if len(words) > 1 or name not in TOPICS:
        raise _unknown(context, " ".join(words), [*TOPICS])
    typer.echo(by_own_name(text_of(name)), nl=False)


def _command(context: typer.Context, words: list[str]) -> str | None:
    """Return the help of a command. A topic and a command of one name: the topic is the longer text, so it wins."""
    from solidjq_cli.topics import TOPICS

    if len(words) == 1 and words[0] in TOPICS:
        return None
    found: Any = context.find_root()
    for word in words:
        command = getattr(found.command, "commands", {}).get(word)
        if command is None:
            return None
        found = typer.Context(command, info_name=word, parent=found, help_option_names=context.help_option_names)
    return str(found.get_help())


def _unknown(context: typer.Context, text: str, topics: list[str]) -> Exception:
    from solidjq.errors import UsageError

    names = {*topics, *context.find_root().command.commands}  # type: ignore[attr-defined]
    alike = get_close_matches(text, sorted(names), 3, 0.6)
    hint = f"; did you mean {' or '.join(alike)}?" if alike else f"; topics: {', '.join(topics)}"
    return UsageError(f"no such topic or command {text!r}{hint}")
