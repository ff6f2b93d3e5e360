"""The JSON Schema of what ``-o json`` prints, a definition for each command: ``docs/output.schema.json``.

A field means one thing in every command, so its type and meaning are written once. Only where two commands use one
name for two kinds of values, ``OF_COMMAND`` has an entry for one of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from solidjq_cli import diff_view, outcomes
from solidjq_cli.columns.checks import check_fields, finding_fields, measure_fields
from solidjq_cli.columns.failures import failure_detail_fields, failure_fields
from solidjq_cli.columns.incidents import incident_detail_fields, incident_fields
from solidjq_cli.columns.jobs import class_time_fields, job_fields, listed_job_fields
from solidjq_cli.columns.messages import message_fields
from solidjq_cli.columns.operations import chain_report_fields, event_fields, operation_fields, undone_job_fields
from solidjq_cli.columns.processes import process_fields, pruned_process_fields
from solidjq_cli.columns.queues import concurrency_key_fields, queue_fields
from solidjq_cli.columns.settings import config_file_fields, policy_setting_fields, profile_fields, setting_fields
from solidjq_cli.columns.status import status_fields
from solidjq_cli.columns.suspects import suspect_fields, trial_fields
from solidjq_cli.columns.verdicts import decision_fields
from solidjq_cli.columns.waiting import waiting_decision_fields
from solidjq_cli.view import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solidjq_cli.columns.column import Fields

_TIME = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"}
_TYPES: dict[str, dict[str, Any]] = {
    "id": {"type": "integer", "minimum": 0},
    "int": {"type": "integer"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "text": {"type": "string"},
    "time": _TIME,
    "ids": {"type": "array", "items": {"type": "integer"}},
    "texts": {"type": "array", "items": {"type": "string"}},
    "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
    "object": {"type": "object"},
    "object?": {"type": ["object", "null"]},
    "objects": {"type": "array", "items": {"type": "object"}},
    "any": {},
}

# Each field by its name: its type, with ? where it may be null, and its meaning.
FIELDS: dict[str, tuple[str, str]] = {
    "active_job_id": ("text?", "Active Job's id, which all attempts of a job share"),
    "actor": ("text?", "who did it: user and host"),
    "alive": ("bool?", "whether its heartbeat is young enough; null on a standby, which may only be behind"),
    "alive_threshold": ("number?", "seconds of silence from which on a process is dead"),
    "alone": ("int", "deaths at which the suspect alone was in flight"),
    "arguments": ("any", "the job's arguments as data; secrets are masked"),
    "asks": ("text", "the question that the check answers"),
    "at": ("time?", "when it happened; of an incident: the last sign of life of its first process"),
    "backtrace": ("texts", "the frames of the error, the innermost first"),
    "before": ("int", "failures of the group in the time compared with"),
    "before_per_hour": ("number?", "failures of the group per hour, in the time compared with"),
    "beside": ("texts", "other incidents of the same moment, with another cause"),
    "blocked": ("int", "jobs that wait for a concurrency slot"),
    "blocked_by": ("objects", "jobs that hold the slots which a blocked job waits for"),
    "blocked_until": ("time?", "when its wait for a concurrency slot ends at the latest"),
    "breaks": ("objects", "where the record is not as it was sealed"),
    "broken": ("int", "how many breaks there are"),
    "cause": ("text", "what the deaths are put down to; see docs/causes.md"),
    "causes": ("counts", "failures by the cause of their death"),
    "change": ("text", "new, grown, shrunk, gone or same"),
    "charged": ("bool", "whether the incident counts against its jobs: no cause outside of them is certain or likely"),
    "check": ("text", "the name of the check"),
    "ci_job": ("text?", "the CI job that ran the command"),
    "claimed": ("int", "jobs that a worker holds"),
    "claimed_at": ("time?", "when a worker claimed it"),
    "class_name": ("text", "the job's class"),
    "classes": ("texts", "the classes of its jobs"),
    "command": ("text?", "the command line; secrets are masked"),
    "concurrency_key": ("text?", "the key of the concurrency limit"),
    "confidence": ("text", "certain, likely, possible or unknown"),
    "confirm": ("text", "how a bulk change is confirmed: yes, or by the name of the profile"),
    "crashes": ("int", "deaths at which the job was in flight, those that the policy counts"),
    "critical": ("text?", "the range outside of which the value is critical, as the monitoring plugins write it"),
    "created_at": ("time?", "when the row was written"),
    "database": ("text?", "the URL; secrets are masked"),
    "database_role": ("text?", "the database's user"),
    "databases": ("texts", "the databases on which the check runs"),
    "death": ("text?", "pruned, exited or missing if the job died with its process, else null"),
    "deaths": ("int", "deaths at which the suspect was in flight"),
    "detail": ("text?", "more about the event"),
    "died": ("ids", "jobs on trial that died again"),
    "differs": ("bool", "whether the two sides differ in this field"),
    "ended_at": ("time?", "when the command ended"),
    "enqueued_at": ("time?", "when the job was enqueued"),
    "env": ("text?", "the environment of the Rails application"),
    "error": ("text?", "the error in one line"),
    "error_class": ("text?", "the class of the exception"),
    "event": ("text", "what happened to the job"),
    "example_job_id": ("id?", "a job of the group"),
    "exit_status": ("int?", "the exit status of the process"),
    "expected_operation": ("id?", "the operation whose link has the hash of --expect"),
    "expires_at": ("time?", "when the semaphore expires"),
    "factor": ("number?", "how many times as often as before; null if it is new"),
    "facts": ("texts", "what the cause rests on"),
    "failed": ("int", "jobs that the prune failed"),
    "failed_at": ("time?", "when the job failed"),
    "failure_id": ("id?", "the id of the failed execution"),
    "field": ("text", "the field that is compared"),
    "finding": ("text?", "what was found"),
    "finished_at": ("time?", "when the job finished"),
    "finished_jobs": ("int?", "how many jobs that finished were read"),
    "finished_p50": ("number?", "the 50th percentile in seconds, of jobs that finished: from due to finished"),
    "finished_p95": ("number?", "the 95th percentile in seconds, of jobs that finished: from due to finished"),
    "finished_p99": ("number?", "the 99th percentile in seconds, of jobs that finished: from due to finished"),
    "first_failed_at": ("time?", "when the first job of the group failed"),
    "fix": ("text?", "what to do about the finding"),
    "fixable": ("bool", "whether --fix can mend the finding"),
    "frames": ("texts", "the frames that identify the group"),
    "free": ("int?", "free slots of the limit; null without a semaphore"),
    "group": ("text", "the name of the group: g2569e0c"),
    "heartbeat_age": ("number?", "seconds since the last heartbeat, by the database's clock"),
    "hostname": ("text?", "the host"),
    "hosts": ("texts", "the hosts of its processes"),
    "incident": ("text", "the name of the incident: d17, f123"),
    "job_id": ("id", "the job's id"),
    "job_ids": ("ids", "the ids of its jobs"),
    "jobs": ("int", "how many jobs"),
    "key": ("text", "the setting"),
    "kind": ("text", "what kind it is"),
    "last_failed_at": ("time?", "when the last job of the group failed"),
    "last_hash": ("text?", "the hash of the last link of the record"),
    "last_heartbeat_at": ("time?", "the last heartbeat of the process"),
    "last_operation": ("id?", "the last sealed operation"),
    "latency": ("number?", "seconds that the oldest ready job has waited"),
    "left": ("any", "the field's value on the first side"),
    "limit": ("int?", "the limit as far as it can be seen: free slots and those that jobs hold"),
    "links": ("int", "how many operations are sealed"),
    "mark": ("text", "+ new, > grown, < shrunk, - gone"),
    "mends": ("text?", "what --fix does"),
    "message": ("text?", "the error's whole message"),
    "metadata": ("any", "the process's metadata as data"),
    "missing": ("texts", "facts that are unknown and would decide the cause"),
    "moves": ("bool", "whether the job moves"),
    "name": ("text", "the name"),
    "next": ("text", "what to do next"),
    "noticed_at": ("time?", "when the last of its deaths was noticed"),
    "now": ("int", "failures of the group in the time asked for"),
    "now_per_hour": ("number?", "failures of the group per hour, in the time asked for"),
    "oldest_blocked_at": ("time?", "since when the oldest blocked job waits"),
    "oldest_ready_at": ("time?", "since when the oldest ready job waits"),
    "on_trial": ("ids", "jobs that run alone now"),
    "operation_id": ("id?", "the operation's id"),
    "outcome": ("object?", "what became of the jobs: a count for each outcome; null where none are followed"),
    "path": ("text", "the file"),
    "paused": ("bool", "whether the queue is paused"),
    "pid": ("int?", "the process's pid"),
    "plan": ("text?", "the plan that was applied"),
    "priority": ("int", "the job's priority"),
    "position": ("object?", "where a long job died again and again: step, cursor, and whether that is exact"),
    "progress": ("object?", "how far a long job got: completed, step, cursor, resumptions, saved_at"),
    "process_hostname": ("text?", "the host of the process that holds it"),
    "process_id": ("id?", "the process's id"),
    "process_name": ("text?", "the name of the process that holds it"),
    "process_pid": ("int?", "the pid of the process that holds it"),
    "processes": ("int", "how many processes died"),
    "processes_exact": ("bool", "whether no more may have died: failures of some cannot be told apart"),
    "queue_as": ("text?", "the queue that the job goes to instead of its own"),
    "queue_name": ("text", "the queue"),
    "queues": ("text?", "the queues that a worker polls"),
    "rails": ("text?", "the folder of the Rails application"),
    "read_only": ("bool", "whether nothing may be changed"),
    "ready": ("int", "jobs that wait for a worker"),
    "reason": ("text?", "the reason: of a verdict, or what --reason said"),
    "reasons": ("texts", "why it is a suspect, or is not"),
    "restored": ("any", "taken back by an undo: how many jobs, or whether this one was"),
    "retry_safe": ("objects?", "what retry --safe would do with each of its failed jobs"),
    "right": ("any", "the field's value on the second side"),
    "running_jobs": ("int?", "how many jobs that run were read"),
    "running_p50": ("number?", "the 50th percentile in seconds, of jobs that run: since they were claimed"),
    "running_p95": ("number?", "the 95th percentile in seconds, of jobs that run: since they were claimed"),
    "running_p99": ("number?", "the 99th percentile in seconds, of jobs that run: since they were claimed"),
    "scheduled": ("int", "jobs whose time has not come"),
    "scheduled_at": ("time?", "when the job is, or was, due"),
    "schema": ("text?", "the PostgreSQL schema"),
    "score": ("number", "how strong the suspicion is"),
    "selection": ("any", "the filter or the ids that chose the jobs"),
    "signal": ("int?", "the signal that ended the process"),
    "signature": ("text?", "the message of the group, with what differs left out"),
    "since": ("time?", "when the first operation was sealed"),
    "source": ("text", "where the value comes from"),
    "stage": ("text", "how far the bisect is"),
    "standing": ("text", "how the suspect is judged; how far the file counts"),
    "state": ("text", "the job's state, or several joined by + if its rows are damaged"),
    "status": ("text", "error, warning, note, skipped or healthy"),
    "stop_requested": ("text?", "who asked the running job to stop, by which operation, and why"),
    "supervisor_id": ("id?", "the process that supervises it"),
    "suspects": ("ids", "jobs of which one is the killer"),
    "table_prefix": ("text?", "what the names of the queue's tables begin with"),
    "text": ("text", "what is wrong, or what was found"),
    "title": ("text", "the error in one line"),
    "unit": ("text?", "s for seconds"),
    "untried": ("ids", "jobs that never ran on trial, once all others are cleared"),
    "unsealed": ("ids", "operations that are not sealed yet"),
    "unsealed_count": ("int", "how many operations are not sealed yet"),
    "value": ("any", "the value of the setting"),
    "verb": ("text", "what was done"),
    "verdict": ("text", "whether the job may move, or why not"),
    "verdicts": ("any", "how many jobs had which verdict"),
    "waited_jobs": ("int?", "how many jobs that run were read"),
    "waited_p50": ("number?", "the 50th percentile in seconds, of jobs that run: from due to claimed"),
    "waited_p95": ("number?", "the 95th percentile in seconds, of jobs that run: from due to claimed"),
    "waited_p99": ("number?", "the 99th percentile in seconds, of jobs that run: from due to claimed"),
    "waiting": ("ids", "jobs whose trial is still to come"),
    "waiting_jobs": ("int?", "how many ready jobs were read"),
    "waiting_p50": ("number?", "the 50th percentile in seconds, of ready jobs: since they were due"),
    "waiting_p95": ("number?", "the 95th percentile in seconds, of ready jobs: since they were due"),
    "waiting_p99": ("number?", "the 99th percentile in seconds, of ready jobs: since they were due"),
    "warning": ("text?", "the range outside of which the value is a warning"),
    "whole": ("bool", "whether nobody changed the record"),
    "why": ("text", "why the finding matters"),
}

_OF_STATUS: dict[str, tuple[str, str]] = {
    "at": ("time", "the database's clock when it was read"),
    "engine": ("text?", "the database's product: PostgreSQL, MySQL, MariaDB or SQLite"),
    "engine_version": ("text?", "the version of that product"),
    "solid_queue": ("text?", "the versions of Solid Queue that have such tables: before 1.0, 1.0 to 1.6, 1.7 or later"),
    "alive": ("counts", "processes that live, by kind"),
    "silent": ("objects", "processes that are silent for as long as the threshold, those with the most jobs first"),
    "failed": ("int?", "failed jobs; like every count, null if it took longer than a second"),
    "died": ("int?", "failed jobs that died with their process"),
    "incidents": ("int?", "incidents of the last 7 days with jobs that are still failed"),
    "errors": ("int?", "failed jobs with an error of their own"),
    "problems": ("int?", "groups of failures with errors of their own"),
    **{
        f"{name}_exact": ("bool?", f"whether {name} is exact; if not, there are so many or more")
        for name in ("failed", "died", "incidents", "problems")
    },
    "new_died": ("int?", "jobs that died within the last hour"),
    "new_errors": ("int?", "jobs that failed with errors of their own within the last hour"),
    "queues": ("objects?", "each queue, as queues list has it"),
    "last_operation": ("object?", "the newest operation, and what became of its jobs"),
}

# Fields of one command that have another meaning elsewhere.
MONITOR_CHECKS = (
    *("failures", "deaths", "latency", "processes", "dispatcher", "recurring", "slots", "all", "alive-file"),
)
_OF_CHECK = {
    "status": ("text", "ok, warning, critical or unknown"),
    "value": ("number?", "what was measured"),
    "subject": ("text?", "the queue, task or process of the value; null for a check that measured nothing"),
    "summary": ("text", "what the whole check found, in words"),
}

_OF_WATCH = {
    "id": ("text", "the same each time that the message is sent: a receiver can tell a repetition"),
    "kind": ("text", "silent, death, incident or group"),
    "name": ("text", "of the death, incident or group, as other commands take it: d17, f123, g1a2b3c; the silent host"),
    "at": ("time", "when the death was noticed, the first job failed, or the silence reached the alive threshold"),
    "database": ("text", "the database and its server"),
    "title": ("text", "what happened, in a line of at most 300 characters"),
    "incident": ("text?", "the incident that a death belongs to; null for a silence or group"),
    "cause": ("text?", "what the deaths are put down to; null for a silence or group"),
    "confidence": ("text?", "how sure the cause is; null for a silence or group"),
    "error": ("text?", "of a group: exception and message, without what varies; else null"),
    "hosts": ("texts", "the hosts on which processes died, or are silent"),
    "deaths": ("objects", "the processes that died: name, kind, hostname, pid, signal, exit_status, noticed_by"),
    "processes": (
        "objects",
        "the silent processes, at most 20: kind, process_name, hostname, pid, silent_for in seconds, claimed, and ids",
    ),
    "follows": ("text?", "the id of the message that reported the silence of these processes before they were pruned"),
    "jobs": (
        "objects",
        "the jobs that failed, or are claimed; at most 200: job_id, active_job_id, class_name, queue_name, failure_id",
    ),
    "jobs_total": ("int", "how many jobs failed, or are claimed; also those that are not listed"),
    "classes": ("counts", "the jobs by class, the 20 most frequent"),
    "held_back": ("int", "messages that a cooldown counted instead of sending them; such a message names no jobs"),
    "next": ("texts", "commands to go on with"),
}

OF_COMMAND: dict[tuple[str, str], tuple[str, str]] = {
    ("incidents show", "deaths"): ("objects", "its deaths with all evidence"),
    **{("status", name): entry for name, entry in _OF_STATUS.items()},
    ("jobs list", "detail"): ("text?", "what the job waits for, the process that runs it, or how it failed"),
    ("wait", "detail"): ("text?", "the process that runs the job"),
    **{("watch", name): entry for name, entry in _OF_WATCH.items()},
    ("failed diff", "classes"): ("counts", "failures by class"),
    ("failed diff", "queues"): ("counts", "failures by queue"),
    ("failed diff", "hosts"): ("counts", "failures by host"),
    **{(f"check {name}", key): entry for name in MONITOR_CHECKS for key, entry in _OF_CHECK.items()},
}


def outputs() -> dict[str, tuple[Fields[Any], ...]]:
    """Return what each command prints; of several kinds it prints one, depending on its arguments."""
    decisions, jobs, waiting = (decision_fields(),), (job_fields(),), (waiting_decision_fields(),)
    return {
        "status": (status_fields(),),
        "failed list": (failure_fields(),),
        "failed show": (failure_detail_fields(),),
        "failed diff": diff_view.all_fields(),
        "jobs list": (listed_job_fields(),),
        "jobs show": jobs,
        "jobs times": (class_time_fields(),),
        "jobs discard": waiting,
        "jobs run-now": waiting,
        "jobs postpone": waiting,
        "jobs move": waiting,
        "jobs stop": waiting,
        "queues list": (queue_fields(),),
        "queues keys": (concurrency_key_fields(),),
        "processes list": (process_fields(0, None),),
        "incidents list": (incident_fields(),),
        "incidents show": (incident_detail_fields({}, {}),),
        "suspects": (suspect_fields(),),
        "bisect": (trial_fields(),),
        "doctor": (finding_fields(), check_fields()),
        "wait": (listed_job_fields(),),
        "watch": (message_fields(),),
        **{f"check {name}": (measure_fields(),) for name in MONITOR_CHECKS},
        "prune": (pruned_process_fields(),),
        "retry": decisions,
        "discard": decisions,
        "apply": decisions,
        "recover": decisions,
        "undo": (undone_job_fields(),),
        "operations list": (operation_fields(),),
        "operations show": (outcomes.fields(Output.JSON),),
        "operations verify": (chain_report_fields(spoken=False),),
        "history": (event_fields(),),
        "enqueue": jobs,
        "policy show": (policy_setting_fields(),),
        "profiles list": (profile_fields(),),
        "config show": (setting_fields(),),
        "config list": (config_file_fields(),),
    }


def schema() -> dict[str, Any]:
    """Return the schema: ``$defs`` has an entry for each command, of the whole list that it prints."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What solidjq prints with -o json",
        "description": "Each command prints a list of records; -o ndjson prints the same records, one a line. With "
        "--fields, a record has only the chosen fields.",
        "$defs": {command: _list(command, kinds) for command, kinds in outputs().items()},
    }


def _list(command: str, kinds: tuple[Fields[Any], ...]) -> dict[str, Any]:
    records = [_record(command, [column.name for column in fields.columns]) for fields in kinds]
    return {"type": "array", "items": records[0] if len(records) == 1 else {"anyOf": records}}


def _record(command: str, names: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _field(OF_COMMAND.get((command, name)) or FIELDS[name]) for name in names},
        "required": names,
        "additionalProperties": False,
    }


def _field(entry: tuple[str, str]) -> Mapping[str, Any]:
    kind, meaning = entry
    described = {"description": meaning, **_TYPES[kind.rstrip("?")]}
    if kind.endswith("?"):
        described["type"] = [described["type"], "null"]
    return described


def text() -> str:
    """Return the schema as the file has it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
