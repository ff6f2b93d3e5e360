"""The pictures of ``jq top`` in docs: a queue that was made up, the program with somebody before it, two SVG files.

python tests/programs/top_screens.py docs
"""

import asyncio
import os
import re
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqlalchemy import update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.opening import open_database
from solidjq.database.setup import initialize
from solidjq.processes.heartbeat import register
from solidjq.processes.pruning import fail_exited
from solidjq.rails.error_text import error_json
from support.queue import add_jobs, claim_all, fail

SIZE = (80, 24)
CLOCK = "04:12:31"  # instead of the time of the drawing
# Class, queue, and how it died: the signal, host and pid of its process, or the error. Each half a minute after a full
# one, so that the ages of a picture are those of every other one.
DEATHS = (
    (
        9,
        "worker-1.ams2.internal",
        4711,
        3,
        ("Mailers::OrderConfirmationJob", "mailers"),
        ("Search::ReindexJob", "search"),
    ),
    (
        11,
        "worker-4.ams2.internal",
        873,
        8,
        ("Catalogue::ImportSupplierFeedJob", "imports"),
    ),
    (
        9,
        "worker-4.ams2.internal",
        1345,
        12,
        ("Billing::DunningReminderJob", "billing"),
        ("Reports::RevenueJob", "reports"),
    ),
)
ERRORS = (
    ("Billing::ChargeInvoiceJob", "billing", "Net::ReadTimeout", "Net::ReadTimeout with 192.0.2.7", 5),
    ("Billing::ChargeInvoiceJob", "billing", "Net::ReadTimeout", "Net::ReadTimeout with 192.0.2.7", 21),
    ("Inventory::SyncJob", "low", "ActiveRecord::RecordNotFound", "Couldn't find Order with 'id'=77", 44),
)


def make_scene(database: Database) -> None:
    """Make the queue: processes that died with their jobs, errors, processes that live, jobs that wait."""
    initialize(database)
    now = datetime.now(UTC).replace(tzinfo=None)
    for number, queues in enumerate(("mailers,search", "billing", "*"), 1):
        host = f"worker-{number}.ams2.internal"
        metadata = {"queues": queues, "thread_pool_size": 5}
        _begin(database, "Worker", f"worker-{number}", 2000 + number, host, metadata)
    _begin(database, "Dispatcher", "dispatcher-1", 2100, "worker-1.ams2.internal", {})
    for signal, host, pid, minutes, *jobs in reversed(DEATHS):
        job_ids = add_jobs(database, *(NewJob(class_name=name, queue_name=queue, args=[pid]) for name, queue in jobs))
        worker = _begin(database, "Worker", f"worker-{pid}", pid, host, {})
        claim_all(database, worker)
        database.transact(fail_exited, worker, pid=pid, returncode=-signal)
        _date(database, job_ids, now - timedelta(minutes=minutes, seconds=30))
    for name, queue, error, message, minutes in reversed(ERRORS):
        job_ids = fail(database, NewJob(class_name=name, queue_name=queue), error=error_json(error, message))
        _date(database, job_ids, now - timedelta(minutes=minutes, seconds=30))
    add_jobs(database, *(NewJob(class_name="Mailers::DigestJob", queue_name="mailers") for _ in range(37)))
    with database.write() as connection:
        connection.execute(update(tables.ready).values(created_at=now - timedelta(minutes=9, seconds=30)))


def _begin(database: Database, kind: str, name: str, pid: int, host: str, metadata: dict[str, object]) -> int:
    return database.transact(register, kind=kind, name=name, pid=pid, hostname=host, metadata=metadata)


def _date(database: Database, job_ids: list[int], at: datetime) -> None:
    """Let the failures of these jobs, and the newest death, have happened then."""
    jobs, failed, deaths = tables.jobs, tables.failed, tables.deaths
    with database.write() as connection:
        connection.execute(update(failed).where(failed.c.job_id.in_(job_ids)).values(created_at=at))
        connection.execute(update(jobs).where(jobs.c.id.in_(job_ids)).values(created_at=at - timedelta(seconds=9)))
        recent = deaths.c.noticed_at > at + timedelta(minutes=1)
        fresh = deaths.c.noticed_at > datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=1)
        connection.execute(update(deaths).where(recent & fresh).values(noticed_at=at, last_heartbeat_at=at))


async def draw(runner: object) -> dict[str, str]:
    """Sit before the program, and return what it shows, by the name of the picture."""
    from solidjq_cli.live.app import Top
    from support.top import Live

    top = Top(runner, interval=600)  # type: ignore[arg-type]
    async with top.run_test(size=SIZE) as pilot:
        live = Live(top, pilot)
        await live.shows("mailers 37")
        await live.reads()
        await live.press("down", "space")
        first = _picture(top, "jq top")
        await live.press("2")
        await live.reads()
        await live.press("a")
        await live.begin("r", "INC-7")
        await live.shows("jobs would go back to work", "y yes")
        return {"top.svg": first, "top-retry.svg": _picture(top, "jq top: retry")}


def _picture(top: object, title: str) -> str:
    """Return the screen as SVG: without fonts from elsewhere, and with one time of day."""
    drawn: str = top.export_screenshot(title=title, simplify=True)  # type: ignore[attr-defined]
    drawn = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", "monospace")
    drawn = re.sub(r"terminal-\d+", "top", drawn)
    return re.sub(r"\d\d:\d\d:\d\d(?=(?:&#160;| )UTC)", CLOCK, drawn)


def pictures() -> dict[str, str]:
    """Return each picture by its name."""
    import typer

    from solidjq_cli import session
    from solidjq_cli.app import app
    from solidjq_cli.live.inner import Runner

    changed = {"JQ_DATABASE_URL": "", "HOME": "", "NO_COLOR": "", "JQ_CONFIG": ""}
    before = {name: os.environ.pop(name, None) for name in changed}
    argv = sys.argv
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(HOME=folder, JQ_DATABASE_URL=f"sqlite3:{folder}/shop_production_queue.sqlite3")
        sys.argv = ["jq", "top"]
        database = open_database(os.environ["JQ_DATABASE_URL"])
        try:
            make_scene(database)
            with typer.main.get_command(app).make_context("jq", ["status"]) as context:
                return asyncio.run(draw(Runner(context, session.Connecting())))
        finally:
            database.close()
            sys.argv = argv
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


if __name__ == "__main__":
    for name, drawn in pictures().items():
        (Path(sys.argv[1]) / name).write_text(drawn)
