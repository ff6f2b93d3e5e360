"""``jq queues list``, ``pause`` and ``resume``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq_cli import options, session
from solidjq_cli.columns.queues import concurrency_key_fields, queue_columns, queue_fields
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, drawn, heading, next_commands, note, records
from solidjq_cli.screens import screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from solidjq.processes.attendance import Attendance
    from solidjq.queue.overview import Queue
    from solidjq_cli.session import Session

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Queues: how full they are; pause and resume.")

NamesArgument = Annotated[list[str], typer.Argument(metavar="QUEUE...", help="Names of queues.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="queues")


@group.command("list")
@screen(sort=True)
def list_queues(output: options.OutputOption = Output.TABLE, database: options.DatabaseOption = None) -> None:
    """List the queues: what waits in each, since when, and which are paused.

    \b
    Examples:
      jq queues list
      jq queues list -o csv
    """
    from solidjq.queue import overview

    command = session.current(database)
    opened = command.open()
    with opened.read() as connection:
        queues = overview.list_queues(connection)
    if not drawn(output):
        records(queues, queue_fields(), output, empty="no queues")
        return
    from solidjq.processes.attendance import read_attendance

    with opened.read() as connection:
        attendance = read_attendance(connection, command.alive_threshold(None))
    records(_by_need(queues, attendance), queue_columns(attendance), output, empty="no queues", head=_heading(queues))
    if queues:
        next_commands(
            *(f"queues resume {shlex.quote(queue.name)}" for queue in queues if queue.paused), "processes list"
        )


def _by_need(queues: Iterable[Queue], attendance: Attendance) -> list[Queue]:
    """Sort queues: first those whose ready jobs nobody takes, then by how many wait."""
    return sorted(
        queues, key=lambda q: (not (q.ready and (q.paused or not attendance.takers(q.name))), -q.ready, q.name)
    )


def _heading(queues: Sequence[Queue]) -> str:
    from solidjq.text import count_of

    if not queues:
        return ""
    ready, paused = sum(queue.ready for queue in queues), sum(queue.paused for queue in queues)
    waits = "no job is ready" if not ready else f"{ready:,} {'job is' if ready == 1 else 'jobs are'} ready"
    return f"{count_of(len(queues), 'queue')}{f', {paused:,} paused' if paused else ''}; {waits}"


@group.command("keys")
@screen(sort=True)
def keys(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="At most N keys.")] = 20,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """List the concurrency keys that the most jobs wait for: who holds the slots, and how many are free.

    LIMIT is what can be seen of the limit, which stands in the class: free slots and those that jobs hold. To see which
    jobs hold them: jq jobs list --key KEY.

    \b
    Examples:
      jq queues keys
      jq queues keys --limit 100 -o json
    """
    from solidjq.queue.keys import hottest_keys
    from solidjq.text import count_of

    with session.current(database).open().read() as connection:
        hottest = hottest_keys(connection, limit)
    blocked = sum(key.blocked for key in hottest)
    records(
        hottest,
        concurrency_key_fields(),
        output,
        empty="no job that waits or runs has a concurrency key",
        head=f"{count_of(len(hottest), 'concurrency key')}, for which {count_of(blocked, 'job')} wait"
        if hottest
        else "",
    )
    if hottest and drawn(output):
        next_commands(f"jobs list --key {shlex.quote(hottest[0].key)}")


@group.command("pause")
def pause(
    names: NamesArgument,
    create: Annotated[
        bool, typer.Option("--create", help="Also a queue that nothing names yet: jobs may arrive later.")
    ] = False,
    database: options.DatabaseOption = None,
) -> None:
    """Stop workers from claiming jobs of these queues; jobs still arrive.

    A name that no job, worker, pause or recurring task names is refused, for it may be a typing error; with --create
    it is paused.

    \b
    Examples:
      jq queues pause mailers
      jq queues pause --create imports_of_tomorrow
    """
    from solidjq.processes.queue_names import refuse_unknown, unknown_queues
    from solidjq.queue import pauses

    moves = _Moves(session.current(database), "pause")
    if not create:
        otherwise = "Nothing was paused; to pause a queue before its first job: --create"
        with moves.opened.read() as connection:
            refuse_unknown(connection, unknown_queues(connection, dict.fromkeys(names)), otherwise)
    moves.carry_out(names, pauses.pause, "paused", "was paused already")


@group.command("resume")
def resume(names: NamesArgument, database: options.DatabaseOption = None) -> None:
    """Let workers claim jobs of these queues again.

    \b
    Example:
      jq queues resume mailers
    """
    from solidjq.processes.queue_names import explain_unknown, unknown_queues
    from solidjq.queue import pauses

    moves = _Moves(session.current(database), "resume")
    with moves.opened.read() as connection:
        unknown = explain_unknown(connection, unknown_queues(connection, dict.fromkeys(names)))
    moves.carry_out([name for name in names if name not in unknown], pauses.resume, "resumed", "was not paused")
    for sentence in unknown.values():
        note(sentence)
    if unknown:
        raise typer.Exit(Exit.PARTLY if len(unknown) < len(set(names)) else Exit.NO_SUCH_JOB)


class _Moves:
    """Pauses or resumes of one command line, one transaction a queue, recorded as one operation."""

    def __init__(self, command: Session, verb: str) -> None:
        self.operation = command.operation(verb, called=f"queues {verb}")
        self.opened = command.open()

    def carry_out(self, names: Iterable[str], move: Callable[[Any, str], bool], done: str, nothing: str) -> None:
        """Move each queue, and say what became of it."""

        def recorded(connection: Any, name: str) -> bool:
            changed = move(connection, name)
            if changed:
                self.operation.record_if_possible(connection, 0)
            return changed

        if names := list(dict.fromkeys(names)):
            heading()
        for name in names:
            note(f"queue {name} {done if self.opened.transact(recorded, name) else nothing}")
