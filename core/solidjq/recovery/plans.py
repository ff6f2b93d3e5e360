"""A plan in a file: the exact failures that a retry would move, to be reviewed. apply.py carries it out as written.

One JSON object a line: a head, a line a job, and an end with the number of jobs, which a file that was cut off lacks,
and the checksum of the lines before it. The head names the database. A plan may be signed with a key that its reviewer
shares. A plan is never trusted: what it says of each job is compared with the database before anything moves.
"""

import hashlib
import hmac
import json
import os
import stat
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from solidjq.database.place import DatabaseIdentity
from solidjq.errors import RefusedError, UsageError
from solidjq.files import open_file, replaced
from solidjq.ledger import actors
from solidjq.ownership import weakness
from solidjq.queue.waiting import WAITING
from solidjq.recovery.planned import PlannedFailure
from solidjq.recovery.terms import RetryTerms
from solidjq.recovery.verdicts import Decision
from solidjq.recovery.waiting import PlannedJob, WaitingDecision, WaitingTerms, WaitingVerb
from solidjq.text import count_of, one_line

FORMAT = 2
LONGEST_LINE = 64 * 1024  # bytes
MOST_JOBS = 100_000_000  # so that an endless file ends
LONGEST_NAME = 255  # characters of a queue that the operator names; PostgreSQL's and SQLite's columns hold longer ones
SHORTEST_KEY, LONGEST_KEY = 16, 64 * 1024  # bytes
MAKE_ANEW = "make the plan again"

_BIGINT = 2**63


class _Copy:
    """The checked lines of a plan, in an anonymous file that nobody else can open; it is deleted with its last user."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)

    def __del__(self) -> None:
        if file := getattr(self, "_file", None):
            file.close()

    def add(self, line: bytes) -> None:
        self._file.write(line)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield each line's object, from the first; several threads may do so at once."""
        self._file.flush()
        rest, at = b"", 0
        while chunk := os.pread(self._file.fileno(), LONGEST_LINE, at):
            at += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(json.loads, lines)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan file that was checked. ``size``: how many jobs it moves, and ``destinations``: how many to which queue."""

    id: str
    place: DatabaseIdentity  # the database that it was made for
    terms: RetryTerms
    size: int
    signed: bool
    copy: _Copy  # what was checked; the file itself may be changed meanwhile
    destinations: Mapping[str, int] = field(default_factory=dict)
    waiting: WaitingTerms | None = None  # what it does with jobs that wait; None for a plan of failures

    def waiting_jobs(self) -> Iterator[PlannedJob]:
        """Yield the waiting jobs to move, read line by line."""
        for line in self.copy.lines():
            if "state" in line:
                yield PlannedJob(**line)

    def jobs(self) -> Iterator[PlannedFailure]:
        """Yield the failures to move, read line by line: memory does not grow with the plan."""
        for line in self.copy.lines():
            if "failure_id" in line:
                yield PlannedFailure(**line)

    @property
    def verb(self) -> str:
        """The verb of the operation that carries it out, as it is recorded."""
        if self.waiting is not None:
            return self.waiting.verb.recorded
        return "discard" if self.terms.discard else "retry"

    def danger(self) -> str | None:
        """Return in words why this plan needs a confirmation; None for an ordinary retry."""
        if self.terms.discard or (self.waiting is not None and self.waiting.verb is WaitingVerb.DISCARD):
            return f"the plan deletes {count_of(self.size, 'job')}"
        if self.terms.force:
            return f"the plan retries {count_of(self.size, 'job')} past their crash limit and policy (--force)"
        return None


# -- writing ----------------------------------------------------------------------------------------------------------


def write(
    path: Path,
    place: DatabaseIdentity,
    terms: RetryTerms | WaitingTerms,
    decisions: Iterable[Decision] | Iterable[WaitingDecision],
    *,
    key: bytes | None = None,
) -> int:
    """Write a plan of the decisions that move a job; return how many. The file is written whole or not at all.

    A job whose names do not fit a line is left out. With ``key`` the plan is signed. Raises UsageError if it cannot be
    written.
    """
    count = 0
    try:
        with replaced(path, mode=0o600) as file:
            seal = _Seal(key)
            by = actors.actor()
            head = {"jq_plan": FORMAT, "id": str(uuid.uuid4()), "by": by, "database": place._asdict()}
            _write_line(file, {**head, "terms": terms.to_record()}, seal)
            for decision in decisions:
                if line := _line(decision):
                    count += _write_line(file, line, seal)
            _write_line(file, {"end": count, **seal.to_record()})
    except OSError as error:
        raise UsageError(f"the plan cannot be written to {path}: {error.strerror}") from None
    return count


def _line(decision: Decision | WaitingDecision) -> dict[str, object]:
    """Return what a plan says of one job; nothing if it does not move."""
    if isinstance(decision, WaitingDecision):
        return _of_waiting(decision) if decision.moves else {}
    if not decision.verdict.moves:
        return {}
    candidate = decision.candidate
    return {
        "failure_id": candidate.failure_id,
        "job_id": candidate.job_id,
        "active_job_id": candidate.active_job_id,
        "class_name": candidate.class_name,
        "queue_name": candidate.queue_name,
        "queue_as": decision.queue_as,
    }


def _of_waiting(decision: WaitingDecision) -> dict[str, object]:
    job = decision.job
    return {
        "job_id": job.job_id,
        "active_job_id": job.active_job_id,
        "class_name": job.class_name,
        "queue_name": job.queue_name,
        "state": decision.state and decision.state.value,
    }


class _Seal:
    """The checksum of a plan's lines and, with a key, their signature."""

    def __init__(self, key: bytes | None) -> None:
        self._sum = hashlib.sha256()
        self._signature = None if key is None else hmac.new(key, digestmod=hashlib.sha256)

    def add(self, line: bytes) -> None:
        self._sum.update(line)
        if self._signature is not None:
            self._signature.update(line)

    def to_record(self) -> dict[str, str]:
        signature = {} if self._signature is None else {"hmac_sha256": self._signature.hexdigest()}
        return {"sha256": self._sum.hexdigest(), **signature}


