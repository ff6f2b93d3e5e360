"""The chain of operations: every change of a sealed record is found, and sealing is safe beside itself and SIGKILL."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from solidjq import Database
from solidjq.database import digests
from solidjq.database.setup import initialize
from solidjq.database.tables import chain as links
from solidjq.database.tables import failures, operations
from solidjq.database.times import clock
from solidjq.errors import ConflictError
from solidjq.ledger import chain, verification
from solidjq.ledger.operations import Operation
from solidjq.ledger.verification import BreakKind, ChainReport
from solidjq.rails.error_text import missing_error
from solidjq.recovery import undo as recovery_undo
from support.killer import KILLED, killer
from support.program import Shell
from support.queue import fail, plain_jobs, rows
from support.races import at_once
from support.recovery import retry_jobs, undo
from support.schemas import without_chain

TEXT = "naïve ☃ 漢字 'quoted' \\ %s :x"


def verify(database: Database, **options: Any) -> ChainReport:
    with database.read() as connection:
        return verification.verify(connection, **options)


def kinds(report: ChainReport) -> set[tuple[BreakKind, int | None]]:
    return {(found.kind, found.operation_id) for found in report.breaks}


def record(database: Database, verb: str = "enqueue", **more: Any) -> int:
    """Record an operation as a command does, and leave it open."""
    return database.transact(Operation(verb, **more).record, 1)


def sealed(database: Database, verb: str = "enqueue", **more: Any) -> int:
    """Record an operation and seal it; return its id."""
    operation_id = record(database, verb, **more)
    chain.seal(database, [operation_id])
    return operation_id


def retried(database: Database, jobs: int = 3) -> Operation:
    """Retry jobs that failed, as one operation, and seal it."""
    ids = fail(database, *plain_jobs(jobs), error=missing_error())
    operation = Operation("retry", command="jq retry", reason=TEXT, chosen={"all": True})
    retry_jobs(database, ids, operation)
    assert operation.id is not None
    chain.seal(database, [operation.id])
    return operation


def change(database: Database, *statements: Any) -> None:
    with database.write() as connection:
        for statement in statements:
            connection.execute(statement)


def of(table: Any, operation_id: int) -> Any:
    return update(table).where((table.c.id if table is operations else table.c.operation_id) == operation_id)


# -- what is whole


def test_operations_are_sealed_one_after_the_other(database: Database) -> None:
    first = retried(database)
    undo(database, first)
    second = max(row["id"] for row in rows(database, operations))
    chain.seal(database, [second])
    third = sealed(database, reason=None)
    report = verify(database)
    assert (report.whole, report.links, report.last_operation) == (True, 3, third)
    assert report.unsealed == []
    found = sorted(rows(database, links), key=lambda row: row["position"])
    assert [(row["position"], row["operation_id"], row["failures"]) for row in found] == [
        (1, first.id, 3),
        (2, second, 3),
        (3, third, 0),
    ]
    assert found[0]["previous_hash"] == "0" * 64
    assert [row["previous_hash"] for row in found[1:]] == [row["hash"] for row in found[:-1]]
    assert report.since == found[0]["sealed_at"]


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_seal_that_has_no_patience_waits_for_no_lock(database: Database) -> None:
    """As after a Ctrl-C: on MySQL, the session whose statement it ended waits on, and holds its operation's row."""
    operation_id = record(database)
    own = Database(database.url, answer_timeout=20)  # seconds; waiting longer is another error
    with database.write() as holder:
        holder.execute(select(operations.c.id).where(operations.c.id == operation_id).with_for_update())
        with pytest.raises(ConflictError):
            chain.seal(own, [operation_id], patient=False)
    assert verify(database).links == 0
    chain.seal(own, [operation_id], patient=False)
    own.close()
    assert (verify(database).whole, verify(database).links) == (True, 1)


