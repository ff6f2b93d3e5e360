"""``python -m solidjq.runtime``: the program that the supervisor starts each worker and dispatcher as."""

import gc
import os
import signal
from typing import NoReturn

from solidjq.runtime.wakeup import Wakeup


def main() -> NoReturn:
    """Run as the child that the first line of standard input describes; end of file there means no supervisor."""
    lifeline = os.dup(0)  # a descriptor that the programs which jobs start do not inherit
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    wakeup = Wakeup(lifeline)
    wakeup.listen([signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    # What is imported is never garbage, and to look for some in it took an eighth of a child's start.
    gc.disable()
    run(wakeup, lifeline)


def run(wakeup: Wakeup, lifeline: int) -> NoReturn:
    """Read the settings and run the worker or dispatcher; what it needs is imported here, after ``gc.disable``."""
    import faulthandler
    import logging

    from solidjq.errors import JobImportError, SolidJQError
    from solidjq.runtime import logs
    from solidjq.runtime.child import EXIT_CANNOT_IMPORT, Child, leave
    from solidjq.runtime.config import ChildConfig
    from solidjq.runtime.dispatcher import Dispatcher
    from solidjq.runtime.worker import Worker

    kinds: dict[str, type[Child]] = {"Worker": Worker, "Dispatcher": Dispatcher}
    log = logging.getLogger("solidjq")
    logs.set_up()
    line = _read_line(lifeline)
    if line is None:  # the supervisor died before it sent the configuration
        leave(1)
    child_config = ChildConfig.from_json(line)
    if child_config.last_words is not None:
        # After a crash in C code the supervisor reads the stack from this file. Only the crashing thread's stack: the
        # other threads still run, and walking a running thread's frames can crash again, which hides the first signal.
        faulthandler.enable(child_config.last_words, all_threads=False)
    try:
        child = kinds[child_config.kind](child_config, wakeup)
        gc.freeze()  # no later collection walks through what was imported
        gc.enable()
        child.run()
    except JobImportError as error:
        log.error("%s: %s", child_config.name, error)  # noqa: TRY400  (the operator needs the line, not the stack)
        leave(EXIT_CANNOT_IMPORT)
    except SolidJQError as error:
        log.error("%s: %s", child_config.name, error)  # noqa: TRY400
        leave(1)


def _read_line(descriptor: int) -> str | None:
    """Return the first line, None if the file ends before it does."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(descriptor, 65536)
        if not part:
            return None
        line += part
    return line.decode()


if __name__ == "__main__":
    main()
