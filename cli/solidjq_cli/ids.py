"""Names of jobs, incidents and operations on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import standard_input
from solidjq_cli.exits import Exit
from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from solidjq.queue.jobs import JobView

MOST_UNFAILED = 10  # jobs that a list names because they have not failed

IdsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB...",
        help="Job ids, Active Job ids or their beginnings, incidents (d13), groups (g2569e0c); - reads standard input.",
    ),
]
OptionalIdsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[JOB...]",
        help="Job ids, Active Job ids or their beginnings, incidents (d13), groups (g2569e0c); - reads standard input.",
    ),
]


def read_ids(names: list[str]) -> list[str]:
    """Return the names, those on standard input in the place of ``-``, each once.

    Raises UsageError for what cannot be a name.
    """
    from solidjq.names import kind_of  # noqa: PLC0415

    ids = [part for text in names for part in (standard_input.words() if text == "-" else [text])]
    for text in ids:
        kind_of(text)
    return list(dict.fromkeys(ids))


def read_incident_name(text: str) -> str:
    """Return the name of an incident. Raises UsageError for text that cannot be one."""
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.names import INCIDENT_NAME  # noqa: PLC0415

    if not INCIDENT_NAME.fullmatch(text):
        raise UsageError(
            f"{text[:80]!r} is not an incident's name, which is d or f and a number, such as d17; "
            "to see them: jq incidents list"
        )
    return text


def read_operation_id(text: str) -> int | None:
    """Return the operation id; None for a number that no operation can have. Raises UsageError for other text."""
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.text import parse_id  # noqa: PLC0415

    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{text!r} is not an operation id; to see them: jq operations list")
    return parse_id(text)


def report_missing(jobs: Mapping[str, Sequence[JobView]], served: Collection[int], *, held_back: int = 0) -> None:
    """Print which ids got no decision and why, and exit: 4 if no job has such an id, 6 if only some got one.

    ``jobs``: by the id that names them. ``served``: the jobs that got one. ``held_back``: how many of them were not
    moved.
    """
    missing = False
    unserved = False
    for text, views in jobs.items():
        if not views:
            missing = True
            note(f"no job {text}")
        elif not any(view.job_id in served for view in views):
            unserved = True
            taken = f"job {views[-1].job_id} was not taken: the filter or --limit leaves it out, or somebody was faster"
            note(_unfailed(views) or taken)
    if unserved or held_back or (missing and served):
        raise typer.Exit(Exit.PARTLY)
    if missing:
        raise typer.Exit(Exit.NO_SUCH_JOB)


def note_unfailed(jobs: Mapping[str, Sequence[JobView]]) -> bool:
    """Say of the jobs with these ids that have not failed in which state they are; return whether there are any."""
    sentences = [words for views in jobs.values() if views and (words := _unfailed(views)) is not None]
    for words in sentences[:MOST_UNFAILED]:
        note(words)
    if (left := len(sentences) - MOST_UNFAILED) > 0:
        note(f"{left:,} more of the jobs that you named have not failed")
    return bool(sentences)


def _unfailed(views: Sequence[JobView]) -> str | None:
    """Return in which state the newest of these jobs is; None if it, or another of them, has failed."""
    from solidjq.queue.states import State  # noqa: PLC0415

    if any(State.FAILED in view.states for view in views):
        return None
    states = "+".join(state.value for state in views[-1].states) or "in no state"
    return f"job {views[-1].job_id} is {states}, not failed"
