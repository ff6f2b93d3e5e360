"""``jq grants``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from solidjq_cli import options, session
from solidjq_cli.render import note


class For(StrEnum):
    """What the role is for; the core's ``Purpose``, which --help must not load."""

    READING = "reading"
    RECOVERING = "recovering"
    INIT = "init"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("grants")(grants)


def grants(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="A PostgreSQL role; a MySQL user, or user@host.")],
    purpose: Annotated[
        For | None, typer.Option("--for", help="What the role shall be allowed.  [default: all three, one by one]")
    ] = None,
    database: options.DatabaseOption = None,
) -> None:
    """Print the least rights that a database role needs, as SQL.

    It connects to nothing and changes nothing; it reads only the URL. The rights for recovering include those for
    reading. A MySQL account without a host is user@%.

    \b
    Examples:
      jq grants oncall --for recovering --database postgres://db.internal/app_production_queue
      jq grants oncall --for reading | psql app_production_queue
      jq grants app@10.0.0.% --for init
    """
    from solidjq.database import grants as core

    purposes = core.Purpose if purpose is None else [core.Purpose(purpose.value)]
    script = core.script(session.current(database).open().url, role, purposes)
    if script:
        typer.echo(script, nl=False)
    else:
        note(core.OF_FILES)
