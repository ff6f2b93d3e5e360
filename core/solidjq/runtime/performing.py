"""Run one claimed job, and describe its error as Solid Queue stores it."""

import traceback
from types import CoroutineType

from solidjq import registry
from solidjq.errors import Cancelled, ClaimLostError, Stopping
from solidjq.rails import active_job
from solidjq.rails.error_text import error_json
from solidjq.running import current_job, set_current_job
from solidjq.runtime import eventloop
from solidjq.runtime.eventloop import EventLoop
from solidjq.runtime.unrecorded import Ending
from solidjq.steps import ClaimedBy

_OURS = {__file__, eventloop.__file__}
_loop = EventLoop()


def perform(claimed_by: ClaimedBy) -> Ending:
    """Run the job of a claim; return how it ended, an error as Solid Queue's JSON."""
    claim = claimed_by.claim
    set_current_job(claimed_by)
    try:
        if (words := claimed_by.cancelled()) is not None:
            raise Cancelled(words)  # noqa: TRY301  (it ends as one that had begun)
        job = registry.find(claim.class_name)
        call = active_job.call_of(claim.arguments)
        result = job.function(*call.args, **call.kwargs)
        if isinstance(result, CoroutineType):
            _loop.run(result)
        arguments = current_job().final_arguments()
    except BaseException as error:  # noqa: BLE001  (SystemExit in a job ends the job, not the worker)
        if not isinstance(error, ClaimLostError):
            current_job().save_at_exception()
        if isinstance(error, (Stopping, Cancelled)) and (words := claimed_by.cancelled()) is not None:
            return Ending(claim, _describe(Cancelled(words).with_traceback(error.__traceback__)))
        # Raised without a request, it would bring the job back at once, for ever.
        if isinstance(error, Stopping) and claimed_by.stop_requested():
            return Ending(claim, stopped=True)
        return Ending(claim, _describe(error))
    finally:
        set_current_job(None)
    return Ending(claim, arguments=arguments)


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
