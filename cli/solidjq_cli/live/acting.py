"""What changes the queue: a command line that runs in a thread, and the screen that shows its plan and asks."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from solidjq_cli.exits import MEANINGS, Exit
from solidjq_cli.live.inner import Printed, Runner, Size
from solidjq_cli.live.painting import content, paint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import ComposeResult

    from solidjq_cli.live.lists import Action

NO = False
MARGIN = 3  # columns that the printed lines leave free: a scroll bar and its gap


class State(Enum):
    """How far an action is."""

    REASON = auto()  # waits for a reason
    READING = auto()  # makes its plan
    ASKING = auto()
    MOVING = auto()
    DONE = auto()


_KEYS = {
    State.REASON: "enter go on, with or without a reason  esc leave",
    State.READING: "esc leave",
    State.MOVING: "q end after this batch",
    State.DONE: "esc back  up, down scroll  q quit",
}


class ActionScreen(ModalScreen["tuple[Action, Printed] | None"]):
    """One action, from its command line to what came of it; the result is None if nothing was begun."""

    AUTO_FOCUS = ""  # what is typed is an answer until a line is asked for
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False),
        Binding("n", "answer(False)", show=False),
        Binding("escape", "leave", show=False),
        Binding("enter", "leave_done", show=False),
        Binding("q", "app.leave", show=False),
    ]

    class Asked(Message):
        """The command asks."""

        def __init__(self, lines: Sequence[str], question: str, name: str | None) -> None:
            super().__init__()
            self.lines, self.question, self.name = lines, question, name

    class Moved(Message):
        """So many jobs were decided on, of so many."""

        def __init__(self, moved: int, total: int | None) -> None:
            super().__init__()
            self.moved, self.total = moved, total

    class Ended(Message):
        """The command has ended."""

        def __init__(self, printed: Printed) -> None:
            super().__init__()
            self.printed = printed

    class ThreadFailed(Message):
        """The thread ended with an error; the program ends with it."""

        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self.error = error

    def __init__(self, runner: Runner, action: Action, reason: str, keep: Callable[[str], None]) -> None:
        """``reason`` is offered, and ``keep`` gets the one that was typed."""
        super().__init__()
        self._runner, self._action, self._reason, self._keep = runner, action, reason, keep
        self._answers: SimpleQueue[bool] = SimpleQueue()
        self._typed_yes: str | None = None  # what must be typed for a yes
        self._ends = False  # nothing more is moved after the batch that is under way
        self._refused = False  # the question was answered with no
        self._result: tuple[Action, Printed] | None = None
        self.state = State.REASON
        self.question = ""

    @property
    def moves(self) -> bool:
        """Whether jobs are being moved."""
        return self.state is State.MOVING

    @property
    def stops(self) -> bool:
        """Whether it was told to end."""
        return self._ends

    def stop(self) -> None:
        """End the command: at its question, or after the batch that is under way."""
        self._ends = True
        if self.state is State.ASKING:
            self._answer(agreed=False)
        self._show("ends after this batch")

    # -- the screen ---------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Draw the command line, what it printed, the question or an input, and the keys."""
        yield Static(id="command")
        with VerticalScroll(id="printed", can_focus=False):
            yield Static(id="lines")
        yield Static(id="question")
        yield Input(id="typed", compact=True)
        yield Static(id="keys")

    def on_mount(self) -> None:
        """Ask for a reason first, where the command takes one."""
        self._show_command()
        if self._action.takes_reason:
            self.query_one("#typed", Input).value = self._reason
            self._turn(State.REASON, "the reason, for the record:", typing=True)
        elif self._action.question is not None:
            self._turn(State.ASKING, self._action.question)
        else:
            self._begin()

    def on_unmount(self) -> None:
        """Let no thread wait for an answer that nobody will give."""
        self._answers.put_nowait(NO)

    def _turn(self, state: State, question: str = "", *, typing: bool = False) -> None:
        self.state, self.question = state, question
        typed = self.query_one("#typed", Input)
        typed.display = typing
        if typing:
            typed.focus()
        else:
            self.set_focus(None)
        self._show(question)
        keys = _KEYS.get(state, f"type {self._typed_yes}, and enter  esc no" if self._typed_yes else "y yes  n no")
        self.query_one("#keys", Static).update(content(keys))

    def _show(self, question: str) -> None:
        self.query_one("#question", Static).update(content(question))

    def _show_command(self) -> None:
        self.query_one("#command", Static).update(content(f"$ {self._runner.command_line(self._action.words)}"))

    def _show_lines(self, lines: Sequence[str]) -> None:
        self.query_one("#lines", Static).update(paint(lines))

    # -- what is typed ------------------------------------------------------------------------------------------------

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the reason, or the name that stands for a yes."""
        event.stop()
        if self.state is State.REASON:
            reason = event.value.strip()
            self._keep(reason)
            self._action = self._action.because(reason)
            self._show_command()
            self._begin()
        elif self.state is State.ASKING:
            self._answer(agreed=event.value.strip() == self._typed_yes)

    def action_answer(self, agreed: bool) -> None:  # noqa: FBT001  (a binding calls it so)
        """Answer the question."""
        if self.state is State.ASKING and self._typed_yes is None:
            self._answer(agreed=agreed)

    def action_leave_done(self) -> None:
        """Go back once all has been said."""
        if self.state is State.DONE:
            self.dismiss(self._result)

    def action_leave(self) -> None:
        """Say no, or go back; jobs that are being moved are not left alone."""
        match self.state:
            case State.REASON | State.READING:
                self._ends = True
                self.dismiss(None)
            case State.ASKING:
                self._answer(agreed=False)
            case State.DONE:
                self.dismiss(self._result)
            case State.MOVING:
                self._show("jobs are being moved; q ends it after this batch")

    def _answer(self, *, agreed: bool) -> None:
        if self._action.question is not None:  # our own question, before the command
            if agreed:
                self._begin()
            else:
                self.dismiss(None)
            return
        self._typed_yes = None
        self._refused = not agreed
        self._turn(State.MOVING if agreed else State.READING, "..." if agreed else "")
        self._answers.put(agreed)

    # -- the command --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        moving = self._action.question is not None
        self._turn(State.MOVING if moving else State.READING, "..." if moving else "makes its plan ...")
        Thread(target=self._work, name="jq top acts", daemon=True).start()

    def _work(self) -> None:
        width, height = self.app.size
        size = Size(max(1, width - MARGIN), height)
        try:
            printed = self._runner.run(self._action.words, size, ask=self._ask, moved=self._note_moved)
        except BaseException as error:  # JQ_DEBUG lets errors pass
            self._send(self.ThreadFailed(error))
            raise
        self._send(self.Ended(printed))

    def _send(self, message: Message) -> None:
        with suppress(RuntimeError):  # the program has ended meanwhile
            self.post_message(message)

    def on_action_screen_thread_failed(self, event: ThreadFailed) -> None:
        """End with the error."""
        raise event.error

    def _ask(self, lines: list[str], question: str, name: str | None) -> bool:
        self._send(self.Asked(lines, question, name))
        return self._answers.get()

    def _note_moved(self, moved: int, total: int | None) -> None:
        if self._ends:
            raise KeyboardInterrupt
        self._send(self.Moved(moved, total))

    def on_action_screen_asked(self, event: Asked) -> None:
        """Show the plan and its question."""
        self._typed_yes = event.name
        self._show_lines(event.lines)
        self.query_one("#typed", Input).value = ""
        self._turn(State.ASKING, event.question, typing=event.name is not None)

    def on_action_screen_moved(self, event: Moved) -> None:
        """Say how far it is."""
        of = "" if event.total is None else f" of {event.total:,}"
        if not self._ends:
            self._show(f"{event.moved:,}{of} ...")

    def on_action_screen_ended(self, event: Ended) -> None:
        """Show what came of it."""
        self._result = (self._action, event.printed)
        if self._refused and event.printed.code in {Exit.DONE, Exit.INTERRUPTED}:
            self.dismiss(None)
            return
        self._show_lines(event.printed.lines)
        code = Exit(event.printed.code)
        self._turn(State.DONE, "done" if code is Exit.DONE else f"exit code {code.value}: {MEANINGS[code]}")
        self.query_one("#printed", VerticalScroll).scroll_end(animate=False)
