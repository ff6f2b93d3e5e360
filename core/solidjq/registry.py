"""The registry of jobs: ``@job`` registers a function, and a row's class name is looked up here and nowhere else.

Nothing is ever imported because of a name in the database.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from solidjq.database.opening import open_database
from solidjq.database.transactions import Database
from solidjq.errors import DuplicateJobError, JobImportError, UnknownJobError, UsageError
from solidjq.queue.concurrency import DEFAULT_DURATION, Limit, Limits
from solidjq.queue.enqueue import NewJob, enqueue_alone
from solidjq.rails.active_job import OnDeath
from solidjq.settings.policy import MOST_CHARACTERS, check_settings
from solidjq.text import one_line

P = ParamSpec("P")
R = TypeVar("R")

_jobs: dict[str, "Job[..., Any]"] = {}


@dataclass(frozen=True, slots=True)
class Job(Generic[P, R]):
    """A registered function. Calling it runs it in this process; ``enqueue`` makes a worker run it."""

    function: Callable[P, R]
    name: str
    queue: str = "default"
    priority: int | None = None
    delay: float | None = None
    at: datetime | None = None
    limit: Limit | None = None
    limit_by: Callable[P, object] | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    on_death: "Job[..., Any] | str | None" = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in this process."""
        return self.function(*args, **kwargs)

    def set(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | None = None,
        at: datetime | None = None,
    ) -> "Job[P, R]":
        """Return the same job with other settings: ``send.set(queue="low", delay=60).enqueue(42)``."""
        return replace(
            self,
            queue=self.queue if queue is None else queue,
            priority=self.priority if priority is None else priority,
            delay=self.delay if delay is None else delay,
            at=self.at if at is None else at,
        )

    def new(self, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """Return a call for ``solidjq.enqueue(connection, [...])``: many jobs at once, or in your own transaction."""
        key = None
        if self.limit is not None:
            group = "" if self.limit_by is None else self.limit_by(*args, **kwargs)
            key = f"{self.name}/{group}"
        return NewJob(
            class_name=self.name,
            args=args,
            kwargs=kwargs,
            queue_name=self.queue,
            priority=self.priority,
            delay=self.delay,
            at=self.at,
            concurrency_key=key,
            limit=self.limit,
            on_death=None if self.on_death is None else _on_death(self.on_death),
        )

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Enqueue one call in the database of JQ_DATABASE_URL, else in the embedded one; return the job's id."""
        return enqueue_alone(_default_database(), self.new(*args, **kwargs))


@overload
def job(function: Callable[P, R], /) -> Job[P, R]: ...


@overload
def job(
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int | None = None,
    limit: int | None = None,
    limit_by: Callable[..., object] | None = None,
    limit_duration: float = DEFAULT_DURATION,
    retry: Literal["auto", "ask", "never"] | None = None,
    max_crashes: int | None = None,
    window: str | None = None,
    count: Literal["position", "job"] | None = None,
    max_age: str | None = None,
    queue_as: str | None = None,
    on_death: "Job[..., Any] | str | None" = None,
) -> Callable[[Callable[P, R]], Job[P, R]]: ...


def job(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int | None = None,
    limit: int | None = None,
    limit_by: Callable[..., object] | None = None,
    limit_duration: float = DEFAULT_DURATION,
    retry: Literal["auto", "ask", "never"] | None = None,
    max_crashes: int | None = None,
    window: str | None = None,
    count: Literal["position", "job"] | None = None,
    max_age: str | None = None,
    queue_as: str | None = None,
    on_death: "Job[..., Any] | str | None" = None,
) -> Any:
    """Register a function as a job; an ``async def`` function runs on the worker's event loop.

    ``name`` is stored in ``jobs.class_name``, the function's own name by default; it must not change while jobs wait.
    Jobs of smaller ``priority`` run sooner. ``limit`` is how many of its jobs may run at once, in all or, with
    ``limit_by(*args, **kwargs)``, in each group; a slot that a dead worker held is free again after ``limit_duration``
    seconds.

    ``retry``, ``max_crashes``, ``window``, ``count``, ``max_age`` and ``queue_as`` are its retry policy, as in
    ``jq.toml``; the commands of ``jq`` use it if they --import the module.

    ``on_death`` is another job, or its name: it is enqueued once for each time that a job dies with its process, with
    the dead job's id and arguments: ``on_death(job_id, *args, **kwargs)``. It may have no ``limit``, and a job that was
    enqueued so enqueues none at its own death.

    Raises DuplicateJobError if another function is registered under that name, UsageError for an invalid policy, and
    for an ``on_death`` that is not a job or has a limit.
    """
    if on_death is not None:
        _check_on_death(on_death)
    given = {
        "retry": retry,
        "max_crashes": max_crashes,
        "window": window,
        "count": count,
        "max_age": max_age,
        "queue_as": queue_as,
    }
    policy = check_settings({key: value for key, value in given.items() if value is not None}, "@job: ")

    def register(function: Callable[..., Any]) -> Job[..., Any]:
        registered = Job(
            function,
            name or function.__qualname__,
            queue,
            priority,
            limit=None if limit is None else Limit(limit, limit_duration),
            limit_by=limit_by,
            policy=policy,
            on_death=on_death,
        )
        other = _jobs.get(registered.name)
        if other is not None and _place(other.function) != _place(function):
            raise DuplicateJobError(
                f"{_place(function)} and {_place(other.function)} are both registered as the job {registered.name!r}; "
                "give one of them another name: @job(name=...)"
            )
        _jobs[registered.name] = registered
        return registered

    return register if function is None else register(function)


def _check_on_death(on_death: object) -> None:
    match on_death:
        case Job(limit=None):
            return
        case Job():
            raise UsageError(f"@job: on_death: {on_death.name} has a limit, which no program applies at a death")
        case str() if 0 < len(on_death) <= MOST_CHARACTERS:
            return
    raise UsageError("@job: on_death must be a function with @job, or the name of a job")


def _on_death(wanted: Job[..., Any] | str) -> OnDeath:
    """Return what a payload says of this job; a name that is registered in another program has the default queue."""
    found = _jobs.get(wanted) if isinstance(wanted, str) else wanted
    if found is None:
        return OnDeath(str(wanted))
    _check_on_death(found)
    return OnDeath(found.name, found.queue, found.priority)


def find(class_name: str) -> Job[..., Any]:
    """Return the job registered under this name; raises UnknownJobError if there is none."""
    try:
        return _jobs[class_name]
    except KeyError:
        registered = ", ".join(sorted(_jobs)) or "none"
        raise UnknownJobError(
            f"no job named {class_name!r} is registered in this worker (registered: {registered}); "
            "start it with --import MODULE, or leave this queue to workers that import the job"
        ) from None


def names() -> frozenset[str]:
    """Return the names of all registered jobs."""
    return frozenset(_jobs)


def limits() -> Limits:
    """Return the concurrency limits of all registered jobs."""
    return {name: registered.limit for name, registered in _jobs.items() if registered.limit is not None}


def policies() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return the retry policy of each job that has one, by its name, with the function's place in the code."""
    return {
        name: (_place(registered.function), registered.policy)
        for name, registered in _jobs.items()
        if registered.policy
    }


def import_modules(modules: Iterable[str]) -> None:
    """Import modules, which registers their jobs; the working directory is searched last.

    So a file that lies there replaces no installed module, such as the driver that is imported later.

    Raises JobImportError, which names the module and its error.
    """
    with suppress(OSError):  # the directory was removed, or may not be entered
        here = os.getcwd()  # noqa: PTH109  (sys.path holds strings)
        if here not in sys.path:
            sys.path.append(here)
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise JobImportError(f"cannot import {module}: {type(error).__name__}: {one_line(str(error))}") from error


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


_database: Database | None = None


def _default_database() -> Database:
    global _database  # noqa: PLW0603  (one engine a process)
    if _database is None:
        _database = open_database(name="solidjq")
    return _database
