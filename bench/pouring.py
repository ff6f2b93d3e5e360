"""Enqueuing at a rate: so many jobs a second, or as many as a few connections together can."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

SENDERS = 8  # connections


async def by_tasks(count: int, rate: float, sends: Sequence[Callable[[float], Awaitable[object]]]) -> float:
    """Enqueue through each of ``sends``, which gets the time of its call; return the seconds it took."""
    numbers, start = iter(range(count)), time.time()

    async def run(send: Callable[[float], Awaitable[object]]) -> None:
        for number in numbers:
            await asyncio.sleep(max(0.0, start + number / rate - time.time()))
            await send(time.time())

    await asyncio.gather(*(run(send) for send in sends))
    return time.time() - start


def by_threads(count: int, rate: float, send: Callable[[float], object]) -> float:
    """Enqueue through ``send`` in several threads, each with a connection; return the seconds it took."""
    numbers, lock, start = iter(range(count)), threading.Lock(), time.time()

    def run() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            time.sleep(max(0.0, start + number / rate - time.time()))
            send(time.time())

    threads = [threading.Thread(target=run) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.time() - start
