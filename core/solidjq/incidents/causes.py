"""Causes: what a death is put down to, how sure that is, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum

from solidjq.incidents.death_cases import Blame


class Confidence(StrEnum):
    """How sure a finding is."""

    CERTAIN = "certain"  # the facts leave nothing else
    LIKELY = "likely"  # the facts fit, and hardly fit anything else
    POSSIBLE = "possible"  # the facts fit, and fit other causes too
    UNKNOWN = "unknown"

    @property
    def rank(self) -> int:
        """The place in the order of confidence: 0 is the surest."""
        return list(Confidence).index(self)


class Cause(StrEnum):
    """What a death is put down to; the value is what ``jq`` prints."""

    MEMORY = "out of memory"
    SHUTDOWN = "killed at shutdown"
    SUSPENDED = "machine suspended"
    STALL = "fleet-wide stall"
    HUNG = "hung"
    HOST = "host lost"
    CRASH = "crashed"
    EXIT = "exited"
    KILLED = "killed"
    ROW = "process row deleted"
    UNKNOWN = "unknown"

    @property
    def outside(self) -> bool:
        """Whether the cause lies outside of the jobs."""
        return self in {Cause.SHUTDOWN, Cause.SUSPENDED, Cause.STALL, Cause.HOST, Cause.ROW}

    @property
    def meaning(self) -> str:
        """The cause in a sentence."""
        return _MEANINGS[self]

    @property
    def advice(self) -> str:
        """What an operator should do about the process; ``CauseFinding.advice`` adds what becomes of its jobs."""
        return _ADVICE[self]


_MEANINGS = {
    Cause.MEMORY: "The kernel killed the process for want of memory, or an allocation failed in it.",
    Cause.SHUTDOWN: "The process was told to stop and killed before its jobs had ended: a deployment, a scale-down.",
    Cause.SUSPENDED: "The machine slept; no process could send a heartbeat, and all may be alive again.",
    Cause.STALL: "Every process fell silent at once: the database was away, or its clock jumped. They may be alive.",
    Cause.HUNG: "The process exists, but sends no heartbeats: stopped, or stuck in a call that holds the GIL or GVL.",
    Cause.HOST: "The whole machine or container went: power, network, eviction, a pod deleted by force.",
    Cause.CRASH: "A fault in compiled code ended the process: segmentation fault, abort, bus error.",
    Cause.EXIT: "The process ended itself with a status, inside a job: exit!, os._exit, or a fatal error at its top.",
    Cause.KILLED: "A signal ended the process. Who sent it is not in the evidence.",
    Cause.ROW: "The process's row was deleted while it had claimed jobs: by hand, by a script, or by an old clean-up.",
    Cause.UNKNOWN: "The evidence fits no cause better than another.",
}


_ADVICE = {
    Cause.MEMORY: "See which job grew (jq suspects); give its queue a worker with more memory and fewer threads (jq "
    "retry --queue-as), or make the job read in smaller parts. Raise the memory limit only when you know the need.",
    Cause.SHUTDOWN: "Give workers longer between SIGTERM and SIGKILL: terminationGracePeriodSeconds, the supervisor's "
    "shutdown timeout below it; split jobs that run longer, or let them save checkpoints.",
    Cause.SUSPENDED: "Check that the jobs do not still run before you retry them.",
    Cause.STALL: "Look at the database's own log for that time. Check that the processes do not still run the jobs (jq "
    "processes list) before you retry them.",
    Cause.HUNG: "See that the pid is still this process (ps -o lstart,args -p PID): a pid is given out again. Look at "
    "it before you kill it (py-spy, rbspy, gdb). Kill it before you retry its jobs: if it wakes up, they run twice.",
    Cause.HOST: "Ask the orchestrator why the machine went (evictions, spot instances, node memory).",
    Cause.CRASH: "Read the stack in the evidence (jq incidents show) and suspect the native library at the top. Hold "
    "the suspects (jq suspects) until that library is updated.",
    Cause.EXIT: "Find the exit call in the job's code or in what it runs; raise an error instead, which fails one job "
    "and not all beside it.",
    Cause.KILLED: "Ask the host: dmesg -T | grep -i -E 'oom|killed', the orchestrator's events, who was logged in.",
    Cause.ROW: "Never delete rows of solid_queue_processes: prune (jq prune).",
    Cause.UNKNOWN: "Ask the host and the orchestrator for that time; jq work leaves more evidence than Rails' workers.",
}


@dataclass(frozen=True, slots=True)
class CauseFinding:
    """A cause, with its confidence, the facts it rests on, and the evidence that was missing."""

    cause: Cause
    confidence: Confidence
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def outside(self) -> bool:
        """Whether it clears the jobs in flight: the cause lies outside of them, and is certain or likely."""
        return self.blame is Blame.OUTSIDE

    @property
    def blame(self) -> Blame:
        """Where the cause lies, as far as it is certain or likely."""
        if self.confidence not in {Confidence.CERTAIN, Confidence.LIKELY}:
            return Blame.UNKNOWN
        return Blame.OUTSIDE if self.cause.outside else _INSIDE.get(self.cause, Blame.UNKNOWN)

    @property
    def advice(self) -> str:
        """What an operator should do next; for a cause from outside also whether it clears the jobs."""
        if self.outside:
            return f"{self.cause.advice} The jobs are bystanders: jq retry --safe retries them."
        if self.cause.outside:
            return (
                f"{self.cause.advice} This is only {self.confidence}, so the jobs in flight stay charged (jq suspects)."
            )
        return self.cause.advice

    @property
    def words(self) -> str:
        """The cause with its confidence, as in ``out of memory (likely)``."""
        return str(self.cause) if self.cause is Cause.UNKNOWN else f"{self.cause} ({self.confidence})"


_INSIDE = {Cause.MEMORY: Blame.MEMORY, Cause.CRASH: Blame.CODE, Cause.EXIT: Blame.CODE}
