"""Where ``async def`` jobs run: one event loop for all of a worker's, in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any


class EventLoop:
    """A loop that runs from its first coroutine on; a job thread hands it the coroutine and waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine to its end; raise what it raised."""
        error = asyncio.run_coroutine_threadsafe(_ended(coroutine), self._running()).result()
        if error is not None:
            raise error

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="event loop", daemon=True).start()
            return self._loop


async def _ended(coroutine: Coroutine[Any, Any, object]) -> BaseException | None:
    """Keep every error from the loop: a SystemExit would end it for all the others."""
    try:
        await coroutine
    except BaseException as error:  # noqa: BLE001
        return error
    return None
