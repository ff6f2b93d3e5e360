"""A filter that selects nothing says why: the name that does not exist, or the term that leaves nothing."""

import json
from datetime import UTC, datetime

import pytest

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.queue.failed import Filter, NamedFailures
from solidjq.rails.error_text import Death, error_json
from solidjq.recovery.terms import RetryTerms, filter_for
from solidjq.selection import explanations
from solidjq.selection.explanations import explain_nothing, unknown_names
from support.deaths import die
from support.program import Shell
from support.queue import add_jobs, fail, plain_jobs, rows
from support.recovery import retry_jobs
from support.terminal import terminal

BOOM = error_json("KeyError", "boom")
FUTURE = datetime(2099, 1, 1, tzinfo=UTC)
NONE = "no failed job matches all of these terms"
PRUNED = frozenset({Death.PRUNED})


@pytest.fixture
def failures(database: Database) -> Database:
    """Make three OrderMailer in mailers and a ReportJob in reports that raised, and an ImportJob that died."""
    fail(
        database,
        *(NewJob(class_name="OrderMailer", queue_name="mailers") for _ in range(3)),
        NewJob(class_name="ReportJob", queue_name="reports"),
        error=BOOM,
    )
    add_jobs(database, NewJob(class_name="ImportJob", queue_name="imports"))
    die(database, hostname="worker-4.ams2")
    add_jobs(database, NewJob(class_name="FineJob", queue_name="fine"))
    return database


CASES: list[tuple[Filter, list[str]]] = [
    (Filter(classes=("OrderMialer",)), ["no class OrderMialer among the failed jobs; did you mean OrderMailer?"]),
    (Filter(classes=("orderMailer",)), ["no class orderMailer among the failed jobs; did you mean OrderMailer?"]),
    (Filter(queues=("Mailers",)), ["no queue Mailers among the failed jobs; did you mean mailers?"]),
    (Filter(classes=("FineJbo",)), ["no class FineJbo among the failed jobs"]),  # FineJob has not failed either
    (Filter(classes=("FineJob",)), ["no job of class FineJob has failed"]),
    (Filter(classes=("Zzz*",)), ["no class among the failed jobs begins with Zzz"]),
    (
        Filter(classes=("OrderMailer",), queues=("mialers", "reprots")),
        [
            "no queue mialers among the failed jobs; did you mean mailers?",
            "no queue reprots among the failed jobs; did you mean reports?",
        ],
    ),
    (
        Filter(hosts=("worker-5.ams2",)),
        ["no job is known to have died on host worker-5.ams2; did you mean worker-4.ams2?"],
    ),
    (Filter(error="no such text"), ["--error 'no such text' matches none of the 5 failed jobs"]),
    (Filter(since=FUTURE), ["--since 2099-01-01T00:00:00Z matches none of the 5 failed jobs"]),
    (Filter(deaths=frozenset({Death.EXITED, Death.MISSING})), ["--exited --missing matches none of the 5 failed jobs"]),
    (
        Filter(classes=("OrderMailer",), since=FUTURE, deaths=PRUNED),
        ["--since 2099-01-01T00:00:00Z matches none of the 5 failed jobs"],
    ),
    (
        Filter(classes=("OrderMailer",), queues=("reports",)),
        [NONE, "without --queue reports: 3", "without --class OrderMailer: 1"],
    ),
    (
        Filter(classes=("ReportJob",), queues=("mailers",), hosts=("worker-4.ams2",)),
        [f"{NONE}, and more than one of them leaves nothing"],
    ),
    (
        Filter(classes=("OrderMailer",), deaths=frozenset(Death), error="boom"),
        [NONE, "without --died: 3"],
    ),
]


def test_the_reason_is_the_name_that_is_not_there_or_the_term_that_leaves_nothing(failures: Database) -> None:
    assert [(chosen, explain_nothing(failures, chosen)) for chosen, _ in CASES] == CASES


def test_a_safe_retry_that_takes_nothing_says_what_it_leaves(failures: Database) -> None:
    for chosen, sentences in (
        (
            Filter(classes=("OrderMailer",)),
            ["0 died with their process; 3 failed with an error of their own (--include-errors takes them)"],
        ),
        (Filter(classes=("OrderMialer",)), ["no class OrderMialer among the failed jobs; did you mean OrderMailer?"]),
        (
            Filter(classes=("OrderMailer",), queues=("imports",)),
            [NONE, "without --class OrderMailer: 1"],
        ),
    ):
        safe = filter_for(RetryTerms(safe=True), chosen)
        assert explain_nothing(failures, safe, implied_deaths=True) == sentences


