"""Fields of a message of jq watch."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from solidjq_cli.columns.column import Column, Fields

MESSAGE = (
    *("id", "kind", "name", "at", "database", "title", "incident", "cause", "confidence", "error", "hosts", "deaths"),
    *("processes", "follows"),
    *("jobs", "jobs_total", "classes", "held_back", "next"),
)


def message_fields() -> Fields[dict[str, Any]]:
    """Fields of a message of ``jq watch``: those that webhooks and programs get, too."""
    return Fields(
        tuple(Column(name, itemgetter(name)) for name in MESSAGE),
        lambda message: [job["job_id"] for job in message["jobs"]],
    )
