"""``jq incidents list`` and ``jq incidents show``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import incident_view, options, selection, session, view
from solidjq_cli.columns.incidents import incident_detail_fields, incident_fields
from solidjq_cli.exits import Exit
from solidjq_cli.ids import read_incident_name
from solidjq_cli.render import Output, drawn, note, records
from solidjq_cli.screens import screen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from solidjq import Database
    from solidjq.incidents.incidents import Incident
    from solidjq.incidents.summaries import IncidentSummary
    from solidjq.ledger.positions import DeathPosition
    from solidjq.recovery.verdicts import Decision
    from solidjq_cli.session import Session

DEFAULT_SINCE = "7d"

group = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Deaths that belong together: when, where, why, with which jobs."
)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="incidents")


@group.command("list")
@screen()
def list_incidents(
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Noticed then or later: 15m, 2h, 3d, or a time.")
    ] = DEFAULT_SINCE,
    until: selection.UntilOption = None,
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="NAME", help="Only this host, or web*; may be repeated.")
    ] = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """List when processes died and why, the latest first.

    Deaths of one moment and one cause are one incident, named after its first death: d17 was seen by jq, f123 is put
    together from the failures that Rails wrote (123 is the first failure_id). The cause comes with how sure it is:
    certain, likely, possible; jq incidents show lists the facts. "1 or more" processes: the failures that Rails wrote
    for several may look the same.

    \b
    Examples:
      jq incidents list
      jq incidents list --since 30d -o json
      jq incidents list --host worker-4
    """
    from solidjq.names import suggestion
    from solidjq.queue.patterns import fits

    opened = session.current(database).open()
    summaries = selection.summarize_incidents(opened, since, until, waiting=drawn(output))
    here = [one for one in summaries if not host or any(fits(pattern, name) for pattern in host for name in one.hosts)]
    if here and drawn(output):
        incident_view.draw_list(list(reversed(here)), since)
        return
    latest_first = _with_jobs(opened, reversed(here)) if output is Output.IDS else reversed(here)
    records(latest_first, incident_fields(), output, empty=f"no process died since {since}" if not summaries else "")
    if summaries and not here:
        hosts = sorted({name for one in summaries for name in one.hosts})
        for name in host or ():
            note(f"no process is known to have died on host {name} since {since}{suggestion(name, hosts)}")


def _with_jobs(database: Database, incidents: Iterable[IncidentSummary]) -> Iterator[IncidentSummary]:
    """Yield these incidents with their jobs, which are read one incident after the other."""
    from solidjq.incidents.summaries import with_jobs

    for incident in incidents:
        with database.read() as connection:
            whole = with_jobs(connection, incident)
        yield whole


@group.command("show")
@screen()
def show_incidents(
    names: Annotated[list[str], typer.Argument(metavar="INCIDENT...", help="As jq incidents list names it.")],
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Show incidents in full: the cause with its facts, a timeline, the jobs in flight, what to do next.

    Of long jobs it says how far they were, and when that was saved.

    It ends with what jq retry --safe would do with those of its jobs that are still failed.

    -o ids gives the jobs, for jq retry; -o json all evidence.

    \b
    Examples:
      jq incidents show d17
      jq retry --safe d17
    """
    from solidjq.incidents.incidents import find_incident

    unique = list(dict.fromkeys(map(read_incident_name, names)))
    command = session.current(database)
    opened = command.open()
    with opened.read() as connection:
        by_name = {name: find_incident(connection, name) for name in unique}
    incidents = list({incident.name: incident for incident in by_name.values() if incident is not None}.values())
    verdicts = {} if output is Output.IDS else _retry_safe(command, opened, incidents)
    stood = {} if output is Output.IDS else _positions(opened, incidents)
    if output is Output.TABLE and not view.current().fields:
        for number, incident in enumerate(incidents):
            incident_view.draw(incident, verdicts[incident.name], stood, first=number == 0)
    else:
        records(incidents, incident_detail_fields(verdicts, stood), output)
    missing = [name for name, incident in by_name.items() if incident is None]
    for name in missing:
        note(f"no incident {name}; see: jq incidents list")
    if missing:
        raise typer.Exit(Exit.PARTLY if incidents else Exit.NO_SUCH_JOB)


