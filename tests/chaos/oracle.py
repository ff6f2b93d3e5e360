"""The oracle: what must hold after a run, found out from the jobs' own log, plain SQL and the audit triggers.

Nothing here uses the product. ``judge`` is a function of an ``Evidence`` alone, so another checker may do it again.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

STATES = ("ready", "scheduled", "blocked", "claimed", "failed")
GONE = "gone"
CRASH_LIMIT = 3  # of jq's built-in policy
# Written down here once more, so that an arrow that is wrong in the product is wrong here too.
ARROWS = {
    GONE: {"ready", "scheduled", "blocked", "failed"},  # enqueue; failed: a discard is taken back
    "scheduled": {"ready", "blocked", "failed", GONE},  # dispatch; failed, here and below: a retry is taken back
    "blocked": {"ready", "failed", GONE},
    "ready": {"claimed", "failed", GONE},
    "claimed": {"finished", "failed", "ready"},  # ready: released
    "failed": {"ready", "scheduled", GONE},  # retry, discard
    "finished": set(),
}
ENDS_FAILED = {"broken", "poison"}  # classes of which each run fails

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """All that is known of a run: its history, what the triggers wrote, and what is in the database at the end."""

    history: Sequence[Event]
    audit: Sequence[tuple[str, int, float | None]]  # what, of which job or pid, detail
    numbers: Mapping[int, int]  # the number of a job, by its id
    classes: Mapping[int, str]
    states: Mapping[int, Sequence[str]]  # of the jobs that are there
    semaphores: Mapping[str, int]
    archived: Mapping[int, int]  # failures in the archive, by job id
    operations: Mapping[int, tuple[str, int]]  # verb, and how many jobs it claims to have moved
    archived_by: Mapping[int, int]  # failures that an operation archived or took back
    threshold: float
    limit: int


def gather(connection: Connection, history: Sequence[Event], *, threshold: float, limit: int) -> Evidence:
    """Read the database, by plain SQL."""

    def rows(query: str) -> list[Any]:
        return list(connection.execute(text(query)))

    states: dict[int, list[str]] = {row.id: [] for row in rows("SELECT id FROM solid_queue_jobs")}
    for state in STATES:
        for row in rows(f"SELECT job_id FROM solid_queue_{state}_executions"):  # noqa: S608
            states.setdefault(row.job_id, []).append(state)
    for row in rows("SELECT id FROM solid_queue_jobs WHERE finished_at IS NOT NULL"):
        states[row.id].append("finished")
    jobs = rows("SELECT id AS job_id, class_name, arguments FROM solid_queue_jobs")
    jobs += rows("SELECT job_id, class_name, arguments FROM jq_failures")
    return Evidence(
        history=history,
        audit=[tuple(row) for row in rows("SELECT what, subject, detail FROM chaos_audit ORDER BY id")],
        numbers={row.job_id: _number(row) for row in jobs},
        classes={row.job_id: row.class_name for row in jobs},
        states=states,
        semaphores={row.key: row.value for row in rows("SELECT s.key, s.value FROM solid_queue_semaphores s")},
        archived=_sum(rows("SELECT job_id AS id, count(*) AS n FROM jq_failures GROUP BY job_id")),
        operations={row.id: (row.verb, row.jobs) for row in rows("SELECT id, verb, jobs FROM jq_operations")},
        archived_by=_sum(
            rows("SELECT operation_id AS id, count(*) AS n FROM jq_failures GROUP BY operation_id"),
            rows("SELECT restored_by AS id, count(*) AS n FROM jq_failures GROUP BY restored_by"),
        ),
        threshold=threshold,
        limit=limit,
    )


def _number(job: Any) -> int:
    """Return the number that a job has as its first argument; the row's id if it has none."""
    arguments = json.loads(job.arguments)["arguments"]
    return int(arguments[0]) if arguments else int(job.job_id)


def _sum(*of: Sequence[Any]) -> dict[int, int]:
    total: Counter[int] = Counter()
    for rows in of:
        total.update({row.id: row.n for row in rows if row.id is not None})
    return total


