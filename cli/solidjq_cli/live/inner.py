"""Runs a command line within ``jq top``: what it prints is kept, and what it asks goes to the program's screen."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import typer
from typer._click.core import ParameterSource
from typer._click.exceptions import ClickException

from solidjq_cli import exits, pager, session, suggestions, view
from solidjq_cli.arguments import program_name
from solidjq_cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from solidjq_cli.pager import Row

Ask = Callable[[list[str], str, str | None], bool]


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command printed, how it ended, and which operations it recorded."""

    lines: tuple[str, ...]
    rows: Mapping[int, Row]  # of its tables, each by the place of its first line
    hints: frozenset[int]  # the places of the lines that name the next commands
    code: int
    operations: tuple[int, ...] = ()

    @property
    def away(self) -> bool:
        """Whether the database could not be reached, or refused."""
        return self.code == Exit.DATABASE


@dataclass(frozen=True, slots=True)
class Size:
    """The columns and lines that a command may fill."""

    width: int
    height: int


def _refuse(_lines: list[str], _question: str, _name: str | None) -> bool:
    return False


def _ignore(_moved: int, _total: int | None) -> None:
    pass


class Runner:
    """Runs command lines, each in a session of its own that connects as ``jq top`` does. Any thread may run one."""

    def __init__(self, context: typer.Context, connecting: session.Connecting) -> None:
        self._root = context.find_root()
        self._connecting = connecting
        self._before = tuple(_typed_before(self._root, connecting))
        self._lock = Lock()

    @property
    def read_only(self) -> bool:
        """Whether the options or the profile open the database read-only."""
        return session.Session(self._connecting).connecting.read_only

    def command_line(self, words: Sequence[str], *, short: bool = False) -> str:
        """Return a command line as an operator types it; ``short``: without the options that name the database."""
        from solidjq.text import one_line  # noqa: PLC0415

        return one_line(shlex.join([program_name(), *(() if short else self._before), *words]))

    def run(
        self,
        words: Sequence[str],
        size: Size,
        *,
        key: str = "",
        ask: Ask = _refuse,
        moved: Callable[..., None] = _ignore,
    ) -> Printed:
        """Run a command line; whatever goes wrong is among the lines, as it would be on a terminal.

        ``key`` is the field that is the key of each row of its table. ``ask`` gets what was printed so far, the
        question, and the name that must be typed for a yes. ``moved`` gets how many jobs were decided on, of how many.
        """
        return copy_context().run(self._run, words, size, key, ask, moved)

    def _run(self, words: Sequence[str], size: Size, key: str, ask: Ask, moved: Callable[..., None]) -> Printed:
        with pager.captured() as capture:
            view.begin(
                paged=False,
                host=view.Host(
                    words=(*self._before, *words),
                    width=size.width,
                    height=size.height,
                    ask=lambda question, name: ask(list(capture.lines), question, name),
                    say=capture.write,
                    moved=moved,
                    headed=bool(key),
                    key=key,
                ),
            )
            session.begin(self._connecting)
            code = self._invoke(list(words))
            operations = self._end(interrupted=code == Exit.INTERRUPTED)
        return Printed(tuple(capture.lines), capture.rows, frozenset(capture.hints), code, operations)

    def _invoke(self, words: list[str]) -> int:
        name, *rest = words
        try:
            with self._lock:  # loading a command is for one thread
                command: Any = self._root.command.commands[name]  # type: ignore[attr-defined]
            with command.make_context(name, rest, parent=self._root) as own:
                command.invoke(own)
        except typer.Exit as leaving:
            return leaving.exit_code
        except ClickException as error:
            return suggestions.report(error)
        except (KeyboardInterrupt, typer.Abort):
            return Exit.INTERRUPTED
        except Exception as error:  # noqa: BLE001  (the ladder of a command ends here)
            return exits.report(error, session.source())
        return Exit.DONE

    def _end(self, *, interrupted: bool) -> tuple[int, ...]:
        """Seal what was recorded and close the databases; return the ids of the operations."""
        try:
            session.seal(interrupted=interrupted)
        except Exception as error:  # noqa: BLE001  (what was done is done, and its exit code says so)
            exits.report(error)
        recorded = session.recorded_operations()
        session.close()
        return recorded


def _typed_before(root: Any, connecting: session.Connecting) -> list[str]:
    """Return the options that were typed before the command, and the database where it was typed behind it."""
    from solidjq.text import mask_argument  # noqa: PLC0415

    words: list[str] = []
    for param in root.command.params:
        value = root.params.get(param.name)
        if root.get_parameter_source(param.name) is not ParameterSource.COMMANDLINE or not param.expose_value:
            continue
        option = max(param.opts, key=len)
        words += [option] if value is True else [option, str(value)] if value not in {None, False} else []
    if connecting.database is not None and "--database" not in words:
        words += ["--database", connecting.database]
    if connecting.file is not None and "--config" not in words:
        words += ["--config", str(connecting.file)]
    return [mask_argument(word) for word in words]
