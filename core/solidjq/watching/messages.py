"""An event as one JSON object: what is printed with ``-o ndjson``, posted to webhooks and passed to programs.

Every message has every field. Its texts are bounded, in one line, and free of secrets that can be recognised; arguments
of jobs are in none. The same event has the same id each time, so that a receiver recognizes a repetition.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from solidjq.incidents.causes import CauseFinding
from solidjq.incidents.death_records import DeathRecord
from solidjq.processes.heartbeat import ALIVE_THRESHOLD, Process
from solidjq.rails.error_text import Death
from solidjq.text import count_of, first_of, mask_secrets, one_line, signal_name
from solidjq.untrusted import EARLIEST
from solidjq.watching.events import Event, GroupNews, IncidentNews, JobRef, NewDeath, SilenceNews
from solidjq.watching.position import Cooldown
from solidjq.watching.silence import SilentGroup

MOST_JOBS = 200  # of one message; the rest of a death's are in further ones
MOST_PROCESSES = 20
MOST_CLASSES = 20
TITLE = 300  # characters
NAME = 255  # characters of a class, queue or host

_LISTS = {"incident": "solidjq incidents list --since 1h", "silent": "solidjq processes list"}

Message = dict[str, Any]


def messages_of(event: Event, database: str) -> Iterator[Message]:
    """Yield the messages of an event: one, but of a death with many jobs several. ``database``: its name in words."""
    match event:
        case NewDeath():
            yield from _of_death(event, database)
        case IncidentNews():
            yield _of_incident(event, database)
        case GroupNews():
            yield _of_group(event, database)
        case SilenceNews():
            yield _of_silence(event, database)


def is_first(event: Event) -> bool:
    """Whether an event is reported by itself; another is only counted, where a cooldown counts."""
    return isinstance(event, NewDeath | SilenceNews) or event.first


def summary_of(key: str, cooldown: Cooldown, database: str, now: float) -> Message:
    """Return the message of what a cooldown has held back."""
    kind = key.partition(":")[0]
    number = f"{cooldown.messages:,} more"
    names = f": {first_of(cooldown.names, 5)}" if cooldown.names else ""
    jobs = f", {count_of(cooldown.jobs, 'job')}" if cooldown.jobs else ""
    return _message(
        _id(database, kind, f"held:{key}:{int(cooldown.until)}"),
        kind=kind,
        name=cooldown.names[0] if cooldown.names else "",
        at=datetime.fromtimestamp(now, UTC),
        database=database,
        title=f"{number} since then{names}{jobs}; the first was: {cooldown.title}",
        jobs_total=cooldown.jobs,
        held_back=cooldown.messages,
        next_commands=[_LISTS.get(kind, "solidjq failed diff --since 1h")],
    )


def _of_death(event: NewDeath, database: str) -> Iterator[Message]:
    death = event.death
    parts = [event.jobs[at : at + MOST_JOBS] for at in range(0, len(event.jobs), MOST_JOBS)] or [()]
    for number, jobs in enumerate(parts):
        suffix = f":{jobs[0].failure_id}" if jobs and (number or event.continued) else ""
        more = f" (part {number + 1} of {len(parts)})" if len(parts) > 1 else " (more of its jobs)" * event.continued
        yield _message(
            _id(database, "death", f"{death.name}:{int(death.noticed_at.timestamp())}{suffix}"),
            kind="death",
            name=death.name,
            at=death.noticed_at,
            database=database,
            title=f"{_who(death)} died: {_how(death)}, {event.finding.words}{_with_jobs(event.jobs)}{more}",
            incident=event.incident,
            finding=event.finding,
            deaths=[death],
            jobs=jobs,
            jobs_total=len(event.jobs),
            classes=_classes(event.jobs),
            follows=event.follows,
            next_commands=[f"solidjq incidents show {event.incident}"],
        )


def _of_incident(event: IncidentNews, database: str) -> Message:
    incident, name = event.incident, event.new[0].incident
    deaths = [one.death for one in event.new]
    where = f" on {first_of(incident.hosts, 3)}" if incident.hosts else ""
    number = count_of(len(deaths), "process")
    noticed_at = next((death.noticed_at for death in incident.deaths if death.name == name), incident.noticed_at)
    safe = [f"solidjq retry --safe {name} --dry-run"] if event.jobs else []
    return _message(
        _id(database, "incident", f"{name}:{int(noticed_at.timestamp())}"),
        kind="incident",
        name=name,
        at=incident.noticed_at,
        database=database,
        title=f"{name}: {number} died{where}, {incident.finding.words}{_with_jobs(event.jobs)}",
        incident=name,
        finding=incident.finding,
        deaths=deaths,
        jobs=event.jobs[:MOST_JOBS],
        jobs_total=len(event.jobs),
        classes=_classes(event.jobs),
        follows=event.follows,
        next_commands=[f"solidjq incidents show {name}", *safe],
    )


def _of_group(event: GroupNews, database: str) -> Message:
    first, name = event.failures[0], event.signature.name
    jobs = [
        JobRef(one.job_id, one.active_job_id, one.class_name, one.queue_name, one.failure_id) for one in event.failures
    ]
    return _message(
        _id(database, "group", f"{name}:{first.failure_id}"),
        kind="group",
        name=name,
        at=first.failed_at,
        database=database,
        title=f"{name}: {first.class_name} fails with {event.signature.title}",
        error=event.signature.title,
        jobs=jobs[:MOST_JOBS],
        jobs_total=len(jobs),
        classes=_classes(jobs),
        next_commands=[f"solidjq failed show {first.job_id}", f"solidjq failed list {name}"],
    )


def _of_silence(event: SilenceNews, database: str) -> Message:
    group, first = event.group, event.group.processes[0]
    hosts = group.hosts
    beat = 0.0 if first.last_heartbeat_at is None else first.last_heartbeat_at.timestamp()
    reached = timedelta(seconds=event.threshold)
    threshold = "" if event.threshold == ALIVE_THRESHOLD else f" --alive-threshold {event.threshold:g}"
    return _message(
        _id(database, "silent", f"p{first.id}:{int(beat * 1000)}"),
        kind="silent",
        name=bounded(hosts[0], NAME) if len(hosts) == 1 else first.name if not hosts else f"{len(hosts):,} hosts",
        at=(first.last_heartbeat_at or EARLIEST) + reached,
        database=database,
        title=_silence_title(group, event.jobs),
        hosts=hosts,
        processes=group.processes,
        jobs=event.jobs[:MOST_JOBS],
        jobs_total=len(event.jobs),
        classes=_classes(event.jobs),
        next_commands=[f"solidjq processes list{threshold}", f"solidjq prune --dry-run{threshold}"],
    )


def _silence_title(group: SilentGroup, jobs: Sequence[JobRef]) -> str:
    """Return who is silent, for how long, and with how many jobs, in a line."""
    first, count = group.processes[0], len(group.processes)
    longest, shortest = first.silence, group.processes[-1].silence
    span = "for an unknown time" if longest is None else f"for {longest:.0f} s"
    if longest is not None and shortest is not None and round(shortest) != round(longest):
        span = f"for {shortest:.0f} to {longest:.0f} s"
    have, hosts = "has" if count == 1 else "have", group.hosts
    of = f"all {count:,} processes" if not group.others else f"{count:,} of {count + group.others:,} processes"
    if group.fleet:
        who, rather = f"{of}, on {len(hosts):,} hosts,", ": rather cut off from the database than dead"
    elif count == 1:
        who, rather = f"{first.kind} pid {first.pid}{f' on {hosts[0]}' if hosts else ''}", ""
    else:
        who, rather = f"{hosts[0] if hosts else first.name}: {of}", ""
    claimed = (
        f"; claimed there: {count_of(len(jobs), 'job')}, {_by_class(jobs)}" if jobs else "; no job is claimed there"
    )
    return f"{who} {have} been silent {span}{rather}{claimed}"


def _message(
    identifier: str,
    *,
    kind: str,
    name: str,
    at: datetime,
    database: str,
    title: str,
    next_commands: Sequence[str],
    incident: str | None = None,
    finding: CauseFinding | None = None,
    error: str | None = None,
    deaths: Sequence[DeathRecord] = (),
    hosts: Sequence[str] | None = None,
    processes: Sequence[Process] = (),
    follows: str | None = None,
    jobs: Sequence[JobRef] = (),
    jobs_total: int = 0,
    classes: Counter[str] | None = None,
    held_back: int = 0,
) -> Message:
    of_deaths = sorted({death.hostname for death in deaths if death.hostname})
    return {
        "id": identifier,
        "kind": kind,
        "name": name,
        "at": _time(at),
        "database": bounded(database),
        "title": bounded(title),
        "incident": incident,
        "cause": None if finding is None else str(finding.cause),
        "confidence": None if finding is None else str(finding.confidence),
        "error": None if error is None else bounded(error),
        "hosts": [bounded(host, NAME) for host in (of_deaths if hosts is None else hosts)[:MOST_PROCESSES]],
        "deaths": [_death(death) for death in deaths[:MOST_PROCESSES]],
        "processes": [_process(process) for process in processes[:MOST_PROCESSES]],
        "follows": follows,
        "jobs": [_job(job) for job in jobs],
        "jobs_total": jobs_total,
        "classes": {bounded(name, NAME): count for name, count in (classes or Counter()).most_common(MOST_CLASSES)},
        "held_back": held_back,
        "next": list(next_commands),
    }


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _process(process: Process) -> dict[str, Any]:
    return {
        "process_id": process.id,
        "kind": _short(process.kind),
        "process_name": _short(process.name),
        "hostname": _short(process.hostname),
        "pid": process.pid,
        "last_heartbeat_at": None if process.last_heartbeat_at is None else _time(process.last_heartbeat_at),
        "silent_for": None if process.silence is None else round(process.silence, 3),
        "claimed": process.claimed,
    }


def _death(death: DeathRecord) -> dict[str, Any]:
    return {
        "name": death.name,
        "process_id": death.process_id,
        "kind": _short(death.kind),
        "process_name": _short(death.process_name),
        "hostname": _short(death.hostname),
        "pid": death.pid,
        "signal": death.signal,
        "exit_status": death.exit_status,
        "noticed_by": str(death.source),
    }


def _job(job: JobRef) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "active_job_id": _short(job.active_job_id),
        "class_name": _short(job.class_name),
        "queue_name": _short(job.queue_name),
        "failure_id": job.failure_id,
    }


def _short(text: str | None) -> str | None:
    return None if text is None else bounded(text, NAME)


def bounded(text: str, most: int = TITLE) -> str:
    """Return a text in one line, secrets masked, control characters escaped, at most ``most`` characters."""
    line = one_line(mask_secrets(text[: most * 10]))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _id(database: str, kind: str, rest: str) -> str:
    """Return the id of a message: the same for the same event, another one for each database."""
    return f"jq-{sha256(database.encode('utf-8', 'replace')).hexdigest()[:8]}-{kind}-{rest}".replace(".", "_")


def _who(death: DeathRecord) -> str:
    kind = death.kind or "a process"
    pid = f" pid {death.pid}" if death.pid is not None else ""
    return f"{kind}{pid}{f' on {death.hostname}' if death.hostname else ''}"


def _how(death: DeathRecord) -> str:
    if death.signal is not None:
        return f"killed by {signal_name(death.signal)}"
    if death.exit_status is not None:
        return f"exited with status {death.exit_status}"
    return "its process was gone" if death.how is Death.MISSING else "its heartbeat stopped"


def _with_jobs(jobs: Sequence[JobRef]) -> str:
    if not jobs:
        return "; no job was in flight"
    return f"; {count_of(len(jobs), 'job')} failed: {_by_class(jobs)}"


def _by_class(jobs: Sequence[JobRef]) -> str:
    counts = _classes(jobs)
    return first_of([name if len(jobs) == 1 else f"{name} {count:,}" for name, count in counts.most_common()], 3)


def _classes(jobs: Iterable[JobRef]) -> Counter[str]:
    return Counter(job.class_name for job in jobs)
