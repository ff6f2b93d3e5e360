"""A role that may create objects in the schema cannot have its code run by whoever uses the queue."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from solidjq import Database, NewJob
from solidjq.database import notices, owners
from solidjq.database.setup import initialize
from solidjq.database.tables import jobs, operations, solid_queue
from solidjq.database.urls import url_text
from solidjq.doctor.checks import Severity
from solidjq.errors import DatabaseError, NotAQueueError, RefusedError
from solidjq.queue import pauses
from solidjq.queue.enqueue import enqueue_alone
from solidjq.recovery import plans
from solidjq.recovery.retry import plan
from solidjq.recovery.terms import RetryTerms, Selection
from solidjq_cli import session
from solidjq_cli.exits import Exit
from support.commands import run
from support.deaths import die
from support.doctor import findings
from support.every_command import COMMANDS, PLAN
from support.poolers import Pooled
from support.program import Shell
from support.queue import add_jobs, plain_jobs, rows
from support.recovery import retry_jobs
from support.scenes import something_for_every_command
from support.servers import connected, execute

EVIL = "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body} RETURN NULL; END'"
FUNCTION = (
    "CREATE FUNCTION mine(a varchar, b varchar) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN {body} END$$"
)


@pytest.fixture
def low(empty_url: URL, worker_name: str) -> Iterator[URL]:
    """A role that may only log in and create objects in the schema."""
    name = f"low_{worker_name}"
    execute(empty_url, f"CREATE ROLE {name} LOGIN", f"GRANT CREATE, USAGE ON SCHEMA public TO {name}")
    yield empty_url.set(username=name)
    execute(empty_url, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def errors(database: Database) -> list[str]:
    """Return what doctor says of owners, but for the warning that ``low`` may create objects."""
    return [finding.what for finding in findings(database, "owners") if finding.severity is Severity.ERROR]


def is_superuser(low: URL) -> bool:
    database = Database(low)
    with database.read() as connection:
        found = connection.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    database.close()
    return bool(found)


@pytest.mark.only_on("postgresql")
def test_init_does_not_adopt_a_table(empty_url: URL, low: URL, shell: Shell) -> None:
    execute(low, "CREATE TABLE jq_operations (id bigserial PRIMARY KEY, verb text)")
    administrator = Database(empty_url)
    with pytest.raises(RefusedError, match=f'the table jq_operations belongs to the role "{low.username}"'):
        initialize(administrator)
    with administrator.read() as connection:
        assert connection.scalar(text("SELECT to_regclass('solid_queue_jobs') IS NULL"))
    done = shell.run("init", url=url_text(empty_url))
    assert done.returncode == Exit.REFUSED
    for word in ("jq_operations", str(low.username), "drop it", "nothing was changed"):
        assert word in done.stderr.splitlines()[-1]
    execute(empty_url, "DROP TABLE jq_operations")
    assert "jq_operations" in initialize(administrator).created
    administrator.close()


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize(
    "code",
    [
        "CREATE TRIGGER t AFTER INSERT ON jq_operations FOR EACH ROW EXECUTE FUNCTION mine()",
        "ALTER TABLE jq_operations ALTER reason SET DEFAULT words()",
        "CREATE RULE r AS ON INSERT TO jq_operations DO ALSO SELECT words()",
    ],
)
def test_a_table_that_was_given_away_with_its_code_is_not_adopted(empty_url: URL, low: URL, code: str) -> None:
    administrator = Database(empty_url)
    initialize(administrator)
    execute(empty_url, f"ALTER TABLE jq_operations OWNER TO {low.username}")
    execute(
        low, EVIL.format(name="mine", body=""), "CREATE FUNCTION words() RETURNS text LANGUAGE sql AS $$SELECT 'a'$$"
    )
    execute(low, code)
    execute(empty_url, "ALTER TABLE jq_operations OWNER TO CURRENT_USER")
    with pytest.raises(RefusedError, match=r"the function (mine|words)\(\), which jq_operations runs, belongs to"):
        initialize(administrator)
    assert len(errors(administrator)) == 1
    administrator.close()


@pytest.mark.only_on("postgresql")
def test_init_notify_does_not_replace_a_function_that_its_owner_could_replace_again(empty_url: URL, low: URL) -> None:
    administrator = Database(empty_url)
    administrator.transact(solid_queue.create_all)
    execute(low, EVIL.format(name="jq_notify", body=""))
    with pytest.raises(RefusedError, match=r"the function jq_notify\(\) belongs to the role"):
        notices.install(administrator)
    with pytest.raises(RefusedError, match=r"the function jq_notify\(\) belongs to the role"):
        initialize(administrator)
    add_jobs(administrator, *plain_jobs(1))
    assert not is_superuser(low)
    administrator.close()


@pytest.mark.only_on("postgresql")
def test_a_superuser_does_not_write_to_a_record_that_somebody_else_made(empty_url: URL, low: URL) -> None:
    administrator = Database(empty_url)
    initialize(administrator)
    (job_id,) = add_jobs(administrator, *plain_jobs(1))
    die(administrator)
    assert errors(administrator) == []
    execute(empty_url, f"ALTER TABLE jq_operations OWNER TO {low.username}")
    execute(low, EVIL.format(name="mine", body=f"ALTER ROLE {low.username} SUPERUSER;"))
    execute(low, "CREATE TRIGGER t AFTER INSERT ON jq_operations FOR EACH ROW EXECUTE FUNCTION mine()")
    with pytest.raises(RefusedError, match="jq_operations belongs to the role"):
        retry_jobs(administrator, [job_id])
    assert (is_superuser(low), rows(administrator, operations)) == (False, [])
    assert len(errors(administrator)) == 2
    administrator.close()


# What a role that may create objects in the schema does beforehand, with a right that was granted to it once.
MADE_BEFOREHAND = {
    "function": [EVIL.format(name="jq_notify", body="{body}")],
    "trigger": [
        "CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON jq_deaths FOR EACH STATEMENT EXECUTE FUNCTION mine()"
    ],
    "rule": ["CREATE RULE r AS ON INSERT TO jq_crashes DO ALSO SELECT words()"],
    "view": [
        "ALTER TABLE jq_operations RENAME TO old",
        "CREATE VIEW jq_operations AS SELECT * FROM old",
        "CREATE TRIGGER t INSTEAD OF INSERT ON jq_operations FOR EACH ROW EXECUTE FUNCTION mine()",
    ],
    "trigger on the queue": [
        f"CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON solid_queue_{name} FOR EACH STATEMENT "
        "EXECUTE FUNCTION mine()"
        for name in ("jobs", "ready_executions", "failed_executions", "processes", "pauses")
    ],
}


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("way", MADE_BEFOREHAND)
def test_no_command_of_a_superuser_runs_what_another_role_made(
    own: Database,
    low: URL,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    names = something_for_every_command(own)
    decisions = chain.from_iterable(plan(own, Selection(job_ids=[int(str(names["failed"]))])))
    assert plans.write(tmp_path / PLAN, own.identity(), RetryTerms(), decisions) == 1
    granted = [f"ALTER TABLE {table} OWNER TO {low.username}" for table in ("jq_deaths", "jq_crashes", "jq_operations")]
    trigger = f"GRANT TRIGGER ON ALL TABLES IN SCHEMA public TO {low.username}"
    execute(own.url, *(granted if way in {"trigger", "rule", "view"} else [trigger]))
    evil = f"ALTER ROLE {low.username} SUPERUSER;"
    execute(
        low,
        EVIL.format(name="mine", body=evil),
        f"CREATE FUNCTION words() RETURNS void LANGUAGE sql AS '{evil}'",
        *(statement.replace("{body}", evil) for statement in MADE_BEFOREHAND[way]),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(own.url))
    ended = {}
    for command, code in COMMANDS.items():
        if code is Exit.REFUSED:
            queues = ["--queues", "default"] if command.startswith("work") else []  # else refused for Rails' sake
            refused = run([*command.format(**names).split(), *queues]), "belongs to the role" in capfd.readouterr().err
            session.close()
            ended[command] = refused
            assert not is_superuser(low), command
    assert ended == dict.fromkeys(ended, (Exit.REFUSED, True))
    assert len(ended) > 10


@pytest.mark.only_on("postgresql")
def test_the_function_brings_its_search_path(own: Database) -> None:
    notices.install(own)
    with own.read() as connection:
        settings = connection.scalar(text("SELECT proconfig FROM pg_proc WHERE proname = 'jq_notify'"))
    assert settings == ["search_path=pg_catalog, pg_temp"]
    assert findings(own, "owners") == []
    execute(own.url, "ALTER FUNCTION jq_notify() RESET search_path")
    assert [finding.severity for finding in findings(own, "owners")] == [Severity.NOTE]
    notices.install(own)
    assert findings(own, "owners") == []


@pytest.mark.only_on("postgresql")
def test_the_applications_role_owns_the_queue_and_another_may_use_it(empty_url: URL, low: URL) -> None:
    """The usual rights: Solid Queue's tables belong to the application's role, which ran jq init."""
    application = Database(low)
    initialize(application)
    administrator = Database(empty_url)
    assert errors(administrator) == []
    assert initialize(application).created == []
    add_jobs(administrator, *plain_jobs(1))
    (job_id,) = die(administrator)
    retry_jobs(administrator, [job_id])
    assert len(rows(administrator, operations)) == 1
    administrator.close()
    application.close()


@pytest.mark.only_on("postgresql")
def test_a_trigger_of_the_applications_without_a_search_path(own: Database) -> None:
    """Under jq it finds only what it names with a schema; the error says so, and doctor says it before."""
    body = "INSERT INTO audit VALUES (1);"
    execute(own.url, "CREATE TABLE audit (id int)", EVIL.format(name="note", body=body))
    execute(own.url, "CREATE TRIGGER t AFTER INSERT ON solid_queue_jobs EXECUTE FUNCTION note()")
    (found,) = findings(own, "owners")
    assert (found.severity, "note(), which solid_queue_jobs runs," in found.what) == (Severity.NOTE, True)
    words = r'"audit" does not exist, in PL/pgSQL function public.note\(\).*ALTER FUNCTION \.\.\. SET search_path'
    with pytest.raises(DatabaseError, match=words) as caught:
        add_jobs(own, *plain_jobs(1))
    assert not isinstance(caught.value, NotAQueueError)
    execute(own.url, "ALTER FUNCTION note() SET search_path = public")
    add_jobs(own, *plain_jobs(1))
    assert findings(own, "owners") == []


@pytest.mark.only_on("postgresql")
def test_doctor_warns_of_who_may_create_beside_the_tables(own: Database, low: URL) -> None:
    execute(own.url, f"GRANT CREATE, USAGE ON SCHEMA public TO {low.username}")
    own_low = own.url.set(username=low.username)

    def found() -> list[tuple[Severity, str]]:
        return [(each.severity, each.what.partition(" in the queue's schema")[0]) for each in findings(own, "owners")]

    role = f'the role "{low.username}"'
    assert found() == [(Severity.WARNING, f"{role} may create objects")]
    execute(own_low, "CREATE TABLE report (id int)")
    assert found() == [(Severity.WARNING, f"{role} may create objects and owns 1 object")]
    execute(own.url, findings(own, "owners")[0].advice.partition(";")[0])
    assert found() == [(Severity.NOTE, f"{role} owns 1 object")]
    execute(own.url, f"GRANT CREATE ON SCHEMA public TO {low.username}")
    execute(own_low, FUNCTION.format(body="RETURN true;"), "DROP TABLE report")
    execute(own.url, f"REVOKE CREATE ON SCHEMA public FROM {low.username}", "GRANT CREATE ON SCHEMA public TO PUBLIC")
    assert found() == [
        (Severity.WARNING, "every role may create objects"),
        (Severity.WARNING, f"{role} owns 1 object (functions or operators among them)"),
    ]
    execute(own.url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", "DROP FUNCTION mine", "CREATE TABLE report (id int)")
    assert found() == []  # of a superuser's
    execute(own.url, f"REVOKE ALL ON SCHEMA public FROM {low.username}")


@pytest.mark.only_on("mariadb")
def test_doctor_warns_of_accounts_that_may_create(own: Database) -> None:
    name = own.url.database
    accounts = [f"'{letter}_{name}'@'localhost'"[:60] for letter in "ab"]
    for number, account in enumerate(accounts):
        execute(own.url, f"CREATE USER {account}", f"GRANT CREATE VIEW, SELECT ON `{name}`.* TO {account}")
        assert [each.severity for each in findings(own, "owners")] == [Severity.WARNING] * number  # one migrates it
    (found,) = findings(own, "owners")
    assert all(account in found.what for account in accounts)
    execute(own.url, *(f"DROP USER {account}" for account in accounts))


# What reading would run if names were looked up beside the tables, and a statement that would run it.
IN_THE_PLACE_OF_POSTGRESQLS = {
    "operator": (
        "CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = mine)",
        select(jobs.c.id).where(jobs.c.class_name == "A"),
    ),
    "function": (
        "CREATE FUNCTION lower(a varchar) RETURNS text LANGUAGE sql AS 'SELECT mine(a, a)::text'",
        select(func.lower(jobs.c.class_name)),
    ),
}


@pytest.mark.parametrize("way", IN_THE_PLACE_OF_POSTGRESQLS)
@pytest.mark.parametrize("mode", ["direct", "transaction"])
def test_no_name_is_looked_up_where_others_may_create(
    make_postgresql: Callable[..., URL], postgresql_template: str, pooled: Pooled, worker_name: str, mode: str, way: str
) -> None:
    """The attack comes after every check: the connection is open, and its statements were sent before."""
    url, low = make_postgresql(postgresql_template), f"later_{worker_name}"
    execute(url, f"CREATE ROLE {low} LOGIN", f"GRANT CREATE, USAGE ON SCHEMA public TO {low}")
    made, reading = IN_THE_PLACE_OF_POSTGRESQLS[way]
    reached = url if mode == "direct" else pooled(url, pool_mode="transaction", ignore_startup_parameters="options")
    database = Database(reached)

    def act() -> None:
        enqueue_alone(database, NewJob(class_name="A"))  # a hot statement, alone
        with database.read() as connection:
            assert len(connection.execute(reading).all()) > 0
        database.transact(pauses.pause, "a")

    act()
    execute(url.set(username=low), FUNCTION.format(body="RAISE EXCEPTION 'it ran';"), made)
    act()
    database.close()
    with connected(url) as connection, pytest.raises(DBAPIError, match="it ran"):  # as SQLAlchemy connects
        connection.execute(reading)
    execute(url, f"DROP OWNED BY {low} CASCADE", f"DROP ROLE {low}")


# What a superuser's reading would run, and a statement that runs it.
READ_BEFOREHAND = {
    "view": (["CREATE VIEW jq_operations AS SELECT 1 AS id WHERE mine('a', 'b')"], select(operations.c.id)),
    "index": (
        ["CREATE TABLE jq_operations (id bigint)", "CREATE INDEX i ON jq_operations (mine('a', 'b'))"],
        select(operations.c.id),
    ),
}


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("way", READ_BEFOREHAND)
def test_no_reading_of_a_superuser_runs_what_another_role_made(
    empty_url: URL, low: URL, way: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    administrator = Database(empty_url)
    administrator.transact(solid_queue.create_all)
    add_jobs(administrator, *plain_jobs(1))
    administrator.close()
    statements, reading = READ_BEFOREHAND[way]
    body = "IF current_setting('is_superuser') = 'on' THEN RAISE EXCEPTION 'it ran'; END IF; RETURN true;"
    execute(low, FUNCTION.format(body=body), *statements)
    for command in ("failed list --class A --queue b", "operations list", "doctor", "init", "queues list"):
        done = shell.run(*command.split(), url=url_text(empty_url))
        assert (done.returncode, "it ran" in done.stderr) == (Exit.REFUSED, False), done.stderr
        assert f'belongs to the role "{low.username}"' in done.stderr
    done = shell.run("failed", "list", "--class", "A", url=url_text(low))
    assert "belongs to" not in done.stderr  # a role runs its own code as it likes

    # Without the check, it runs.
    monkeypatch.setattr(owners, "require_safe_to_read", lambda *_: None)
    administrator = Database(empty_url)
    with pytest.raises(DatabaseError, match="it ran"), administrator.read() as connection:
        connection.execute(reading)
    administrator.close()


@pytest.mark.only_on("postgresql")
def test_nothing_runs_in_the_databases_of_others_that_are_searched_for_a_queue(
    empty_url: URL, make_postgresql: Callable[..., URL], low: URL, shell: Shell
) -> None:
    """Whoever owns a database chooses where its functions are looked for: before PostgreSQL's own, too."""
    theirs = make_postgresql()
    execute(empty_url, f"ALTER DATABASE {theirs.database} OWNER TO {low.username}")
    own = theirs.set(username=low.username)
    execute(
        own,
        "CREATE FUNCTION public.current_schema() RETURNS name LANGUAGE plpgsql AS $$BEGIN "
        "IF current_setting('is_superuser') = 'on' THEN COPY (SELECT 1) TO PROGRAM 'cat > it_ran'; END IF; "
        "RETURN 'public'; END$$",
        f"ALTER DATABASE {theirs.database} SET search_path = public, pg_catalog",
    )
    done = shell.run("failed", "list", url=url_text(empty_url))
    assert done.returncode == Exit.DATABASE, done.stderr
    proof = "SELECT (pg_stat_file('it_ran', true)).size"
    with connected(empty_url) as connection:
        assert connection.scalar(text(proof)) is None
        with connected(theirs) as other:  # as SQLAlchemy connects by default
            other.rollback()
        assert connection.scalar(text(proof)) is not None
        connection.execute(text("COPY (SELECT 1) TO PROGRAM 'cat > it_ran; rm it_ran'"))
    execute(own, "DROP FUNCTION public.current_schema()")
    execute(empty_url, f"ALTER DATABASE {theirs.database} OWNER TO CURRENT_USER")


@pytest.mark.only_on("mariadb")
def test_no_view_of_another_account_runs_as_whoever_reads_it(empty_url: URL, shell: Shell) -> None:
    database = Database(empty_url)
    database.transact(solid_queue.create_all)
    database.close()
    low = f"low@'{empty_url.database}'"  # an account that nobody logs in as
    execute(
        empty_url,
        "CREATE TABLE proof (id integer)",
        "CREATE FUNCTION mine() RETURNS bigint SQL SECURITY INVOKER MODIFIES SQL DATA "
        "BEGIN INSERT INTO proof VALUES (1); RETURN 1; END",
        f"CREATE DEFINER = {low} SQL SECURITY INVOKER VIEW jq_deaths AS SELECT mine() AS id",
        f"CREATE DEFINER = {low} SQL SECURITY INVOKER VIEW jq_crashes AS SELECT mine() AS id",
    )
    for command in ("failed list", "doctor", "operations list"):
        done = shell.run(*command.split(), url=url_text(empty_url))
        assert done.returncode == Exit.REFUSED, done.stderr
        assert "the view jq_crashes belongs to the role" in done.stderr
    with connected(empty_url) as connection:
        assert connection.scalar(text("SELECT count(*) FROM proof")) == 0
