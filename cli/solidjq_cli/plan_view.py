"""The plan of a retry or discard on a terminal: what is held back and why comes first, then what moves, by queue."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING

from solidjq_cli import flow
from solidjq_cli.arguments import by_own_name, typed_words
from solidjq_cli.render import heading, next_commands, paragraph

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from solidjq.recovery.verdicts import Decision, Verdict
    from solidjq_cli.tally import Tally, Tense

LABEL = 10  # cells of a verdict; only stuck-record is longer
MOST_QUEUES = 12  # that are named, the fullest first
MOST_CLASSES = 8
MOST_JOBS = 12  # that are named for one reason
LONGEST = 100  # characters of a command that is offered again
CANARY = 5


def draw(tally: Tally, tense: Tense, verb: str, notes: Sequence[str]) -> None:
    """Print the plan with its ``notes``, and what may come next."""
    heading(_headline(tally, tense, verb))
    label = max([LABEL, *(len(verdict.value) for verdict, _, _ in tally.groups)])
    for verdict, text in _held(tally):
        paragraph(text, f"{verdict.value:<{label}}  ", style="warning")
    for verdict in dict.fromkeys(verdict for verdict, _, _ in tally.groups if verdict.moves):
        of_it = {key: count for key, count in tally.groups.items() if key[0] is verdict}
        paragraph(_moving(of_it), f"{verdict.value:<{label}}  ", style="good")
    for text in notes:
        paragraph(by_own_name(text), f"{'note':<{label}}  ")
    if tense.value == "dry run":
        next_commands(*_next(tally))


def _headline(tally: Tally, tense: Tense, verb: str) -> str:
    from solidjq.text import count_of

    total = f"{tally.moved:,} of {count_of(tally.moved + tally.held_back, 'job')}"
    did, would = ("were deleted", "be deleted") if verb == "discard" else ("went back to work", "go back to work")
    went = did if tense.value == "did" else f"would {would}"
    held = f", {tally.held_back:,} held back" if tally.held_back else ""
    return f"{total} {went}{held}{'; nothing was changed' if tense.value == 'dry run' else ''}"


def _next(tally: Tally) -> Iterator[str]:
    """Yield this command without --dry-run, and what shows more of what it holds back."""
    command = shlex.join(argument for argument in typed_words() if argument not in {"--dry-run", "-n"})
    if tally.moved and len(command) <= LONGEST:
        yield command
        if tally.moved > CANARY and not {"discard", "recover"} & {*typed_words()}:
            yield f"{command} --canary {CANARY}"
    held = [decision for decisions in tally.held.values() for decision in decisions]
    stuck = (one for one in held if one.verdict.value == "stuck-record")
    skip = next((one.job_id for one in stuck if one.candidate.position and one.candidate.position.skips), None)
    if skip is not None:
        yield f"retry {skip} --skip-record"
    if any(decision.verdict.value in {"suspect", "stuck-record"} for decision in held):
        yield "suspects"


def _held(tally: Tally) -> Iterator[tuple[Verdict, str]]:
    """Yield each verdict that holds jobs back, the rarest first: a job of its own or one reason a line."""
    from solidjq.recovery.verdicts import Verdict

    order = list(Verdict)
    counts = Counter[Verdict]()
    for (verdict, _, _), count in tally.groups.items():
        if not verdict.moves:
            counts[verdict] += count
    for verdict, count in sorted(counts.items(), key=lambda item: (item[1], order.index(item[0]))):
        named = tally.held.get(verdict, ())
        for (reason, class_name), alike in _alike(named).items():
            yield verdict, f"{_jobs(alike, class_name)}: {reason or verdict.meaning}"
        if rest := count - sum(decision.jobs for decision in named):
            classes = Counter[str]()
            for (other, class_name, _), number in tally.groups.items():
                if other is verdict:
                    classes[class_name] += number
            yield verdict, f"{rest:,} more; in all {_counted(classes, MOST_CLASSES)}: {verdict.meaning}"


def _alike(named: Sequence[Decision]) -> dict[tuple[str | None, str], list[Decision]]:
    alike: dict[tuple[str | None, str], list[Decision]] = {}
    for decision in named:
        alike.setdefault((decision.reason, decision.candidate.class_name), []).append(decision)
    return alike


def _jobs(decisions: Sequence[Decision], class_name: str) -> str:
    """Name jobs of a class; where decisions are on groups, count them: a bare number would be read as an id."""
    jobs = sum(decision.jobs for decision in decisions)
    if jobs > len(decisions):
        return f"{jobs:,} jobs of {class_name}"
    ids = ", ".join(str(decision.job_id) for decision in decisions[:MOST_JOBS])
    return f"{ids}{flow.more(jobs - MOST_JOBS)} {class_name}"


def _moving(of_verdict: Mapping[tuple[Verdict, str, str], int]) -> str:
    """Say how many go, of which queues, and of which classes if there are few queues."""
    queues, classes = Counter[str](), Counter[str]()
    for (_, class_name, queue), count in of_verdict.items():
        queues[queue] += count
        classes[class_name] += count
    by_queue = f"{queues.total():,}, by queue: {_counted(queues, MOST_QUEUES)}"
    return f"{by_queue}; by class: {_counted(classes, MOST_CLASSES)}"


def _counted(counts: Mapping[str, int], most: int) -> str:
    ordered = Counter(counts).most_common()
    return ", ".join(f"{name} {count:,}" for name, count in ordered[:most]) + flow.more(len(ordered) - most)
