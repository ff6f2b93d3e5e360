"""Several programs at once, each with connections of its own."""

import threading
from collections.abc import Callable
from typing import Any

from solidjq import Database


def at_once(database: Database, *programs: Callable[[Database], Any]) -> list[Any]:
    """Run each program in a thread with connections of its own, all from the same moment; return their results."""
    gate = threading.Barrier(len(programs))
    results: list[Any] = [None] * len(programs)

    def run(number: int) -> None:
        own = Database(database.url)
        gate.wait()
        try:
            results[number] = programs[number](own)
        except BaseException as error:  # noqa: BLE001  (raised again below, in the test's own thread)
            results[number] = error
        finally:
            own.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(programs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
