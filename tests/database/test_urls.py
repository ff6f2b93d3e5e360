"""Database URLs: every spelling that Rails and SQLAlchemy use, and no password in what is printed."""

import re
from inspect import signature
from urllib.parse import quote

import psycopg
import pymysql
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from solidjq.database.url_options import PREPARE
from solidjq.database.urls import EXAMPLES, init_command, masked_url, parse_url, url_text
from solidjq.errors import UsageError
from support.paths import ROOT

PG = "postgresql+psycopg"
MYSQL = "mysql+pymysql"
DOCUMENTED = (ROOT / "docs" / "connecting.md").read_text()
UTF8 = {"charset": "utf8mb4"}
SECRETS = st.text(min_size=1).map(lambda text: f"Hunter{text}Two")  # no other part of a URL holds these two words


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgis", "postgresql+psycopg", "POSTGRES"])
def test_every_scheme_of_postgresql(scheme: str) -> None:
    url = parse_url(f"{scheme}://app:pw@db.internal:6543/app_queue")
    assert url == URL.create(PG, "app", "pw", "db.internal", 6543, "app_queue")


@pytest.mark.parametrize("scheme", ["mysql", "mysql2", "trilogy", "mariadb", "mysql+pymysql", "mariadb+pymysql"])
def test_every_scheme_of_mysql(scheme: str) -> None:
    url = parse_url(f"{scheme}://app:pw@db.internal:3307/app_queue")
    assert url == URL.create(MYSQL, "app", "pw", "db.internal", 3307, "app_queue", UTF8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres:///app", URL.create(PG, database="app")),
        (
            "postgres://app@/app?host=/run/postgresql",
            URL.create(PG, "app", database="app", query={"host": "/run/postgresql"}),
        ),
        ("postgres://[::1]:5432/app", URL.create(PG, host="::1", port=5432, database="app")),
        ("postgres://app:p%40ss%2Fword@db/app", URL.create(PG, "app", "p@ss/word", "db", database="app")),
        ("  postgres://db/app\n", URL.create(PG, host="db", database="app")),
        ("mysql2://app:p%40ss%2Fword@db/app", URL.create(MYSQL, "app", "p@ss/word", "db", database="app", query=UTF8)),
    ],
)
def test_parts_of_a_servers_url(text: str, expected: URL) -> None:
    assert parse_url(text) == expected


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("sslmode=require&connect_timeout=3", {"sslmode": "require", "connect_timeout": "3"}),
        ("pool=5&encoding=unicode&timeout=5000&variables=x&reaping_frequency=10&min_messages=warning", {}),
        ("adapter=postgresql&pool=5&sslmode=disable", {"sslmode": "disable"}),
        ("schema_search_path=queue,%20public", {"options": "-csearch_path=queue,public"}),
        ("prepared_statements=false", {PREPARE: "false"}),
        ("prepared_statements=true", {PREPARE: "true"}),
    ],
)
def test_what_rails_keeps_for_itself_does_not_reach_postgresql(query: str, kept: dict[str, str]) -> None:
    assert dict(parse_url(f"postgres://db/app?{query}").query) == kept


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", UTF8),
        ("pool=5&reconnect=true&flags=x&strict=true&variables=y", UTF8),
        ("encoding=utf8", UTF8),  # the session's own: a text is read as it is, whatever the application asks for
        ("charset=latin1", UTF8),
        ("socket=/run/mysqld.sock", {**UTF8, "unix_socket": "/run/mysqld.sock"}),
        ("connect_timeout=3&read_timeout=5", {**UTF8, "connect_timeout": "3", "read_timeout": "5"}),
        (
            "sslca=/ca.pem&sslcert=/c.pem&sslkey=/k.pem",
            {**UTF8, "ssl_ca": "/ca.pem", "ssl_cert": "/c.pem", "ssl_key": "/k.pem"},
        ),
    ],
)
def test_mysql2s_options_in_pymysqls_words(query: str, kept: dict[str, str]) -> None:
    assert dict(parse_url(f"mysql2://db/app?{query}").query) == kept


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite3:storage/queue.sqlite3", "storage/queue.sqlite3"),
        ("sqlite3:/var/lib/queue.sqlite3", "/var/lib/queue.sqlite3"),
        ("sqlite3:///var/lib/queue.sqlite3", "/var/lib/queue.sqlite3"),  # Rails
        ("sqlite:///queue.sqlite3", "queue.sqlite3"),  # SQLAlchemy
        ("sqlite:////var/lib/queue.sqlite3", "/var/lib/queue.sqlite3"),
        ("sqlite:queue.sqlite3", "queue.sqlite3"),
        ("SQLite3:queue.sqlite3", "queue.sqlite3"),
        ("sqlite3:storage/queue.sqlite3?pool=5&timeout=5000", "storage/queue.sqlite3"),
        ("sqlite3:a%20folder/100%25.sqlite3", "a folder/100%.sqlite3"),
        ("queue.sqlite3", "queue.sqlite3"),
        ("./a folder/100%.sqlite3", "./a folder/100%.sqlite3"),
        ("/var/lib/ž/queue.sqlite3", "/var/lib/ž/queue.sqlite3"),
        ("/home/joe@EXAMPLE.ORG/queue.sqlite3", "/home/joe@EXAMPLE.ORG/queue.sqlite3"),
        ("sqlite3:/home/joe@EXAMPLE.ORG/queue.sqlite3", "/home/joe@EXAMPLE.ORG/queue.sqlite3"),
        ("C:\\queue.sqlite3", "C:\\queue.sqlite3"),
    ],
)
def test_files(text: str, path: str) -> None:
    assert parse_url(text) == URL.create("sqlite", database=path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the database URL is empty"),
        (" \t\n", "the database URL is empty"),
        ("sqlite:", "an SQLite queue is a file"),
        ("sqlite3://", "an SQLite queue is a file"),
        ("sqlite:///", "an SQLite queue is a file"),
        ("sqlite::memory:", "an SQLite queue is a file"),
        ("sqlite:///:memory:", "an SQLite queue is a file"),
        (":memory:", "an SQLite queue is a file"),
        ("postgres:", "not a database URL"),
        ("postgres:/app", "not a database URL"),
        ("app@db/app", "not a database URL"),
        ("//app@db/app", "not a database URL"),
        ("postgres://app@db:port/app", "not a database URL"),
        ("postgres://[::1/app", "not a database URL"),
        ("mysql2://app@db:3306:3306/app", "not a database URL"),
        ("jdbc:postgresql://db/app", "not a database URL"),
        ("mysql2://root@127.0.0.1/", "the database URL names no database"),
        ("mysql://root@127.0.0.1", "the database URL names no database"),
        ("redis://db/0", "databases of kind 'redis' are not supported"),
        ("https://db/app", "databases of kind 'https' are not supported"),
        ("oracle://db/app", "databases of kind 'oracle' are not supported"),
        ("postgresql+asyncpg://db/app", "databases of kind 'postgresql+asyncpg' are not supported"),
        ("mysql+mysqldb://db/app", "databases of kind 'mysql+mysqldb' are not supported"),
    ],
)
def test_what_is_no_database_of_ours_is_refused_with_examples(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_url(text)
    assert str(raised.value).startswith(complaint)
    assert str(raised.value).endswith(f"write {EXAMPLES}")


# -- no option is dropped


def options_of_drivers() -> list[tuple[str, str]]:
    """Return each option that libpq, PyMySQL, SQLite and the adapters of Rails have."""
    libpq = [each.keyword.decode() for each in psycopg.pq.Conninfo.get_defaults()]
    pymysql_ = [*signature(pymysql.Connection.__init__).parameters][1:]
    mysql2 = [
        "ssl_mode",
        "sslverify",
        "sslcapath",
        "sslcipher",
        "tls_versions",
        "default_auth",
        "init_command",
        "flags",
    ]
    sqlite = ["mode", "vfs", "cache", "immutable", "nolock", "psow", "uri", "check_same_thread", "readonly", "flags"]
    made_up = ["sslmoed", "conninfo", "x"]
    return [
        *(("postgres", key) for key in [*libpq, *made_up]),
        *(("mysql2", key) for key in [*pymysql_, *mysql2, *made_up]),
        *(("sqlite3", key) for key in [*sqlite, *made_up]),
    ]


@pytest.mark.parametrize(("scheme", "key"), options_of_drivers())
def test_every_option_of_a_url_is_honoured_ignored_as_documented_or_refused(scheme: str, key: str) -> None:
    text = "sqlite3:q.sqlite3" if scheme == "sqlite3" else f"{scheme}://h/q"
    ignored = set(re.findall("`(.*?)`", DOCUMENTED.split("| ignored |")[1].partition("\n\n")[0]))
    try:
        outcome = " ".join(map(str, parse_url(f"{text}?{key}=SSL").query.values()))
    except UsageError as refused:
        outcome = str(refused)
    assert key in ignored or "SSL" in outcome.split() or f"the option {key!r}, which jq cannot honour" in outcome


# -- what may be printed


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("postgres://app:hunter2@db/app", "postgresql://app:***@db/app"),
        ("postgres://app@db/app?password=hunter2", "postgresql://app@db/app?password=***"),
        (
            "postgres://app@db/app?sslkey=/k&sslpassword=hunter2",
            "postgresql://app@db/app?sslkey=%2Fk&sslpassword=***",
        ),
        ("mysql2://app:hunter2@db/app", "mysql://app:***@db/app"),
        ("sqlite3:storage/queue.sqlite3", "sqlite:storage/queue.sqlite3"),
    ],
)
def test_a_url_is_shown_without_its_password(text: str, printed: str) -> None:
    assert masked_url(parse_url(text)) == printed


