"""Screens that tell a story fit their terminal and lose nothing, whatever the names: incidents, one of them, a life."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from solidjq.incidents.causes import Cause, CauseFinding, Confidence
from solidjq.incidents.claimed_jobs import ClaimedJob, ClaimedJobs
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.incidents import Incident
from solidjq.incidents.summaries import IncidentSummary
from solidjq.ledger.deaths import DeathSource
from solidjq.ledger.history import Event
from solidjq.rails.error_text import Death
from solidjq_cli import history_view, incident_view, pager, view

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
WIDTHS = st.sampled_from([60, 80, 120, 200])
CLASSES = st.one_of(
    st.sampled_from(["Billing::SubscriptionRenewalDunningReminderJobV2", "Reports::MonthlyRevenueExportJob", "X"]),
    st.text("ABCdef:", min_size=46, max_size=46),
    st.text("請求書発行ジョブ", min_size=1, max_size=23),
)
FACTS = st.lists(
    st.lists(st.text("abcdefgh", min_size=1, max_size=12), min_size=1, max_size=25).map(" ".join), max_size=4
)


@st.composite
def incidents(draw: st.DrawFn) -> Incident:
    """An incident of up to 20 hosts; each process had jobs of the same classes."""
    finding = CauseFinding(
        draw(st.sampled_from(Cause)), draw(st.sampled_from(Confidence)), tuple(draw(FACTS)), tuple(draw(FACTS))
    )
    classes = draw(st.lists(CLASSES, min_size=1, max_size=4))
    number, apart = draw(st.integers(1, 10**6)), draw(st.integers(0, 10**5))
    domain = draw(st.sampled_from(["", ".eu-central-1.example.internal"]))
    deaths = []
    for at in range(draw(st.sampled_from([1, 2, 20]))):
        ids = range(10**9 + 10 * at, 10**9 + 10 * at + len(classes))
        jobs = ClaimedJobs(ClaimedJob(job_id, f"job {job_id}", name) for job_id, name in zip(ids, classes, strict=True))
        deaths.append(
            DeathRecord(
                name=f"d{number + at}", source=DeathSource.SUPERVISOR, how=Death.EXITED, kind="Worker", pid=2**22 - at,
                noticed_at=NOON - timedelta(seconds=at * apart), hostname=f"worker-{at}{domain}", signal=9, jobs=jobs,
            )
        )  # fmt: skip
    return Incident(tuple(deaths), (finding,) * len(deaths))


def screen(width: int, draw: Callable[[], object]) -> list[str]:
    """Return the lines of a screen but those of the next commands, which are never cut; all others must fit."""
    view.begin(host=view.Host((), width, 24, lambda *_: False, lambda _: None, lambda *_: None, headed=True))
    try:
        with pager.captured() as page:
            draw()
    finally:
        view.begin()
    lines = [re.sub(r"\x1b\[\d+m", "", line) for at, line in enumerate(page.lines) if at not in page.hints]
    assert [line for line in lines if cell_len(line) > width] == []
    return lines


def words(*texts: str) -> set[str]:
    return {word for text in texts for word in text.split()}


def waiting(incident: Incident) -> IncidentSummary:
    """Return an incident all of whose jobs are failed still."""
    return replace(IncidentSummary.of(incident), waiting=incident.size)


@settings(max_examples=30)
@given(WIDTHS, st.lists(incidents(), min_size=1, max_size=2))
def test_incidents(width: int, found: list[Incident]) -> None:
    lines = screen(width, lambda: incident_view.draw_list(list(map(waiting, found)), "7d"))
    said = words(*lines)
    for incident in found:
        assert words(incident.name, f"{incident.size:,}", incident.finding.cause.value) <= {
            word.strip("(),") for word in said
        }
    assert {"INCIDENT", "WHEN", "WAITING", "OF"} <= said  # where it is narrow, the causes stand below their rows


@settings(max_examples=30)
@given(WIDTHS, incidents())
def test_one_incident(width: int, incident: Incident) -> None:
    lines = screen(width, lambda: incident_view.draw(incident, None, {}))
    finding = incident.finding
    assert words(*finding.used[:4], *finding.missing[:4], finding.cause.meaning) <= words(*lines)
    assert lines[0].startswith(f"{incident.name}: ")


@settings(max_examples=30)
@given(
    WIDTHS,
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["failed", "retried", "enqueued"]), FACTS), min_size=1),
)
def test_a_life(width: int, told: list[tuple[int, str, list[str]]]) -> None:
    events = [
        Event(NOON + timedelta(seconds=seconds), 2**40, event, " ".join(facts), 7, "ann@ops")
        for seconds, event, facts in told
    ]
    lines = screen(width, lambda: history_view.draw([events]))
    assert words(*(" ".join(facts) for _, _, facts in told)) <= words(*lines)
    assert str(2**40) in lines[0]


@pytest.mark.parametrize("width", [60, 80])
def test_twenty_hosts_are_counted_where_they_do_not_fit(width: int) -> None:
    deaths = tuple(
        DeathRecord(
            name=f"d{number}",
            source=DeathSource.SUPERVISOR,
            how=Death.EXITED,
            noticed_at=NOON,
            hostname=f"host{number}",
        )
        for number in range(1, 21)
    )
    finding = CauseFinding(Cause.KILLED, Confidence.LIKELY, (), ())
    incident = Incident(deaths, (finding,) * 20)
    lines = screen(width, lambda: incident_view.draw_list([IncidentSummary.of(incident)], "7d"))
    assert any("host1 +19" in line or "host1, " in line for line in lines)
