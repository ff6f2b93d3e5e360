"""What retry, discard, recover and apply share: show the plan, ask once, move batch by batch, say what became of it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

from solidjq_cli import columns, session
from solidjq_cli.arguments import program_name
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, note, records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from solidjq import Database
    from solidjq.ledger.operations import Operation
    from solidjq.recovery.verdicts import Decision, Verdict
    from solidjq_cli.stopping import Account

MOST_REASONS = 10  # in warnings
MOST_NAMED = 10  # jobs with one reason
Groups = Counter[tuple["Verdict", str, str]]


@dataclass(slots=True)
class Tally:
    """Counts of what was decided, in constant memory."""

    groups: Groups = field(default_factory=Counter)
    destinations: Counter[str] = field(default_factory=Counter)  # the queues that jobs go to
    scheduled: int = 0
    warned: Counter[str] = field(default_factory=Counter)  # by what speaks against it: jobs that go nevertheless
    examples: dict[str, list[int]] = field(default_factory=dict)  # the first of them

    @property
    def moved(self) -> int:
        """How many jobs were moved, or would be."""
        return sum(count for (verdict, _, _), count in self.groups.items() if verdict.moves)

    @property
    def held_back(self) -> int:
        """How many jobs were left as they were."""
        return sum(self.groups.values()) - self.moved

    def add(self, decisions: Iterable[Decision]) -> Iterator[Decision]:
        """Count these decisions and yield them unchanged."""
        for decision in decisions:
            self.groups[decision.verdict, decision.candidate.class_name, decision.candidate.queue_name] += decision.jobs
            if (queue := decision.destination) is not None:
                self.destinations[queue] += decision.jobs
            self.scheduled += decision.jobs if decision.verdict.moves and decision.scheduled else 0
            if decision.warning is not None and len(self.warned) < MOST_REASONS:
                self.warned[decision.warning] += decision.jobs
                if self.warned[decision.warning] <= MOST_NAMED:
                    self.examples.setdefault(decision.warning, []).append(decision.job_id)
            yield decision

    def count(self, batches: Iterable[list[Decision]]) -> None:
        """Count every decision of these batches."""
        for batch in batches:
            for _ in self.add(batch):
                pass

    def with_verdict(self, *verdicts: Verdict) -> int:
        """Return how many jobs got one of these verdicts."""
        return sum(count for (verdict, _, _), count in self.groups.items() if verdict in verdicts)

    def unrecovered(self) -> int:
        """Return how many jobs that policy marks "auto" were held back all the same."""
        return sum(count for (verdict, _, _), count in self.groups.items() if verdict.unrecovered)

    def held_back_words(self, *, unrecovered: bool) -> str:
        """Return the counts of the verdicts that held jobs back, such as ``3 over-limit, 1 suspect``."""
        counts: Counter[Verdict] = Counter()
        for (verdict, _, _), count in self.groups.items():
            if not verdict.moves and verdict.unrecovered == unrecovered:
                counts[verdict] += count
        return ", ".join(f"{count} {verdict.value}" for verdict, count in counts.most_common())

    def words(self) -> str:
        """Return one line that says what was done."""
        from solidjq.recovery.verdicts import Verdict  # noqa: PLC0415
        from solidjq.text import count_of  # noqa: PLC0415

        if discarded := self.with_verdict(Verdict.DISCARD):
            return f"discarded {count_of(discarded, 'job')}"
        isolated = self.with_verdict(Verdict.ISOLATE)
        apart = f"; {isolated} of them in quarantine" if isolated else ""
        ready = self.moved - self.scheduled
        return f"retried {count_of(self.moved, 'job')}: {ready} ready, {self.scheduled} scheduled{apart}"

    def account(self, database: Database, operation: Operation) -> Account:
        """Return the account of a retry or discard: what a message says if it ends half-way."""
        from solidjq.text import count_of  # noqa: PLC0415
        from solidjq_cli.stopping import Account  # noqa: PLC0415

        verb = "discarded" if operation.verb == "discard" else "retried"
        return Account(database, operation, lambda jobs: f"{verb} {count_of(jobs, 'job')}", lambda: self.moved)

    def conclude(self, operation: Operation, *held: str) -> None:
        """Say what was done, what was ``held`` back, and which commands show what became of it and take it back."""
        if operation.id is not None:
            note(self.words())
        for line in held:
            note(line)
        if operation.id is not None:
            look = (
                ""
                if operation.verb == "discard"
                else f"to see what became of them: jq operations show {operation.id}; "
            )
            note(f"{look}to take it back: jq undo {operation.id}")


def show(
    batches: Iterable[list[Decision]],
    output: Output,
    tally: Tally,
    *,
    by_job: bool,
    total: int | None = None,
    shown: Groups | None = None,
    empty: str = "",
) -> None:
    """Consume the batches, which carries them out, and print the decisions: for people a line a group, or a line a job.

    Where ``lists_jobs`` holds, each decision must be on one job. What was ``shown`` before, as the plan, and came out
    just so, is not printed again.
    A broken pipe or Ctrl-C stops it between two batches.
    """
    batches = with_progress(batches, total)
    if not lists_jobs(output, by_job=by_job):
        tally.count(batches)
        if tally.groups != shown:
            groups(tally, output, empty=empty)
            warn(tally)
        return
    decisions = tally.add(decision for batch in batches for decision in batch)
    if output is Output.IDS:
        decisions = (decision for decision in decisions if decision.verdict.moves)
    records(decisions, columns.decisions(), output, empty=empty)
    warn(tally)


def warn(tally: Tally) -> None:
    """Name jobs that go back to work because a person chose them, though a safe retry would hold them back."""
    for reason, count in tally.warned.items():
        named = ", ".join(map(str, tally.examples[reason]))
        more = f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
        note(f"may kill a process again: job {named}{more}: {reason}")


def lists_jobs(output: Output, *, by_job: bool) -> bool:
    """Whether ``show`` prints a line for each job."""
    return by_job or output is not Output.TABLE


def groups(tally: Tally, output: Output, *, empty: str = "") -> None:
    """Print the counts by verdict, class and queue; what moves comes first."""
    from solidjq.recovery.verdicts import Verdict  # noqa: PLC0415

    order = list(Verdict)
    ordered = sorted(tally.groups.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0][1:]))
    records((columns.VerdictGroup(*key, count) for key, count in ordered), columns.groups(), output, empty=empty)


def confirm(question: str, *, place: str | None = None) -> None:
    """Ask once on a terminal; exit if the answer is not yes, or is Ctrl-C or Ctrl-D.

    The question names ``place``, which is the database if it is None, and nothing if it is empty. The answer is the
    profile's name where the profile says so, unless ``place`` is empty: then no database is concerned.
    """
    name = None if place == "" else session.current().connecting.confirm_name
    place = session.current().place() if place is None else place
    text = f"{program_name()}: {place}: {question}" if place else f"{program_name()}: {question}"
    try:
        if name is None:
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
    if yes or session.current().connecting.confirm_name is None:
        return
    if not on_a_terminal():
        from solidjq.errors import UsageError  # noqa: PLC0415

        raise UsageError("without a terminal to ask on, a bulk change of this profile needs --yes; nothing was changed")
    confirm(question)


def on_a_terminal() -> bool:
    """Whether a person can be asked: standard input and standard error are terminals."""
    # A stream that was closed before the program started is None.
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def with_progress(batches: Iterable[list[Decision]], total: int | None) -> Iterator[list[Decision]]:
    """Draw a bar with rate and time left on a terminal, where there is more than one batch."""
    from solidjq.batching import BATCH  # noqa: PLC0415

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
