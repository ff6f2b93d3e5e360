"""The event loop of a worker: all its ``async def`` jobs run on it, in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

BLOCKING = 32  # calls of asyncio.to_thread at once; Python's own limit on a machine with many cores


class EventLoop:
    """An event loop that starts with its first coroutine. Job threads hand it coroutines and wait for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine to its end; raise the exception that it raised."""
        error = asyncio.run_coroutine_threadsafe(_error_of(coroutine), self._running()).result()
        if error is not None:
            raise error

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(ThreadPoolExecutor(BLOCKING, "async job"))
                threading.Thread(target=self._loop.run_forever, name="event loop", daemon=True).start()
            return self._loop


async def _error_of(coroutine: Coroutine[Any, Any, object]) -> BaseException | None:
    """Return the coroutine's exception: if a SystemExit reached the loop, it would end for all other jobs too."""
    try:
        await coroutine
    except BaseException as error:  # noqa: BLE001
        return error
    return None
