"""solidjq: Solid Queue's tables from Python, and the recovery of jobs whose worker process died.

The names in ``__all__`` are the Python API. Each is loaded when it is first used, so ``import solidjq`` loads no
SQLAlchemy and no driver. ``job`` is the decorator: a submodule ``solidjq.job`` would replace it as soon as somebody
imported that module, so the registry behind it is ``solidjq/registry.py``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from solidjq.version import VERSION as __version__  # noqa: N811  (the name that Python expects)

if TYPE_CHECKING:
    from solidjq.database.opening import open_database
    from solidjq.database.transactions import Database
    from solidjq.errors import Cancelled, ClaimLostError, StepError, Stopping
    from solidjq.queue.enqueue import NewJob, enqueue
    from solidjq.rails.ruby_values import GlobalID, Symbol
    from solidjq.registry import Job, job
    from solidjq.running import CurrentJob, current_job
    from solidjq.steps import Step

__all__ = [
    "Cancelled",
    "ClaimLostError",
    "CurrentJob",
    "Database",
    "GlobalID",
    "Job",
    "NewJob",
    "Step",
    "StepError",
    "Stopping",
    "Symbol",
    "__version__",
    "current_job",
    "enqueue",
    "job",
    "open_database",
]

_HOMES = {
    "Database": "solidjq.database.transactions",
    "open_database": "solidjq.database.opening",
    "NewJob": "solidjq.queue.enqueue",
    "enqueue": "solidjq.queue.enqueue",
    "GlobalID": "solidjq.rails.ruby_values",
    "Symbol": "solidjq.rails.ruby_values",
    "Job": "solidjq.registry",
    "job": "solidjq.registry",
    "CurrentJob": "solidjq.running",
    "current_job": "solidjq.running",
    "Step": "solidjq.steps",
    "StepError": "solidjq.errors",
    "Cancelled": "solidjq.errors",
    "ClaimLostError": "solidjq.errors",
    "Stopping": "solidjq.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
