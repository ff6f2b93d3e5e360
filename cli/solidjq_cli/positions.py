"""``--from`` and ``--skip-record`` of ``jq retry``: where the one long job that is retried goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from solidjq.queue.jobs import JobView

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="STEP[:CURSOR]", help="Let the one job go on at this step, after this cursor."),
]


SkipOption = Annotated[
    bool, typer.Option("--skip-record", help="Let the one long job pass over the record at which it died.")
]


def check(jobs: Mapping[str, Sequence[JobView]] | None, position: str) -> None:
    """Say where the job goes on. Raises UsageError unless one failed job is named by its id, and began that step."""
    from solidjq.rails.continuation import parse_position, progress_of  # noqa: PLC0415

    step, cursor = parse_position(position)
    for view in _the_one(jobs, "--from", "--from STEP[:CURSOR]"):
        before = progress_of(view.arguments)
        after = before.back_to(step, cursor)
        note(f"job {view.job_id} goes on at {after.words}; it was at {before.words}")


def check_skip(jobs: Mapping[str, Sequence[JobView]] | None) -> None:
    """Say which record the job passes over.

    Raises UsageError unless one failed job is named by its id, and stands at a record that is known.
    """
    from solidjq.rails.continuation import progress_of  # noqa: PLC0415
    from solidjq.rails.positions import skipping  # noqa: PLC0415

    for view in _the_one(jobs, "--skip-record", "--skip-record"):
        skipping(view.arguments)
        note(f"job {view.job_id} goes on behind the record that comes after {progress_of(view.arguments).words}")


def _the_one(jobs: Mapping[str, Sequence[JobView]] | None, option: str, example: str) -> Iterable[JobView]:
    """Return the failed job that is named, none if it is not failed. Raises UsageError if several are, or a filter."""
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.queue.states import State  # noqa: PLC0415

    chosen_views = [view for views in (jobs or {}).values() for view in views]
    failed = {view.job_id: view for view in chosen_views if State.FAILED in view.states}
    if jobs is None or len(failed) > 1:
        raise UsageError(f"{option} moves one job, named by its id: jq retry 42 {example}")
    return failed.values()