def _write_line(file: IO[bytes], value: Mapping[str, object], seal: _Seal | None = None) -> bool:
    """Write a line; False, and nothing is written, if it is too long."""
    line = json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
    if len(line) > LONGEST_LINE:
        return False
    file.write(line)
    if seal is not None:
        seal.add(line)
    return True


def read_key(path: Path) -> bytes:
    """Return the key in a file.

    Raises UsageError if it cannot be read, or if it may be somebody else's: whoever knows or replaces it could sign.
    """
    try:
        with open_file(path) as file:
            status = os.fstat(file.fileno())
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise UsageError(f"the key {path} may be read or written by others than its owner: chmod 600 {path}")
            if problem := weakness(path, temporary=True):
                raise UsageError(f"the key {path} may be another user's: {problem}; make one of your own")
            key = file.read(LONGEST_KEY + 1)
    except OSError as error:
        raise UsageError(f"the key cannot be read: {path}: {error.strerror}") from None
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise UsageError(
            f"a key has {SHORTEST_KEY} to {LONGEST_KEY} bytes; to make one: head -c 32 /dev/urandom > KEYFILE"
        )
    return key


# -- reading ----------------------------------------------------------------------------------------------------------


def read(path: Path, *, key: bytes | None = None) -> Plan:
    """Read a plan and check that the file is whole and unchanged, with ``key`` also that it was signed with that key.

    What was checked is copied to a file that nobody else can reach, and read from there again.

    Raises UsageError if it cannot be read, was cut off, or is not a plan that this version wrote, and RefusedError if
    its lines do not match its checksum or signature.
    """
    try:
        return _checked(path, _Copy(), key)
    except OSError as error:
        raise UsageError(f"the plan cannot be read: {path}: {error.strerror}") from None


def _checked(path: Path, copy: _Copy, key: bytes | None) -> Plan:
    seal = _Seal(key)
    head: tuple[str, DatabaseIdentity, RetryTerms, WaitingTerms | None] | None = None
    end: dict[str, Any] | None = None
    size = 0
    destinations: Counter[str] = Counter()
    with open_file(path, pipes=True) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), start=1):
            where = f"{path} is not a plan: line {number}"
            value = _parse(line, where)
            if end is not None:
                raise UsageError(f"{where} comes after the end; {MAKE_ANEW}")
            if head is None:
                head = _head(path, value)
            elif "end" in value:
                end = value
                continue
            else:
                destinations[_destination(value, head[3], where)] += 1
                size += 1
                if size > MOST_JOBS:
                    raise UsageError(f"{path} has more than {MOST_JOBS:,} jobs")
            seal.add(line)
            copy.add(line)
    if head is None:
        raise UsageError(f"{path} is not a plan: it is empty")
    if end is None or end["end"] != size:
        raise UsageError(f"{path} was cut off or changed; {MAKE_ANEW}")
    _check_seal(path, seal.to_record(), end, verify=key is not None)
    plan_id, place, terms, waiting = head
    return Plan(plan_id, place, terms, size, "hmac_sha256" in end, copy, destinations, waiting)


