"""A job's life on a terminal: what happened when, how long after what was before it, by whom and why."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from solidjq_cli.grid import Head, Words
from solidjq_cli.render import heading, next_commands, page, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from solidjq.ledger.history import Event
    from solidjq_cli.grid import Cell

HINTED = 1  # life, after which the last line is about its job


def draw(lives: Iterable[Sequence[Event]]) -> list[Event]:
    """Print lives, and return the first event; empty if there is none."""
    first: list[Event] = []
    last: Sequence[Event] = ()
    count = 0
    with page():
        for events in lives:
            if count:
                paragraph("")
            count += 1
            first = first or [events[0]]
            last = events
            _draw(events)
        if count == HINTED:
            failed = [f"failed show {event.job_id}" for event in last if event.waits]
            end = last[-1]
            gone = end.event == "discarded" and end.operation_id is not None
            next_commands(*failed[-1:], f"operations show {end.operation_id}" if gone else f"jobs show {end.job_id}")
    return first


def _draw(events: Sequence[Event]) -> None:
    from solidjq.text import count_of

    jobs = dict.fromkeys(event.job_id for event in events)
    crashes = sum(event.crash for event in events)
    retries = sum(event.event == "retried" for event in events)
    noun = "job" if len(jobs) == 1 else "jobs"
    ids = ", ".join(map(str, jobs))
    heading(f"{noun} {ids}: {count_of(crashes, 'crash')}, {count_of(retries, 'retry')}")
    heads = [Head("UTC"), Head("AFTER", right=True), Head("JOB", right=True), Head("EVENT"), Head("WHAT", flows=True)]
    several = len(jobs) > 1
    shown = heads if several else [*heads[:2], *heads[3:]]
    table(shown, _rows(events, several=several))


def _rows(events: Sequence[Event], *, several: bool) -> Iterator[list[Cell]]:
    before: datetime | None = None
    for event in events:
        row: list[Cell] = [_clock(event.at, before), _after(event.at, before)]
        row += [str(event.job_id)] if several else []
        yield [*row, Words(event.event, "error" if event.crash else ""), _what(event)]
        before = event.at or before


def _clock(at: datetime | None, before: datetime | None) -> str:
    """Write a time; its date only if that differs from the one above."""
    if at is None:
        return "-"
    time = at.astimezone(UTC)
    same = before is not None and before.astimezone(UTC).date() == time.date()
    return f"{time:%H:%M:%S}" if same else f"{time:%Y-%m-%d %H:%M:%S}"


def _after(at: datetime | None, before: datetime | None) -> str:
    from solidjq.durations import spell_duration

    if at is None or before is None or at < before:
        return ""
    distance = at - before
    seconds = distance.total_seconds()
    return f"+{seconds:.1f}s" if seconds < 10 else f"+{spell_duration(distance)}"  # noqa: PLR2004  (one digit)


def _what(event: Event) -> str:
    who = f"by {event.actor}" if event.actor else ""
    operation = f"(operation {event.operation_id})" if event.operation_id is not None else ""
    return " ".join(part for part in (event.detail, who, operation) if part)
