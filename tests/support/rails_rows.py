"""Rows that Rails left, as the core and the program read them: one line a row."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from solidjq import Database
from solidjq.ledger.operations import Operation
from solidjq.queue.failed import Filter, list_failures
from solidjq.queue.jobs import JobView, find_jobs
from solidjq.rails.error_text import Death
from support import rails
from support.recovery import Retried, retry_jobs

JQ_TABLES = ["jq_chain", "jq_crashes", "jq_deaths", "jq_failures", "jq_operations", "jq_schema_migrations"]
LONG_AGO = "2020-01-01 12:34:56.789"
FAR_AHEAD = "2099-01-01 00:00:00.000001"
# The heartbeat of a process that lives as long as the test; a time more than a day ahead is none.
BEATING = (datetime.now(UTC) + timedelta(hours=12, minutes=7, seconds=30)).strftime("%Y-%m-%d %H:%M:%S.%f")


def shown(value: Any) -> str:
    """Write a value as a reading has it, whether it comes from the core or out of the program's JSON."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Death():
            return str(value.value)
        case datetime():
            assert value.utcoffset() == timedelta()
            text = value.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
            return text.removeprefix("2026-11-23T")
        case str() if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", value):
            return value.removeprefix("2026-11-23T").removesuffix("Z").rstrip("0").rstrip(".")
        case other:
            return str(other)


def written(records: list[dict[str, Any]], names: list[str]) -> list[str]:
    return [" ".join(shown(record[name]) for name in names) for record in records]


def by_state(found: list[tuple[str, int]]) -> dict[str, list[int]]:
    states: dict[str, list[int]] = {}
    for state, job_id in sorted(found):
        states.setdefault(state, []).append(job_id)
    return states


def failure_records(database: Database, chosen: Filter | None = None, **settings: int) -> list[dict[str, Any]]:
    found = list_failures(database, chosen or Filter(), **{"limit": None, **settings})
    return [{**failure.error._asdict(), **failure._asdict()} for failure in found]


def failed_jobs(database: Database, chosen: Filter | None = None, **settings: int) -> list[int]:
    return [record["job_id"] for record in failure_records(database, chosen, **settings)]


def job_views(database: Database, *ids: str) -> dict[str, list[JobView]]:
    with database.read() as connection:
        return find_jobs(connection, ids)


def job_ids(fixture: rails.Fixture) -> list[str]:
    return [str(job["id"]) for job in fixture["tables"][rails.JOBS]]


def retry(database: Database, *ids: int) -> Retried:
    return retry_jobs(database, ids, Operation("retry", command="jq retry", reason="because"))
