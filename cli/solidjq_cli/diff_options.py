"""The options of ``jq failed diff``, apart from what it computes: its help and the other commands load this alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from solidjq_cli.options import OptionGroup

TABLE_LIMIT = 20
SIDES = 2  # of one comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeOptions(OptionGroup):
    """The two times to compare."""

    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="TIME",
            help="Compare --since .. now with the time before it: 24h long, or from a time on.",
        ),
    ] = None
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="TIME",
            help="For a deploy: compare TIME .. now with the same length of time before it.",
        ),
    ] = None
    before: Annotated[
        str | None,
        typer.Option(
            "--before", metavar="TIME", help="With --after: the earlier time ends here, when the deploy began."
        ),
    ] = None

    @property
    def names_any(self) -> bool:
        """Whether times are compared."""
        return self.against is not None or self.after is not None