def test_the_hash_is_the_documented_one(database: Database) -> None:
    """Made here by hand, so that another program can verify a chain."""
    operation = retried(database)
    (row,) = rows(database, operations)
    (link,) = rows(database, links)
    archived = sorted(rows(database, failures), key=lambda row: row["id"])

    def text(value: Any) -> str | None:
        if isinstance(value, datetime):
            return value.strftime("%Y-%m-%d %H:%M:%S.%f")
        return None if value is None else str(value)

    def fields(*values: Any) -> str:
        return "".join(":," if text(v) is None else f"{len(str(text(v)))}:{text(v)}," for v in values)

    def sha256(words: str) -> str:
        return digests.sha256_of(words.encode()) or ""

    names = "id failure_id job_id active_job_id queue_name class_name failed_at archived_at operation_id priority"
    names += " concurrency_key scheduled_at enqueued_at updated_at"
    hashes = [
        sha256(
            fields(*(each[name] for name in names.split()))
            + "".join(f"{sha256(each[name]) if each[name] else ''}," for name in ("error", "arguments", "more"))
        )
        for each in archived
    ]
    assert link["failures_hash"] == sha256("".join(hashes))
    columns = "id verb actor database_role ci_job command reason filter plan jobs verdicts created_at ended_at"
    assert link["hash"] == sha256(
        fields("jq_chain 1", 1, "0" * 64, link["sealed_at"], 3, link["failures_hash"])
        + fields(*(row[name] for name in columns.split()))
    )
    assert row["reason"] == TEXT
    assert operation.id == row["id"]


def test_of_a_large_operation_the_ids_are_hashed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "WHOLE", 2)
    operation = retried(database)
    assert operation.id is not None
    archived = sorted(rows(database, failures), key=lambda row: row["id"])
    texts = [digests.canonical([row["id"], row["failure_id"], row["job_id"]]) for row in archived]
    (link,) = rows(database, links)
    assert link["failures_hash"] == digests.sha256_of("".join(texts).encode())
    assert verify(database).whole
    change(database, delete(failures).where(failures.c.id == archived[0]["id"]))
    assert kinds(verify(database)) == {(BreakKind.FAILURES, operation.id)}


def test_a_sealed_operation_takes_no_more_jobs(database: Database) -> None:
    """A command that runs for longer than a day goes on under an operation of its own."""
    operation = Operation("retry", command="jq retry")
    before = database.transact(operation.record, 1)
    database.transact(operation.record, 1)
    chain.seal(database, [before])
    after = database.transact(operation.record, 5)
    assert after != before
    assert {row["id"]: row["jobs"] for row in rows(database, operations)} == {before: 2, after: 5}
    assert verify(database).whole


# -- what others leave behind


def test_a_killed_commands_operation_is_sealed_after_a_day(database: Database) -> None:
    killed, young = record(database), record(database)
    with database.read() as connection:
        now = clock(connection)
    change(database, of(operations, killed).values(created_at=now - timedelta(hours=24, minutes=1)))
    last = sealed(database)
    report = verify(database)
    assert (report.whole, report.links, report.last_operation) == (True, 2, last)
    assert report.unsealed == [young]


def test_a_ledger_from_before_the_chain(own: Database) -> None:
    without_chain(own)
    old = record(own, reason="before")
    chain.seal(own, [old])  # does nothing
    (row,) = rows_of_older(own)
    assert row == (old, "before")
    initialize(own)
    with own.read() as connection:
        now = clock(connection)
    change(own, of(operations, old).values(created_at=now - timedelta(days=400)))
    assert verify(own).unsealed == [old]
    new = sealed(own)
    report = verify(own)
    assert (report.whole, report.links, report.last_operation) == (True, 2, new)
    assert report.since is not None
    assert report.since >= now


def rows_of_older(database: Database) -> list[tuple[int, str]]:
    with database.read() as connection:
        return [tuple(row) for row in connection.execute(select(operations.c.id, operations.c.reason))]


def test_killed_between_any_two_statements_of_a_seal(database: Database, shell: Shell) -> None:
    killed = 0
    with killer(shell.url, shell, ("seal",)) as run:
        code = KILLED
        while code == KILLED:
            operation_id = record(database)
            code = run("")
            killed += code == KILLED
            report = verify(database)
            assert report.whole
            assert operation_id == report.last_operation or operation_id in report.unsealed
    assert (code, killed > 4) == (0, True)
    assert verify(database).unsealed == []


def test_many_commands_seal_at_once(database: Database) -> None:
    own = [[record(database) for _ in range(3)] for _ in range(4)]

    def seal_of(ids: list[int]) -> Callable[[Database], None]:
        def run(mine: Database) -> None:
            for operation_id in ids:
                chain.seal(mine, [operation_id])

        return run

    at_once(database, *map(seal_of, own))
    report = verify(database)
    assert (report.whole, report.links, report.unsealed) == (True, 12, [])


