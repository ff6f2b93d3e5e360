"""A real browser without a window: open a page, and see what it ran, what it asked for, and whether it overflows."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from support.shells import needs

PROGRAM = "chromium"
MEASURE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Browser:
    """Speaks the DevTools protocol through two pipes: JSON messages, each with a NUL behind it."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._received = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        """Wait for an event that has not come yet."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            part = os.read(self._from, 65536)
            assert part, "the browser ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, page: Path) -> "Page":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable", session)
        self.events.clear()
        self.call("Page.navigate", session, url=page.as_uri())
        self.wait_for("Page.loadEventFired")
        return Page(self, session)


class Page:
    """A page that was opened."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def evaluate(self, expression: str) -> Any:
        answer = self._browser.call("Runtime.evaluate", self._session, expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def overflow(self, width: int) -> int:
        """Return how many pixels of the page lie beyond a window of this width."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._browser.call("Emulation.setDeviceMetricsOverride", self._session, **size)
        return int(self.evaluate(MEASURE))

    def scheme(self, name: str) -> str:
        """Let the page believe that the reader prefers this scheme of colours."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self._browser.call("Emulation.setEmulatedMedia", self._session, features=features)
        return name

    @property
    def requests(self) -> list[str]:
        sent = [each["params"] for each in self._browser.events if each.get("method") == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    @property
    def complaints(self) -> list[Any]:
        """What a console would show: errors of scripts, and what the page's own policy refused."""
        kinds = {
            "Log.entryAdded",
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Page.javascriptDialogOpening",
        }
        return [each["params"] for each in self._browser.events if each.get("method") in kinds]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.call("Page.close", self._session)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start the browser, with a profile of its own in this folder."""
    needs(PROGRAM)
    their_in, to_browser = os.pipe()
    from_browser, their_out = os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    # It reads from descriptor 3 and writes to 4.
    script = f'exec {shutil.which(PROGRAM)} "$@" 3<&{their_in} 4>&{their_out} >/dev/null 2>&1'
    process = subprocess.Popen(["bash", "-c", script, PROGRAM, *options], pass_fds=[their_in, their_out])
    os.close(their_in)
    os.close(their_out)
    try:
        opened = Browser(to_browser, from_browser)
        yield opened
        opened.call("Browser.close")
    finally:
        process.kill()
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
