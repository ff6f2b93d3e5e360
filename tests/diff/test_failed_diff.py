"""``jq failed diff``: groups, two times, side by side, and what sets failed jobs apart."""

import csv
import io
import json
import math
import re
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert
from sqlalchemy import text as sql

from solidjq import Database
from solidjq.database import tables
from solidjq.database.tables import failed, jobs
from solidjq.diff import groups as diff_groups
from solidjq.diff import pages
from solidjq.diff.contrast import Contrast, contrast, one_sided_p, significant_traits
from solidjq.diff.failure_groups import FailureGroup
from solidjq.diff.signatures import signature_of
from solidjq.diff.windows import Change, ChangeKind, compare_groups, two_sided_p
from solidjq.ledger import crashes
from solidjq.ledger.operations import Operation
from solidjq.queue.failed import Filter
from solidjq.rails.error_text import error_json, exit_error, missing_error
from support.program import Shell
from support.recovery import retry_jobs
from support.servers import execute
from support.terminal import below_heading, terminal, unprintable

NOW = datetime.now(UTC).replace(microsecond=0)  # of each test


@pytest.fixture(autouse=True)
def _now() -> None:
    """Begin each test's time with the test: the windows of some end five minutes after it."""
    global NOW  # noqa: PLW0603
    NOW = datetime.now(UTC).replace(microsecond=0)


NASTY = "\x1b[31m\x07\x9b31m\u202e\u2028end"
FRAMES = ["/usr/lib/ruby/gems/3.3.0/gems/x-1/lib/x.rb:1:in `call'", "/app/app/jobs/a_job.rb:12:in `perform'"]
FIELDS = (
    "group jobs title classes queues first_failed_at last_failed_at example_job_id "
    "causes hosts death error_class signature frames"
)
CHANGE_FIELDS = (
    "mark group now before factor title classes queues change now_per_hour before_per_hour first_failed_at "
    "last_failed_at example_job_id death error_class signature frames"
)


def add(
    database: Database,
    *errors: str | None,
    minutes: float = 1,
    class_name: str = "AJob",
    queue_name: str = "default",
    arguments: Sequence[Any] = (),
    finished: bool = False,
    **columns: Any,
) -> list[int]:
    """Add jobs that failed so many minutes ago; each with its error; or that finished."""
    at = NOW - timedelta(minutes=minutes)
    ids = []
    with database.write() as connection:
        for error in errors:
            written = connection.execute(
                insert(jobs).values(
                    queue_name=queue_name,
                    class_name=class_name,
                    arguments=json.dumps({"job_class": class_name, "arguments": arguments, "executions": 2}),
                    priority=0,
                    active_job_id=str(uuid.uuid4()),
                    created_at=at - timedelta(seconds=90),
                    updated_at=at,
                    finished_at=at if finished else None,
                    **columns,
                )
            )
            assert written.inserted_primary_key is not None
            ids.append(written.inserted_primary_key[0])
            if not finished:
                connection.execute(insert(failed).values(job_id=ids[-1], error=error, created_at=at))
    return ids


def not_found(number: int) -> str:
    return error_json("ActiveRecord::RecordNotFound", f"Couldn't find User with 'id'={number}", FRAMES)


def timeout(number: int = 0) -> str:
    return error_json("Net::ReadTimeout", f"no answer after {number}s", FRAMES)


def read_json(shell: Shell, *command: str, code: int = 0) -> list[dict[str, Any]]:
    done = shell.run("failed", "diff", *command, "-o", "json")
    assert done.returncode == code, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


# -- groups


@pytest.mark.only_on("sqlite", "mariadb")
def test_an_error_is_not_cut_at_its_first_nul(database: Database, shell: Shell) -> None:
    """PostgreSQL stores none. A message, a class or a text that is no JSON may contain it, and differ behind it."""
    parts = ["plain\0 one", "plain\0 two", "plain", "\0"]
    quoted = [error_json("E", f"m @ {end}", FRAMES).replace("@", "\0") for end in ("a", "b")]
    add(database, *parts, *quoted, error_json("E@1", "m", FRAMES).replace("@", "\0"))
    groups = read_json(shell)
    assert sorted(group["title"] for group in groups) == sorted([*parts, "E: m \0 a", "E: m \0 b", "E\0001: m"])
    assert {group["jobs"] for group in groups} == {1}
    assert sum("app/jobs/a_job.rb" in group["frames"][0] for group in groups if group["frames"]) == 3