# -- what is broken

Attack = Callable[[Database, int, int], None]


def rewrite(**values: Any) -> Attack:
    return lambda database, target, _: change(database, of(operations, target).values(**values))


def rewrite_archive(**values: Any) -> Attack:
    return lambda database, target, _: change(database, of(failures, target).values(**values))


def remove(database: Database, target: int, _: int) -> None:
    change(database, delete(operations).where(operations.c.id == target))


def remove_with_archive(database: Database, target: int, other: int) -> None:
    remove(database, target, other)
    change(database, delete(failures).where(failures.c.operation_id == target))


def remove_with_link(database: Database, target: int, other: int) -> None:
    remove_with_archive(database, target, other)
    change(database, delete(links).where(links.c.operation_id == target))


def remove_one_failure(database: Database, target: int, _: int) -> None:
    first = min(row["id"] for row in rows(database, failures) if row["operation_id"] == target)
    change(database, delete(failures).where(failures.c.id == first))


def add_failure(database: Database, target: int, _: int) -> None:
    row = next(row for row in rows(database, failures) if row["operation_id"] == target)
    change(database, insert(failures).values({**row, "id": row["id"] + 1000, "job_id": row["job_id"] + 1000}))


def move_failures(database: Database, target: int, other: int) -> None:
    rewrite_archive(operation_id=other)(database, target, other)


def rewrite_link(**values: Any) -> Attack:
    return lambda database, target, _: change(
        database, update(links).where(links.c.operation_id == target).values(**values)
    )


def swap_links(database: Database, target: int, other: int) -> None:
    by_operation = {row["operation_id"]: row for row in rows(database, links)}
    one, two = by_operation[target], by_operation[other]
    change(
        database,
        delete(links).where(links.c.operation_id.in_([target, other])),
        insert(links).values({**one, "position": two["position"]}),
        insert(links).values({**two, "position": one["position"]}),
    )


def forge_link(database: Database, target: int, other: int) -> None:
    """Rewrite an operation and make its link anew, as whoever may write every table can."""
    rewrite(actor="somebody@else")(database, target, other)
    link = next(row for row in rows(database, links) if row["operation_id"] == target)
    digest = chain.FailuresDigest(link["failures"], link["failures_hash"])
    with database.read() as connection:
        values = connection.execute(select(*chain.OPERATION).where(operations.c.id == target)).one()
    forged = chain.link_hash(link["position"], link["previous_hash"], link["sealed_at"], digest, values)
    change(database, update(links).where(links.c.operation_id == target).values(hash=forged))


def backdate(database: Database, target: int, _: int) -> None:
    """Insert an operation of a year ago, under an id that a rollback has left free."""
    row = next(row for row in rows(database, operations) if row["id"] == target)
    values = {**row, "id": row["id"] + 500, "created_at": row["created_at"] - timedelta(days=365)}
    change(database, insert(operations).values(values))


ATTACKS: dict[str, tuple[Attack, set[BreakKind]]] = {
    "another actor": (rewrite(actor="somebody@else"), {BreakKind.CHANGED}),
    "another role": (rewrite(database_role="app"), {BreakKind.CHANGED}),
    "another reason": (rewrite(reason=""), {BreakKind.CHANGED}),
    "no reason": (rewrite(reason=None), {BreakKind.CHANGED}),
    "another time": (rewrite(created_at=datetime.fromisoformat("2026-01-01T00:00:00+00:00")), {BreakKind.CHANGED}),
    "another count": (rewrite(jobs=0), {BreakKind.CHANGED}),
    "other verdicts": (rewrite(verdicts="{}"), {BreakKind.CHANGED}),
    "opened again": (rewrite(ended_at=None), {BreakKind.CHANGED}),
    "another error": (rewrite_archive(error="{}"), {BreakKind.FAILURES}),
    "other arguments": (rewrite_archive(arguments="{}"), {BreakKind.FAILURES}),
    "another class": (rewrite_archive(class_name="Other"), {BreakKind.FAILURES}),
    "taken back by a retry": (
        lambda database, target, other: rewrite_archive(restored_by=other)(database, target, other),
        {BreakKind.FAILURES},
    ),
    "removed": (remove, {BreakKind.REMOVED}),
    "removed with its archive": (remove_with_archive, {BreakKind.REMOVED}),
    "removed with its link": (remove_with_link, {BreakKind.LINK}),
    "a failure removed": (remove_one_failure, {BreakKind.FAILURES}),
    "a failure inserted": (add_failure, {BreakKind.FAILURES}),
    "failures moved": (move_failures, {BreakKind.FAILURES}),
    "failures of no operation": (rewrite_archive(operation_id=10**6), {BreakKind.FAILURES, BreakKind.INSERTED}),
    "another time of the link": (
        rewrite_link(sealed_at=datetime.fromisoformat("2026-01-01T00:00:00+00:00")),
        {BreakKind.CHANGED},
    ),
    "another count of the link": (rewrite_link(failures=0), {BreakKind.CHANGED, BreakKind.FAILURES}),
    "another hash of the link": (rewrite_link(hash="f" * 64), {BreakKind.CHANGED, BreakKind.LINK}),
    "links swapped": (swap_links, {BreakKind.LINK, BreakKind.CHANGED}),
    "a link made anew": (forge_link, {BreakKind.LINK}),
    "backdated": (backdate, {BreakKind.INSERTED}),
}


