"""solidjq: Solid Queue's tables from Python, and the recovery of jobs whose worker died.

The names below are loaded when they are first used, so that ``import solidjq`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from solidjq.version import VERSION as __version__  # noqa: N811  (the name that Python programs look for)

if TYPE_CHECKING:
    from solidjq.database.opening import open_database
    from solidjq.database.transactions import Database
    from solidjq.queue.enqueue import NewJob, enqueue
    from solidjq.rails.ruby_values import GlobalID, Symbol
    from solidjq.registry import Job, job

__all__ = ["Database", "GlobalID", "Job", "NewJob", "Symbol", "__version__", "enqueue", "job", "open_database"]

_HOMES = {
    "Database": "solidjq.database.transactions",
    "open_database": "solidjq.database.opening",
    "NewJob": "solidjq.queue.enqueue",
    "enqueue": "solidjq.queue.enqueue",
    "GlobalID": "solidjq.rails.ruby_values",
    "Symbol": "solidjq.rails.ruby_values",
    "Job": "solidjq.registry",
    "job": "solidjq.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
