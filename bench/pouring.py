"""Enqueuing at a rate: so many jobs a second, over a few connections that enqueue together what is due together."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

SENDERS = 8  # connections
MOST = 100  # jobs in one call


class _Schedule:
    """When each of ``count`` jobs is due, ``rate`` a second from now on."""

    def __init__(self, count: int, rate: float) -> None:
        self.start = time.time()
        self._count = count
        self._rate = rate
        self._taken = 0

    def take(self) -> tuple[int, float]:
        """Take the next job, or all that are overdue; return how many, and in how many seconds the first is due."""
        now = time.time()
        overdue = int((now - self.start) * self._rate) - self._taken
        first, number = self._taken, min(max(1, min(overdue, MOST)), self._count - self._taken)
        self._taken += number
        return number, max(0.0, self.start + first / self._rate - now)


async def by_tasks(count: int, rate: float, sends: Sequence[Callable[[list[float]], Awaitable[object]]]) -> float:
    """Enqueue through each of ``sends``, which gets the time of its call for each job; return the seconds it took."""
    schedule = _Schedule(count, rate)

    async def run(send: Callable[[list[float]], Awaitable[object]]) -> None:
        while (taken := schedule.take())[0]:
            await asyncio.sleep(taken[1])
            await send([time.time()] * taken[0])

    await asyncio.gather(*(run(send) for send in sends))
    return time.time() - schedule.start


def by_threads(count: int, rate: float, send: Callable[[list[float]], object]) -> float:
    """Enqueue through ``send`` in several threads, each with a connection; return the seconds it took."""
    schedule, lock = _Schedule(count, rate), threading.Lock()

    def run() -> None:
        while True:
            with lock:
                number, seconds = schedule.take()
            if not number:
                return
            time.sleep(seconds)
            send([time.time()] * number)

    threads = [threading.Thread(target=run) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.time() - schedule.start
