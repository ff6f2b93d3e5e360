"""What every command with an output has: the options that shape it, added when the command is loaded; page and watch.

A command whose output is a screen says so with ``@screen()``: it is one page then, and can be watched. ``sort=True``
is for a list, which can be sorted by a field.
"""

from __future__ import annotations

import sys
import time
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import typer
from typer.core import TyperOption

from solidjq_cli import pager, session, view
from solidjq_cli.exits import Exit, line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Function = TypeVar("Function", bound="Callable[..., None]")

POLL = 2.0  # seconds between two drawings, at least
SHARE = 4  # a screen that takes long is drawn less often: it takes a fifth of the time


class Screen(NamedTuple):
    """What a command's screen allows."""

    watch: bool
    sort: bool


def screen(*, watch: bool = True, sort: bool = False) -> Callable[[Function], Function]:
    """Mark a command whose output is one screen; ``watch``: with ``--watch``, ``sort``: with ``--sort``."""

    def mark(command: Function) -> Function:
        command.__dict__["screen"] = Screen(watch, sort)
        return command

    return mark


def shows_arguments(command: Function) -> Function:
    """Mark a command that prints jobs' arguments, some of them masked: it gets ``--show-arguments``."""
    command.__dict__["shows_arguments"] = True
    return command


def complete(command: Any) -> None:
    """Give a loaded command the options of its output, and let it print pages."""
    names = [param.name for param in command.params]
    if "output" not in names:
        return
    marked: Screen | None = getattr(command.callback, "screen", None)
    added = [_FIELDS, _LOCAL, _NO_PAGER] + [_SHOW_ARGUMENTS] * getattr(command.callback, "shows_arguments", False)
    if marked is not None:
        added += [_SORT] * marked.sort + [_WATCH] * (marked.watch and "watch" not in names)
        command.callback = _shown(command.callback)
    at = names.index("output") + 1
    command.params[at:at] = [make() for make in added]


def _shown(callback: Callable[..., None]) -> Callable[..., None]:
    @wraps(callback)
    def run(**values: Any) -> None:
        if view.current().watch:
            _watch(callback, values)
        else:
            with pager.page():
                callback(**values)

    return run


# -- watching ---------------------------------------------------------------------------------------------------------


def _watch(callback: Callable[..., None], values: dict[str, Any]) -> None:
    """Draw a screen again and again, until Ctrl-C; the last picture stays on the terminal."""
    from solidjq.errors import DatabaseError, UsageError  # noqa: PLC0415

    if values.get("output") is not view.Output.TABLE or view.host() is not None or not sys.stdout.isatty():
        raise UsageError("--watch draws a table on a terminal again and again; without --watch it is shown once")
    lines: list[str] = []
    sys.stdout.write("\x1b[?1049h\x1b[2J")
    try:
        while True:
            began = time.monotonic()
            with pager.captured() as capture:
                lines = capture.lines
                try:
                    callback(**values)
                except typer.Exit:  # nothing to see, as yet
                    pass
                except DatabaseError as error:  # it may come back
                    pager.write(line_of(str(error)))
            _draw(lines)
            session.close()  # no connection is kept from others meanwhile
            time.sleep(max(POLL, SHARE * (time.monotonic() - began)))
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    finally:
        sys.stdout.write("\x1b[?1049l")
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()


def _draw(lines: Sequence[str]) -> None:
    room = view.height() - 1
    shown = list(lines) if len(lines) <= room else [*lines[: room - 1], f"... {len(lines) - room + 1:,} more lines"]
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J")
    sys.stdout.flush()


# -- the options ------------------------------------------------------------------------------------------------------


def _option(name: str, text: str, store: Callable[[Any], None], **settings: Any) -> Callable[[], TyperOption]:
    def take(_context: Any, _param: Any, value: Any) -> None:
        if value:
            store(value)

    return lambda: TyperOption(param_decls=[name], help=text, expose_value=False, callback=take, **settings)


def _take_fields(text: str) -> None:
    view.current().fields = tuple(filter(None, (part.strip() for part in text.split(","))))


def _take_sort(text: str) -> None:
    view.current().sort = text


def _take_local(_: object) -> None:
    view.current().local = True


def _take_no_pager(_: object) -> None:
    view.current().paged = False


def _take_show_arguments(_: object) -> None:
    view.current().show_arguments = True


def _take_watch(_: object) -> None:
    view.current().watch = True


_FLAG: dict[str, Any] = {"is_flag": True, "default": False, "show_default": False}
_FIELDS = _option(
    "--fields", "Only these fields, in this order; a wrong one names all.", _take_fields, metavar="A,B", type=str
)
_SORT = _option("--sort", "Sort by this field; -FIELD for descending.", _take_sort, metavar="FIELD", type=str)
_LOCAL = _option("--local", "In a table, clock times of your zone instead of ages.", _take_local, **_FLAG)
_NO_PAGER = _option("--no-pager", "Print what is longer than the screen without $PAGER.", _take_no_pager, **_FLAG)
_SHOW_ARGUMENTS = _option(
    "--show-arguments", "Show arguments as they are, passwords too.", _take_show_arguments, **_FLAG
)
_WATCH = _option("--watch", "On a terminal, draw it again every 2 seconds, until Ctrl-C.", _take_watch, **_FLAG)


def take_output(context: typer.Context, param: Any, value: view.Output) -> view.Output:
    """Note whether the format was typed; return ``TABLE`` for ``WIDE``."""
    source = context.get_parameter_source(param.name)
    wanted = view.current()
    wanted.typed = source is not None and source.name != "DEFAULT" and value in {view.Output.TABLE, view.Output.WIDE}
    wanted.wide = value is view.Output.WIDE
    return view.Output.TABLE if wanted.wide else value
