"""What became of an operation's jobs: in words, as JSON, and followed until all have ended."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from solidjq_cli import flow
from solidjq_cli.columns.column import Column, Fields
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from solidjq import Database
    from solidjq.ledger.operations import OperationView
    from solidjq.recovery.outcome import OperationOutcome

POLL = 1.0  # seconds between two counts, at least
SHARE = 4  # a count that takes long is made less often: it takes a fifth of the time
MOST_NAMED = 3  # incidents or later operations in a line
WIDTH = 28  # of the bar
AT_END = 100  # percent


def phrases(outcome: OperationOutcome) -> list[str]:
    """Return in words how many jobs have which outcome, without those that none has."""
    from solidjq.recovery.outcome import JobOutcome as Is  # noqa: PLC0415
    from solidjq.text import count_of  # noqa: PLC0415

    def counted(*counts: tuple[int, str]) -> list[str]:
        return [f"{count:,} {words}" for count, words in counts if count]

    def later(verb: str, words: str) -> Iterator[str]:
        moves = [move for move in outcome.later if (move.verb == "discard") == (verb == "discard")]
        yield from (f"{move.jobs:,} {words} by operation {move.operation_id}" for move in moves[:MOST_NAMED])
        if rest := moves[MOST_NAMED:]:
            yield f"{sum(move.jobs for move in rest):,} {words} by {count_of(len(rest), 'other operation')}"

    waits = (
        (outcome.count(Is.READY), "ready"),
        (outcome.count(Is.PAUSED), "in a paused queue"),
        (outcome.count(Is.SCHEDULED), "scheduled"),
        (outcome.count(Is.BLOCKED), "blocked"),
    )
    waiting = sum(count for count, _ in waits)
    return [
        *counted(
            (outcome.count(Is.FINISHED), "finished"),
            (outcome.count(Is.DIED), f"died again{_named(outcome)}"),
            (outcome.count(Is.FAILED), "failed with an error"),
            (outcome.count(Is.RUNNING), "running"),
            (waiting, f"waiting ({', '.join(counted(*waits))})"),
            (outcome.count(Is.STATELESS), "in no state (see: jq doctor)"),
        ),
        *later("retry", "retried again"),
        *later("discard", "discarded"),
        *counted(
            (outcome.count(Is.TAKEN_BACK), "taken back"),
            (outcome.count(Is.GONE), "no longer there: finished and cleared, or deleted"),
        ),
    ]


def bar(outcome: OperationOutcome) -> str:
    """Return how many of the jobs have ended, as a bar and in percent."""
    ended = outcome.jobs - outcome.open
    filled = WIDTH * ended // max(outcome.jobs, 1)
    return f"{'#' * filled}{'-' * (WIDTH - filled)} {AT_END * ended // max(outcome.jobs, 1):3} % ended"


def counts(outcome: OperationOutcome) -> list[str]:
    """Return ``phrases`` in lines, with the numbers one below the other."""
    return [f"{number:>9} {words}" for number, words in (phrase.split(" ", 1) for phrase in phrases(outcome))]


def _named(outcome: OperationOutcome) -> str:
    names = list(outcome.incidents)
    if not names:
        return ""
    return f" ({', '.join(names[:MOST_NAMED])}{flow.more(len(names) - MOST_NAMED)})"


def record(outcome: OperationOutcome) -> dict[str, Any]:
    """Return the counts as JSON has them: every outcome, also those that no job has."""
    from solidjq.recovery.outcome import JobOutcome  # noqa: PLC0415

    return {
        "jobs": outcome.jobs,
        "open": outcome.open,
        **{each.value: outcome.count(each) for each in JobOutcome},
        "incidents": dict(outcome.incidents),
        "later_operations": [move._asdict() for move in outcome.later],
    }


def fields(output: Output) -> Fields[tuple[OperationView, OperationOutcome | None]]:
    """Return the fields of an operation with its outcome: in words for people, as counts for scripts."""
    from solidjq_cli.columns.operations import operation_fields  # noqa: PLC0415

    written = phrases if output is Output.TABLE else record
    return Fields(
        (
            *map(_of_operation, operation_fields().columns),
            Column("outcome", lambda pair: None if pair[1] is None else written(pair[1])),
        ),
        lambda pair: [pair[0].id],
    )


def _of_operation(column: Column[OperationView]) -> Column[tuple[OperationView, OperationOutcome | None]]:
    return Column(column.name, lambda pair: column.value(pair[0]))


def check_watchable(output: Output) -> None:
    """Raise UsageError for a format in which nothing can be followed."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    if output not in {Output.TABLE, Output.NDJSON}:
        raise UsageError("--watch follows with -o table or -o ndjson; -o json shows once, without --watch")


