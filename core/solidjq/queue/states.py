"""The states of a job and the moves between them, one table for the docs and the property tests.

A job's state is the execution row that it has; a finished job has none, and ``finished_at`` is set.
"""

from enum import Enum
from typing import NamedTuple


class State(Enum):
    """The state of a job."""

    READY = "ready"  # a worker may claim it now
    SCHEDULED = "scheduled"  # waits until it is due
    BLOCKED = "blocked"  # waits for a slot of its concurrency limit
    CLAIMED = "claimed"  # a worker has it
    FAILED = "failed"  # raised, or its process died
    FINISHED = "finished"  # returned


class Move(NamedTuple):
    """One arrow of the state diagram: ``verb`` moves a job from ``source`` to ``target``; None is 'no job'."""

    verb: str
    source: State | None
    target: State | None
    when: str


MOVES = (
    Move("enqueue", None, State.READY, "it is due"),
    Move("enqueue", None, State.SCHEDULED, "its time is in the future"),
    Move("enqueue", None, State.BLOCKED, "it is due, its concurrency limit is used up"),
    Move("dispatch", State.SCHEDULED, State.READY, "its time has come"),
    Move("dispatch", State.SCHEDULED, State.BLOCKED, "its time has come, its concurrency limit is used up"),
    Move("unblock", State.BLOCKED, State.READY, "a job of the same concurrency key ended, or the wait expired"),
    Move("claim", State.READY, State.CLAIMED, "a worker has a free thread"),
    Move("finish", State.CLAIMED, State.FINISHED, "it returned"),
    Move("fail", State.CLAIMED, State.FAILED, "it raised"),
    Move("fail", State.CLAIMED, State.FAILED, "its process died: pruned, exited or missing"),
    Move("release", State.CLAIMED, State.READY, "its worker shut down before it ended"),
    Move("retry", State.FAILED, State.READY, "it has no concurrency key"),
    Move("retry", State.FAILED, State.SCHEDULED, "it has one: the dispatcher decides, under the limit"),
    Move("discard", State.READY, None, ""),
    Move("discard", State.SCHEDULED, None, ""),
    Move("discard", State.BLOCKED, None, ""),
    Move("discard", State.FAILED, None, ""),
    Move("run now", State.SCHEDULED, State.READY, "an operator asks for it; with a concurrency limit it becomes due"),
    Move("postpone", State.READY, State.SCHEDULED, "an operator asks for it"),
    Move("postpone", State.BLOCKED, State.SCHEDULED, "an operator asks for it"),
    Move("undo", State.READY, State.FAILED, "its retry is taken back before a worker claimed it"),
    Move("undo", State.SCHEDULED, State.FAILED, "its retry is taken back"),
    Move("undo", State.BLOCKED, State.FAILED, "its retry is taken back"),
    Move("undo", None, State.FAILED, "its discard is taken back"),
    Move("undo", None, State.READY, "its discard while it was ready is taken back, and it has no concurrency limit"),
    Move("undo", None, State.SCHEDULED, "its discard while it was scheduled is taken back, or it has a limit"),
)