def judge(evidence: Evidence) -> list[str]:
    """Return every violation, in a sentence."""
    return [
        *_lost(evidence),
        *paths(evidence),
        *_runs(evidence),
        *_forgotten(evidence),
        *_limits(evidence),
        *records(evidence),
        *_failed_commands(evidence),
    ]


def excused(evidence: Evidence) -> set[int]:
    """Return the pids whose last jobs may be done again: killed, or taken for dead by others.

    A process was taken for dead if its row was removed when its last heartbeat was older than the threshold: after it
    was frozen or cut off, or because the machine was too busy for it.
    """
    pids = {pid for event in evidence.history if event["f"] == "fault" for pid in event.get("excused", ())}
    silent = {
        subject for what, subject, age in evidence.audit if what == "process-" and (age or 0) >= evidence.threshold
    }
    poisoned = {event["process"] for event in _of(evidence, "run") if event["job"] in _poisons(evidence)}
    return pids | silent | poisoned


def _of(evidence: Evidence, f: str) -> list[Event]:
    return [event for event in evidence.history if event["f"] == f]


def _poisons(evidence: Evidence) -> set[int]:
    return {evidence.numbers[job_id] for job_id, name in evidence.classes.items() if name == "poison"}


def _lost(evidence: Evidence) -> Iterator[str]:
    """Nothing is lost: what was acknowledged is there once, and has ended as its class ends."""
    ids = defaultdict(list)
    for job_id, number in evidence.numbers.items():
        ids[number].append(job_id)
    for number, same in ids.items():
        if len(same) > 1:
            yield f"job {number} was enqueued {len(same)} times: rows {same}"
    acknowledged = {number for event in _of(evidence, "enqueue") if event["type"] == "ok" for number in event["jobs"]}
    for number in sorted(acknowledged - ids.keys()):
        yield f"job {number} was acknowledged, and is not there"
    for job_id, states in evidence.states.items():
        expected = "failed" if evidence.classes[job_id] in ENDS_FAILED else "finished"
        if list(states) != [expected]:
            yield f"job {evidence.numbers[job_id]} is {' and '.join(states) or 'in no state'}, not {expected}"


def paths(evidence: Evidence) -> Iterator[str]:
    """A job is always in one state, and every change of it is an arrow: it ends once, and nothing follows.

    A change is two rows, in either order: the old state's goes, the new one's comes.
    """
    jobs: dict[int, _Path] = defaultdict(_Path)
    for what, job_id, _ in evidence.audit:
        if what != "process-" and (wrong := jobs[job_id].step(what)):
            yield f"job {evidence.numbers.get(job_id)} {wrong}"
    for job_id, path in jobs.items():
        if path.halfway:
            yield f"job {evidence.numbers.get(job_id)} was left in the states {sorted(path.rows)}, after {path.halfway}"


@dataclass
class _Path:
    """The rows that one job has, and the state that it was in when they last agreed."""

    rows: set[str] = field(default_factory=set)
    exists: bool = False
    state: str = GONE
    halfway: str = ""  # the event after which they did not agree

    def step(self, what: str) -> str | None:
        """Take a row away or add one; return what is wrong with that."""
        if what == "finished again":
            return "was changed after it had finished"
        if what in {"job+", "job-"}:
            self.exists = what == "job+"
            if not self.exists:
                self.rows.clear()  # by a foreign key; MariaDB starts no trigger for that
        elif what.endswith("+"):
            self.rows.add(what[:-1])
        elif what[:-1] in self.rows:
            self.rows.discard(what[:-1])
        else:  # PostgreSQL started the triggers of one statement in another order: the row went with its job
            return None
        if len(self.rows) != self.exists:
            before, self.halfway = self.halfway, what
            return f"was in the states {sorted(self.rows)} at once, after {what}" if before else None
        before, self.state, self.halfway = self.state, next(iter(self.rows), GONE), ""
        return None if self.state in ARROWS[before] else f"went from {before} to {self.state}"


