"""What a retry, discard, recover or apply decided, in counts and the first examples: memory is constant."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from solidjq import Database
    from solidjq.ledger.operations import Operation
    from solidjq.ledger.positions import DeathPosition
    from solidjq.recovery.verdicts import Decision, Verdict
    from solidjq_cli.stopping import Account

MOST_REASONS = 10  # in warnings
MOST_NAMED = 10  # jobs with one reason
MOST_RESUMING = 5  # long jobs whose position is printed
MOST_HELD = 100  # decisions of one verdict that are kept, with their reasons


class Tense(StrEnum):
    """Whether a plan is only shown, asked about, or was carried out."""

    DRY_RUN = "dry run"
    ASKED = "asked"
    DID = "did"


Groups = Counter[tuple["Verdict", str, str]]


def _goes_on(decision: Decision, stands: DeathPosition) -> str:
    from solidjq.ledger.crashes import parse_evidence  # noqa: PLC0415

    candidate = decision.candidate
    error = parse_evidence(candidate.evidence)
    progress = stands.position.progress
    words = progress.described(stands.saved_at, candidate.failed_at, error)
    return f"job {candidate.job_id} goes on {words if progress.current is None else f'at {words}'}"


@dataclass(slots=True)
class Tally:
    """Counts of what was decided, in constant memory."""

    groups: Groups = field(default_factory=Counter)
    destinations: Counter[str] = field(default_factory=Counter)  # the queues that jobs go to
    scheduled: int = 0
    warned: Counter[str] = field(default_factory=Counter)  # by reason: jobs that move, but not in a safe retry
    examples: dict[str, list[int]] = field(default_factory=dict)  # by reason: the first of these jobs
    resuming: list[str] = field(default_factory=list)  # where the first long jobs that move go on, in words
    resumed: int = 0  # how many there are
    held: dict[Verdict, list[Decision]] = field(default_factory=dict)  # the first that each verdict holds back

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
            candidate, verdict, jobs = decision.candidate, decision.verdict, decision.jobs
            self.groups[verdict, candidate.class_name, candidate.queue_name] += jobs
            if verdict.moves:
                self._add_moving(decision, jobs)
            elif len(named := self.held.setdefault(verdict, [])) < MOST_HELD:
                named.append(decision)
            yield decision

    def _add_moving(self, decision: Decision, jobs: int) -> None:
        if (queue := decision.destination) is not None:
            self.destinations[queue] += jobs
            stands = decision.candidate.stands
            if stands is not None and stands.position.progress.started:
                self.resumed += 1
                if len(self.resuming) < MOST_RESUMING:
                    self.resuming.append(_goes_on(decision, stands))
        if decision.scheduled:
            self.scheduled += jobs
        warning = decision.warning
        if warning is not None and (warning in self.warned or len(self.warned) < MOST_REASONS):
            self.warned[warning] += jobs
            if len(named := self.examples.setdefault(warning, [])) < MOST_NAMED:
                named.append(decision.job_id)  # of jobs that were decided on together, the first

    def count(self, batches: Iterable[list[Decision]]) -> None:
        """Count every decision of these batches."""
        for batch in batches:
            for _ in self.add(batch):
                pass

    def with_verdict(self, *verdicts: Verdict) -> int:
        """Return how many jobs got one of these verdicts."""
        return sum(count for (verdict, _, _), count in self.groups.items() if verdict in verdicts)

    def resumptions(self) -> list[str]:
        """Return where the long jobs go on that were moved, or would be, the first ones by name."""
        more = self.resumed - len(self.resuming)
        return [*self.resuming, *([f"{more:,} more long jobs go on where they were"] if more else [])]

    def unrecovered(self) -> int:
        """Return how many jobs that policy marks "auto" were held back all the same."""
        return sum(count for (verdict, _, _), count in self.groups.items() if verdict.unrecovered)

    def held_back_words(self, *, unrecovered: bool) -> str:
        """Return the counts of the verdicts that held jobs back, such as ``3 over-limit, 1 suspect``."""
        counts: Counter[Verdict] = Counter()
        for (verdict, _, _), count in self.groups.items():
            if not verdict.moves and verdict.unrecovered == unrecovered:
                counts[verdict] += count
        return ", ".join(f"{count:,} {verdict.value}" for verdict, count in counts.most_common())

    def words(self) -> str:
        """Return one line that says what was done."""
        from solidjq.recovery.verdicts import Verdict  # noqa: PLC0415
        from solidjq.text import count_of  # noqa: PLC0415

        if discarded := self.with_verdict(Verdict.DISCARD):
            return f"discarded {count_of(discarded, 'job')}"
        isolated = self.with_verdict(Verdict.ISOLATE)
        apart = f"; {isolated} of them in quarantine" if isolated else ""
        ready = self.moved - self.scheduled
        return f"retried {count_of(self.moved, 'job')}: {ready:,} ready, {self.scheduled:,} scheduled{apart}"

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
