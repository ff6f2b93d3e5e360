"""``jq suspects``: which jobs may have killed their process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import options, selection, session, suspects_view
from solidjq_cli.columns.suspects import suspect_fields, suspects_apart, suspects_of
from solidjq_cli.render import Output, drawn, note, records
from solidjq_cli.screens import screen
from solidjq_cli.times import parse_span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from solidjq.incidents.incidents import Incident

DEFAULT_SINCE = "30d"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("suspects")(suspects)


@screen()
def suspects(
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Deaths noticed then or later: 2h, 3d, or a time.")
    ] = DEFAULT_SINCE,
    until: selection.UntilOption = None,
    everybody: Annotated[bool, typer.Option("--all", help="Bystanders too.")] = False,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Rank jobs and classes that may have killed their process.

    Only jobs that were executing are charged, and a death from outside (a deployment, a lost host, a database that was
    away) charges nobody. A job is a suspect if it was alone when its process crashed, exited or ran out of memory; or
    after two deaths that no such job of another class explains; or if its class is a suspect. A class is a suspect if
    it was in flight at more deaths than chance allows, measured against what usually runs; with few deaths it says "too
    few to tell". Where the evidence fits several equally, they "cannot be told apart". jq retry --safe holds both kinds
    back, --isolate sends them to quarantine, jq bisect finds the killer among many.

    Of a long job it names the step and the cursor at which it died again and again. A long job that made progress
    between its deaths is no suspect.

    \b
    Examples:
      jq suspects
      jq suspects --since 7d -o json
      jq suspects -o ids | jq retry --queue-as quarantine -
    """
    from solidjq.incidents.charges import find_suspects
    from solidjq.incidents.death_cases import JobStanding
    from solidjq.incidents.incidents import each_incident
    from solidjq.text import count_of

    opened = session.current(database).open()
    earliest, latest = parse_span(since, until, opened.now())
    incident_of: dict[str, str] = {}
    with opened.read() as connection:
        incidents = each_incident(connection, since=earliest, until=latest, once=True)
        ranking = find_suspects(connection, _noted(incidents, incident_of) if drawn(output) else incidents)
    if drawn(output):
        suspects_view.draw(opened, ranking, incident_of, since=since, everybody=everybody)
        return
    standings = [one for one in JobStanding if everybody or one is not JobStanding.BYSTANDER]
    if output is Output.IDS:
        standings = [one for one in standings if one.held_back]
    shown = suspects_of(ranking, *standings)
    empty = f"nobody is suspected of a death since {since}"
    count = records(suspects_apart(opened, shown), suspect_fields(), output, empty=empty)
    if output is Output.TABLE and (left := len(ranking.classes) + ranking.jobs.count(*JobStanding) - count):
        note(f"{count_of(left, 'bystander')}; --all shows {'it' if left == 1 else 'them'}")


def _noted(incidents: Iterable[Incident], incident_of: dict[str, str]) -> Iterator[Incident]:
    """Yield the incidents, and note the incident of each death."""
    for incident in incidents:
        incident_of.update(dict.fromkeys((death.name for death in incident.deaths), incident.name))
        yield incident
