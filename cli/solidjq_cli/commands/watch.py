"""``jq watch``: tells people and programs of each silent host, death, incident and failure group."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import options, session, watch_targets
from solidjq_cli.columns.messages import message_fields
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, next_commands, note, paragraph, records
from solidjq_cli.times import duration_option, parse_time

if TYPE_CHECKING:
    from solidjq import Database
    from solidjq.watching.messages import Message
    from solidjq.watching.position_file import PositionFile
    from solidjq.watching.watch import WatchTerms

ANSWERS = 30.0  # seconds until a server that does not answer counts as unreachable
LINES = (Output.TABLE, Output.NDJSON)  # each message is printed as it comes


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("watch")(watch)


def watch(
    kinds: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="LIST",
            help="Only these: silent,death,incident,group  [default: all are printed, all but deaths delivered]",
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--class", metavar="LIST", help="Only of jobs of these classes: Report*,MailJob")
    ] = None,
    queues: Annotated[
        str | None, typer.Option("--queue", metavar="LIST", help="Only of jobs of these queues: mailers,report*")
    ] = None,
    program: Annotated[
        str | None,
        typer.Option("--exec", metavar="COMMAND", help="Run it once a message, with the JSON on standard input."),
    ] = None,
    program_timeout: Annotated[
        float, options.seconds("--exec-timeout", least=0.1, text="When to kill a command that does not end.")
    ] = 30,
    webhooks: Annotated[
        list[str] | None,
        typer.Option(
            "--webhook",
            metavar="URL",
            help="Post each message there; may be repeated, @FILE reads URLs.  [env: JQ_WEBHOOK]",
        ),
    ] = None,
    form: Annotated[
        watch_targets.Format,
        typer.Option("--format", help="What is posted; auto is slack for hooks.slack.com, else json."),
    ] = watch_targets.Format.AUTO,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--webhook-secret-file", metavar="FILE", help="Sign what is posted with this.  [env: JQ_WEBHOOK_SECRET]"
        ),
    ] = None,
    cooldown: Annotated[
        str,
        typer.Option("--cooldown", metavar="AGE", help="Webhooks: how long to count what is like a message: 10m, 0s."),
    ] = "10m",
    alive_threshold: options.AliveThresholdOption = None,
    interval: Annotated[float, options.seconds("--interval", least=0.1, text="How often to look.")] = 1,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Where a first start begins: 1h, or a time.  [default: now]"),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Which watch this is, if there are several.")] = (
        "default"
    ),
    position: Annotated[
        Path | None,
        typer.Option(
            "--position",
            metavar="FILE",
            help="Where to keep how far it has read and reported.  [default: the state folder]",
        ),
    ] = None,
    once: Annotated[
        bool,
        typer.Option("--once", help="Report what is new since the last time, and end; for cron.", show_default=False),
    ] = False,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Report silent hosts, deaths, incidents and failure groups.

    It begins now, and after a restart where it ended: the position is in a file, and the database may be read-only.
    Nothing is missed; what was under way when the watch was killed is repeated, with the same id. If the database is
    away, it waits. --once ends with 6 if something could not be delivered: the next run tries again, unless it was
    given up.

    A host that is lost, or a process that hangs, is reported as silent once its heartbeats are --alive-threshold old,
    whether anybody prunes or not. Its deaths and their incident follow with the prune.

    A message for a command or a webhook is one JSON object, which names the jobs without their arguments. Webhooks get
    one message a silent host, incident or group; what is like it within --cooldown is counted. The URL of a webhook is
    a secret: give it by JQ_WEBHOOK or @FILE, since others can read a command line while jq starts.

    \b
    Examples:
      jq watch
      jq watch -o ndjson | tee deaths.ndjson
      jq watch --class 'Report*' --kind death --exec 'bin/rails runner script/job_died.rb'
      JQ_WEBHOOK=https://hooks.slack.com/services/T0/B0/XX jq watch
      jq watch --once --webhook @/etc/solidjq/webhooks --webhook-secret-file /etc/solidjq/secret
    """
    from solidjq.errors import UsageError
    from solidjq.queue.patterns import parse_patterns
    from solidjq.watching.events import Choice
    from solidjq.watching.position_file import PositionFile, default_path
    from solidjq.watching.watch import KINDS, WatchTerms

    if not (once or output in LINES):
        raise UsageError(f"jq watch prints lines, or -o ndjson; -o {output.value} needs --once")
    chosen = parse_patterns(kinds or "")
    if (unknown := [kind for kind in chosen if kind not in KINDS]) or (kinds is not None and not chosen):
        raise UsageError(f"--kind: there is no {unknown[0] if unknown else 'kind of no name'}; {', '.join(KINDS)}")
    choice = Choice(parse_patterns(classes or ""), parse_patterns(queues or ""))
    if (classes is not None and not choice.classes) or (queues is not None and not choice.queues):
        raise UsageError("--class and --queue name at least one; leave the option out for all")
    pause = duration_option(cooldown, "--cooldown") or 0.0
    posted = watch_targets.webhooks(webhooks or [], form, secret_file)
    run = watch_targets.programs(program, program_timeout)
    command = session.current(database)
    threshold = command.alive_threshold(alive_threshold)
    if threshold <= 0:
        raise UsageError("--alive-threshold: a process is silent for longer than 0 s between any two heartbeats")
    opened = command.open(watch=False, answer_timeout=ANSWERS)
    file = PositionFile(position or default_path(str(opened.identity()), name))
    terms = WatchTerms(
        kinds=chosen,
        choice=choice,
        since=None if since is None else parse_time(since, opened.now(), "--since"),
        threshold=threshold,
        interval=interval,
        cooldown=pause,
        programs=run,
        webhooks=posted,
    )
    with file.locked():
        _run(opened, file, terms, output, once=once)


def _run(database: Database, file: PositionFile, terms: WatchTerms, output: Output, *, once: bool) -> None:
    from solidjq.text import count_of
    from solidjq.watching.watch import Watch

    messages: list[Message] = []
    write = {Output.TABLE: _print_for_people, Output.NDJSON: _print_record}.get(output, messages.append)
    watching = Watch(database, file, terms, write, note)
    if not once:
        note(f"watching {database}; its position is kept in {file.path}")
        try:
            watching.run()
        except KeyboardInterrupt:  # or SIGTERM: that is how it ends
            return
    left, dropped = watching.run_once(None if output in LINES else lambda: _print(messages, output))
    if left:
        note(f"{count_of(left, 'message')} could not be delivered; the next run tries again")
    if left or dropped:
        raise typer.Exit(Exit.PARTLY)


def _print(messages: list[Message], output: Output) -> None:
    records(messages, message_fields(), output)


def _print_record(message: Message) -> None:
    records([message], message_fields(), Output.NDJSON)


def _print_for_people(message: Message) -> None:
    from datetime import datetime

    from solidjq_cli.ages import clock_time

    time = f"{clock_time(datetime.fromisoformat(message['at']))}  "
    indent = " " * len(time)
    paragraph(message["title"], first=time, rest=indent)
    if message["kind"] != "death":  # an incident follows, with its own
        next_commands(*(command.removeprefix("solidjq ") for command in message["next"]), lead=f"{indent}next")
    sys.stdout.flush()
