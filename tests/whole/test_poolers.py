"""PostgreSQL behind a pooler: it drops what a connection requests at its start, and shares its sessions."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from compatibility import FIRST
from sqlalchemy import Connection, event, func, select
from sqlalchemy.engine import URL, Engine

from solidjq import Database, NewJob
from solidjq.database import notices
from solidjq.database.poolers import SESSION
from solidjq.database.setup import initialize
from solidjq.database.tables import jobs
from solidjq.database.urls import parse_url, url_text, with_schema
from solidjq.errors import RefusedError, TookTooLongError
from support.environments import contents, make, run_every_command
from support.paths import PROGRAMS
from support.poolers import Pooled, unprepared
from support.program import Shell, assert_refused
from support.queue import add_jobs, fail, plain_jobs
from support.servers import connected, execute
from support.waiting import PATIENCE, until

IGNORED = {"ignore_startup_parameters": "extra_float_digits,options"}
TRANSACTIONS = {"pool_mode": "transaction", **IGNORED}
JOBS = {"session": 500, "transaction": 5000}
# A table's name with no schema before it, where a statement may read or change the table.
UNQUALIFIED = re.compile(
    r"\b(FROM|JOIN|INTO|UPDATE|TABLE|REFERENCES|ON|EXISTS) +\"?(solid_queue|jq)_(?!jq|notify)\w+(?![\w.])"
)
# They match texts better than PostgreSQL's own do, and fail for whoever is not a test.
IN_THE_PLACE_OF_POSTGRESQLS = [
    f"{statement.format(schema=schema)}"
    for schema in ("public", "shop_b")
    for statement in (
        (
            "CREATE FUNCTION {schema}.ran(a varchar, b varchar) RETURNS boolean LANGUAGE plpgsql SET search_path = '' "
            "AS $$BEGIN IF current_setting('application_name') <> '' THEN RAISE EXCEPTION 'it ran'; END IF; "
            "RETURN a::text = b::text; END$$"
        ),
        "CREATE FUNCTION {schema}.lower(a varchar) RETURNS text LANGUAGE sql AS 'SELECT {schema}.ran(a, a)::text'",
        "CREATE FUNCTION {schema}.length(a varchar) RETURNS int LANGUAGE sql AS 'SELECT {schema}.ran(a, a)::int'",
        *(
            f"CREATE OPERATOR {{schema}}.{operator} (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = {{schema}}.ran)"
            for operator in ("=", "<>", "<", ">", "~~", "~")
        ),
    )
]


@pytest.fixture
def queue(make_postgresql: Callable[[str], URL], postgresql_template: str) -> URL:
    return make_postgresql(postgresql_template)


@contextmanager
def opened(url: URL, **settings: Any) -> Iterator[Database]:
    database = Database(url, **settings)
    yield database
    database.close()


@contextmanager
def other_client(url: URL, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as another client of the pooler does, and leave something behind in its sessions."""
    with psycopg.connect(url_text(url.set(drivername="postgresql")), autocommit=True) as client:
        for statement in statements:
            client.execute(statement)
        yield client


def with_another_queue(url: URL) -> URL:
    """Make an empty schema ``shop_b`` beside the queue in ``public``; return the URL of a queue in it."""
    execute(url, "CREATE SCHEMA shop_b")
    return with_schema(url, "shop_b")