def test_named_failures_that_are_gone(failures: Database) -> None:
    (death,) = rows(failures, tables.deaths)
    failure = max(row["id"] for row in rows(failures, tables.failed))
    named = NamedFailures("incidents", (f"d{death['id']}",), (failure,))
    both = Filter(named=(named,), classes=("OrderMailer",))
    name = named.names[0]
    assert explain_nothing(failures, both) == [NONE, "without --class OrderMailer: 1", f"without --incident {name}: 3"]
    retry_jobs(failures, [rows(failures, tables.crashes)[0]["job_id"]])
    assert explain_nothing(failures, both) == [f"no job of {name} is failed any more"]
    assert explain_nothing(failures, Filter(hosts=("worker-4.ams2",))) == [
        "no job that died on host worker-4.ams2 is still failed"
    ]


def test_no_failed_job_at_all_needs_no_explanation(database: Database) -> None:
    add_jobs(database, *plain_jobs(1))
    assert explain_nothing(database, Filter(classes=("PlainJob",), since=FUTURE)) == []


def test_a_count_stops_and_so_does_the_time(failures: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "MOST_COUNTED", 2)
    monkeypatch.setattr(explanations.BoundedQueries.count, "__defaults__", (2,))
    chosen = Filter(classes=("OrderMailer",), queues=("reports",))
    assert explain_nothing(failures, chosen) == [
        NONE,
        "without --queue reports: 2 or more",
        "without --class OrderMailer: 1",
    ]
    monkeypatch.setattr(explanations, "GLANCE", 0.0)
    assert explain_nothing(failures, chosen) == ["no failed job matches the filter"]


def test_of_several_names_the_unknown_one_is_named(failures: Database) -> None:
    with failures.read() as connection:
        assert unknown_names(connection, Filter(classes=("OrderMialer",), queues=("mailers",))) == []
        several = Filter(classes=("OrderMialer", "ReportJob", "Imp*"), queues=("mailers", "zzz"))
        assert unknown_names(connection, several) == [
            "no job of class OrderMialer; did you mean OrderMailer?",
            "no job of queue zzz",
        ]


# -- commands


@pytest.mark.parametrize("command", ["failed list", "failed diff", "retry --dry-run", "discard -n", "history"])
def test_results_stay_clean_and_the_reason_stands_on_stderr(
    failures: Database, shell: Shell, kind: str, command: str
) -> None:
    for output, nothing in (("json", "[]\n"), ("ids", ""), ("ndjson", ""))[: None if kind == "sqlite" else 1]:
        done = shell.run(*command.split(), "--class", "OrderMialer", "-o", output)
        assert (done.returncode, done.stdout) == (0, nothing)
        assert "jq: no class OrderMialer among the failed jobs; did you mean OrderMailer?" in done.stderr.splitlines()
    done = shell.run(*command.split(), "--class", "OrderMailer", "--class", "RoprtJob", "-o", "json")
    assert json.loads(done.stdout)
    told = "jq: no job of class RoprtJob; did you mean ReportJob?" in done.stderr.splitlines()
    assert told is (command != "history")


def test_a_safe_retry_of_a_class_that_only_raised(failures: Database, shell: Shell) -> None:
    reason = "jq: 0 died with their process; 3 failed with an error of their own (--include-errors takes them)\n"
    for ways in (["--yes"], ["--dry-run"], ["--yes", "-o", "json"]):
        done = shell.run("retry", "--safe", "--class", "OrderMailer", *ways)
        assert (done.returncode, done.stderr.endswith(reason)) == (0, True), done.stderr
    plan = shell.run("retry", "--safe", "--class", "OrderMailer", "--plan-out", str(shell.folder / "plan.json"))
    assert (plan.returncode, plan.stderr.endswith(reason)) == (0, True), plan.stderr
    shown = " ".join(terminal(shell, "retry", "--safe", "--class", "OrderMailer", width=200).split())
    assert "0 died with their process; 3 failed with an error of their own" in shown


def test_a_full_list_costs_no_explanation(failures: Database, shell: Shell) -> None:
    done = shell.run("failed", "list", "--class", "OrderMailer", "-o", "ids")
    assert (done.returncode, done.stderr) == (0, "")
