"""How the differences between failures look on a terminal."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from solidjq_cli import view
from solidjq_cli.ages import age, when
from solidjq_cli.columns.column import Column, Fields
from solidjq_cli.flow import cut, more
from solidjq_cli.grid import Head, Names, Words
from solidjq_cli.render import Keyed, heading, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from solidjq.diff.contrast import Contrast
    from solidjq.diff.failure_groups import FailureGroup
    from solidjq.diff.sides import Difference
    from solidjq.diff.windows import Change, Window
    from solidjq_cli.grid import Cell


WIDE = 100  # columns of a terminal that has room for more than the essentials
WIDEST = 140  # and for everything
LONGEST = 160  # cells of an error in the list of groups
BAR = 6  # cells of the largest group's
NAMES_WIDTH = 20  # of a list of classes or queues on a terminal
FIELD_WIDTH = 24  # of a field's name beside two values
MOST_ROWS = 6  # of one value on a terminal; the other outputs have all of it


def _sentences(contrast: Contrast, failed: str) -> Iterator[str]:
    """Yield sentences that name the traits which set failed jobs apart."""
    from solidjq.text import count_of

    if not contrast.failed:
        return
    finished = count_of(contrast.finished, "job") if contrast.finished else "no job"
    if not contrast.possible:
        only = "only " if contrast.finished else ""
        yield f"what sets {failed} apart is unknown: {only}{finished} finished meanwhile, too few to compare"
        return
    if not contrast.traits:
        yield f"nothing sets {failed} apart from {finished} that finished meanwhile"
        return
    yield f"what sets {failed} apart from {finished} that finished meanwhile:"
    for trait in contrast.traits:
        here = f"{_percent(trait.failed_with, trait.failed)} ({trait.failed_with:,} of {trait.failed:,})"
        there = f"{_percent(trait.finished_with, trait.finished)} ({trait.finished_with} of {trait.finished})"
        yield f"  {trait.trait}: {here}, finished {there}"


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return f"{share:.0f}%" if part in {0, whole} or 1 <= share <= 99 else f"{share:.1f}%"  # noqa: PLR2004  (1% to 99%)


def _group_fields(*, whole: bool = False) -> Fields[FailureGroup]:
    """Fields of a group; those of a table on a terminal are chosen for its width."""
    people = not whole and view.on_terminal()
    width = _width() if people else WIDEST

    return Fields(
        (
            Column("group", lambda g: g.name, "GROUP"),
            Column("jobs", lambda g: g.count, "JOBS", counts=True),
            Column("title", lambda g: _short(g) if people else g.signature.title, "ERROR", wide=True),
            Column("classes", lambda g: _names(g.classes, people=people), "CLASSES", wide=True),
            Column(
                "queues", lambda g: _names(g.queues, people=people), "QUEUES" if width >= WIDEST else None, wide=True
            ),
            Column("first_failed_at", lambda g: g.first_at, "FIRST" if width >= WIDE else None),
            Column("last_failed_at", lambda g: g.last_at, "LAST"),
            Column("example_job_id", lambda g: g.example, "EXAMPLE" if width >= WIDEST else None),
            Column("causes", lambda g: dict(g.causes.most_common())),
            Column("hosts", lambda g: _names(g.hosts, people=people), "HOSTS" if width >= WIDEST else None, wide=True),
            *_signature_columns(),
        ),
        lambda _: [],
    )


def _draw_groups(found: Sequence[FailureGroup], shown: Sequence[FailureGroup]) -> None:
    """Print groups of failures, a line each; ``found`` are all of them."""
    from solidjq.text import count_of

    jobs = sum(group.count for group in found)
    heading(f"{jobs:,} failed {'job is' if jobs == 1 else 'jobs are'} {count_of(len(found), 'problem')}")
    heads = [
        Head("GROUP"),
        Head("JOBS", right=True),
        Head("", leaves=1),
        Head("SINCE", right=True),
        Head("LAST", right=True),
        Head("WHAT", flows=True),
        Head("CLASSES", gives=True),
    ]
    most = max(group.count for group in found)
    table(heads, (Keyed(group.name, _group_row(group, most)) for group in shown))


def _group_row(group: FailureGroup, most: int) -> list[Cell]:
    from solidjq.diff.folding import ANY_WORD

    several = f" ({group.messages:,} messages, {ANY_WORD} differs)" if group.messages > 1 else ""
    return [
        group.name,
        f"{group.count:,}",
        "#" * max(1, round(BAR * group.count / most)),
        *("-" if time is None else when(time) for time in (group.first_at, group.last_at)),
        Words(f"{cut(_short(group), LONGEST)}{several}", "error" if group.signature.death else ""),
        Names(_classes(group)),
    ]


def _classes(group: FailureGroup) -> tuple[str, ...]:
    """Return the classes, the most frequent first; of several each with its count before it, where nothing cuts it."""
    if len(group.classes) == 1:
        return tuple(group.classes)
    return tuple(f"{count:,} {name}" for name, count in group.classes.most_common())


def _signature_columns() -> tuple[Column[FailureGroup], ...]:
    return (
        Column("death", lambda g: g.signature.death and g.signature.death.value),
        Column("error_class", lambda g: g.signature.exception_class),
        Column("signature", lambda g: g.signature.message),
        Column("frames", lambda g: list(g.signature.frames)),
    )


def _width() -> int:
    return view.width() or shutil.get_terminal_size((WIDE, 24)).columns


def _short(group: FailureGroup) -> str:
    """Return the error in short: the last part of its class, so that the message has room; of a death, its cause."""
    signature = group.signature
    message, last = signature.message, (signature.exception_class or "").rpartition("::")[2]
    if signature.death is not None:
        causes = [words for words, _ in group.causes.most_common()]
        return ": ".join(["died", *([message] if message else []), *causes[:1]]) + more(len(causes) - 1)
    if not message or not last:
        return signature.title
    return message if message.startswith((last, str(signature.exception_class))) else f"{last}: {message}"


def _names(counted: Mapping[str, int], *, people: bool) -> Any:
    """Return classes or queues with their counts; on a terminal only the most frequent, and of a long name the end."""
    ordered = Counter(counted).most_common()
    if not people or not ordered:
        return dict(ordered)
    rest = more(len(ordered) - 1)
    first = ordered[0][0]
    room = NAMES_WIDTH - len(rest)
    return (first if len(first) <= room else f"…{first[1 - room :]}") + rest


def _spelled(window: Window) -> str:
    from solidjq.durations import spell_duration

    return f"{spell_duration(window.length)} from {window.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _change_fields(now: Window, before: Window, *, in_words: bool = False) -> Fields[Change]:
    """Fields of a change between two times. ``in_words``: the kind of change stands instead of its mark."""
    people = view.on_terminal()
    widest = not people or _width() >= WIDEST

    def rate(count: int, window: Window) -> float:
        return round(count / (window.length / timedelta(hours=1)), 3)

    return Fields(
        (
            Column("mark", lambda c: c.kind.value if in_words else c.kind.mark, "CHANGE" if in_words else ""),
            Column("group", lambda c: c.group.name, "GROUP"),
            Column("now", lambda c: c.now, "NOW", counts=True),
            Column("before", lambda c: c.before, "BEFORE", counts=True),
            Column("factor", lambda c: _factor(c) if people else c.factor and round(c.factor, 2), "RATE"),
            Column("title", lambda c: _short(c.group) if people else c.group.signature.title, "ERROR", wide=True),
            Column("classes", lambda c: _names(c.group.classes, people=people), "CLASSES", wide=True),
            Column("queues", lambda c: _names(c.group.queues, people=people), "QUEUES" if widest else None, wide=True),
            Column("change", lambda c: c.kind.value),
            Column("now_per_hour", lambda c: rate(c.now, now)),
            Column("before_per_hour", lambda c: rate(c.before, before)),
            Column("first_failed_at", lambda c: c.group.first_at),
            Column("last_failed_at", lambda c: c.group.last_at),
            Column("example_job_id", lambda c: c.group.example, "EXAMPLE" if widest else None),
            *(
                Column(column.name, lambda c, value=column.value: value(c.group))  # type: ignore[misc]
                for column in _signature_columns()
            ),
        ),
        lambda _: [],
    )


def _factor(change: Change) -> str:
    """Return how many times as often the failures happen."""
    if change.factor is None:
        return "new"
    if not change.factor:
        return "gone"
    return f"x{change.factor:.2g}" if change.factor < 10 else f"x{change.factor:.0f}"  # noqa: PLR2004  (two digits)


def _difference_fields() -> Fields[Difference]:
    return Fields(
        (
            Column("differs", lambda d: d.differs, "DIFFERS"),
            Column("field", lambda d: d.field, "FIELD"),
            Column("left", lambda d: d.left, "LEFT"),
            Column("right", lambda d: d.right, "RIGHT"),
        ),
        lambda _: [],
    )


class _Cells(NamedTuple):
    """One line of a difference on a terminal."""

    mark: str
    field: str
    left: str
    right: str


def _cell_fields(left: str, right: str) -> Fields[_Cells]:
    return Fields(
        (
            Column("differs", lambda c: c.mark, ""),
            Column("field", lambda c: c.field, "FIELD"),
            Column("left", lambda c: c.left, left),
            Column("right", lambda c: c.right, right),
        ),
        lambda _: [],
    )


def _wrapped(found: Iterable[Difference], width: int) -> Iterator[_Cells]:
    """Break values into lines, so that both fit beside each other and nothing that differs is cut away."""
    room = max(10, (width - FIELD_WIDTH - 8) // 2)
    for row in found:
        left, right = (_broken(value, room) for value in (row.left, row.right))
        name = row.field if len(row.field) <= FIELD_WIDTH else f"{row.field[: FIELD_WIDTH - 1]}…"
        for at in range(max(len(left), len(right))):
            first = at == 0
            yield _Cells(
                "!=" if row.differs and first else "",
                name if first else "",
                left[at] if at < len(left) else "",
                right[at] if at < len(right) else "",
            )


def _broken(value: Any, room: int) -> list[str]:
    from textwrap import wrap

    from solidjq.text import one_line
    from solidjq_cli.view import masked

    if isinstance(value, datetime):
        return [age(value)]
    texts = value if isinstance(value, list) and all(isinstance(each, str) for each in value) else [value]
    found: list[str] = []
    for each in texts:
        text = "-" if each is None else one_line(masked(each if isinstance(each, str) else str(each)))
        found += wrap(text[: room * MOST_ROWS * 2], room, break_on_hyphens=False) or [""]
    return found if len(found) <= MOST_ROWS else [*found[: MOST_ROWS - 1], "… (all of it: -o json)"]


def all_fields() -> tuple[Fields[Any], ...]:
    """Return the fields of groups, of changes between two times, and of differences between two sides."""
    from solidjq.diff.windows import Window

    no_time = Window(datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    return _group_fields(), _change_fields(no_time, no_time), _difference_fields()