@settings(max_examples=150)
@given(SECRETS, st.sampled_from(["postgres", "mysql2"]))
@example("Hunter@/:?#'\" %&\nTwo", "postgres")
def test_no_password_however_odd_is_ever_shown(password: str, scheme: str) -> None:
    url = parse_url(f"{scheme}://app:{quote(password, safe='')}@db/app")
    assert url.password == password
    printed = masked_url(url)
    assert "Hunter" not in printed
    assert "Two" not in printed


@pytest.mark.parametrize(
    "typed",
    [
        "postgres://app:{}@db:port/app",
        "postgres:/app:{}@db/app",
        "postgres:app:{}@db/app",
        "mysql2://app:{}@db:1:2/app",
        "jdbc:postgresql://app:{}@db/app",
        "redis://app:{}@db/0",
    ],
)
def test_a_complaint_about_a_url_never_repeats_its_password(typed: str) -> None:
    complaints = []
    for between in ("", "/", " ", "'", '"', "@", ":", "%40"):
        with pytest.raises(UsageError) as raised:
            parse_url(typed.format(f"Hunter{between}Two"))
        complaints.append(str(raised.value))
    assert [complaint for complaint in complaints if "Hunter" in complaint or "Two" in complaint] == []


def test_the_command_that_an_error_recommends_holds_no_password() -> None:
    url = parse_url("postgres://my%20user:hunter2@db/app")
    command = init_command(url)
    assert "hunter2" not in command
    assert command.endswith(":***@db/app'")


# -- handed on to a child


@settings(max_examples=150)
@given(SECRETS, st.sampled_from(["postgres", "mysql2"]))
def test_a_spelled_out_url_is_read_as_the_same(password: str, scheme: str) -> None:
    url = parse_url(f"{scheme}://app:{quote(password, safe='')}@db/app?connect_timeout=3&prepared_statements=false")
    assert parse_url(url_text(url)) == url


@pytest.mark.parametrize(
    "path", ["queue.sqlite3", "/var/lib/queue.sqlite3", "//var/lib/queue.sqlite3", "a b%20c?d#e.sqlite3", " ž:memory: "]
)
def test_a_spelled_out_path_is_read_as_the_same(path: str) -> None:
    url = URL.create("sqlite", database=path)
    assert parse_url(url_text(url)) == url