@group.command("report")
def report_incident(
    name: Annotated[str, typer.Argument(metavar="INCIDENT", help="As jq incidents list names it.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page of HTML; it needs nothing else.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as without --html.")] = False,
    database: options.DatabaseOption = None,
) -> None:
    """Write the report of the morning after: what happened, why, what became of the jobs, what is left to do.

    It has the timeline, the evidence for the cause and for others, each job with its state now, the operations that
    moved it, what is unknown, and follow-ups to tick off. Passwords in its texts are masked; arguments of jobs are not
    in it. The page of HTML loads nothing and runs no script; the data are inside it as JSON.

    \b
    Examples:
      jq incidents report d17
      jq incidents report d17 --html d17.html
      jq incidents report d17 | gh issue create --title "Incident d17" --body-file -
    """
    from solidjq.errors import UsageError
    from solidjq.incidents.cause_rules import weigh_others
    from solidjq.incidents.incidents import find_incident
    from solidjq.recovery.aftermath import aftermath_of
    from solidjq_cli import incident_report, report_html, report_markdown

    if html is not None and markdown:
        raise UsageError("--html and --markdown are two forms of one report: choose one")
    command = session.current(database)
    opened = command.open()
    with opened.read() as connection:
        incident = find_incident(connection, read_incident_name(name))
        aftermath = None if incident is None else aftermath_of(connection, incident)
    if incident is None or aftermath is None:
        note(f"no incident {name}; see: jq incidents list")
        raise typer.Exit(Exit.NO_SUCH_JOB)
    made = incident_report.make(
        incident,
        aftermath,
        weigh_others(incident.deaths, incident.company, incident.finding.cause),
        _retry_safe(command, opened, [incident])[incident.name],
        _positions(opened, [incident]),
        database=command.place() or "",
        now=opened.now(),
    )
    if html is None:
        sys.stdout.write(report_markdown.write(made))
        return
    _write(html, report_html.write(made))
    note(f"the report is in {html}")


def _write(path: Path, text: str) -> None:
    """Write a file, or with ``-`` to stdout. Raises UsageError if the file cannot be written."""
    from solidjq.errors import UsageError
    from solidjq.files import replaced

    if str(path) == "-":
        sys.stdout.write(text)
        return
    try:
        with replaced(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UsageError(f"--html: {path} cannot be written: {error.strerror}") from error


def _retry_safe(
    command: Session, database: Database, incidents: Sequence[Incident]
) -> dict[str, list[Decision] | None]:
    """Return, by incident, what a safe retry would do now with its jobs that are still failed.

    None if it cannot work here. One plan serves all incidents: it reads all deaths.
    """
    from solidjq.errors import AccessDeniedError, NotAQueueError
    from solidjq.recovery.retry import plan
    from solidjq.recovery.terms import RetryTerms, Selection

    chosen = Selection(job_ids=[job_id for incident in incidents for job_id in incident.job_ids])
    batches = plan(database, chosen, RetryTerms(safe=True), policy=command.policy(None))
    try:
        by_job = {decision.job_id: decision for batch in batches for decision in batch}
    except (AccessDeniedError, NotAQueueError):  # a role that may read little, a schema of before 1.0
        return {incident.name: None for incident in incidents}
    ids = {incident.name: frozenset(incident.job_ids) for incident in incidents}
    return {name: [one for job_id, one in by_job.items() if job_id in of_it] for name, of_it in ids.items()}


def _positions(database: Database, incidents: Sequence[Incident]) -> dict[int, DeathPosition]:
    """Return, by failure, where the long jobs of these incidents stood; none where that cannot be read."""
    from solidjq.errors import AccessDeniedError, NotAQueueError
    from solidjq.ledger import positions

    failure_ids = [job.failure_id for one in incidents for job in one.jobs if job.failure_id is not None]
    try:
        with database.read() as connection:
            return positions.find(connection, failure_ids)
    except (AccessDeniedError, NotAQueueError):
        return {}