def test_failures_of_one_signature_are_a_group(database: Database, shell: Shell) -> None:
    users = add(database, *(not_found(number) for number in (1, 22, 333)), minutes=50)
    users += add(database, not_found(4), minutes=10, class_name="BJob", queue_name="mail")
    slow = add(database, timeout(3), timeout(40))
    killed = add(database, exit_error(17, -9), exit_error(18, -9))
    add(database, None)
    found = read_json(shell)
    assert [row["jobs"] for row in found] == [4, 2, 2, 1]
    assert " ".join(found[0]) == FIELDS
    first = found[0]
    assert first["title"] == "ActiveRecord::RecordNotFound: Couldn't find User with 'id'=<n>"
    assert (first["classes"], first["queues"]) == ({"AJob": 3, "BJob": 1}, {"default": 3, "mail": 1})
    assert (first["example_job_id"], first["frames"]) == (users[-1], ["app/jobs/a_job.rb:perform"])
    assert first["first_failed_at"] == f"{NOW - timedelta(minutes=50):%Y-%m-%dT%H:%M:%S.%fZ}"
    assert first["last_failed_at"] == f"{NOW - timedelta(minutes=10):%Y-%m-%dT%H:%M:%S.%fZ}"
    assert {row["title"]: row["death"] for row in found[1:3]} == {
        "Net::ReadTimeout: no answer after <n>s": None,
        "SolidQueue::Processes::ProcessExitError: killed by signal 9": "exited",
    }
    assert found[3]["title"] == "(no error was recorded)"
    assert [row["jobs"] for row in read_json(shell, "--class", "BJob")] == [1]
    assert [row["jobs"] for row in read_json(shell, "--died")] == [2]
    assert [row["jobs"] for row in read_json(shell, "--limit", "2")] == [4, 2]

    ids = shell.run("failed", "diff", first["group"], "-o", "ids")
    assert (ids.returncode, list(map(int, ids.stdout.split()))) == (0, users)
    every = shell.run("failed", "diff", "-o", "ids", "--limit", "1000")
    assert sorted(map(int, every.stdout.split())) == sorted(
        map(int, shell.run("failed", "diff", "-o", "ids").stdout.split())
    )
    assert set(slow + killed) < set(map(int, every.stdout.split()))
    (alone,) = read_json(shell, str(users[0]))
    assert alone == first


def test_what_looks_alike_at_first_is_read_to_its_end(database: Database) -> None:
    library = [f"/usr/lib/ruby/gems/3.3.0/gems/http-1/lib/{at}.rb:{at}:in `call'" for at in range(40)]
    errors = [error_json("E", "it took 17s", [*library, f"/app/lib/{name}.rb:1:in `m'"]) for name in ("a", "other")]
    add(database, *errors * 3)
    groups = diff_groups.group_failures(database, Filter())
    assert [(group.count, group.signature.frames) for group in groups] == [
        (3, ("app/lib/other.rb:m",)),
        (3, ("app/lib/a.rb:m",)),
    ]
    for group, error in zip(groups, reversed(errors), strict=True):
        assert group.signature == signature_of(error)
    assert len(list(diff_groups.job_ids(database, Filter(), [groups[0].name]))) == 3


