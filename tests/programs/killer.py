"""A program that runs commands which kill themselves by SIGKILL at one of their steps.

A step (``steps``) is one of the ``moments`` of transactions that may write: a statement about to be sent, or the commit
(to be killed while it only reads changes nothing). Or it is one of their ``commits``, just after it.

Each line of standard input is a JSON object: ``url``, ``command`` (one of MOVES below, ``seal``, or the words of a
``jq`` command line), ``steps``, the ``step`` at which it dies, its own ``stdin``, its environment ``env`` and its
``folder``. For each, it prints the exit status: -9 if the command was killed, since it had that many steps.
"""

import io
import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import compiled_statements
import unhurried
from sqlalchemy import Connection, Engine, event, select
from sqlalchemy.engine.default import DefaultDialect
from zygote import import_everything, warm_up

from solidjq import Database
from solidjq.database import engines
from solidjq.database.tables import operations
from solidjq.database.urls import parse_url
from solidjq.ledger import chain
from solidjq.processes import heartbeat, pruning
from solidjq.queue import claim, dispatch, endings
from solidjq.rails.error_text import error_json
from solidjq_cli.app import app


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


def killing_at(step: int) -> Callable[..., None]:
    """Return a function that kills this process when it is called for the nth time."""
    steps = itertools.count(1)

    def tick(*_: Any, **__: Any) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return tick


def arm_moments(step: int) -> None:
    """Kill this process at the given moment."""
    tick = killing_at(step)

    def reached(connection: Connection, *_: Any) -> None:
        options = connection.get_execution_options()
        if options.get(engines.WRITES) or options.get("isolation_level") == "AUTOCOMMIT":
            tick()

    event.listen(Engine, "before_cursor_execute", reached)
    event.listen(Engine, "commit", reached)


def arm_commits(step: int) -> None:
    """Kill this process just after the nth commit of a transaction that may have written."""
    tick = killing_at(step)
    commit = DefaultDialect.do_commit
    writing = threading.local()  # the thread that says why the command waits commits what it has read

    def will_commit(connection: Connection) -> None:
        writing.now = bool(connection.get_execution_options().get(engines.WRITES))

    def committed(self: DefaultDialect, driver: Any) -> None:
        commit(self, driver)
        if getattr(writing, "now", False):
            writing.now = False
            tick()

    def executed(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        word = statement.split(maxsplit=1)[0].upper()
        alone = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        by_itself = connection.dialect.name == "mysql" and word in {"CREATE", "ALTER", "DROP"}
        if by_itself or (alone and word in {"CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE", "WITH"}):
            tick()

    event.listen(Engine, "commit", will_commit)
    event.listen(Engine, "after_cursor_execute", executed)
    DefaultDialect.do_commit = committed  # type: ignore[method-assign]


ARM = {"moments": arm_moments, "commits": arm_commits}


def main() -> None:
    compiled_statements.share()
    unhurried.give_time()
    import_everything()
    warm_up()
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            request = json.loads(line)
            os.environ.clear()
            os.environ.update(request["env"])
            os.chdir(request["folder"])
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            sys.stdin = io.StringIO(request["stdin"])
            ARM[request["steps"]](request["step"])
            os._exit(run(Database(parse_url(request["url"])), request["command"]))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
