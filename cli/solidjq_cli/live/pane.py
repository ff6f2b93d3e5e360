"""The list of ``jq top``: which one is shown, its rows, those that are marked, and its filter."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static

from solidjq_cli.flow import cells
from solidjq_cli.live import lists
from solidjq_cli.live.lists import LISTS, Filter, List, Opened, Shown
from solidjq_cli.live.painting import content, paint, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import ComposeResult

    from solidjq_cli.live.inner import Printed
    from solidjq_cli.pager import Row

MARK = 2  # columns before a row: whether it is marked, or new
NEW = 15.0  # seconds for which a row that came is marked as new
HINT = "words of a row, then options such as --class 'A*' --since 1h"


class Rows(OptionList):
    """A list of rows, each of one line or more."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
    ]


class ListPane(Vertical):
    """One list at a time: the names of all, the command line that it comes from, its heading and its rows."""

    class Changed(Message):
        """Another list is to be read, or the same one with another filter, order or limit."""

    class Chosen(Message):
        """A row was opened, whose text is to be shown."""

        def __init__(self, opened: Opened, of: str, key: str) -> None:
            super().__init__()
            self.opened, self.of, self.key = opened, of, key

    class Notice(Message):
        """The list has a message for the screen."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, command_line: Callable[[Sequence[str]], str]) -> None:
        """``command_line`` writes the words of a command line."""
        super().__init__()
        self._command_line = command_line
        self.shown = Shown(lists.FAILED)
        self._before: list[Shown] = []  # the lists to go back to
        self.keys: list[str] = []  # of the rows that are drawn
        self.marked: set[str] = set()
        self._read: Printed | None = None  # the rows, as they were read last
        self.read_of: Shown | None = None
        self.stale = False  # the rows are to be read again, though their list changes only when somebody acts
        self._came: dict[str, float] = {}  # when each row was seen first

    def compose(self) -> ComposeResult:
        """Draw the lists' names, the heading, the rows, and where a filter is typed."""
        yield Static(id="tabs")
        yield Static(id="head")
        yield Rows(id="rows")
        yield Input(id="filter", compact=True, placeholder=HINT)

    def on_mount(self) -> None:
        """Let the keys move the cursor."""
        self.query_one(Rows).focus()
        self._show_head(["reads ..."])

    # -- which list ---------------------------------------------------------------------------------------------------

    def go(self, shown: Shown, *, back: bool = False) -> None:
        """Show a list; ``back``: the one before can be gone back to."""
        if back:
            self._before.append(self.shown)
        self.shown = shown
        self.marked.clear()
        self._read = self.read_of = None
        self._draw([])
        self._show_head(["reads ..."])
        self.post_message(self.Changed())

    def go_to(self, number: int) -> None:
        """Show the list of this number, from 1 on."""
        self._before.clear()
        self.go(Shown(LISTS[number - 1]))

    def go_on(self, step: int) -> None:
        """Show the list that stands so many steps behind this one."""
        at = LISTS.index(self.shown.of) if self.shown.of in LISTS else 0
        self.go_to((at + step) % len(LISTS) + 1)

    def go_back(self) -> None:
        """End what is typed, or the filter, or leave the list that was opened."""
        if self.types:
            self._end_typing()
        elif self.shown.filter != Filter():
            self._take(replace(self.shown, filter=Filter()))
        elif self._before:
            self.go(self._before.pop())

    def _take(self, shown: Shown) -> None:
        """Show the same list in another way; its rows stay until the others are read."""
        self.shown = shown
        self._redraw()
        self.post_message(self.Changed())

    def sort(self) -> None:
        """Sort by the next field."""
        if len(self.shown.of.sorts) == 1:
            self.post_message(self.Notice(f"{self.shown.of.name} have one order"))
        else:
            self._take(self.shown.sorted_next())

    def read_more(self) -> None:
        """Read more rows."""
        more = self.shown.with_more()
        if more == self.shown:
            self.post_message(self.Notice("no more rows are read; choose among them with /"))
        else:
            self._take(more)

    def list_failed(self) -> None:
        """Show the failed jobs of the row under the cursor."""
        key = self.current
        if key is not None and (shown := self.shown.failed_jobs(key)) is not None:
            self.go(shown, back=True)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open a row."""
        event.stop()
        key = self.keys[event.option_index]
        opened = self.shown.of.opens(key)
        if opened.rows is not None:
            self.go(lists.show_list(opened), back=True)
        else:
            self.post_message(self.Chosen(opened, self.shown.of.name, key))

    # -- the filter ---------------------------------------------------------------------------------------------------

    @property
    def types(self) -> bool:
        """Whether a filter is being typed."""
        return bool(self.query_one("#filter", Input).display)

    def type_filter(self) -> None:
        """Let a filter be typed."""
        typed = self.query_one("#filter", Input)
        typed.value = str(self.shown.filter)
        typed.display = True
        typed.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the filter, or say what is wrong with it."""
        event.stop()
        try:
            chosen = lists.parse_filter(event.value)
        except ValueError as error:
            self.post_message(self.Notice(str(error)))
            return
        self._end_typing()
        self._take(replace(self.shown, filter=chosen))

    def _end_typing(self) -> None:
        self.query_one("#filter", Input).display = False
        self.query_one(Rows).focus()

    # -- rows ---------------------------------------------------------------------------------------------------------

    @property
    def current(self) -> str | None:
        """The key of the row under the cursor; None if there is none."""
        at = self.query_one(Rows).highlighted
        return self.keys[at] if at is not None and at < len(self.keys) else None

    @property
    def chosen(self) -> list[str]:
        """The keys of the rows that are marked, or else of the one under the cursor."""
        if self.marked:
            return [key for key in self.keys if key in self.marked]
        return [] if self.current is None else [self.current]

    def mark(self) -> None:
        """Mark the row under the cursor, or no longer, and go to the next."""
        if (key := self.current) is not None:
            self.marked ^= {key}
            self._redraw()
            self.query_one(Rows).action_cursor_down()

    def mark_all(self) -> None:
        """Mark every row that is shown, or none."""
        self.marked = set() if self.marked >= {*self.keys} else {*self.keys}
        self._redraw()

    def show(self, printed: Printed) -> None:
        """Draw what was read."""
        same_list = self.read_of is not None and replace(self.read_of, limit=0) == replace(self.shown, limit=0)
        came = time.monotonic() if same_list else float("-inf")
        self._came = {row.key: self._came.get(row.key, came) if same_list else came for row in printed.rows.values()}
        self._read, self.read_of, self.stale = printed, self.shown, False
        self._redraw()

    def _redraw(self) -> None:
        """Draw what was read last, as far as the filter's words take it."""
        if self._read is None:
            return
        before, rows, after = _parts(self._read)
        words = self.shown.filter.words
        matching = [row for row in rows if self.shown.filter.takes(plain(" ".join(row.lines)))]
        titles = [" " * MARK + line for line in before[-1:]] if rows else []
        heading = before[:-1] if rows else before
        if words:
            heading.append(f"{len(matching):,} of the {len(rows):,} rows that were read have: {' '.join(words)}")
        self._show_head([*heading, *after, *titles])
        self._draw(matching)

    def _show_head(self, lines: Sequence[str]) -> None:
        self.query_one("#tabs", Static).update(_names(self.shown.of, self.app.size.width))
        words = " ".join(self.shown.filter.words)
        command = f"$ {self._command_line(self.shown.words)}{f'   / {words}' if words else ''}"
        self.query_one("#head", Static).update(paint([command, *lines]))

    def _draw(self, rows: Sequence[Row]) -> None:
        """Draw rows; the cursor stays on its row, and where that is gone, at its place."""
        drawn = self.query_one(Rows)
        at, on, top = drawn.highlighted, self.current, drawn.scroll_offset.y
        keys = [row.key for row in rows]
        self.marked &= {*keys}
        prompts = [self._prompt(row) for row in rows]
        with self.app.batch_update():
            if keys == self.keys and drawn.option_count == len(prompts):
                for number, prompt in enumerate(prompts):
                    if drawn.get_option_at_index(number).prompt != prompt:
                        drawn.replace_option_prompt_at_index(number, prompt)
                return
            drawn.clear_options()
            drawn.add_options(prompts)
            self.keys = keys
            if keys:
                drawn.highlighted = keys.index(on) if on in keys else min(at or 0, len(keys) - 1)
                drawn.scroll_to(y=top, animate=False)
                drawn.scroll_to_highlight()

    def _prompt(self, row: Row) -> Content:
        new = time.monotonic() - self._came.get(row.key, float("-inf")) < NEW
        mark = "* " if row.key in self.marked else "+ " if new else "  "
        return Content("\n").join(
            Content.assemble(" " * MARK if number else mark, content(line)) for number, line in enumerate(row.lines)
        )


def _names(shown: List, width: int) -> Content:
    """Return the names of all lists with their numbers, on as many lines as they need; no name is broken."""
    lines, used = [Content()], 0
    for number, one in enumerate(LISTS, 1):
        name = f" {number} {one.name} "
        if used and used + cells(name) > width:
            lines, used = [*lines, Content()], 0
        lines[-1] = Content.assemble(lines[-1], Content.styled(name, "reverse" if one is shown else ""))
        used += cells(name)
    return Content("\n").join(lines)


def _parts(printed: Printed) -> tuple[list[str], list[Any], list[str]]:
    """Return the lines before the rows, the rows, and the lines after them; without those of the next commands."""
    rows = [row for row in printed.rows.values() if row.key]
    first = min(printed.rows, default=len(printed.lines))
    inside = {at + number for at, row in printed.rows.items() for number in range(len(row.lines))}
    others = [
        (at, line) for at, line in enumerate(printed.lines) if at not in inside and at not in printed.hints and line
    ]
    return [line for at, line in others if at < first], rows, [line for at, line in others if at > first]