def test_a_break_is_found(database: Database) -> None:
    first, target, other = (retried(database, 2).id for _ in range(3))
    assert first is not None
    assert target is not None
    assert other is not None
    whole = {table: rows(database, table) for table in (operations, failures, links)}
    for attack, (act, expected) in ATTACKS.items():
        assert verify(database).whole
        act(database, target, other)
        report = verify(database)
        assert {found.kind for found in report.breaks} == expected, attack
        named = {found.operation_id for found in report.breaks}
        assert named & {target, other, target + 500}, f"{attack}: a break names its operation"
        assert first not in named, attack
        sealed(database)  # the next command seals nothing of it away
        assert expected <= {found.kind for found in verify(database).breaks}, attack
        change(database, *map(delete, whole), *(insert(table).values(each) for table, each in whole.items()))


def test_a_failure_that_an_undo_took_back_cannot_be_hidden(database: Database) -> None:
    operation = retried(database)
    undo(database, operation)
    undone = max(row["id"] for row in rows(database, operations))
    chain.seal(database, [undone])
    assert verify(database).whole
    change(database, of(failures, operation.id or 0).values(restored_by=None))
    assert kinds(verify(database)) == {(BreakKind.FAILURES, undone)}


def test_the_head_of_the_chain_cannot_be_removed(database: Database) -> None:
    first, second, third = (sealed(database, reason=str(number)) for number in range(3))
    change(
        database, delete(operations).where(operations.c.id == first), delete(links).where(links.c.operation_id == first)
    )
    assert kinds(verify(database)) == {(BreakKind.LINK, second)}
    for position, operation_id in enumerate((second, third), start=1):  # the others move up
        change(database, update(links).where(links.c.operation_id == operation_id).values(position=position))
    assert kinds(verify(database)) == {
        (BreakKind.LINK, second),
        (BreakKind.CHANGED, second),
        (BreakKind.CHANGED, third),
    }


def test_a_chain_whose_end_was_removed_or_that_was_made_anew(database: Database) -> None:
    first, second = sealed(database), sealed(database)
    hashes = {row["operation_id"]: row["hash"] for row in rows(database, links)}
    third = sealed(database)
    for operation_id in (first, second):  # a hash stays good while the chain grows
        report = verify(database, expected=hashes[operation_id])
        assert (report.whole, report.expected_operation) == (True, operation_id)
    change(
        database,
        delete(links).where(links.c.operation_id.in_([second, third])),
        delete(operations).where(operations.c.id.in_([second, third])),
    )
    assert verify(database).whole
    assert kinds(verify(database, expected=hashes[second])) == {(BreakKind.UNKNOWN_HASH, None)}
    assert verify(database, expected=hashes[first]).whole


def test_old_rows_may_be_cleared(database: Database) -> None:
    old = retried(database)
    assert old.id is not None
    undoing = Operation("undo", chosen={"operation": old.id})
    assert len([*recovery_undo.undo(database, old.id, undoing)]) == 1
    assert undoing.id is not None
    chain.seal(database, [undoing.id])
    new = retried(database)
    change(
        database,
        delete(failures).where(failures.c.operation_id <= old.id),
        delete(operations).where(operations.c.id <= old.id),
    )
    assert kinds(verify(database)) == {(BreakKind.REMOVED, old.id), (BreakKind.FAILURES, undoing.id)}
    assert verify(database, after=old.id).whole
    change(database, of(operations, new.id or 0).values(reason="other"))
    assert kinds(verify(database, after=old.id)) == {(BreakKind.CHANGED, new.id)}


