"""The other screens of ``jq top``: a text, such as that of one job, and the list of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from solidjq_cli import flow
from solidjq_cli.live import keys
from solidjq_cli.live.painting import content, paint

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from solidjq_cli.live.inner import Printed
    from solidjq_cli.live.lists import Opened

KEYS_OF_TEXT = "esc back  r retry  u undo  g read again  ? keys  q quit"
LABEL = 11  # columns of a key's name


class TextScreen(Screen[None]):
    """What a command line prints, as a page that can be scrolled. ``key`` names the row that was opened."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("home", "scroll(-1000000)", show=False),
        Binding("end", "scroll(1000000)", show=False),
        Binding("pageup,b", "page(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
    ]

    def __init__(self, opened: Opened, command_line: str, of: str, key: str) -> None:
        """``of`` is the name of the row's list, empty for a text that belongs to no row."""
        super().__init__()
        self.opened, self.of, self.key = opened, of, key
        self._command_line = command_line

    def compose(self) -> ComposeResult:
        """Draw the command line, what it printed, a message and the keys."""
        yield Static(content(f"$ {self._command_line}"), id="command")
        with VerticalScroll(id="printed", can_focus=False):
            yield Static("...", id="lines")
        yield Static(id="message")
        yield Static(content(KEYS_OF_TEXT), id="keys")

    def show(self, printed: Printed) -> None:
        """Show what the command printed."""
        self.query_one("#lines", Static).update(paint(printed.lines))

    def action_scroll(self, lines: int) -> None:
        """Scroll by so many lines."""
        self.query_one("#printed", VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        """Scroll by so many pages."""
        scroll = self.query_one("#printed", VerticalScroll)
        scroll.scroll_relative(y=pages * scroll.size.height, animate=False)


class KeysScreen(ModalScreen[None]):
    """Every key with what it does; any key closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.leave", show=False),
        Binding("escape,enter,question_mark,space,backspace", "dismiss", show=False),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
    ]

    def __init__(self, *, read_only: bool) -> None:
        super().__init__()
        self._keys = keys.in_force(read_only=read_only)

    def compose(self) -> ComposeResult:
        """Draw the list."""
        with VerticalScroll(id="printed", can_focus=False):
            yield Static(id="lines")
        yield Static("esc back  up, down scroll", id="keys")

    def on_mount(self) -> None:
        """Write the list for the width that there is."""
        self._write(self.app.size.width)

    def on_resize(self, event: events.Resize) -> None:
        """Write the list for another width."""
        self._write(event.size.width)

    def _write(self, width: int) -> None:
        lines = [
            line
            for shown, meaning in keys.table(self._keys)
            for line in flow.wrap(meaning, width - 1, f"{shown:<{LABEL}}", " " * LABEL)
        ]
        self.query_one("#lines", Static).update(paint(lines))

    def action_scroll(self, lines: int) -> None:
        """Scroll by so many lines."""
        self.query_one("#printed", VerticalScroll).scroll_relative(y=lines, animate=False)
