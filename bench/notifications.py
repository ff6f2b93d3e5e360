"""What notifications cost programs that enqueue: PostgreSQL commits transactions that notify one by one."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Dialect
from sqlalchemy.dialects import postgresql

import ours
import watch
from contenders import Plan, jq
from figures import Contender, Row
from plain import payload
from solidjq.database import notices

CLIENTS = 32
PAYLOAD = payload("00000000-0000-0000-0000-000000000000")
ENQUEUE = """
WITH job AS (
    INSERT INTO solid_queue_jobs (queue_name, class_name, arguments, priority, active_job_id, scheduled_at, created_at,
        updated_at)
    SELECT 'default', 'BenchJob', :payload, 0, gen_random_uuid()::text, now.utc, now.utc, now.utc
    FROM (SELECT timezone('UTC', now())) AS now (utc)
    RETURNING id, queue_name, priority, created_at),
rows AS (
    INSERT INTO solid_queue_ready_executions (job_id, queue_name, priority, created_at)
    SELECT id, queue_name, priority, created_at FROM job)
SELECT id{more} FROM job;
"""


def _script(*notice: ColumnElement[Any]) -> str:
    dialect: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    written = [f", {each.compile(dialect=dialect, compile_kwargs={'literal_binds': True})}" for each in notice]
    return ENQUEUE.format(more="".join(written))


SILENT, NOTIFYING, AS_PYTHON = _script(), _script(notices.notice()), _script(notices.notice_of_few())


def rows(plan: Plan) -> Iterator[Row]:
    """Enqueue over many connections, one job in each transaction: by pgbench, and from Python."""
    if plan.stage.name != "PostgreSQL":
        return
    count = plan.jobs // CLIENTS * CLIENTS
    without, triggered = partial(ours.empty, plan.stage), partial(ours.with_trigger, plan.stage)
    contenders = [
        Contender("plain SQL", f"{clients} at once{what}", count, start, partial(_enqueue, clients, count, script))
        for clients in (1, CLIENTS)
        for what, start, script in (
            ("", without, SILENT),
            (", with the trigger", triggered, SILENT),
            (", each notifying", without, NOTIFYING),
            (", notifying as Python's enqueue does", without, AS_PYTHON),
        )
    ]
    contenders += [
        jq(f"{clients} threads{what}", count, without, partial(enqueue, clients=clients, count=count))
        for clients in (1, CLIENTS)
        for what, enqueue in (
            ("", ours.enqueue_one_by_one),
            (", in the caller's transactions", ours.enqueue_in_transactions),
        )
    ]
    yield Row("notify", f"enqueue of {count:,} jobs, one a transaction", contenders, plan.runs, count)


def _enqueue(clients: int, count: int, text: str, url: str) -> float:
    program = shutil.which("pgbench")
    if program is None:
        raise watch.CrashedError("pgbench is not installed")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "enqueue.sql"
        script.write_text(text)
        options = ["-n", "-M", "prepared", "-D", f"payload={PAYLOAD}", "-c", str(clients), "-t", str(count // clients)]
        options += ["-j", str(min(clients, 2)), "-f", str(script)]
        ran = subprocess.run([program, *options, url], capture_output=True, text=True, check=False)  # noqa: S603
    rate = re.search(r"^tps = ([\d.]+)", ran.stdout, re.MULTILINE)
    if ran.returncode or rate is None:
        raise watch.CrashedError(watch.last_line(ran.stderr))
    return count / float(rate[1])