@pytest.mark.sqlite_only
def test_a_value_that_makes_no_sense_is_a_break_and_no_traceback(database: Database) -> None:
    operation_id = sealed(database)
    for table, column in ((operations, "created_at"), (operations, "jobs"), (links, "sealed_at"), (links, "failures")):
        with database.write() as connection:
            before = connection.exec_driver_sql(f"SELECT {column} FROM {table.name}").scalar()  # noqa: S608
            connection.exec_driver_sql(f"UPDATE {table.name} SET {column} = X'ff00'")  # noqa: S608
        assert (BreakKind.CHANGED, operation_id) in kinds(verify(database)), column
        chain.seal(database, [])
        with database.write() as connection:
            connection.exec_driver_sql(f"UPDATE {table.name} SET {column} = ?", (before,))  # noqa: S608
    assert verify(database).whole


# -- the command


def test_every_command_seals_what_it_recorded(database: Database, shell: Shell) -> None:
    failed = " ".join(map(str, fail(database, *plain_jobs(2), error=missing_error())))
    commands = (
        f"retry {failed}",
        "undo {last}",
        f"discard {failed} --yes",
        "queues pause --create mailers",
        "enqueue A",
        "prune",
    )
    for command in commands:
        last = max([row["id"] for row in rows(database, operations)], default=0)
        done = shell.run(*command.format(last=last).split())
        assert done.returncode == 0, done.stderr
    report = verify(database)
    assert (report.whole, report.unsealed, report.links) == (True, [], len(rows(database, operations)))
    assert report.links >= 5


def test_verify_prints_the_last_hash_and_what_is_broken(database: Database, shell: Shell) -> None:
    nothing = shell.run("operations", "verify")
    assert (nothing.returncode, nothing.stderr) == (0, "jq: no operation is sealed yet\n")
    first, second = sealed(database), sealed(database)
    last_hash = max(rows(database, links), key=lambda row: row["position"])["hash"]
    whole = shell.run("operations", "verify", "--expect", last_hash, "-o", "json")
    (report,) = json.loads(whole.stdout)
    assert whole.returncode == 0
    assert (report["whole"], report["last_hash"], report["breaks"]) == (True, last_hash, [])
    assert (report["expected_operation"], report["last_operation"]) == (second, second)
    assert "the record is whole: 2 links" in whole.stderr
    assert f"last_hash:          {last_hash}\n" in shell.run("operations", "verify").stdout
    change(database, of(operations, first).values(actor="somebody@else"))
    running = record(database)
    broken = shell.run("operations", "verify")
    assert broken.returncode == 5
    assert f"breaks:\n  operation {first}, or its link, was changed after it was sealed\n" in broken.stdout
    assert broken.stderr == f"jq: 1 operation not sealed yet: {running}\njq: the record is broken: 1 break\n"
    (report,) = json.loads(shell.run("operations", "verify", "-o", "json").stdout)
    assert [(found["kind"], found["operation_id"]) for found in report["breaks"]] == [("changed", first)]
    assert shell.run("operations", "verify", "-o", "ids").stdout == f"{first}\n"
    assert shell.run("operations", "verify", "--expect", "f" * 64).returncode == 5
    assert shell.run("operations", "verify", "--expect", "abc").returncode == 2


def test_a_ledger_without_a_chain_is_read_and_written_but_not_verified(own: Database, tmp_path: Any) -> None:
    from solidjq.database.urls import url_text

    without_chain(own)
    shell = Shell(url_text(own.url), tmp_path)
    done = shell.run("enqueue", "A")
    assert (done.returncode, "sealed" in done.stderr) == (0, False)
    (shown,) = json.loads(shell.run("operations", "list", "-o", "json").stdout)
    assert (shown["verb"], shown["database_role"], shown["ended_at"]) == ("enqueue", None, None)
    refused = shell.run("operations", "verify")
    assert (refused.returncode, "run: jq init" in refused.stderr) == (3, True)