def watch(database: Database, operation_id: int, output: Output) -> bool:
    """Follow an operation until all its jobs have ended; return whether some died again.

    On a terminal a small table is drawn again and again; elsewhere a line is printed for each change, with -o ndjson a
    record; with a format whose output is complete already, on stderr. Ctrl-C ends it, with INTERRUPTED: the jobs go on.
    """
    drawn = output is Output.TABLE and sys.stdout.isatty()
    show: _Screen | _Lines = _Screen(operation_id) if drawn else _Lines(operation_id, output)
    died = 0
    try:
        for outcome in _changes(database, operation_id):
            show(outcome)
            died = outcome.died
    except KeyboardInterrupt:
        show.end()
        note(f"the jobs go on without being watched; to look later: jq operations show {operation_id}")
        raise typer.Exit(Exit.INTERRUPTED) from None
    show.end()
    return died > 0


def _changes(database: Database, operation_id: int) -> Iterator[OperationOutcome]:
    """Yield the outcome now, and whenever it has changed, until no job is open."""
    import time  # noqa: PLC0415

    from solidjq.ledger import operations  # noqa: PLC0415
    from solidjq.recovery.outcome import outcome_of  # noqa: PLC0415

    before: OperationOutcome | None = None
    while True:
        began = time.monotonic()
        with database.read() as connection:
            (view,) = operations.list_operations(connection, ids=[operation_id])
            outcome = outcome_of(connection, view)
        if outcome is None:
            return
        if outcome != before:
            yield outcome
        if not outcome.open:
            return
        before = outcome
        database.close()  # no connection is kept from others meanwhile
        time.sleep(max(POLL, SHARE * (time.monotonic() - began)))


class _Lines:
    """A line, or a record, for each change."""

    def __init__(self, operation_id: int, output: Output) -> None:
        self._operation_id = operation_id
        self._output = output

    def __call__(self, outcome: OperationOutcome) -> None:
        from datetime import UTC, datetime  # noqa: PLC0415

        from solidjq_cli.ages import rfc3339  # noqa: PLC0415
        from solidjq_cli.formats import as_json  # noqa: PLC0415

        now = datetime.now(UTC).replace(microsecond=0)
        if self._output is Output.NDJSON:
            line = as_json({"operation_id": self._operation_id, "at": now, "outcome": record(outcome)})
        else:
            line = f"{rfc3339(now)}\t{'; '.join(phrases(outcome))}"
        out = sys.stdout if self._output in {Output.TABLE, Output.NDJSON} else sys.stderr
        out.write(f"{line}\n")
        out.flush()

    def end(self) -> None:
        """Do nothing: every line is complete."""


class _Screen:
    """A small table on a terminal, drawn over itself."""

    def __init__(self, operation_id: int) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.live import Live  # noqa: PLC0415

        self._operation_id = operation_id
        self._live = Live(console=Console(highlight=False, markup=False, emoji=False), auto_refresh=False)
        self._live.start()

    def __call__(self, outcome: OperationOutcome) -> None:
        from rich.text import Text  # noqa: PLC0415

        from solidjq.text import count_of  # noqa: PLC0415

        lines = [f"operation {self._operation_id}  {count_of(outcome.jobs, 'job')}  {bar(outcome)}", *counts(outcome)]
        self._live.update(Text("\n".join(lines)), refresh=True)

    def end(self) -> None:
        """Leave the last picture where it is."""
        self._live.stop()
