"""``jq top``: a live screen."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from solidjq_cli import options, session

INTERVAL = 2.0


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("top")(top)


def _is_terminal() -> bool:
    streams = (sys.stdin, sys.stdout, sys.stderr)  # one that was closed before the program started is None
    return os.environ.get("TERM") != "dumb" and all(stream is not None and stream.isatty() for stream in streams)


def top(
    context: typer.Context,
    interval: Annotated[
        float, options.seconds("--interval", least=INTERVAL, text="Read again after so long, 2 seconds at least.")
    ] = INTERVAL,
    alive_threshold: options.AliveThresholdOption = None,
    config_file: options.ConfigOption = None,
    database: options.DatabaseOption = None,
) -> None:
    """Watch a queue live, look into its rows, and put safe jobs back.

    A program on the whole terminal: the status, and below it the failed jobs, incidents, problems, queues, processes
    or operations. Each list, detail and plan is that of a command, which is named above it. Enter shows the row; /
    chooses rows, s sorts them, space marks them; r retries the safe jobs, x pauses queues, u takes back: each shows
    its command line and plan, and asks first. ? lists the keys; q ends it.

    With --read-only it changes nothing. It needs Textual, which the extra installs: solidjq[top].

    \b
    Examples:
      jq top
      jq --read-only top --interval 10s
      jq --profile production top
    """
    from solidjq.errors import UsageError

    if not _is_terminal():
        raise UsageError("top draws on a terminal; for scripts: jq status -o json, jq failed list -o json")
    try:
        import textual  # noqa: F401  (an extra)
    except ImportError:
        raise UsageError(
            "top needs Textual, which is not installed; install solidjq with its extra: pip install 'solidjq[top]', "
            "pipx install --force 'solidjq[top]', or uv tool install --force 'solidjq[top]'; "
            "in a checkout '.[top]' stands for it"
        ) from None
    command = session.current(database, config_file)
    from solidjq_cli.live.app import run
    from solidjq_cli.live.inner import Runner

    code = run(Runner(context, command.options), interval=interval, alive_threshold=alive_threshold)
    if code:
        raise typer.Exit(code)
