"""``--from`` of ``jq retry``: where the one long job that is retried goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from solidjq.queue.jobs import JobView

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="STEP[:CURSOR]", help="Let the one job go on at this step, after this cursor."),
]


def check(jobs: Mapping[str, Sequence[JobView]] | None, position: str) -> None:
    """Say where the job goes on. Raises UsageError unless one failed job is named by its id, and began that step."""
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.queue.states import State  # noqa: PLC0415
    from solidjq.rails.continuation import parse_position, progress_of  # noqa: PLC0415

    step, cursor = parse_position(position)
    named = [view for views in (jobs or {}).values() for view in views]
    failed = {view.job_id: view for view in named if State.FAILED in view.states}
    if jobs is None or len(failed) > 1:
        raise UsageError("--from moves one job, named by its id: jq retry 42 --from STEP[:CURSOR]")
    for view in failed.values():
        before = progress_of(view.arguments)
        after = before.back_to(step, cursor)
        note(f"job {view.job_id} goes on at {after.words}; it was at {before.words}")
