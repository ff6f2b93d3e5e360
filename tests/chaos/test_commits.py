"""Each command that writes, killed after each of its commits, then run again: nothing is lost, nothing is done twice.

The number of commits is a part of the test, so that no commit is left out unnoticed.
"""

from collections.abc import Callable
from pathlib import Path

from solidjq import Database
from solidjq_cli.exits import Exit
from support.databases import DATABASES
from support.every_command import PLAN
from support.killable import CASES, MORE_CASES, Case, check, held, plan_all
from support.killer import KILLED, killer
from support.program import Shell
from support.queue import clear, state_of_each
from support.snapshots import snapshot
from support.waiting import until

# How often each commits until its work is done: its batches, and the crashes that it counts. The seal of the operation
# follows; test_chain.py kills that.
COMMITS = {
    "enqueue": 1,
    "prune": 4,
    "missing": 4,
    "retry": 2,
    "safe": 4,
    "discarding": 4,
    "undo": 1,
    "recover": 5,
    "pause": 1,
    "resume": 1,
    "apply": 1,
    "fix": 2,
}
NEVER = 10_000  # a step that no command reaches
FINE = {Exit.DONE, Exit.NO_SUCH_JOB, Exit.REFUSED, Exit.PARTLY}  # for a command that finds its work done


def test_killed_after_each_commit_and_run_again(database: Database, shell: Shell, kind: str, tmp_path: Path) -> None:
    """The databases share the commits before the last one; each sees the last, and that none follows it."""
    wrong = {}
    for name, case in (CASES | MORE_CASES).items():
        if name in COMMITS:
            last = COMMITS[name]
            clear(database)
            case.prepare(database)
            if PLAN in case.command:
                plan_all(database, tmp_path)
            prepare_again = snapshot(database)
            turns = range(1 + DATABASES.index(kind), last, len(DATABASES))
            with killer(shell.url, shell, case.command, steps="commits") as run:
                killed = {n: kill_after_commit(n, case, database, prepare_again, run) for n in (*turns, last, last + 1)}
            if killed != {n: n <= last for n in killed}:
                wrong[name] = killed
    assert wrong == {}


def kill_after_commit(
    number: int, case: Case, database: Database, prepare_again: Callable[[], None], run: Callable[..., int]
) -> bool:
    """Run a command until it is killed after this commit, and then again; return False if it has no such commit."""

    def complete() -> bool:
        return run(given, NEVER) in FINE and held(database) == case.expected

    prepare_again()
    given = case.stdin(database)
    killed = run(given, number) == KILLED
    if killed:
        state_of_each(database)  # one state each
        if case.command[0] != "enqueue":  # whoever sees the jobs there enqueues no others
            until(complete, f"another {case.command[0]} completes it")
    check(database, case)
    return killed
