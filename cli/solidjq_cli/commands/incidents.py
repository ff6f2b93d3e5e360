"""``jq incidents list`` and ``jq incidents show``."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import columns, options, selection, session
from solidjq_cli.exits import Exit
from solidjq_cli.ids import read_incident_name
from solidjq_cli.render import Output, details, lines, note, records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from solidjq import Database
    from solidjq.incidents.incidents import Incident
    from solidjq.recovery.verdicts import Decision
    from solidjq_cli.session import Session

DEFAULT_SINCE = "7d"
MOST_LINES = 20  # lines of a crash's stack
MOST_FACTS = 5

group = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Deaths that belong together: when, where, why, with which jobs."
)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="incidents")


@group.command("list")
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

    found = selection.find_incidents(session.current(database).open(), since, until)
    here = [one for one in found if not host or any(fits(pattern, name) for pattern in host for name in one.hosts)]
    records(reversed(here), columns.incidents(), output, empty=f"no process died since {since}" if not found else "")
    if found and not here:
        hosts = sorted({name for one in found for name in one.hosts})
        for name in host or ():
            note(f"no process is known to have died on host {name} since {since}{suggestion(name, hosts)}")


@group.command("show")
def show_incidents(
    names: Annotated[list[str], typer.Argument(metavar="INCIDENT...", help="As jq incidents list names it.")],
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Show incidents in full: the cause with its facts, a timeline, the jobs in flight, what to do next.

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
        found = {name: find_incident(connection, name) for name in unique}
    known = list({incident.name: incident for incident in found.values() if incident is not None}.values())
    verdicts = {} if output is Output.IDS else _retry_safe(command, opened, known)
    if output is Output.TABLE:
        for number, incident in enumerate(known):
            if number:
                lines([""])
            details([incident], columns.incident_heading(), output)
            lines(_picture(incident))
            lines(_verdicts(verdicts[incident.name]))
    else:
        records(known, columns.incident_details(verdicts), output)
    missing = [name for name, incident in found.items() if incident is None]
    for name in missing:
        note(f"no incident {name}; see: jq incidents list")
    if missing:
        raise typer.Exit(Exit.PARTLY if known else Exit.NO_SUCH_JOB)


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


def _verdicts(decisions: Sequence[Decision] | None) -> Iterator[str]:
    from solidjq.text import count_of

    if decisions is None:
        yield "jq retry --safe: cannot decide here; to see why: jq retry --safe --dry-run"
        return
    if not decisions:
        yield "its jobs: none is failed any more"
        return
    held = [decision for decision in decisions if not decision.verdict.moves]
    going = count_of(len(decisions) - len(held), "job")
    yield f"jq retry --safe: {going} would go back, {len(held)} would be held back"
    for decision in held[:MOST_LINES]:
        yield f"  job {decision.job_id} {decision.candidate.class_name}: {decision.verdict}: {decision.reason}"
    if len(held) > MOST_LINES:
        yield f"  and {len(held) - MOST_LINES} more (-o json)"


def _picture(incident: Incident) -> Iterator[str]:
    from solidjq_cli.timeline import draw

    yield ""
    yield from draw(incident, shutil.get_terminal_size((100, 24)).columns)
    yield ""
    for first, text in _facts(incident):
        yield from _wrapped(first, text)
    for death in incident.deaths:
        if words := death.evidence.get("last_words"):
            # The thread that crashed: the others only waited.
            _, current, rest = str(words).partition("Current thread")
            stack = (current + rest).split("\n\n")[0] or str(words)
            yield f"  the last words of pid {death.pid} (all threads: -o json):"
            yield from (f"    {line}" for line in stack.splitlines()[:MOST_LINES])
    yield from _wrapped("next: ", incident.finding.advice)


def _facts(incident: Incident) -> Iterator[tuple[str, str]]:
    """Yield the facts behind the finding, each with its label."""
    from solidjq.text import count_of

    finding = incident.finding
    yield "", f"{finding.words}: {finding.cause.meaning}"
    yield from (("  because  ", fact) for fact in finding.used[:MOST_FACTS])
    if (left := len(finding.used) - MOST_FACTS) > 0:
        yield "  because  ", f"{count_of(left, 'more fact')} (-o json)"
    sure = Counter(each.confidence.value for each in incident.findings)
    if len(sure) > 1:
        yield "  sure     ", ", ".join(f"{count_of(count, 'process')} {word}" for word, count in sure.most_common())
    yield from (("  unknown  ", fact) for fact in finding.missing[:MOST_FACTS])
    for other in incident.beside:
        processes = count_of(other.processes, "process")
        yield "  beside   ", f"{other.name}: {other.words}, {processes} at the same moment"


def _wrapped(first: str, text: str) -> list[str]:
    """Break a line between words on a terminal; elsewhere leave it whole."""
    from solidjq.text import one_line

    if not sys.stdout.isatty():
        return [first + text]
    width = shutil.get_terminal_size().columns
    indent = " " * len(first)
    return textwrap.wrap(one_line(text), width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
