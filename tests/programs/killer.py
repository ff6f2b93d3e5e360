"""A program that kills itself: it runs a command again and again, each time a step further, then SIGKILL.

    python killer.py URL COMMAND [ARGUMENT...]

A step is a statement about to be sent, a transaction about to be committed, or one just ended. Each run waits for a
line on standard input, a JSON string that becomes the command's own standard input, and prints its exit status (-9:
killed).
COMMAND is one of MOVES below, ``seal``, or a ``jq`` command line.
"""

import io
import itertools
import json
import os
import signal
import sys
from typing import Any

from sqlalchemy import Engine, event, select
from sqlalchemy.pool import Pool
from zygote import import_everything

from solidjq import Database
from solidjq.database.tables import operations
from solidjq.database.urls import parse_url
from solidjq.ledger import chain
from solidjq.processes import heartbeat, pruning
from solidjq.queue import claim, dispatch, endings
from solidjq.rails.error_text import error_json
from solidjq_cli.app import app

FIRST = int(os.environ.get("JQ_TEST_FIRST", "1"))  # the step of the first kill
STRIDE = int(os.environ.get("JQ_TEST_STRIDE", "1"))  # steps from one kill to the next


def _process(connection: Any) -> int:
    return heartbeat.list_processes(connection)[0].id


MOVES = {
    "claim": lambda c: claim.claim(c, _process(c), claim.ALL_QUEUES, 10),
    "finish": lambda c: endings.finish(c, endings.claims_of(_process(c))),
    "fail": lambda c: endings.fail(c, endings.claims_of(_process(c)), error_json("E", "boom")),
    "deregister": lambda c: heartbeat.deregister(c, _process(c)),
    "dispatch": lambda c: dispatch.dispatch(c, 10),
    "exited": lambda c: pruning.fail_exited(c, _process(c), pid=1, returncode=-9),
}


def seal(database: Database) -> None:
    """End and seal every operation."""
    with database.read() as connection:
        ids = [*connection.scalars(select(operations.c.id))]
    chain.seal(database, ids)


def run(database: Database, command: list[str]) -> int:
    if command == ["seal"]:
        seal(database)
        return 0
    if command[0] in MOVES:
        database.transact(MOVES[command[0]])
        return 0
    try:
        app(command)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def arm(step: int) -> None:
    """Kill this process at the given step."""
    steps = itertools.count(1)

    def tick(*_: Any, **__: Any) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", tick)
    event.listen(Engine, "commit", tick)
    event.listen(Pool, "checkin", tick)


def main(url: str, command: list[str]) -> None:
    import_everything()
    for step, line in zip(itertools.count(FIRST, STRIDE), iter(sys.stdin.readline, "")):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            sys.stdin = io.StringIO(json.loads(line))
            arm(step)
            os._exit(run(Database(parse_url(url)), command))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
