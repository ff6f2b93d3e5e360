"""``jq top`` in the test's own process, on a terminal that exists only in memory."""

from __future__ import annotations

import asyncio
import io
import re
import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest

from solidjq.database.urls import url_text
from support.commands import run
from support.waiting import PATIENCE

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from textual.pilot import Pilot

    from solidjq_cli.live.app import Top
    from solidjq_cli.live.inner import Runner

Play = Callable[["Live"], Coroutine[Any, Any, None]]


class Live:
    """The program while it runs, and who sits before it."""

    def __init__(self, top: Top, pilot: Pilot[int]) -> None:
        self.top = top
        self.pilot = pilot

    @property
    def lines(self) -> list[str]:
        """What the terminal shows."""
        strips = self.top.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def tries(self) -> int:
        """How often the database was tried since it is away."""
        return int((re.findall(r"tried (\d+) times", " ".join(self.text.split())) or ["1"])[0])

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        await self.press(*({" ": "space", "-": "minus", "=": "equals_sign", "*": "asterisk"}.get(c, c) for c in text))

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for what the program's threads must do."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"never happened: {what}; the screen shows:\n{self.text}")
            await self.pilot.pause(0.01)

    async def shows(self, *parts: str) -> None:
        """Wait until the terminal shows all of these, wherever their lines are broken."""
        wanted = [" ".join(part.split()) for part in parts]
        await self.until(lambda: all(part in " ".join(self.text.split()) for part in wanted), f"it shows {parts}")

    async def begin(self, key: str, reason: str = "") -> None:
        """Begin an action that takes a reason."""
        await self.press(key)
        await self.shows("the reason, for the record:")
        await self.type(reason)
        await self.press("enter")

    async def shows_keys_for(self, width: int) -> None:
        """Wait until the last line is the one of this width."""
        from solidjq_cli.live import keys

        wanted = keys.line(keys.in_force(read_only=self.top.read_only), width)
        await self.until(lambda: self.lines[-1] == wanted, f"the keys fit {width} columns")

    async def reads(self) -> None:
        """Wait until the list has its rows."""
        await self.until(lambda: self.top.pane.keys, "the rows are read")


@pytest.fixture
def sit_before(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``jq top`` on a database and play something before it; return how it ended."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def sit(
        play: Play,
        url: URL | None,
        *options: str,
        size: tuple[int, int] = (80, 24),
        before: tuple[str, ...] = (),
    ) -> int:
        async def played(runner: Runner, interval: float, alive_threshold: float | None) -> int:
            from solidjq_cli.live.app import Top

            top = Top(runner, interval=interval, alive_threshold=alive_threshold)
            async with top.run_test(size=size) as pilot:
                await play(Live(top, pilot))
            return top.return_value or 0

        def run_here(runner: Runner, *, interval: float, alive_threshold: float | None) -> int:
            try:
                return asyncio.run(played(runner, interval, alive_threshold))
            except BaseException as error:
                failures.append(error)
                raise

        failures: list[BaseException] = []  # which the command line would turn into an exit code
        with monkeypatch.context() as patch:
            for stream in ("stdin", "stdout", "stderr"):
                patch.setattr(f"sys.{stream}", Terminal())
            patch.setenv("TERM", "xterm-256color")
            patch.setattr("solidjq_cli.live.app.run", run_here)
            named = [] if url is None else ["--database", url_text(url)]
            code = run([*named, *before, "top", *options])
        for thread in threading.enumerate():  # a read that is under way needs the test's database
            if thread.name.startswith("jq top"):
                thread.join(PATIENCE)
        if failures:
            raise failures[0]
        return code

    return sit
