"""``jq enqueue``."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq.durations import parse_duration
from solidjq_cli import attendance, options, session, standard_input
from solidjq_cli.columns.jobs import job_fields
from solidjq_cli.render import Output, note, records
from solidjq_cli.stopping import printed_after
from solidjq_cli.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from solidjq import Database, Job
    from solidjq.queue.jobs import JobView
    from solidjq_cli.session import Session


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("enqueue")(enqueue)


def enqueue(
    class_name: Annotated[str, typer.Argument(metavar="CLASS", help="The job's class, or its name in Python.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGUMENT]...", help="JSON where it is JSON, else text.")
    ] = None,
    keyword: Annotated[
        list[str] | None, typer.Option("--keyword", "-k", metavar="NAME=VALUE", help="A keyword argument.")
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="NAME", help="Default: the job's own, else default.")
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(
            "--priority",
            metavar="N",
            min=-options.MOST_INTEGER,
            max=options.MOST_INTEGER,
            help="Smaller is sooner.",
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Not before then: a time; or 15m, 2h, 3d from now.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--concurrency-key",
            metavar="KEY",
            help="As Rails stores it: ImportJob/42. The application's dispatcher then applies the limit.",
        ),
    ] = None,
    no_limit: Annotated[
        bool, typer.Option("--no-limit", help="Run it beside any others, although its class has a concurrency limit.")
    ] = False,
    read: Annotated[
        bool, typer.Option("--stdin", help="One job a line of standard input: a JSON list of arguments.")
    ] = False,
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Take queue, priority and limit from @job there."),
    ] = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Enqueue a job, Ruby's or Python's.

    The concurrency limit of a Ruby class is in its code, and Rails computes a job's key when it enqueues it. So a job
    without a key is refused, with exit code 5, if recent jobs of its class have keys; a few of these are named. With
    --concurrency-key the job is scheduled, due now or at --at.

    \b
    Examples:
      jq enqueue ReportJob 42 --queue mailers
      jq enqueue send_report '{"year": 2026}' -k format=pdf --at 15m
      jq enqueue ResizeJob --stdin < lines-of-json-lists
      jq enqueue ImportJob 42 --concurrency-key ImportJob/42
      jq enqueue WelcomeJob '{"_aj_globalid": "gid://shop/User/7"}'
    """
    from solidjq.batching import in_batches
    from solidjq.errors import UsageError
    from solidjq.queue import concurrency
    from solidjq.queue import enqueue as queues
    from solidjq.queue.jobs import find_jobs

    if read and arguments:
        raise UsageError("with --stdin the arguments come from standard input")
    command = session.current(database)
    opened = command.open(create=True)
    job = _job(class_name, modules, key=key, no_limit=no_limit)
    job = job.set(queue=queue, priority=priority)
    if at is not None:
        duration = parse_duration(at)
        if duration is None:
            job = job.set(at=parse_time(at, opened.now(), "--at", ahead=True))
        else:
            job = job.set(delay=duration.total_seconds())
    kwargs = dict(_keyword(text) for text in keyword or [])
    calls = _lines() if read else iter([[_value(text) for text in arguments or []]])
    # All of them or none, in one transaction: half a file of jobs would be hard to complete.
    new_jobs = [job.new(*args, **kwargs) for args in calls]
    if key is not None:
        new_jobs = [replace(new, concurrency_key=key) for new in new_jobs]
    operation = command.operation("enqueue")

    unlike: list[str] = []

    def recorded(connection: Connection) -> list[dict[str, list[JobView]]]:
        if key is not None:
            unlike.extend(concurrency.find_unlike(connection, class_name, key))
        elif not (modules or no_limit):
            concurrency.require_key(connection, class_name)
        ids = queues.enqueue(connection, new_jobs)
        if ids:
            operation.record_if_possible(connection, len(ids))
        # Read in the same transaction: jobs that cannot be shown must not be enqueued either.
        return [find_jobs(connection, [str(job_id) for job_id in batch]) for batch in in_batches(ids)]

    found = opened.transact(recorded)
    views = [view for batch in found for group in batch.values() for view in group]
    with printed_after(_words(views)):
        records(views, job_fields(), output, empty="nothing to enqueue")
    if unlike:
        note(
            f"with this key the job shares no limit with recent jobs of {class_name}; their keys begin otherwise: "
            f"{', '.join(unlike)}"
        )
    _note_obstacles(command, opened, views)


def _words(views: Sequence[JobView]) -> str:
    """Return in words which jobs were enqueued: who cannot read it would enqueue them again."""
    if len(views) == 1:
        return f"enqueued job {views[0].job_id}"
    between = f": {views[0].job_id} to {views[-1].job_id}" if views else ""
    return f"enqueued {len(views):,} jobs{between}"


def _note_obstacles(command: Session, database: Database, views: Sequence[JobView]) -> None:
    from solidjq.queue.states import State

    scheduled = sum(State.SCHEDULED in view.states for view in views)
    for line in attendance.obstacles(command, database, Counter(view.queue_name for view in views), scheduled):
        note(line)


def _job(class_name: str, modules: list[str] | None, *, key: str | None, no_limit: bool) -> Job[..., Any]:
    """Return the registered job if modules were named, else one of which only the name is known: a Ruby class, say."""
    from solidjq import registry
    from solidjq.errors import UsageError

    if key is not None and (modules or no_limit):
        other = "--no-limit" if no_limit else "--import, which takes limit and key from @job"
        raise UsageError(f"--concurrency-key cannot be given with {other}; leave one out")
    if key == "":
        raise UsageError("--concurrency-key is empty; give the key as Rails stores it: ImportJob/42")
    if modules:
        registry.import_modules(modules)
        job = registry.find(class_name)
        return replace(job, limit=None) if no_limit else job
    return registry.Job(_elsewhere, class_name)


def _elsewhere(*_: Any, **__: Any) -> None:
    raise AssertionError("this job's code is not here")


def _value(text: str) -> Any:
    """Read an argument: 42, true, null, "42" and {"a": 1} are JSON, everything else is text.

    What JSON lacks may be given in Active Job's own form.
    """
    from solidjq.rails.argument_values import deserialize

    try:
        value = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return text
    return deserialize(value)


def _no_json(constant: str) -> None:
    """Refuse NaN and Infinity, which only Python takes for JSON."""
    raise ValueError(constant)


def _keyword(text: str) -> tuple[str, Any]:
    from solidjq.errors import UsageError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--keyword {text!r}: write NAME=VALUE")
    return name, _value(value)


def _lines() -> Iterator[list[Any]]:
    from solidjq.errors import UsageError
    from solidjq.rails.argument_values import deserialize

    for number, line in standard_input.lines():
        if not line.strip():
            continue
        try:
            arguments = json.loads(line, parse_constant=_no_json)
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, list):
            raise UsageError(f"line {number} of standard input is not a JSON list of arguments; nothing was enqueued")
        yield deserialize(arguments)
