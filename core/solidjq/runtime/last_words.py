"""The stack that a crash leaves: a file for it, and which job thread's it is.

Only the stack of the thread that crashed is written, and faulthandler does not say which thread that was. So each job
thread's outermost function of ours has the thread's name, which then stands in the stack.
"""

import re
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

_THREAD = re.compile(r" in job-(\d+)$", re.MULTILINE)


def thread_name(number: int) -> str:
    """Return the name of a job thread."""
    return f"job-{number}"


def shown_as(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a copy of a bound method that stacks show under this name."""
    if not isinstance(method, MethodType) or not isinstance(method.__func__, FunctionType):
        raise TypeError(method)
    code = method.__func__.__code__.replace(co_name=name)
    return MethodType(FunctionType(code, method.__func__.__globals__, name), method.__self__)


def crashed_thread(last_words: str) -> int | None:
    """Return the number of the job thread whose stack this is; None if it is no job thread's, or was cut."""
    found = _THREAD.findall(last_words)
    return int(found[-1]) if found else None
