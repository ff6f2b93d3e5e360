"""What retry, discard, recover and apply share: show the plan, ask once, move batch by batch, say what became of it."""

from __future__ import annotations

import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import typer

from solidjq_cli import session, view
from solidjq_cli.arguments import program_name
from solidjq_cli.columns.verdicts import VerdictGroup, decision_fields, verdict_group_fields
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, drawn, ids_suffice, note, page, records
from solidjq_cli.tally import Groups, Tally, Tense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from solidjq import Database
    from solidjq.recovery.details import Detail
    from solidjq.recovery.refusals import Refusals
    from solidjq.recovery.rests import Rests
    from solidjq.recovery.verdicts import Decision


def show(
    batches: Iterable[list[Decision]],
    output: Output,
    tally: Tally,
    *,
    by_job: bool,
    total: int | None = None,
    shown: Groups | None = None,
    refusals: Refusals | None = None,
    empty: str = "",
    verb: str = "retry",
    tense: Tense | None = None,
    notes: Callable[[Tally], list[str]] = lambda _: [],
) -> None:
    """Consume the batches, which carries them out, and print the decisions: for people a line a group, or a line a job.

    Where ``lists_jobs`` holds, each decision must be on one job. What was ``shown`` before, as the plan, and came out
    just so, is not printed again. On a terminal, ``notes`` are part of the plan, whose heading needs ``verb`` and
    ``tense``; elsewhere they are for the caller to print.
    ``empty`` is not printed if the batches add to ``refusals``. A broken pipe or Ctrl-C stops it between two batches.
    """

    def words() -> str:
        return "" if refusals and refusals.errors else empty

    batches = with_progress(batches, total)
    if not lists_jobs(output, by_job=by_job):
        tally.count(batches)
        if tally.groups == shown:
            return
        if tally.groups and drawn(output):
            draw(tally, Tense.DID if tense is None else tense, verb, notes(tally))
            return
        groups(tally, output, empty=words())
        warn(tally)
        return
    decisions = tally.add(decision for batch in batches for decision in batch)
    if output is Output.IDS:
        decisions = (decision for decision in decisions if decision.verdict.moves)
    records(decisions, decision_fields(), output, empty=words)
    warn(tally)


def draw(tally: Tally, tense: Tense, verb: str, notes: Sequence[str]) -> None:
    """Draw the plan, or what became of it, for a person."""
    from solidjq_cli import plan_view  # noqa: PLC0415

    with page():
        plan_view.draw(tally, tense, verb, [*warnings(tally), *notes])


def warn(tally: Tally) -> None:
    """Say ``warnings`` on stderr."""
    for warning in warnings(tally):
        note(warning)


def warnings(tally: Tally) -> Iterator[str]:
    """Name jobs that go back to work because a person chose them, though a safe retry would hold them back."""
    for reason, count in tally.warned.items():
        named = tally.examples[reason]
        more = f" and {count - len(named):,} more" if count > len(named) else ""
        yield f"may kill a process again: job {', '.join(map(str, named))}{more}: {reason}"


def lists_jobs(output: Output, *, by_job: bool) -> bool:
    """Whether ``show`` prints a line for each job."""
    return by_job or output is not Output.TABLE


def detail(output: Output, *, by_job: bool) -> Detail:
    """Return how much a retry has to decide and read for what ``show`` prints."""
    from solidjq.recovery.details import Detail  # noqa: PLC0415

    if not lists_jobs(output, by_job=by_job):
        return Detail.COUNTS
    return Detail.IDS if ids_suffice(output) and not by_job else Detail.JOBS


def groups(tally: Tally, output: Output, *, empty: str = "") -> None:
    """Print the counts by verdict, class and queue; what moves comes first."""
    from solidjq.recovery.verdicts import Verdict  # noqa: PLC0415

    order = list(Verdict)
    ordered = sorted(tally.groups.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0][1:]))
    records((VerdictGroup(*key, count) for key, count in ordered), verdict_group_fields(), output, empty=empty)


def confirm(question: str, *, place: str | None = None) -> None:
    """Ask once on a terminal; exit if the answer is not yes, or is Ctrl-C or Ctrl-D.

    The question names ``place``, which is the database if it is None, and nothing if it is empty. The answer is the
    profile's name where the profile says so, unless ``place`` is empty: then no database is concerned.
    """
    name = None if place == "" else session.current().connecting.confirm_name
    place = session.current().place() if place is None else place
    text = f"{program_name()}: {place}: {question}" if place else f"{program_name()}: {question}"
    try:
        if (host := view.host()) is not None:
            agreed = host.ask(text, name)
        elif name is None:
            agreed = typer.confirm(text, err=True)
        else:
            typed = typer.prompt(
                f"{text} Type the name of the profile, {name}", default="", show_default=False, err=True
            )
            agreed = typed.strip() == name
        if agreed:
            return
        code = Exit.DONE
    except typer.Abort:
        sys.stderr.write("\n")
        code = Exit.INTERRUPTED
    note("nothing was changed")
    raise typer.Exit(code)


def confirm_by_name(question: str, *, yes: bool) -> None:
    """Ask before a bulk change that needs no question elsewhere, if the profile wants its name typed; not with ``yes``.

    Raises UsageError without a terminal to ask on.
    """
    if yes or (session.current().connecting.confirm_name is None and view.host() is None):
        return
    if not on_a_terminal():
        from solidjq.errors import UsageError  # noqa: PLC0415

        raise UsageError("without a terminal to ask on, a bulk change of this profile needs --yes; nothing was changed")
    confirm(question)


@contextmanager
def beside_the_answer() -> Iterator[None]:
    """Print on stderr what is printed within, since standard output may be a file; within ``jq top``, on its screen."""
    if view.host() is not None:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def rests(database: Database, *, fast: bool, quiet: bool = False) -> Rests:
    """Return the rests of a command, the first of which it says on stderr, above its progress, unless ``quiet``."""
    from solidjq.recovery.rests import Rests  # noqa: PLC0415

    words = "rests between batches, since workers are claiming jobs; --fast does not rest"
    return Rests(database, fast=fast, begins=lambda: None if quiet else note(words))


def on_a_terminal() -> bool:
    """Whether a person can be asked: standard input and standard error are terminals, or the command runs in jq top."""
    # A stream that was closed before the program started is None.
    return view.host() is not None or all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def with_progress(batches: Iterable[list[Decision]], total: int | None) -> Iterator[list[Decision]]:
    """Draw a bar with rate and time left on a terminal, where there is more than one batch."""
    from solidjq.batching import BATCH  # noqa: PLC0415

    if (host := view.host()) is not None:
        moved = 0
        for batch in batches:
            moved += sum(decision.jobs for decision in batch)
            yield batch
            host.moved(moved, total)
        return
    if total is None or total <= BATCH or not sys.stderr.isatty():
        yield from batches
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} jobs/s")

    parts = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        for batch in batches:
            bar.advance(task, sum(decision.jobs for decision in batch))
            yield batch
