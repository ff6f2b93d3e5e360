"""``jq wait``: the gate of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import options, session
from solidjq_cli.columns.jobs import listed_job_fields
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, note, records
from solidjq_cli.times import duration_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solidjq.queue.jobs import JobView


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("wait")(wait)


def wait(
    idle: Annotated[bool, typer.Option("--idle", help="Wait until no job runs.", show_default=False)] = False,
    queues: Annotated[
        str | None, typer.Option("--queue", metavar="LIST", help="Of these queues: mailers,report*  [default: all]")
    ] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="How long to wait at most: 30s, 10m; 0s looks once.")
    ] = "10m",
    poll: Annotated[float, options.seconds("--poll", least=0.1, text="How often to look.")] = 2,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Wait until no job of a queue runs; the gate of a deployment.

    Exit code 0: no job is claimed. 6: some still are after the timeout, and are printed, with who runs them. A job
    that a dead process has claimed runs for ever here: jq prune. Jobs that are ready are not waited for; pause the
    queue first, or workers claim them meanwhile. 5: no job, worker, pause or recurring task names a queue of --queue,
    for it may be a typing error.

    \b
    Examples:
      jq queues pause reports && jq wait --idle --queue reports --timeout 10m
      jq wait --idle --timeout 0s -o json
    """
    from solidjq.errors import UsageError
    from solidjq.monitoring.idle import wait_until_idle
    from solidjq.processes.queue_names import refuse_unknown, unknown_patterns
    from solidjq.queue.patterns import parse_patterns

    if not idle:
        raise UsageError("say what to wait for: --idle")
    seconds = duration_option(timeout, "--timeout") or 0.0
    chosen = parse_patterns(queues or "")
    if queues is not None and not chosen:
        raise UsageError("--queue names no queue; write --queue reports, or leave it out")
    opened = session.current(database).open()
    noted = [-1]

    def say_how_many(running: Sequence[JobView]) -> None:
        if running and len(running) != noted[0]:
            note(f"waiting for {_many(running)}")
        noted[0] = len(running)

    left = wait_until_idle(opened, chosen, timeout=seconds, poll=poll, said=say_how_many)
    if chosen and not left:
        otherwise = "To wait for a queue before its first job: jq queues pause --create"
        with opened.read() as connection:
            refuse_unknown(connection, unknown_patterns(connection, chosen), otherwise)
    records(left, listed_job_fields(), output, head=f"{_many(left)} still {_runs(left)}" if left else "no job runs")
    if left:
        note(f"{_many(left)} still {_runs(left)} after {timeout}; whether a dead process has it: jq prune --dry-run")
        raise typer.Exit(Exit.PARTLY)


def _runs(jobs: Sequence[JobView]) -> str:
    return "runs" if len(jobs) == 1 else "run"


def _many(jobs: Sequence[JobView]) -> str:
    from solidjq.monitoring.idle import MOST_NAMED
    from solidjq.text import count_of

    more = " or more" if len(jobs) == MOST_NAMED else ""
    return f"{count_of(len(jobs), 'job')}{more}"
