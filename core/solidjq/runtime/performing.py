"""Run one claimed job, and describe its error as Solid Queue stores it."""

import traceback
from types import CoroutineType

from solidjq import registry
from solidjq.queue.claim import Claim
from solidjq.rails import active_job
from solidjq.rails.error_text import error_json
from solidjq.runtime import eventloop
from solidjq.runtime.eventloop import EventLoop

_OURS = {__file__, eventloop.__file__}
_loop = EventLoop()


def perform(claim: Claim) -> str | None:
    """Run the job of a claim; return its error as Solid Queue's JSON, None if it raised none."""
    try:
        job = registry.find(claim.class_name)
        call = active_job.call_of(claim.arguments)
        result = job.function(*call.args, **call.kwargs)
        if isinstance(result, CoroutineType):
            _loop.run(result)
    except BaseException as error:  # noqa: BLE001  (SystemExit in a job ends the job, not the worker)
        return _describe(error)
    return None


def _describe(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001  (an exception's own __str__ is the job's code)
        message = f"<{name} without a readable message>"
    # Innermost first and in Ruby's format, because dashboards show them as they show Ruby's.
    frames = [
        f"{frame.filename}:{frame.lineno}:in `{frame.name}'"
        for frame in reversed(traceback.extract_tb(error.__traceback__))
        if frame.filename not in _OURS
    ]
    return error_json(name, message, frames)
