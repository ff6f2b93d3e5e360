"""``jq suspects``: which jobs may have killed their process."""

from __future__ import annotations

from typing import Annotated

import typer

from solidjq_cli import columns, options, selection, session, suspects_view
from solidjq_cli.render import Output, drawn, note, records
from solidjq_cli.screens import screen

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
    from solidjq.text import count_of

    opened = session.current(database).open()
    found = selection.count_incidents(opened, since, until)
    with opened.read() as connection:
        ranking = find_suspects(connection, found)
    everything = [
        *(columns.Suspect("class", score) for score in ranking.classes),
        *(columns.Suspect("job", score) for score in ranking.jobs),
    ]
    if drawn(output):
        incident_of = {death.name: incident.name for incident in found for death in incident.deaths}
        suspects_view.draw(opened, everything, incident_of, since=since, everybody=everybody)
        return
    shown = [each for each in everything if everybody or each.score.standing is not JobStanding.BYSTANDER]
    if output is Output.IDS:
        shown = [each for each in shown if each.score.standing.held_back]
    empty = f"nobody is suspected of a death since {since}"
    count = records(columns.suspects_apart(opened, shown), columns.suspects(), output, empty=empty)
    if output is Output.TABLE and (left := sum(each.size for each in everything) - count):
        note(f"{count_of(left, 'bystander')}; --all shows {'it' if left == 1 else 'them'}")
