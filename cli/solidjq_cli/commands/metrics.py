"""``jq metrics``: for Prometheus."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import options, session
from solidjq_cli.exits import Exit
from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Callable

    from solidjq import Database
    from solidjq.monitoring.families import Family
    from solidjq.monitoring.scrape import ScrapeTerms


class Format(StrEnum):
    """The formats that Prometheus reads, as in solidjq.monitoring.exposition."""

    OPENMETRICS = "openmetrics"
    PROMETHEUS = "prometheus"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("metrics")(metrics)


def metrics(
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="PATH", help="Write them into this file, for node_exporter: metrics/jq.prom."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Serve them at /metrics: 127.0.0.1:9394. Until Ctrl-C."),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", help="How to write them.  [default: openmetrics; with --file prometheus]", show_default=False
        ),
    ] = None,
    most_queues: Annotated[
        int,
        typer.Option("--max-queues", metavar="N", min=1, max=10_000, help="Queues with a label of their own."),
    ] = 100,
    alive_threshold: options.AliveThresholdOption = None,
    config_file: options.ConfigOption = None,
    database: options.DatabaseOption = None,
) -> None:
    """Print metrics for Prometheus: once, to a file, or served.

    What stands in Solid Queue's tables is named solid_queue_..., what jq knows besides jq_.... No job runs for it: an
    exporter that is a job falls silent when the workers die. A part that cannot be read within a second is left out,
    and jq_scrape_success is 0 for it; if the database is away, solid_queue_up is 0.

    --file writes beside the file and renames it, so that no reader sees half of it. --listen has no password: listen on
    127.0.0.1, or where only Prometheus can connect. With --listen, the format is the one that the client asks for.

    \b
    Examples:
      jq metrics
      jq metrics --file /var/lib/prometheus/node-exporter/jq.prom
      jq metrics --listen 127.0.0.1:9394
    """
    from solidjq.errors import UsageError
    from solidjq.monitoring.exposition import MetricsFormat, write
    from solidjq.monitoring.scrape import ScrapeTerms, is_up, scrape
    from solidjq.settings.promises import load_promises

    if file is not None and listen is not None:
        raise UsageError("--file and --listen are two ways to hand out the metrics; leave one out")
    if form is not None and listen is not None:
        raise UsageError("with --listen, each client gets the format that it asks for; leave --format out")
    command = session.current(database, config_file)
    terms = ScrapeTerms(
        threshold=command.alive_threshold(alive_threshold),
        promises=load_promises(command.settings),
        most_queues=most_queues,
    )
    opened = command.open(watch=False, answer_timeout=ANSWERS)
    if listen is not None:
        _serve(opened, terms, *_address(listen))
        return
    families = scrape(opened, terms)
    form = form or (Format.OPENMETRICS if file is None else Format.PROMETHEUS)
    text = write(families, MetricsFormat(form.value))
    if file is None:
        typer.echo(text, nl=False)
    else:
        _write(file, text)
    if not is_up(families):
        opened.now()  # which says why
        note("the database could not be read a moment ago: solid_queue_up is 0")
        raise typer.Exit(Exit.DATABASE)


ANSWERS = 5.0  # seconds until a server that does not answer counts as unreachable


def _write(path: Path, text: str) -> None:
    from solidjq.errors import UsageError
    from solidjq.files import replaced

    try:
        with replaced(path, mode=0o644) as file:  # node_exporter is another user
            file.write(text.encode())
    except OSError as error:
        raise UsageError(f"--file {path} cannot be written: {error.strerror}") from None


def _address(text: str) -> tuple[str, int]:
    from solidjq.errors import UsageError

    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or len(port) > len(str(MOST_PORT)) or int(port) > MOST_PORT:
        raise UsageError(f"--listen {text}: write an address and a port, such as 127.0.0.1:9394 or [::1]:9394")
    return host, int(port)


MOST_PORT = 65535


def _serve(database: Database, terms: ScrapeTerms, host: str, port: int) -> None:
    from solidjq.errors import UsageError
    from solidjq.monitoring.exposition import MetricsFormat, write
    from solidjq.monitoring.scrape import scrape
    from solidjq.text import one_line
    from solidjq_cli.metrics_server import serve

    def read() -> Callable[[str], str]:
        families: list[Family] = scrape(database, terms)
        return lambda form: write(families, MetricsFormat(form))

    try:
        serve(host, port, read, lambda url: note(f"serving metrics of {database} at {url}"))
    except KeyboardInterrupt:  # or SIGTERM: that is how it ends
        return
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        words = getattr(error, "strerror", None) or one_line(str(error))
        raise UsageError(f"--listen {host}:{port}: cannot listen there: {words}") from None
