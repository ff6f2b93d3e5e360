"""Manners of death: whether those of a bisect match the incident's. Another manner may mean another killer."""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, select

from solidjq.database.tables import operations
from solidjq.incidents.causes import Cause, CauseFinding
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.incidents import Incident, each_with_jobs
from solidjq.recovery.bisect import TrialStanding
from solidjq.text import signal_name


class Manner(NamedTuple):
    """How a process died: its cause, and its signal or exit status; None if unknown."""

    cause: Cause
    signal: int | None = None
    exit_status: int | None = None

    def __str__(self) -> str:
        """Return it in words: ``crashed by SIGSEGV``."""
        if self.signal is not None:
            return f"{self.cause} by {signal_name(self.signal)}"
        return str(self.cause) if self.exit_status is None else f"{self.cause} with status {self.exit_status}"

    def may_be(self, other: "Manner") -> bool:
        """Whether both may be the same manner. An unknown cause, or a signal alone, may be any that fits it."""
        ended_alike = (self.signal, self.exit_status) == (other.signal, other.exit_status)
        vague = {self.cause, other.cause} & {Cause.UNKNOWN, Cause.KILLED}
        return ended_alike and (self.cause is other.cause or bool(vague))


def other_manners(connection: Connection, incident: Incident, standing: TrialStanding) -> list[Manner]:
    """Return the manners of death of the last round that cannot be the incident's own."""
    return unlike(manners_of(incident), trial_manners(connection, standing))


def trial_manners(connection: Connection, standing: TrialStanding) -> list[Manner]:
    """Return the manners in which processes of the last round's trial died."""
    began = connection.scalar(select(operations.c.created_at).where(operations.c.id == standing.operation_id))
    if began is None or not standing.died:
        return []
    died = set(standing.died)
    return [
        _manner(death, finding)
        for later in each_with_jobs(connection, since=began)
        for death, finding in later.pairs
        if died.intersection(death.jobs.job_ids)
    ]


def unlike(before: Iterable[Manner], manners: Iterable[Manner]) -> list[Manner]:
    """Return the manners that match none of those before, without duplicates."""
    known = list(before)
    return [manner for manner in dict.fromkeys(manners) if not any(manner.may_be(one) for one in known)]


def manners_of(incident: Incident) -> list[Manner]:
    """Return the manners of an incident's deaths, without duplicates."""
    return list(dict.fromkeys(_manner(death, finding) for death, finding in incident.pairs))


def _manner(death: DeathRecord, finding: CauseFinding) -> Manner:
    return Manner(finding.cause, death.signal, death.exit_status)