def _runs(evidence: Evidence) -> Iterator[str]:
    """A job runs only as often as it was claimed, and is finished only if it ran to its end; a poison is limited."""
    claims = Counter(evidence.numbers.get(job_id) for what, job_id, _ in evidence.audit if what == "claimed+")
    runs = _of(evidence, "run")
    begun = Counter(event["job"] for event in runs if event["type"] == "invoke")
    done = {event["job"] for event in runs if event["type"] == "ok"}
    for number, times in begun.items():
        if times > claims[number]:
            yield f"job {number} ran {times} times, and was claimed {claims[number]} times"
    for job_id, states in evidence.states.items():
        number = evidence.numbers[job_id]
        if "finished" in states and number not in done:
            yield f"job {number} is finished, and never ran to its end"
    for number in _poisons(evidence):
        if begun[number] > CRASH_LIMIT:
            yield f"job {number} killed {begun[number]} workers; the limit is {CRASH_LIMIT}"


def _forgotten(evidence: Evidence) -> Iterator[str]:
    """A job that ended well in a process that nothing befell does not run again."""
    unsure = excused(evidence)
    done: dict[int, int] = {}
    for event in _of(evidence, "run"):
        number = event["job"]
        if event["type"] == "ok":
            done[number] = event["process"]
        elif event["type"] == "invoke" and number in done and done[number] not in unsure:
            yield f"job {number} ran again, though it had ended well in process {done[number]}, which nothing befell"


def _limits(evidence: Evidence) -> Iterator[str]:
    """No more jobs of a key run at once than its limit, but for processes that others may have taken for dead.

    Runs whose end is unknown are left out. Afterwards every slot is free.
    """
    unsure = excused(evidence)
    ends = {(event["job"], event["process"]) for event in _of(evidence, "run") if event["type"] != "invoke"}
    running: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for event in _of(evidence, "run"):
        run = (event["job"], event["process"])
        if "key" not in event or run not in ends or run[1] in unsure:
            continue
        if event["type"] != "invoke":
            running[event["key"]].discard(run)
            continue
        running[event["key"]].add(run)
        if len(running[event["key"]]) > evidence.limit:
            yield f"{len(running[event['key']])} jobs of the key {event['key']} ran at once: {running[event['key']]}"
    for key, value in evidence.semaphores.items():
        if value != evidence.limit:
            yield f"the semaphore {key} has {value} free slots of {evidence.limit} when all jobs have ended"


def records(evidence: Evidence) -> Iterator[str]:
    """Each failure that was taken away is in the archive, and each operation counts what it moved."""
    removed = removed_failures(evidence)
    for job_id in removed.keys() | evidence.archived.keys():
        archived = evidence.archived.get(job_id, 0)
        if removed[job_id] != archived:
            yield f"job {evidence.numbers.get(job_id)} lost {removed[job_id]} failures; {archived} are archived"
    for operation, (verb, moved) in evidence.operations.items():
        found = evidence.archived_by.get(operation, 0)
        if verb in {"retry", "discard", "recover", "undo"} and moved != found:
            yield f"the {verb} {operation} counts {moved} jobs; the archive has {found} failures of it"


def removed_failures(evidence: Evidence) -> Counter[int]:
    """Return how many failures each job has lost; MariaDB starts no trigger where a foreign key deletes them."""
    removed: Counter[int] = Counter()
    failed: set[int] = set()
    for what, job_id, _ in evidence.audit:
        if what == "failed+":
            failed.add(job_id)
        elif what in {"failed-", "job-"} and job_id in failed:
            failed.remove(job_id)
            removed[job_id] += 1
    return removed


def _failed_commands(evidence: Evidence) -> Iterator[str]:
    """No command ends in a way that it should not, and jobs run again after each fault."""
    for event in evidence.history:
        if event["f"] == "command" and (event.get("status") in {1, 2} or "Traceback" in event.get("words", "")):
            yield f"jq {event['command']} ended with {event['status']}: {event.get('words', '')}"
        if event["type"] == "fail" and event["f"] in {"fault", "end"}:
            yield str(event["words"])
