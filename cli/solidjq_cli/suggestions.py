"""What was meant: suggestions in the messages about a mistyped command, option or number."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typer._click.exceptions import NoSuchOption, UsageError
from typer._click.types import _NumberRangeBase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_SUGGESTIONS = 3
# The largest number that a help text names; larger ones are the limits of a column.
LARGEST_SHOWN = 1_000_000
_FORMATS = ("json", "ndjson", "csv", "ids", "table")
_ANY_FORMAT = ("format", "yaml", "tsv")


@contextmanager
def for_command(word: str, commands: Mapping[str, Any]) -> Iterator[None]:
    """Name the commands of groups that are called so: ``list`` stands in ``failed list``."""
    try:
        yield
    except UsageError as error:
        below = [f"'{group} {word}'" for group in commands if word in getattr(commands[group], "commands", {})]
        if below:
            error.message = f"No such command {word!r}. Did you mean {', '.join(below[:MOST_SUGGESTIONS])}?"
        raise


@contextmanager
def for_option() -> Iterator[None]:
    """Name the option for a format: ``-o json`` where ``--json`` was written."""
    try:
        yield
    except NoSuchOption as error:
        name = error.option_name.removeprefix("--")
        has_output = error.ctx is not None and any(param.name == "output" for param in error.ctx.command.params)
        if has_output and name in _FORMATS:
            error.possibilities = [f"-o {name}"]
        elif has_output and name in _ANY_FORMAT:
            error.possibilities = [f"-o {'|'.join(_FORMATS)}"]
        raise


def describe_range(self: Any) -> str:
    """Return in words which numbers an option takes, without what is only the limit of a column."""
    if self.max is None or self.max > LARGEST_SHOWN:
        return "" if not self.min else f"{self.min:g} or more"
    return f"{self.min or 0:g} to {self.max:g}"


def fail(self: Any, message: str, param: Any = None, ctx: Any = None) -> None:
    """Fail because a number is too small or too large, naming the bound."""
    value, out_of_range, _ = message.partition(" is not in the range ")
    if out_of_range:
        too_small = self.min is not None and float(value) < self.min
        bound = int(self.min if too_small else self.max)
        message = f"{value} is too {f'small: {bound:,} or more' if too_small else f'large: {bound:,} or less'}"
    super(_NumberRangeBase, self).fail(message, param, ctx)


_NumberRangeBase._describe_range = describe_range  # type: ignore[method-assign]  # noqa: SLF001
_NumberRangeBase.fail = fail  # type: ignore[method-assign,assignment]