def test_many_pages_are_one_list(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE", 7)
    ids = add(database, *(not_found(number) for number in range(20)), *(timeout() for _ in range(8)))
    groups = diff_groups.group_failures(database, Filter())
    assert [group.count for group in groups] == [20, 8]
    assert list(diff_groups.job_ids(database, Filter(), [groups[0].name])) == ids[:20]


LIBRARY = [f"/usr/lib/ruby/gems/3.3.0/gems/http-1/lib/{at}.rb:{at}:in `call'" for at in range(40)]


@pytest.mark.parametrize("most", [0, 500])
def test_numbers_are_folded_by_the_database_and_codes_are_not(
    database: Database, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(pages, "CODED", most)
    monkeypatch.setattr(pages, "PAGE", 40)
    frames = [*FRAMES, *LIBRARY]

    def of(name: str, message: str) -> list[str]:
        return [error_json(name, message.replace("@", str(number)), frames) for number in range(100, 115)]

    errors = [*of("E1", "id @ of é"), *of("E1", "id @"), *of("E2", "id @"), *of("e2", "id @")]
    errors += of("E1", "status 404 of @") + of("E1", "status 503 of @")
    errors += of("E1", "a <b> @") + of("E1", "x" * 600 + " @") + of("E1", "y" * 2500 + " @")
    errors += [json.dumps({"message": "no code @", "exception_class": "E", "backtrace": frames})] * 2
    for error in (*errors, "no JSON 5", None):
        add(database, error)
    groups = diff_groups.group_failures(database, Filter())
    assert {group.signature: group.count for group in groups} == Counter(
        map(signature_of, [*errors, "no JSON 5", None])
    )
    for group in groups:
        ids = list(diff_groups.job_ids(database, Filter(), [group.name]))
        assert len(ids) == group.count
        assert ids == sorted(ids)


def test_errors_that_differ_in_numbers_reach_the_program_as_one_row(database: Database) -> None:
    frames = [*FRAMES, *LIBRARY]
    add(database, *(error_json("E", f"id {number} is gone", frames) for number in range(100, 130)))
    with database.read() as connection:
        rows = pages.FailurePages(pages.FAILED, Filter(), {}).read(connection)
    assert [row.failures for row, _ in rows] == [30]


def test_classes_and_queues_are_told_apart_by_every_character(database: Database) -> None:
    names = [("AJob", "bc"), ("AJobb", "c"), ("ajob", "bc"), ("AJob", "bc "), ("AJob", "BC"), ("AJöb", "bc")]
    for class_name, queue_name in names:
        add(database, timeout(), timeout(), class_name=class_name, queue_name=queue_name)
    with database.read() as connection:
        page = pages.FailurePages(pages.FAILED, Filter(), {}).read(connection)
    assert Counter({(row.class_name, row.queue_name): row.failures for row, _ in page}) == dict.fromkeys(names, 2)


@pytest.mark.only_on("mariadb")
@pytest.mark.parametrize(("word", "groups"), [("id", 1), ("status", 20)])
def test_a_page_is_grouped_in_memory(database: Database, word: str, groups: int) -> None:
    add(database, *(error_json("E", f"{word} {number}", [*FRAMES, *LIBRARY]) for number in range(400, 420)))
    with database.read() as connection:
        reader = pages.FailurePages(pages.FAILED, Filter(), {})
        on_disk = sql("SHOW SESSION STATUS LIKE 'Created_tmp_disk_tables'")
        before = connection.execute(on_disk).one()[1]
        assert len(reader.read(connection)) == groups
        assert connection.execute(on_disk).one()[1] == before


def test_short_errors_are_told_apart_by_all_their_frames(database: Database) -> None:
    frames = [f"/srv/shop/app/{'jobs/' * 20}a_job.rb:12:in `perform'", "/srv/shop/app/models/order.rb:7:in `{}'"]
    for caller in ("charge", "charge", "refund"):
        add(database, error_json("E", "no such order 5", [frame.format(caller) for frame in frames]))
    groups = diff_groups.group_failures(database, Filter())
    assert [(group.count, group.signature.frames[1]) for group in groups] == [
        (2, "app/models/order.rb:charge"),
        (1, "app/models/order.rb:refund"),
    ]


@pytest.mark.sqlite_only
def test_codes_in_errors_that_are_not_valid_text_end_the_reading(database: Database) -> None:
    add(database, *(error_json("E", f"status {code} of @", FRAMES) for code in (404, 404, 503)))
    execute(
        database.url,
        "UPDATE solid_queue_failed_executions SET error = CAST(replace(CAST(error AS BLOB), '@', x'ff') AS TEXT)",
    )
    add(database, *(error_json("E", f"code {code}", FRAMES) for code in (17, 17, 18, 18)))
    groups = diff_groups.group_failures(database, Filter())
    counts = {group.signature.message[:10]: group.count for group in groups}
    assert counts == {"status 404": 2, "status 503": 1, "code 17": 2, "code 18": 2}


def test_classes_with_as_many_failures_come_by_name(database: Database) -> None:
    for name in ("ZJob", "AJob", "MJob"):
        add(database, timeout(), class_name=name, queue_name=name)
    (group,) = diff_groups.group_failures(database, Filter())
    assert (list(group.classes), list(group.queues)) == (["AJob", "MJob", "ZJob"],) * 2
    assert (found := diff_groups.find_group(database, group.name)) is not None
    assert list(found.classes) == list(group.classes)


@pytest.mark.sqlite_only
def test_every_output_has_the_same_fields(database: Database, shell: Shell) -> None:
    add(database, not_found(1), timeout())
    found = read_json(shell)
    lines = shell.run("failed", "diff", "-o", "ndjson").stdout.splitlines()
    assert [json.loads(line) for line in lines] == found
    head, *rows = csv.reader(io.StringIO(shell.run("failed", "diff", "-o", "csv").stdout))
    assert (" ".join(head), len(rows)) == (FIELDS, 2)
    head, *rows = csv.reader(io.StringIO(shell.run("failed", "diff").stdout), delimiter="\t")
    assert set(head) < set(FIELDS.split())
    assert [row[0] for row in rows] == [row["group"] for row in found]


@pytest.mark.sqlite_only
def test_without_failures_there_is_nothing(database: Database, shell: Shell) -> None:
    done = shell.run("failed", "diff")
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "jq: no failed jobs\n")
    assert read_json(shell) == []
    assert shell.run("failed", "diff", "-o", "ids").stdout == ""
    done = shell.run("failed", "diff", "--since", "1h", "--against", "24h")
    assert done.returncode == 0
    assert re.fullmatch(
        r"jq: 1h from \S+ \S+ UTC against 24h from \S+ \S+ UTC: no difference; 0 groups about the same\n", done.stderr
    )


@pytest.mark.sqlite_only
def test_hostile_text_is_harmless(database: Database, shell: Shell) -> None:
    name = f"E{NASTY}"
    one, other = add(
        database,
        error_json(name, f"see postgres://app:hunter2@db/app and {NASTY}", [f"/app/{NASTY}.rb:1:in `x'"]),
        f"no JSON {NASTY}",
        class_name=f"J{NASTY}",
        queue_name=f"q{NASTY}",
        arguments=[NASTY, {NASTY: "postgres://app:hunter2@db/app"}],
    )
    for command in ([], [str(one)], [str(one), str(other)], ["--after", "2h"]):
        shown = [terminal(shell, "failed", "diff", *command)]
        for output in ("table", "json", "csv"):
            done = shell.run("failed", "diff", *command, "-o", output)
            assert done.stdout, done.stderr
            shown += [done.stdout, done.stderr]
        for text in shown:
            assert "hunter2" not in text
            assert unprintable(text) - {"\t"} == set()


# -- two times


def test_two_times_are_compared_like_a_diff(database: Database, shell: Shell) -> None:
    add(database, *(timeout() for _ in range(3)), minutes=5)
    add(database, *(not_found(number) for number in range(12)), minutes=30)
    add(database, *(not_found(number) for number in range(24)), minutes=300)
    add(database, *(exit_error(number, -9) for number in range(200)), minutes=400)
    add(database, *(missing_error() for _ in range(3)), minutes=400)  # too few to call them gone
    found = read_json(shell, "--since", "1h", "--against", "24h", code=1)
    assert " ".join(found[0]) == CHANGE_FIELDS
    assert [(row["mark"], row["change"], row["now"], row["before"], row["factor"]) for row in found] == [
        ("+", "new", 3, 0, None),
        (">", "grown", 12, 24, 12.0),
        ("-", "gone", 0, 200, 0.0),
    ]
    assert (found[1]["now_per_hour"], found[1]["before_per_hour"]) == (12.0, 1.0)
    table = shell.run("failed", "diff", "--since", "1h", "--against", "24h")
    assert (table.returncode, [line[0] for line in table.stdout.splitlines()]) == (1, ["m", "+", ">", "-"])
    assert "1 new, 1 grown, 1 gone; 1 group about the same" in table.stderr
    ids = shell.run("failed", "diff", "--since", "1h", "--against", "24h", "-o", "ids")
    assert (ids.returncode, len(ids.stdout.split())) == (1, 15)
    assert read_json(shell, "--since", "1h", "--against", "24h", "--class", "Nobody") == []
    backwards = read_json(shell, "--since", "450m", "--until", "350m", "--against", "24h", code=1)
    assert [(row["mark"], row["now"]) for row in backwards] == [("+", 200), ("+", 3)]


def test_what_jq_retried_since_counts_too(database: Database, shell: Shell) -> None:
    add(database, *(timeout(number) for number in range(4)), minutes=30)
    retried = add(database, *(timeout(number) for number in range(5)), minutes=90, queue_name="mail")
    add(database, timeout(), minutes=90)
    retry_jobs(database, retried, Operation("retry"))
    assert [row["jobs"] for row in read_json(shell)] == [5]
    assert read_json(shell, "--after", "1h") == []  # 4 against 6 is chance
    assert read_json(shell, "--after", "1h", "--queue", "default") == []
    assert read_json(shell, "--after", "1h", "--class", "AJob", "--error", "NO ANSWER") == []
    (fewer,) = read_json(shell, "--since", "95m", "--until", "85m", "--against", "10m", "--queue", "m*", code=1)
    assert (fewer["now"], fewer["change"], fewer["queues"]) == (5, "new", {"mail": 5})
    undone = shell.run("undo", "1")
    assert undone.returncode == 0, undone.stderr
    (once,) = read_json(shell, "--since", "95m", "--until", "85m", "--against", "10m", code=1)
    assert once["now"] == 6


@pytest.mark.sqlite_only
def test_a_deploy_splits_the_time(database: Database, shell: Shell) -> None:
    add(database, *(not_found(number) for number in range(20)), minutes=80)
    add(database, timeout(), minutes=65)  # while it went on
    add(database, exit_error(1, -9), minutes=20)
    deploy = ("--after", f"{NOW - timedelta(minutes=60):%Y-%m-%dT%H:%M:%SZ}")
    assert [(row["mark"], row["now"], row["before"]) for row in read_json(shell, *deploy, code=1)] == [
        ("+", 1, 0),
        ("-", 0, 20),
    ]
    begun = ("--before", f"{NOW - timedelta(minutes=70):%Y-%m-%dT%H:%M:%SZ}")
    assert [(row["mark"], row["now"], row["before"]) for row in read_json(shell, *deploy, *begun, code=1)] == [
        ("+", 1, 0),
        ("-", 0, 20),
    ]
    about = shell.run("failed", "diff", *deploy).stderr
    assert "1 new, 1 gone; 1 group about the same" in about
    assert "0 groups" in shell.run("failed", "diff", *deploy, *begun).stderr


@pytest.mark.sqlite_only
def test_without_the_ledger_it_compares_what_is_there(database: Database, shell: Shell) -> None:
    (job_id, _) = add(database, timeout(), not_found(1))
    database.transact(tables.jq.drop_all)
    assert len(read_json(shell)) == 2
    done = shell.run("failed", "diff", "--after", "1h")
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 3)
    assert "run: jq init" in done.stderr
    assert shell.run("failed", "diff", str(job_id), str(job_id)).returncode == 0
    assert shell.run("failed", "diff", str(job_id), "4711").returncode == 4
    assert shell.run("failed", "diff", "1" * 5000).returncode == 4


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("--against 24h", "--against goes with --since"),
        ("--since 1h --against soon", "--against 'soon'"),
        ("--since 1h --against 0s", "must begin before it ends"),
        ("--since 1h --until 2h --against 24h", "does not lie after"),
        ("--after 1h --against 24h", "--against goes with --since"),
        ("--after 1h --since 2h", "leave --since out"),
        ("--after 2h --before 1h", "--before lies after --after"),
        ("--before 1h", "--before goes with --after"),
        ("--after never", "--after 'never'"),
        ("1 --after 1h", "leave --after out"),
        ("1 2 --died", "leave the filter out"),
        ("x'y", "is not a job id"),
    ],
)
def test_what_cannot_be_meant_is_refused(database: Database, shell: Shell, command: str, words: str) -> None:
    done = shell.run("failed", "diff", *command.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert words in done.stderr


# -- side by side


def test_two_jobs_side_by_side(database: Database, shell: Shell) -> None:
    one, same = add(
        database, not_found(1), not_found(1), arguments=[17, {"format": "pdf", "_aj_symbol_keys": ["format"]}]
    )
    (other,) = add(database, timeout(), minutes=9, queue_name="mail", arguments=["17", {"format": None}, None])
    found = {row["field"]: row for row in read_json(shell, str(one), str(other), code=1)}
    assert list(found["group"]) == ["differs", "field", "left", "right"]
    assert {name for name, row in found.items() if row["differs"]} == {
        "group",
        "error_class",
        "signature",
        "message",
        "queue_name",
        "arguments",
        "arguments[0]",
        "arguments[1].format",
        "arguments[2]",
    }
    assert (found["arguments[0]"]["left"], found["arguments[0]"]["right"]) == (17, '"17"')
    assert (found["arguments[2]"]["left"], found["arguments[2]"]["right"]) == (None, "null")
    assert found["message"]["left"] == "Couldn't find User with 'id'=1"
    assert (found["executions"]["left"], found["waited"]["left"]) == (2, 90.0)
    assert read_json(shell, str(one), str(same))
    ids = shell.run("failed", "diff", str(one), str(other), "-o", "ids")
    assert (ids.returncode, ids.stdout.split()) == (1, [str(one), str(other)])
    table = shell.run("failed", "diff", str(one), str(other)).stdout.splitlines()
    assert table[0] == "differs\tfield\tleft\tright"
    assert "true\tqueue_name\tdefault\tmail" in table


def test_a_job_that_was_retried_and_an_active_job_id(database: Database, shell: Shell) -> None:
    one, other = add(database, not_found(1), timeout())
    with database.read() as connection:
        name = connection.execute(jobs.select().where(jobs.c.id == one)).mappings().one()["active_job_id"]
    retry_jobs(database, [one], Operation("retry"))
    for text in (str(one), str(name)):
        found = {row["field"]: row for row in read_json(shell, text, str(other), code=1)}
        assert (found["job_id"]["left"], found["error_class"]["left"]) == (one, "ActiveRecord::RecordNotFound")
    nobody = shell.run("failed", "diff", str(other), "4711")
    assert (nobody.returncode, nobody.stdout, nobody.stderr) == (4, "", "jq: no job 4711\n")
    (fine,) = add(database, None, finished=True)
    assert shell.run("failed", "diff", str(fine)).stderr == f"jq: job {fine} has not failed\n"


@pytest.mark.sqlite_only
def test_two_groups_and_a_job_beside_a_group(database: Database, shell: Shell) -> None:
    ids = add(database, not_found(1), not_found(2), exit_error(1, -9))
    users, killed = (row["group"] for row in read_json(shell))
    found = {row["field"]: row for row in read_json(shell, users, killed, code=1)}
    assert (found["jobs"]["left"], found["jobs"]["right"], found["jobs"]["differs"]) == (2, 1, False)
    assert (found["death"]["left"], found["death"]["right"]) == (None, "exited")
    assert [row["field"] for row in read_json(shell, users, str(ids[0]))] == [
        "group",
        "error_class",
        "signature",
        "frames",
        "class_name",
        "queue_name",
    ]
    assert read_json(shell, str(ids[2]), users, code=1)
    both = shell.run("failed", "diff", users, killed, "-o", "ids")
    assert (both.returncode, sorted(map(int, both.stdout.split()))) == (1, ids)
    assert shell.run("failed", "diff", "g0000000").returncode == 4
    assert shell.run("failed", "diff", "g0000000", users).returncode == 4
    assert shell.run("failed", "diff", users, "--class", "Nobody").returncode == 4


@pytest.mark.sqlite_only
@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_everything_fits(database: Database, shell: Shell, width: int) -> None:
    long = "Billing::Invoices::GenerateMonthlyReportJob"
    one, other = add(database, not_found(1), not_found(2), class_name=long, queue_name="reports_for_large_customers")
    add(database, error_json("E" * 100, "m " * 300, FRAMES))
    add(database, *(None for _ in range(30)), finished=True)
    told = below_heading(terminal(shell, "failed", "diff", width=width))
    head, first = told.splitlines()[:2]
    assert [title for title in head.split() if title != "WHAT"] == ["GROUP", "JOBS", "SINCE", "LAST", "CLASSES"]
    assert long[:18] in first
    assert "RecordNotFound: Couldn't find" in first
    assert all(len(line) <= width or "E" * 100 in line for line in told.splitlines())
    told = terminal(shell, "failed", "diff", str(one), str(other), width=width)
    assert max(map(len, told.splitlines())) <= width
    assert re.search(r"^!=  message +Couldn't find User", told, re.MULTILINE)
    told = terminal(shell, "failed", "diff", "--after", "1h", width=width)
    assert re.search(r"^\+  g[0-9a-f]{7} +2 +0 +new", told, re.MULTILINE)
    assert max(map(len, told.splitlines()[:3])) <= width


# -- failed against finished


def test_what_sets_failed_jobs_apart(database: Database, shell: Shell) -> None:
    for at in range(10):
        add(database, timeout(), minutes=at, class_name="Mail", queue_name="slow", arguments=[at, {"to": None}])
    for _ in range(4):
        add(database, *[None] * 10, minutes=5, class_name="Mail", arguments=[1, {"to": "x"}], finished=True)
        add(database, *[None] * 10, minutes=5, class_name="Report", finished=True)
    ids = [row["example_job_id"] for row in read_json(shell)]
    found = contrast(database, diff_groups.job_ids(database, Filter(), [signature_of(timeout()).name]))
    assert [trait.trait for trait in found.traits][:2] == ["queue slow", "Mail with arguments[1].to null"]
    slow = found.traits[0]
    assert (slow.failed_with, slow.failed, slow.finished_with, slow.finished) == (10, 10, 0, 80)
    assert all(trait.p < 0.01 and trait.odds >= 3 for trait in found.traits)
    assert "AJob" not in str(found)
    told = shell.run("failed", "diff")
    assert "jq: queue slow: 100% (10 of 10), finished 0% (0 of 80)\n" in told.stderr
    alone = shell.run("failed", "diff", str(ids[0]))
    assert "jq: queue slow: 100% (10 of 10), finished 0% (0 of 80)\n" in alone.stderr


def test_where_nothing_differs_or_too_little_is_kept_it_says_so(database: Database, shell: Shell) -> None:
    add(database, timeout(), timeout())
    few = shell.run("failed", "diff").stderr
    assert few == ("jq: what sets the failed jobs apart is unknown: no job finished meanwhile, too few to compare\n")
    add(database, *[None] * 40, finished=True)
    assert shell.run("failed", "diff").stderr == (
        "jq: nothing sets the failed jobs apart from 40 jobs that finished meanwhile\n"
    )


# -- the arithmetic


def group(number: int, count: int) -> FailureGroup:
    return FailureGroup(signature_of(f"error number {chr(65 + number) * 3}"), count=count)


@pytest.mark.parametrize(
    ("now", "before", "kind"),
    [
        (1, 0, ChangeKind.NEW),
        (0, 3, None),
        (0, 300, ChangeKind.GONE),
        (1, 24, None),
        (5, 24, None),
        (6, 24, ChangeKind.GROWN),
        (2, 24, None),
        (100, 2400, None),
        (140, 2400, None),  # surely more often, but not by half
        (200, 2400, ChangeKind.GROWN),
        (40, 2400, ChangeKind.SHRUNK),
        (1, 300, ChangeKind.SHRUNK),
    ],
)
def test_a_change_is_more_than_chance(now: int, before: int, kind: ChangeKind | None) -> None:
    changes: list[Change] = compare_groups(
        [group(1, now)] if now else [],
        [group(1, before)] if before else [],
        timedelta(hours=1),
        timedelta(hours=24),
    )
    assert [change.kind for change in changes] == ([] if kind is None else [kind])


def test_the_new_and_the_grown_come_first() -> None:
    now = [group(1, 5), group(2, 9), group(3, 90)]
    before = [group(3, 20), group(4, 70), group(5, 80)]
    hour = timedelta(hours=1)
    changes = compare_groups(now, before, hour, hour)
    assert [(change.kind.value, change.now, change.before) for change in changes] == [
        ("new", 9, 0),
        ("new", 5, 0),
        ("grown", 90, 20),
        ("gone", 0, 80),
        ("gone", 0, 70),
    ]


@pytest.mark.parametrize(
    ("now", "before", "share", "expected"),
    [
        (5, 5, 0.5, 1.0),
        (10, 0, 0.5, 2 / 1024),
        (0, 2, 0.25, 2 * 0.5625),
        (600, 500, 0.5, 0.00283),
        (550, 440, 0.5, 0.00053),
    ],
)
def test_chance_is_a_binomial_tail(now: int, before: int, share: float, expected: float) -> None:
    assert two_sided_p(now, before, share) == pytest.approx(min(1.0, expected), rel=0.02)


@pytest.mark.parametrize(
    "table", [(3, 1, 1, 3), (4, 0, 0, 4), (10, 9, 1, 13), (3, 97, 2, 998), (30, 70, 10, 90), (300, 200, 2000, 4000)]
)
def test_more_often_is_fishers_test(table: tuple[int, int, int, int]) -> None:
    a, b, c, d = table
    ways = sum(math.comb(a + b, k) * math.comb(c + d, a + c - k) for k in range(a, min(a + b, a + c) + 1))
    exact = ways / math.comb(a + b + c + d, a + c)
    assert one_sided_p(*table) == pytest.approx(exact, rel=0.3)
    assert one_sided_p(b, a, d, c) == 1.0


def test_only_what_matters_is_told() -> None:
    noise = [(f"noise {n}", 50 + n % 3, 100, 500, 1000) for n in range(100)]
    signal = [(f"signal {n}", 90 - n, 100, 100, 1000) for n in range(12)]
    weak = [("weak", 3, 100, 10, 1000)]
    found = significant_traits([*noise, *weak, *signal])
    assert [trait.trait for trait in found] == [f"signal {n}" for n in range(8)]
    assert significant_traits([]) == []
    assert Contrast([], 3, 19).possible is False


def read_groups(database: Database, chosen: Filter) -> tuple[list[FailureGroup], int]:
    """Return the groups, and how many statements searched the failures for deaths."""
    sent: list[str] = []

    def note(*details: Any) -> None:
        sent.append(f"{details[2]} {details[3]}")

    event.listen(Engine, "before_cursor_execute", note)
    found = diff_groups.group_failures(database, chosen)
    event.remove(Engine, "before_cursor_execute", note)
    return found, sum("ProcessExitError" in statement for statement in sent)


@pytest.mark.parametrize("ledger", ["with a ledger", ""])
def test_causes_are_found_without_reading_all_failures_twice(
    own: Database, monkeypatch: pytest.MonkeyPatch, ledger: str
) -> None:
    """The failures of one death are on several pages, of several classes, counted and not; some have no backtrace."""
    monkeypatch.setattr(pages, "PAGE", 3)
    error, other = exit_error(17, -9), exit_error(100_001, -11)
    if not ledger:
        own.transact(tables.jq.drop_all)
    counted = add(own, error, error, other, missing_error(), minutes=9)
    if ledger:
        with own.write() as connection:
            crashes.count(connection, failed.c.job_id.in_(counted))
    add(own, error, error, not_found(1), None, minutes=8)
    add(own, error, other, missing_error(), not_found(2), minutes=7, class_name="aJob")
    add(own, exit_error(1_700, -9).replace(':"', ': "'), exit_error(18, -9)[:-1], "", minutes=6)
    once, searches = read_groups(own, Filter())
    assert searches == 0
    assert {group.causes.total(): group.count for group in once if group.signature.death} == {7: 7, 2: 2}
    _, filtered_searches = read_groups(own, Filter(classes=("AJob", "aJob")))
    assert filtered_searches == 1
    monkeypatch.setattr(diff_groups, "MOST_GATHERED", 0)
    twice, searches = read_groups(own, Filter())
    assert searches == 1
    assert once == twice
