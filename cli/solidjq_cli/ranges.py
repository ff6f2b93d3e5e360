"""Values of options, in words: which numbers are allowed, and what is wrong with the value that was given."""

from __future__ import annotations

from typing import Any

from typer._click.types import BoolParamType, _NumberRangeBase

# The largest number that a help text names, in either direction; larger ones are the limits of a column.
LARGEST_SHOWN = 1_000_000


def describe_range(self: Any) -> str:
    """Return in words which numbers an option takes, without what is only the limit of a column."""
    least = self.min if self.min and abs(self.min) <= LARGEST_SHOWN else 0
    if self.max is None or self.max > LARGEST_SHOWN:
        return f"{_number(least)} or more" if least else ""
    return f"{_number(least)} to {_number(self.max)}"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def fail(self: Any, message: str, param: Any = None, ctx: Any = None) -> None:
    """Fail because a text is no number, or the number is too small or too large, naming the bound."""
    value, out_of_range, _ = message.partition(" is not in the range ")
    if out_of_range:
        too_small = self.min is not None and float(value) < self.min
        bound = _number(self.min if too_small else self.max)
        message = f"{value} is too {f'small: {bound} or more' if too_small else f'large: {bound} or less'}"
    elif " is not a valid " in message:
        value = message.partition(" is not a valid ")[0]
        message = f"{value} is not a {'whole number' if 'int' in self.name else 'number'}"
    super(_NumberRangeBase, self).fail(message, param, ctx)


def fail_switch(self: Any, message: str, param: Any = None, ctx: Any = None) -> None:
    """Fail because the text of a switch's variable, such as JQ_READ_ONLY, is neither 1 nor 0."""
    value = message.partition(" is not a valid ")[0]
    super(BoolParamType, self).fail(f"{value} is neither 1 nor 0", param, ctx)


def use_words() -> None:
    """Let every option that takes a number, and every variable of a switch, use these words."""
    BoolParamType.fail = fail_switch  # type: ignore[method-assign,assignment]
    _NumberRangeBase._describe_range = describe_range  # type: ignore[method-assign]  # noqa: SLF001
    _NumberRangeBase.fail = fail  # type: ignore[method-assign,assignment]
