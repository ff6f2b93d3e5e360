"""The program of ``jq top``: its reads, its messages, and the actions of its keys."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Static

from solidjq_cli.exits import Exit
from solidjq_cli.live import keys, lists
from solidjq_cli.live.acting import ActionScreen
from solidjq_cli.live.inner import Printed, Runner, Size
from solidjq_cli.live.lists import LISTS, Action, List, Opened, Shown
from solidjq_cli.live.painting import content, fit, paint, plain
from solidjq_cli.live.pane import MARK, ListPane
from solidjq_cli.live.polling import Poller
from solidjq_cli.live.screens import KeysScreen, TextScreen
from solidjq_cli.live.style import CSS

if TYPE_CHECKING:
    from textual.app import ComposeResult

BAR = 1  # columns of the scroll bar
STATUS_SHARE = 4  # of the screen, and a line: how much the status may take
SLOW = 3.0  # seconds of a read, after which a message says that the screen waits for the database
NOTICE_TIME = 10.0  # seconds for which a notice stays
NEVER = float("-inf")
_PRIORITY = {"tab", "shift+tab", "ctrl+c"}  # before Textual's own meaning


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What the reading thread reads next: a list, and the text that is open."""

    shown: Shown
    size: Size
    text: Opened | None  # the text that is open, if it is read again and again


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage of the database: when it began, how many reads failed, and the last error."""

    since: float
    tries: int
    error: str


class Top(App[int]):
    """``jq top``; what it returns is the exit code."""

    CSS = CSS
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key.names, key.action, priority=key.names in _PRIORITY) for key in keys.KEYS if key.action),
        *(Binding(str(number), f"list({number})", show=False) for number in range(1, len(LISTS) + 1)),
        Binding("ctrl+q", "nothing", show=False, priority=True),  # q alone ends it
        Binding("ctrl+z", "suspend_process", show=False),
    ]

    class Read(Message):
        """The reading thread has ended a read."""

        def __init__(
            self, request: ReadRequest, status: Printed | None, rows: Printed | None, text: Printed | None
        ) -> None:
            super().__init__()
            self.request, self.status, self.rows, self.text = request, status, rows, text

    class TextRead(Message):
        """A text was read."""

        def __init__(self, screen: TextScreen, printed: Printed) -> None:
            super().__init__()
            self.screen, self.printed = screen, printed

    class ThreadFailed(Message):
        """A thread ended with an error, which only JQ_DEBUG lets pass; the program ends with it."""

        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self.error = error

    def __init__(self, runner: Runner, *, interval: float, alive_threshold: float | None = None) -> None:
        super().__init__(ansi_color=True)
        self.runner = runner
        self.read_only = runner.read_only
        self.pane = ListPane(lambda words: runner.command_line(words, short=True))
        self.frozen = False
        self.last_operation: int | None = None  # that was made here, and can be taken back
        self._interval = interval
        self._threshold = () if alive_threshold is None else (f"--alive-threshold={alive_threshold:g}",)
        self._poller = Poller(self._read, interval)
        self._request: ReadRequest | None = None
        self._status: Printed | None = None
        self._status_at = NEVER
        self._began: float | None = None  # when the read that is under way began
        self._outage: Outage | None = None
        self._notice = ("", NEVER)
        self._reason = ""  # that was typed last

    # -- the screen ---------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Draw the status, the list, a message and the keys."""
        yield Static("reads the queue ...", id="status")
        yield self.pane
        yield Static(id="message")
        yield Static(id="keys")

    def on_mount(self) -> None:
        """Begin to read."""
        self._show_keys()
        self._request_read()
        self._poller.start()
        self.set_interval(1.0, self._show_message)
        for number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not where another thread runs the program
                asyncio.get_running_loop().add_signal_handler(number, self.exit, int(Exit.INTERRUPTED))

    def on_unmount(self) -> None:
        """End the thread that reads."""
        self._poller.stop()

    def on_resize(self) -> None:
        """Draw for the new size, which counts as soon as Textual has taken it."""
        self.call_later(self._resized)

    def _resized(self) -> None:
        self._show_keys()
        self._show_status()
        if isinstance(self.screen, TextScreen):
            self._read_text(self.screen)
        self._refresh(status=True)

    @property
    def _main(self) -> Any:
        return self.screen_stack[0]

    def _show_keys(self) -> None:
        line = keys.line(keys.in_force(read_only=self.read_only), self.size.width)
        self._main.query_one("#keys", Static).update(content(line))

    def _show_status(self) -> None:
        if self._status is None:
            return
        lines = [line for at, line in enumerate(self._status.lines) if at not in self._status.hints]
        shown = fit(lines, self.size.height // STATUS_SHARE + 1, "0 shows all")
        self._main.query_one("#status", Static).update(paint(shown))

    # -- messages -----------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Show a message for a while."""
        self._notice = (text, time.monotonic())
        self._show_message()

    def message(self) -> str:
        """Return the message for now, the most urgent first: an outage, a slow read, a notice, a frozen screen."""
        now = time.monotonic()
        if self._outage is not None:
            tries = "once" if self._outage.tries == 1 else f"{self._outage.tries} times"
            away = f"{now - self._outage.since:.0f} s"
            return f"no answer for {away}, tried {tries}, tries again: {self._outage.error}"
        if self._began is not None and now - self._began > SLOW:
            return f"waits for the database, {now - self._began:.0f} s"
        text, at = self._notice
        if text and now - at < NOTICE_TIME:
            return text
        return "frozen; p goes on" if self.frozen else ""

    def _show_message(self) -> None:
        for screen in self.screen_stack if self.is_running else ():
            for static in screen.query("#message").results(Static):
                static.update(content(self.message()))

    def on_list_pane_notice(self, event: ListPane.Notice) -> None:
        """Show the message of the list."""
        self.say(event.text)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _refresh(self, *, status: bool = False) -> None:
        """Read at once; ``status``: the status, too, however fresh it is."""
        if status:
            self._status_at = NEVER
        self._request_read()
        self._poller.again()

    def _request_read(self) -> None:
        """Describe the next read; the reading thread takes the description."""
        text = self.screen.opened if isinstance(self.screen, TextScreen) and self.screen.opened.lives else None
        width, height = self.size
        self._request = ReadRequest(self.pane.shown, Size(max(1, width - BAR), height), text)

    def _read(self) -> None:
        """Read in the polling thread: the status, unless it is fresh, and the text that is open, or the list."""
        if (request := self._request) is None:
            return
        self._began = time.monotonic()
        status = rows = text = None
        try:
            if self._began - self._status_at >= self._interval:
                status = self.runner.run(("status", *self._threshold), request.size)
                self._status_at = time.monotonic()
            if status is None or not status.away:
                if request.text is not None:
                    text = self.runner.run(request.text.words, request.size)
                elif request.shown.of.lives or self.pane.stale or self.pane.read_of != request.shown:
                    rows = self._read_rows(request)
        except BaseException as error:  # JQ_DEBUG lets errors pass
            self.send(self.ThreadFailed(error))
            raise
        finally:
            self._began = None
        self.send(self.Read(request, status, rows, text))

    def _read_rows(self, request: ReadRequest) -> Printed:
        of = request.shown.of
        words = (*request.shown.words, *(self._threshold if of.name == "processes" else ()))
        return self.runner.run(words, Size(max(1, request.size.width - MARK), request.size.height), key=of.key)

    def send(self, message: Message) -> None:
        """Send a message from a thread to the screen; nobody is there any more if the program has ended meanwhile."""
        with suppress(RuntimeError):
            self.post_message(message)

    def on_top_thread_failed(self, event: ThreadFailed) -> None:
        """End with the error."""
        raise event.error

    def on_top_read(self, event: Read) -> None:
        """Draw what was read, unless the program is ending: then there is nothing to draw it in."""
        if not self.screen_stack or not self._main.query("#status"):
            return
        read = [printed for printed in (event.status, event.rows, event.text) if printed is not None]
        if read:
            self._note_away(next((printed for printed in read if printed.away), None))
        if event.status is not None and not event.status.away:
            self._status = event.status
            self._show_status()
        if event.text is not None and not event.text.away and isinstance(self.screen, TextScreen):
            self.screen.show(event.text)
        if event.rows is not None and not event.rows.away and event.request.shown == self.pane.shown:
            self.pane.show(event.rows)
        self._show_message()

    def _note_away(self, away: Printed | None) -> None:
        now = time.monotonic()
        if away is not None:
            since, tries = (now, 0) if self._outage is None else (self._outage.since, self._outage.tries)
            words = plain(away.lines[-1]) if away.lines else ""
            self._outage = Outage(since, tries + 1, words.partition(": ")[2] or words)
        elif self._outage is not None:
            self.say(f"the database answers again, after {now - self._outage.since:.0f} s")
            self._outage = None

    # -- lists --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Whether a key counts where it is typed: those of the list not in a text, and none in what is typed."""
        on_list = len(self.screen_stack) <= 1 and not (self.pane.is_mounted and self.pane.types)
        if action in _ON_LIST:
            return on_list
        if action in {"switch", "retry", "undo", "keys", "freeze", "again"}:
            return on_list or isinstance(self.screen, TextScreen)
        return True

    def on_list_pane_changed(self) -> None:
        """Read the list that is shown now."""
        self._refresh()

    def on_list_pane_chosen(self, event: ListPane.Chosen) -> None:
        """Show the text of a row."""
        self._open(event.opened, event.of, event.key)

    def action_list(self, number: int) -> None:
        """Show the list of this number."""
        self.pane.go_to(number)

    def action_next_list(self, step: int) -> None:
        """Show the next list, or the one before."""
        self.pane.go_on(step)

    def action_filter(self) -> None:
        """Let a filter be typed."""
        self.pane.type_filter()

    def action_sort(self) -> None:
        """Sort by the next field."""
        self.pane.sort()

    def action_more(self) -> None:
        """Read more rows."""
        self.pane.read_more()

    def action_failed(self) -> None:
        """List the failed jobs of the row."""
        self.pane.list_failed()

    def action_mark(self) -> None:
        """Mark the row, or no longer."""
        self.pane.mark()

    def action_mark_all(self) -> None:
        """Mark every row that is shown, or none."""
        self.pane.mark_all()

    def action_go_back(self) -> None:
        """Leave the text, the filter, or the list that was opened."""
        if isinstance(self.screen, TextScreen):
            self.pop_screen()
            self._refresh()
        else:
            self.pane.go_back()

    # -- texts --------------------------------------------------------------------------------------------------------

    def action_status(self) -> None:
        """Show the whole status."""
        self._open(Opened(("status", *self._threshold), lives=True), "", "")

    def _open(self, opened: Opened, of: str, key: str) -> None:
        screen = TextScreen(opened, self.runner.command_line(opened.words, short=True), of, key)
        self.push_screen(screen)
        self._read_text(screen)
        self.call_after_refresh(self._request_read)

    def _read_text(self, screen: TextScreen) -> None:
        width, height = self.size
        size = Size(max(1, width - BAR), height)

        def read() -> None:
            try:
                printed = self.runner.run(screen.opened.words, size)
            except BaseException as error:
                self.send(self.ThreadFailed(error))
                raise
            self.send(self.TextRead(screen, printed))

        Thread(target=read, name="jq top opens", daemon=True).start()

    def on_top_text_read(self, event: TextRead) -> None:
        """Show the text, if its screen is still open."""
        if event.screen in self.screen_stack:
            event.screen.show(event.printed)

    # -- what changes the queue ---------------------------------------------------------------------------------------

    def action_retry(self) -> None:
        """Retry the failed jobs of the rows, or of the text that is open."""
        of, chosen = self._subject()
        self._act(None if of is None else lists.retry(of, chosen), "there is no failed job to retry here")

    def action_switch(self, verb: str) -> None:
        """Pause the queues, or resume them."""
        of, chosen = self._subject()
        nothing = "queues are paused and resumed in their list: 4"
        self._act(lists.switch(verb, chosen) if of is lists.QUEUES else None, nothing)

    def action_undo(self) -> None:
        """Take back the operation of the row, or the last one that was made here."""
        of, chosen = self._subject()
        operation = chosen[0] if of is lists.OPERATIONS and len(chosen) == 1 else self.last_operation
        nothing = "nothing was done here yet; to take back another operation, choose it in its list: 6"
        self._act(None if operation is None else lists.undo(operation), nothing)

    def _subject(self) -> tuple[List | None, list[str]]:
        """Return which list a key is for, and which of its rows."""
        if isinstance(self.screen, TextScreen):
            return lists.BY_NAME.get(self.screen.of), [self.screen.key]
        return self.pane.shown.of, self.pane.chosen

    def _act(self, action: Action | None, nothing: str) -> None:
        """Begin an action; say ``nothing`` if there is none."""
        if self.read_only:
            self.say("the database is opened read-only; nothing can be changed")
        elif action is None:
            self.say(nothing)
        else:
            self.push_screen(ActionScreen(self.runner, action, self._reason, self._keep), self._acted)

    def _keep(self, reason: str) -> None:
        self._reason = reason

    def _acted(self, done: tuple[Action, Printed] | None) -> None:
        """Go on after an action; None: nothing was begun."""
        if done is None:
            self.say("nothing was changed")
        elif done[1].operations:
            self.pane.marked.clear()
            takes_back = done[0].words[0] == "retry"
            self.last_operation = done[1].operations[-1] if takes_back else None
            self.say(f"operation {done[1].operations[-1]}{'; u takes it back' if takes_back else ''}")
        if isinstance(self.screen, TextScreen):
            self._read_text(self.screen)
        self._refresh(status=True)

    # -- the rest -----------------------------------------------------------------------------------------------------

    def action_freeze(self) -> None:
        """Freeze the screen, or go on."""
        self.frozen = not self.frozen
        self._poller.freeze(frozen=self.frozen)
        self._show_message()

    def action_again(self) -> None:
        """Read at once."""
        if isinstance(self.screen, TextScreen):
            self._read_text(self.screen)
        self.pane.stale = True
        self._refresh(status=True)

    def action_keys(self) -> None:
        """Show every key."""
        self.push_screen(KeysScreen(read_only=self.read_only))

    def action_nothing(self) -> None:
        """Do nothing: a key of Textual that has no meaning here."""

    def action_leave(self) -> None:
        """End, or while jobs are moved, end that after its batch."""
        self._leave(Exit.DONE)

    def action_interrupt(self) -> None:
        """End as Ctrl-C does."""
        self._leave(Exit.INTERRUPTED)

    def _leave(self, code: Exit) -> None:
        acting = self.screen
        if isinstance(acting, ActionScreen) and acting.moves and not acting.stops:
            acting.stop()
        else:
            self.exit(int(code))


_ON_LIST = {
    *("list", "next_list", "filter", "sort", "more", "failed", "mark", "mark_all", "status"),
}


def run(runner: Runner, *, interval: float, alive_threshold: float | None) -> int:
    """Show the queue until somebody leaves; return the exit code."""
    # Without the mouse, a terminal's own way to select and copy text works.
    code = Top(runner, interval=interval, alive_threshold=alive_threshold).run(mouse=False)
    return int(Exit.UNEXPECTED) if code is None else code
