"""Warnings of commands that move jobs: jobs that no worker will take, and workers that may die."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from solidjq_cli import moving
from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solidjq import Database
    from solidjq.processes.attendance import Attendance
    from solidjq_cli.session import Session

THRESHOLD = "JQ_ALIVE_THRESHOLD"  # as in options: the commands here have no option for it


def read(command: Session, database: Database, threshold: float | None = None) -> Attendance:
    """Read which workers and dispatchers live now, and which queues are paused."""
    from solidjq.processes.attendance import read_attendance  # noqa: PLC0415

    if threshold is None:
        threshold = alive_threshold(command)
    with database.read() as connection:
        return read_attendance(connection, threshold)


def alive_threshold(command: Session) -> float:
    """Return the alive threshold, in seconds, for a command that has no option for it."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    text = os.environ.get(THRESHOLD, "")
    try:
        option = float(text) if text else None
    except ValueError:
        raise UsageError(f"{THRESHOLD}={text!r} is not a number of seconds") from None
    return command.alive_threshold(option)


def obstacles(
    command: Session,
    database: Database,
    destinations: Mapping[str, int],
    scheduled: int,
    threshold: float | None = None,
) -> list[str]:
    """Return which of the jobs that go to these queues will wait, and what for. Reads nothing if there are none."""
    if not any(destinations.values()):
        return []
    from solidjq.processes.attendance import read_attendance  # noqa: PLC0415

    there = database.glance(read_attendance, alive_threshold(command) if threshold is None else threshold)
    return [] if there is None else there.obstacles(destinations, scheduled)


def settle(warning: str | None, *, yes: bool, question: str) -> None:
    """Ask on a terminal whether to go on despite a danger; without a terminal, go on only with ``--yes``.

    Raises RefusedError without a terminal and without ``--yes``.
    """
    if warning is None:
        return
    if yes:
        note(warning)
        return
    if not moving.on_a_terminal():
        from solidjq.errors import RefusedError  # noqa: PLC0415

        raise RefusedError(f"{warning}; --yes does it all the same; nothing was changed")
    note(warning)
    moving.confirm(question)
