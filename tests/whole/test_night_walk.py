"""The walk through a made-up night, from the first look to the verified outcome, on a terminal of 80x24.

An operator types these commands and reads these screens; docs/how-to/after-a-bad-night.md tells them. The night has
more to it than any test of one screen: killers among innocents on five hosts.
"""

import math
from dataclasses import dataclass, field

from sqlalchemy import select, update

from solidjq import Database
from solidjq.database import tables
from solidjq.database.times import utcnow
from solidjq.ledger.operations import list_operations
from solidjq.processes.heartbeat import register
from solidjq.queue import endings
from support.night import CRASHES, DIGESTS, FILLS, VANISHES, make_night
from support.program import Shell
from support.queue import claim_all
from support.terminal import terminal

WIDTH, LINES = 80, 24
MOST_COMMANDS, MOST_KEYSTROKES, MOST_SCREENS = 6, 120, 8


@dataclass
class Operator:
    """Types commands on a terminal, and counts what that takes."""

    shell: Shell
    commands: int = 0
    keystrokes: int = 0
    screens: int = 0
    seen: list[str] = field(default_factory=list)

    def type(self, line: str, answer: str = "") -> str:
        """Type a command, and the answer to its question; return what the terminal shows."""
        program, *arguments = line.split()
        assert program == "jq"
        shown = terminal(self.shell, *arguments, typed=f"{answer}\n" if answer else "")
        self.commands += 1
        self.keystrokes += len(line) + 1 + (len(answer) + 1 if answer else 0)
        rows = [math.ceil(max(1, len(row)) / WIDTH) for row in (f"$ {line}", *shown.splitlines(), "$")]
        self.screens += math.ceil(sum(rows) / LINES)
        self.seen.append(shown)
        assert all(len(row) <= WIDTH for row in shown.splitlines() if not row.startswith("jq: ")), shown
        return " ".join(shown.split())


def run_what_is_ready(database: Database) -> int:
    """Let a worker finish all jobs that are ready."""
    worker = database.transact(register, kind="Worker", name="day", pid=7, hostname="app-1", metadata={"queues": "*"})
    finished = 0
    while claims := claim_all(database, worker):
        database.transact(endings.finish, endings.claims_of(worker))
        finished += len(claims)
    return finished


def test_the_outcome_is_verified_in_six_commands_and_eight_screens(database: Database, shell: Shell) -> None:
    night = make_night(database)
    with database.write() as connection:  # the workers of the day live, however long the night took to make
        connection.execute(update(tables.processes).values(last_heartbeat_at=utcnow()))
    operator = Operator(shell)

    first = operator.type("jq")
    died = len(night.killers | night.company | night.outside)
    assert f"{died:,} died with their process (33 incidents)" in first
    assert "failed with an error of their own (3 problems)" in first
    assert "4 workers alive" in first
    assert "jq incidents list" in first

    incidents = operator.type("jq incidents list")
    assert "33 incidents since 7d, 33 with jobs that still wait" in incidents
    assert all(
        cause in incidents for cause in ("host lost", "killed at shutdown", "out of memory", "crashed", "exited")
    )

    suspects = operator.type("jq suspects")
    with database.read() as connection:
        columns = (tables.jobs.c.id, tables.jobs.c.class_name)
        found = connection.execute(select(*columns).where(tables.jobs.c.id.in_(night.killers)))
        killers = {row.id: row.class_name for row in found}
    assert all(f"class {name}: suspect" in suspects for name in (CRASHES, FILLS, VANISHES))
    assert all(str(job_id) in suspects for job_id in night.killers)
    assert f"class {DIGESTS}" not in suspects, "it was in flight at deaths from outside alone"

    plan = operator.type("jq retry --safe --reason INC-7", answer="y")
    assert f"{died - len(night.killers)} of {died} jobs would go back to work, {len(night.killers)} held back" in plan
    for job_id, class_name in killers.items():
        assert str(job_id) in plan.partition("retry ")[0]
        assert class_name in plan

    assert run_what_is_ready(database) == died - len(night.killers)
    with database.read() as connection:
        (operation,) = list_operations(connection, limit=1)
    outcome = operator.type(f"jq operations show {operation.id}")
    assert "100 % ended" in outcome
    assert f"{died - len(night.killers)} finished" in outcome
    assert "died again" not in outcome

    last = operator.type("jq")
    assert f"{len(night.killers)} died with their process" in last
    assert f"{died - len(night.killers)} finished" in last

    took = (operator.commands, operator.keystrokes, operator.screens)
    most = (MOST_COMMANDS, MOST_KEYSTROKES, MOST_SCREENS)
    assert all(each <= limit for each, limit in zip(took, most, strict=True)), (took, *operator.seen)
    with database.read() as connection:
        still_failed = set(connection.scalars(select(tables.failed.c.job_id)))
    assert night.killers <= still_failed
    assert not (night.company | night.outside) - night.killers & still_failed
