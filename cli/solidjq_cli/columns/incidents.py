"""Columns of incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solidjq_cli.arguments import by_own_name
from solidjq_cli.columns.column import Column, Fields
from solidjq_cli.columns.progress import position_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from solidjq.incidents.causes import CauseFinding
    from solidjq.incidents.death_records import DeathRecord
    from solidjq.incidents.incidents import Incident
    from solidjq.incidents.summaries import IncidentSummary
    from solidjq.ledger.positions import DeathPosition
    from solidjq.recovery.verdicts import Decision


def incident_fields() -> Fields[Any]:
    """Fields of an incident: of an ``Incident`` or an ``IncidentSummary``."""
    return Fields(
        (
            Column("incident", lambda i: i.name, "INCIDENT"),
            Column("at", lambda i: i.at, "LAST SIGN"),
            Column("cause", lambda i: i.finding.cause.value, "CAUSE"),
            Column("confidence", lambda i: i.finding.confidence.value, "SURE", leaves=2),
            Column("processes", lambda i: len(i.deaths), "PROCESSES", words=_process_count, leaves=1),
            Column("jobs", lambda i: i.size, "JOBS", counts=True),
            Column("hosts", lambda i: i.hosts, "HOSTS", wide=True),
            Column("classes", lambda i: i.classes, "CLASSES", wide=True),
            Column("noticed_at", lambda i: i.noticed_at),
            Column("charged", lambda i: i.charged),
            Column("processes_exact", lambda i: not i.several),
            Column("beside", lambda i: [neighbour.name for neighbour in i.beside]),
        ),
        lambda i: i.job_ids,
    )


def _process_count(incident: Incident | IncidentSummary) -> str:
    return f"{len(incident.deaths):,}{' or more' if incident.several else ''}"


def incident_detail_fields(
    verdicts: Mapping[str, Sequence[Decision] | None], stood: Mapping[int, DeathPosition]
) -> Fields[Incident]:
    """Fields of an incident, with all evidence, and what a safe retry would do with the jobs of each incident.

    ``stood``: by failure, where long jobs stood.
    """
    return Fields(
        (
            *incident_fields().columns,
            Column("facts", lambda i: list(i.finding.used)),
            Column("missing", lambda i: list(i.finding.missing)),
            Column("next", lambda i: by_own_name(i.finding.advice)),
            Column("job_ids", lambda i: i.job_ids),
            Column("retry_safe", lambda i: _verdicts(verdicts[i.name])),
            Column("deaths", lambda i: [_death(death, finding, stood) for death, finding in i.pairs]),
        ),
        lambda i: i.job_ids,
    )


def _verdicts(decisions: Sequence[Decision] | None) -> list[dict[str, Any]] | None:
    return None if decisions is None else list(map(_verdict, decisions))


def _verdict(decision: Decision) -> dict[str, Any]:
    return {"job_id": decision.job_id, "verdict": decision.verdict.value, "reason": decision.reason}


def _death(death: DeathRecord, finding: CauseFinding, stood: Mapping[int, DeathPosition]) -> dict[str, Any]:
    return {
        "death": death.name,
        "source": death.source.value,
        "how": death.how.value,
        "cause": finding.cause.value,
        "confidence": finding.confidence.value,
        "facts": list(finding.used),
        "missing": list(finding.missing),
        "charged": not finding.outside,
        "next": by_own_name(finding.advice),
        "kind": death.kind,
        "name": death.process_name,
        "hostname": death.hostname,
        "pid": death.pid,
        "process_id": death.process_id,
        "supervisor_id": death.supervisor_id,
        "started_at": death.started_at,
        "last_heartbeat_at": death.last_heartbeat_at,
        "noticed_at": death.noticed_at,
        "exit_status": death.exit_status,
        "signal": death.signal,
        "evidence": dict(death.evidence),
        "jobs": [
            {
                "job_id": job.job_id,
                "class_name": job.class_name,
                "failure_id": job.failure_id,
                "started_at": job.started_at,
                "growth": job.growth,
                "progress": position_record(stood.get(job.failure_id or 0)),
            }
            for job in death.jobs
        ],
    }
