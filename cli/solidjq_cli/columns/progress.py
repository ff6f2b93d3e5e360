"""A job's arguments and how far a long job got, as values of a column."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from solidjq_cli import view

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from solidjq.ledger.positions import DeathPosition
    from solidjq.rails.error_text import ErrorInfo


def masked_arguments() -> Callable[[str | None], Any]:
    """Return the function that shows a job's arguments; its first call reads the mask."""
    from solidjq.rails.active_job import shown_arguments
    from solidjq_cli import masking

    mask = cache(masking.mask)
    return lambda text: shown_arguments(text, mask())


def job_progress(arguments: str | None, saved_at: datetime | None, failed_at: datetime | None, error: ErrorInfo) -> Any:
    """Return how far a long job got; for people in words."""
    from solidjq.rails.continuation import progress_of

    progress = progress_of(arguments)
    if not progress.started:
        return None
    if view.for_people():
        return progress.described(saved_at, failed_at, error)
    return {**progress.to_record(), "saved_at": saved_at}


def position_record(stands: DeathPosition | None) -> dict[str, object] | None:
    """Return how far a long job was, as programs get it; None if it had begun no step."""
    if stands is None or not stands.position.progress.started:
        return None
    return {**stands.position.progress.to_record(), "saved_at": stands.saved_at}
