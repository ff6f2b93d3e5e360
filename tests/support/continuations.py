"""Payloads with the progress of a long job, as Rails 8.1 writes them."""

import json
from typing import Any


def continued(
    continuation: dict[str, Any], resumptions: int = 0, *, executions: int = 0, class_name: str = "ImportJob"
) -> str:
    """Return a payload as ``ActiveJob::Continuable`` serializes it: its two keys come last."""
    payload = {
        "job_class": class_name,
        "job_id": "5a4ff5f5-52f7-4d0c-8a8e-5c1dbe3f7a10",
        "provider_job_id": None,
        "queue_name": "default",
        "priority": None,
        "arguments": ["<catalogue> & é"],
        "executions": executions,
        "exception_executions": {},
        "locale": "en",
        "timezone": "UTC",
        "enqueued_at": "2026-11-23T04:40:22.022096000Z",
        "scheduled_at": None,
        "continuation": continuation,
        "resumptions": resumptions,
    }
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
