"""What an operator asks for, and the failed jobs that are meant. Every command takes the ``Filter`` that it becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solidjq.queue.failed import Filter
from solidjq.queue.jobs import JobView

_NO_FILTER = Filter()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRequest:
    """What an operator asks for. ``names`` are alternatives; the failures must match every other field too.

    ``names``: jobs, incidents or groups. None, if the command line has no names, means all failed jobs. An empty
    sequence, as from an empty standard input, means no job.
    """

    names: Sequence[str] | None = None
    incidents: Sequence[str] = ()
    groups: Sequence[str] = ()
    chosen: Filter = _NO_FILTER

    @property
    def plain(self) -> bool:
        """Whether nothing has to be looked up, since the request is only a filter."""
        return self.names is None and not (self.incidents or self.groups or self.chosen.hosts)


@dataclass(frozen=True, slots=True)
class RequestedFailures:
    """The failures that a request means: those that match ``chosen``."""

    chosen: Filter
    jobs: Mapping[str, Sequence[JobView]]  # by the id that names them; empty if there is no such job
    by_id: bool  # whether jobs were named by their ids, and nothing else was named beside them

    @property
    def job_ids(self) -> list[int]:
        """The ids of the jobs that were named by an id."""
        return [view.job_id for views in self.jobs.values() for view in views]