@pytest.mark.parametrize("mode", ["direct", "transaction"])
def test_every_command_in_a_schema(
    mode: str,
    queue: URL,
    pooled: Pooled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The rows of the other schema's queue stay as they are, even if the sessions' search path names it.

    Nor does any command run a function or an operator of these schemas.
    """
    make(queue, FIRST)
    with connected(queue) as connection:
        others = contents(connection)
    shop_b = with_another_queue(queue)
    names = make(shop_b, FIRST)
    execute(queue, *IN_THE_PLACE_OF_POSTGRESQLS)
    monkeypatch.chdir(tmp_path)
    reached = queue if mode == "direct" else pooled(queue, **TRANSACTIONS)
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(reached))
    sent: list[str] = []

    def note(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if SESSION in connection.info:  # not the test's own look at the rows
            sent.append(statement)

    with other_client(reached, "SET search_path = public"):
        event.listen(Engine, "before_cursor_execute", note)
        try:
            ended = run_every_command(shop_b, names, FIRST, monkeypatch, capsys, "--schema", "shop_b")
        finally:
            event.remove(Engine, "before_cursor_execute", note)
    assert [each.outcome for each in ended] == [each.expected for each in ended]
    with connected(queue) as connection:
        assert contents(connection) == others
    assert [statement for statement in sent if UNQUALIFIED.search(statement)] == []


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_ways_to_name_a_schema(mode: str, queue: URL, pooled: Pooled, tmp_path: Path) -> None:
    shop_b = with_another_queue(queue)
    reached = url_text(pooled(queue, pool_mode=mode, **IGNORED))
    with opened(shop_b) as own:
        initialize(own)
        add_jobs(own, *plain_jobs(2))
    (tmp_path / "config").mkdir()
    (tmp_path / "config/database.yml").write_text(
        f"production:\n  queue:\n    url: {reached.replace('+psycopg', '')}\n    schema_search_path: shop_b, public\n"
    )
    for url, options in (
        (reached, ["--schema", "shop_b"]),
        (f"{reached}?schema_search_path=shop_b", []),
        (f"{reached}?options=-c%20search_path=shop_b", []),
        (f"{reached}?options=-csearch_path=%22shop_b%22,public%20-cstatement_timeout=60000", []),
        ("", ["--rails", "."]),
    ):
        shell = Shell(url, tmp_path) if url else Shell("sqlite:none", tmp_path)
        listed = shell.run(*options, "queues", "list", "-o", "ndjson")
        assert '"ready": 2' in listed.stdout, (options, listed.stderr)


def test_a_pooler_that_refuses_options(queue: URL, pooled: Pooled, tmp_path: Path) -> None:
    with opened(with_another_queue(queue)) as own:
        initialize(own)
        add_jobs(own, *plain_jobs(2))
    reached = pooled(queue, pool_mode="session")
    assert (
        '"ready": 2'
        in Shell(url_text(reached), tmp_path).run("--schema", "shop_b", "queues", "list", "-o", "ndjson").stdout
    )
    limited = reached.update_query_dict({"options": "-cgeqo=off"})
    assert Shell(url_text(limited), tmp_path).run("queues", "list").returncode == 0
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
        psycopg.connect(url_text(limited.set(drivername="postgresql")))


def test_a_search_path_that_another_client_left(queue: URL, pooled: Pooled) -> None:
    """Without a schema, the search path counts that the role starts with."""
    with opened(with_another_queue(queue)) as own:
        initialize(own)
    reached = pooled(queue, **TRANSACTIONS, default_pool_size=1)
    with other_client(reached, "SET search_path = shop_b") as client, opened(reached) as database:
        (job_id,) = add_jobs(database, *plain_jobs(1))
        assert client.execute("SHOW search_path").fetchone() == ("shop_b",)  # the same session
        assert client.execute("SELECT id FROM public.solid_queue_jobs").fetchall() == [(job_id,)]


def test_two_schemas_of_one_queue(queue: URL, pooled: Pooled) -> None:
    """Statements cannot name them, so the search path must find them: not through a pooler, not for a superuser."""
    execute(queue, "CREATE SCHEMA shop_b", "ALTER TABLE jq_schema_migrations SET SCHEMA shop_b")
    path = "options=-csearch_path=shop_b,public"
    rights = [f"GRANT ALL ON ALL {what} IN SCHEMA public, shop_b TO two" for what in ("TABLES", "SEQUENCES")]
    execute(queue, "CREATE ROLE two LOGIN", "GRANT USAGE ON SCHEMA shop_b TO two", *rights)
    with opened(parse_url(f"{url_text(queue.set(username='two'))}&{path}")) as database:
        assert add_jobs(database, *plain_jobs(1))
    execute(queue, "DROP OWNED BY two", "DROP ROLE two")
    advice = re.escape("ALTER TABLE shop_b.jq_schema_migrations SET SCHEMA public")
    for url in (f"{url_text(pooled(queue, **TRANSACTIONS))}?{path}", f"{url_text(queue)}&{path}"):
        with opened(parse_url(url)) as database, pytest.raises(RefusedError, match=advice):
            add_jobs(database, *plain_jobs(1))


def test_settings_of_the_url_hold_for_our_transactions_only(queue: URL, pooled: Pooled) -> None:
    reached = pooled(queue, **TRANSACTIONS, default_pool_size=1)
    limited = parse_url(f"{url_text(reached)}?options=-cstatement_timeout=2000%20-cwork_mem=1MB")
    with opened(limited) as database, other_client(reached) as client:
        with database.read() as connection, pytest.raises(TookTooLongError), database._errors():
            connection.exec_driver_sql("SELECT pg_sleep(30)")
        assert client.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert client.execute("SELECT setting FROM pg_settings WHERE name = 'work_mem'").fetchone() != ("1024",)


def test_statements_are_prepared_only_in_a_session_of_our_own(queue: URL, pooled: Pooled) -> None:
    reached = pooled(queue, **TRANSACTIONS)
    for url, prepared in (
        (queue, True),
        (reached, False),
        (parse_url(f"{url_text(reached)}?prepared_statements=true"), True),
        (parse_url(f"{url_text(queue)}&prepared_statements=false"), False),
    ):
        with opened(url) as database, database.read() as connection:
            for _ in range(10):
                connection.execute(select(jobs.c.id))
            names = connection.exec_driver_sql("SELECT name FROM pg_prepared_statements").scalars().all()
        assert bool(names) == prepared, url
        assert not {"_pg3_0", "_pg3_1", "_pg3_2"} & set(names)  # which any other program with this driver uses


def test_a_prepared_statement_that_the_session_lacks(queue: URL, pooled: Pooled) -> None:
    """Preparing is switched off, and the move runs again: a pooler that could not be recognised behaves so."""
    reached = pooled(queue, **TRANSACTIONS, **unprepared(), default_pool_size=1)

    def look(connection: Connection) -> None:
        connection.execute(select(jobs.c.id))

    with (
        opened(parse_url(f"{url_text(reached)}?prepared_statements=true")) as database,
        other_client(reached) as client,
    ):
        for _ in range(10):
            database.transact(look)
        assert client.execute("SELECT name FROM pg_prepared_statements").fetchall() != []
        client.execute("DEALLOCATE ALL")
        for _ in range(10):
            database.transact(look)
        assert client.execute("SELECT name FROM pg_prepared_statements").fetchall() == []


def test_nobody_listens_through_a_pooler(queue: URL, pooled: Pooled) -> None:
    with opened(pooled(queue, **TRANSACTIONS)) as database:
        assert list(notices.listen(database)) == []
        add_jobs(database, *plain_jobs(1))  # a notice to those that listen on a session of their own


def test_a_pooler_that_allows_no_transactions(queue: URL, pooled: Pooled, tmp_path: Path) -> None:
    reached = Shell(url_text(pooled(queue, pool_mode="statement")), tmp_path)
    assert_refused(reached.run("failed", "list"), 3, "pooler", "statement mode", "transaction")


def test_indexes_through_a_pooler(queue: URL, pooled: Pooled, tmp_path: Path) -> None:
    execute(queue, "DROP INDEX index_solid_queue_poll_all")
    reached = Shell(url_text(pooled(queue, **TRANSACTIONS)), tmp_path)
    done = reached.run("init", "--indexes")
    assert (done.returncode, "index_solid_queue_poll_all" in done.stdout + done.stderr) == (0, True), done.stderr
    with opened(queue) as database, database.read() as connection:
        locks = connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert locks.scalar() == 0


def test_a_glance_waits_for_no_session_of_a_pooler(queue: URL, pooled: Pooled) -> None:
    """What is only said beside an answer: while another client holds the one session, there is nothing to say."""
    reached = pooled(queue, **TRANSACTIONS, default_pool_size=1, query_wait_timeout=0)
    with opened(reached) as database, ThreadPoolExecutor() as pool, other_client(reached) as client:
        assert database.glance(lambda _: "seen") == "seen"
        with client.transaction():
            client.execute("SELECT 1")
            assert pool.submit(database.glance, lambda _: "seen").result(PATIENCE) is None
        assert database.glance(lambda _: "seen") == "seen"


def count_unfinished(database: Database) -> int:
    with database.read() as connection:
        unfinished = select(func.count()).where(jobs.c.class_name == "note", jobs.c.finished_at.is_(None))
        return connection.scalar(unfinished) or 0


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_work_through_a_pooler(mode: str, queue: URL, pooled: Pooled, tmp_path: Path) -> None:
    """Three supervisors and commands of all kinds at once; in transaction mode with fewer sessions than connections."""
    reached = pooled(queue, pool_mode=mode, default_pool_size=3 if mode == "transaction" else 60, **IGNORED)
    shell = Shell(url_text(reached), tmp_path, {"PYTHONPATH": str(PROGRAMS)})
    with opened(queue) as database, opened(reached) as through:
        failed = fail(database, *plain_jobs(200), error="boom")
        add_jobs(through, *[NewJob(class_name="note", args=[number]) for number in range(JOBS[mode])])
        working = [shell.start("work", "--import", "sample_jobs", "--queues", "default") for _ in range(3)]
        try:
            ended = [
                shell.run(*command)
                for command in (
                    ("failed", "list"),
                    ("doctor",),
                    ("retry", "--class", "PlainJob", "--queue-as", "elsewhere", "--yes"),
                    ("incidents", "list"),
                    ("prune",),
                )
            ]
            until(lambda: not count_unfinished(database), "all jobs finish")
        finally:
            for each in working:
                each.terminate()
            logs = [each.communicate(timeout=PATIENCE)[1] for each in working]
        assert [each.returncode for each in working] == [0, 0, 0], logs
        assert sorted(tmp_path.joinpath("journal").read_text().splitlines()) == sorted(
            f"({number},) {{}}" for number in range(JOBS[mode])
        )
        assert [each.returncode for each in ended] == [0, 6, 0, 0, 0], [each.stderr for each in ended]
        assert len(failed) == 200
