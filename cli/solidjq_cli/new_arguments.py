"""``--with-arguments`` of ``jq retry``: other arguments for the one job that is retried."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq_cli import masking, standard_input
from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from solidjq.queue.jobs import JobView

WithArgumentsOption = Annotated[
    str | None,
    typer.Option(
        "--with-arguments",
        metavar="JSON",
        help="Give the one job these arguments, a JSON list; - reads them from standard input.",
    ),
]


def read(text: str) -> str:
    """Return the new arguments as they are stored. Raises UsageError or ArgumentsError for what cannot be arguments."""
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.rails.active_job import dumps, parse_arguments  # noqa: PLC0415
    from solidjq.rails.masking import contains_mask  # noqa: PLC0415

    values = parse_arguments("\n".join(line for _, line in standard_input.lines()) if text == "-" else text)
    if contains_mask(values):
        raise UsageError(
            "--with-arguments contains ***, which only stands for a masked value: see the values with --show-arguments"
        )
    return dumps(values)


def masked(arguments: str) -> Any:
    """Return new arguments as they are recorded: with secrets masked."""
    return masking.whole_mask().applied(json.loads(arguments))


def check(jobs: Mapping[str, Sequence[JobView]] | None, arguments: str) -> None:
    """Say how the arguments of the job change. Raises UsageError unless one failed job is named by its id."""
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.queue.states import State  # noqa: PLC0415
    from solidjq.rails.active_job import keywords_of, shown_arguments  # noqa: PLC0415

    chosen_views = [view for views in (jobs or {}).values() for view in views]
    failed = {view.job_id: view for view in chosen_views if State.FAILED in view.states}
    if jobs is None or len(failed) > 1:
        raise UsageError("--with-arguments changes one job, named by its id: jq retry 42 --with-arguments JSON")
    for view in failed.values():
        before, after = shown_arguments(view.arguments), json.loads(arguments)
        if not isinstance(before, list):
            raise UsageError(f"job {view.job_id} has no list of arguments that other arguments could replace")
        if (keywords := keywords_of(before)) and not keywords_of(after):
            raise UsageError(
                f"the job is called with keywords ({', '.join(keywords[:3])}): end the last argument with "
                f'"_aj_ruby2_keywords": {json.dumps(keywords, ensure_ascii=False)}'
            )
        mask = masking.whole_mask()
        for what, values in (("were", before), ("become", after)):
            note(f"the arguments of job {view.job_id} {what} {json.dumps(mask.applied(values), ensure_ascii=False)}")
        if view.concurrency_key:
            note(f"its concurrency key, made from the old arguments, stays {view.concurrency_key}")