def _check_seal(path: Path, seal: Mapping[str, str], end: Mapping[str, Any], *, verify: bool) -> None:
    if not hmac.compare_digest(seal["sha256"], str(end.get("sha256")).encode("ascii", "replace").decode()):
        raise RefusedError(f"{path} was changed after it was written: its checksum differs; {MAKE_ANEW}")
    if not verify:
        return
    if "hmac_sha256" not in end:
        raise RefusedError(f"{path} is not signed; make the plan with --sign-with KEYFILE")
    if not hmac.compare_digest(seal["hmac_sha256"], str(end["hmac_sha256"]).encode("ascii", "replace").decode()):
        raise RefusedError(f"{path} was not signed with this key, or was changed since")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in a line. Raises UsageError if it is none, is too long or too deep, or repeats a key."""
    if len(line) > LONGEST_LINE:
        raise UsageError(f"{where} is longer than {LONGEST_LINE:,} bytes")
    try:
        value = json.loads(line, object_pairs_hook=_unique)
    except RecursionError:
        raise UsageError(f"{where} is nested too deep") from None
    except ValueError as error:
        raise UsageError(f"{where}: {one_line(str(error))}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _head(path: Path, value: Mapping[str, Any]) -> tuple[str, DatabaseIdentity, RetryTerms, WaitingTerms | None]:
    version = value.get("jq_plan")
    if type(version) is not int or version < 1:
        raise UsageError(f"{path} is not a plan: it does not begin with the head of one")
    if version != FORMAT:
        which = "an earlier" if version < FORMAT else "a later"
        raise UsageError(f"{path} was written by {which} version of jq; {MAKE_ANEW} with this one")
    unreadable = f"{path} is not a plan that this version of jq wrote"
    terms, place, plan_id = value.get("terms"), value.get("database"), value.get("id")
    if not (isinstance(terms, dict) and isinstance(place, dict) and _is_name(plan_id)):
        raise UsageError(unreadable)
    try:
        waiting = WaitingTerms.from_record(terms) if "verb" in terms else None
        of_failures = RetryTerms() if waiting is not None else RetryTerms.from_record(terms)
        return str(plan_id), _identity(place), of_failures, waiting
    except (TypeError, ValueError) as error:
        raise UsageError(f"{unreadable}: {one_line(str(error))}") from None


def _identity(value: Mapping[str, Any]) -> DatabaseIdentity:
    identity = DatabaseIdentity(**value)
    names = [part for part in identity._replace(port=None) if part is not None]
    port = identity.port
    if not all(isinstance(part, str) for part in names) or not (port is None or type(port) is int):
        raise ValueError("the database is not named as jq names one")
    return identity


def _destination(value: Mapping[str, Any], waiting: WaitingTerms | None, where: str) -> str:
    """Check the line of a job; return the queue that the job goes to. Raises UsageError."""
    checks: dict[str, Callable[[object], bool]] = {
        "job_id": _is_id,
        "active_job_id": lambda name: name is None or isinstance(name, str),
        "class_name": lambda name: isinstance(name, str),
        "queue_name": lambda name: isinstance(name, str),
    }
    if waiting is None:
        checks = {"failure_id": _is_id, **checks, "queue_as": lambda name: name is None or _is_name(name)}
    else:
        checks["state"] = lambda name: name in {state.value for state in WAITING}
    if value.keys() != checks.keys():
        raise UsageError(f"{where} does not have exactly these keys: {', '.join(checks)}")
    for key, check in checks.items():
        if not check(value[key]):
            raise UsageError(f"{where}: {key} cannot be {one_line(json.dumps(value[key])[:100])}")
    to = value["queue_as"] if waiting is None else waiting.queue_name
    return str(to or value["queue_name"])


def _is_id(value: object) -> bool:
    return type(value) is int and 0 < value < _BIGINT


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_NAME
