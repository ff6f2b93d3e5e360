"""Several hosts in a URL, sockets by their folder, and the drivers' own files of services, passwords and options."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database.place import host_of
from solidjq.database.urls import parse_url, taken_apart, url_text
from solidjq.errors import AccessDeniedError, DatabaseURLError, UsageError
from solidjq.rails.database_yml import database_url
from support.poolers import Pooled
from support.program import Shell
from support.servers import execute

SECRET = "s e:cret"  # noqa: S105


@pytest.mark.parametrize(
    ("text", "hosts", "options"),
    [
        (
            "postgresql://u:p,w@h1:5432,h2:5433/db?target_session_attrs=read-write",
            "h1,h2:5433",
            {"host": "h1,h2", "port": "5432,5433", "target_session_attrs": "read-write"},
        ),
        ("postgres://h1,h2/db", "h1,h2", {"host": "h1,h2"}),
        ("postgres://h1:6000,h2/db", "h1:6000,h2", {"host": "h1,h2", "port": "6000,"}),
        ("postgres://u@[::1]:6000,[fe80::2]/db", "::1:6000,fe80::2", {"host": "::1,fe80::2", "port": "6000,"}),
        ("postgresql://u@%2Frun%2Fpostgresql/db", None, {"host": "/run/postgresql"}),
        ("postgresql://%2Frun%2Fpg:6432/db", None, {"host": "/run/pg", "port": "6432"}),
        ("postgresql://%2Frun%2Fpg,db2/db", "db2", {"host": "/run/pg,db2"}),
        ("mysql://root@%2Frun%2Fmysqld.sock/db", None, {"unix_socket": "/run/mysqld.sock"}),
    ],
)
def test_hosts_of_a_url(text: str, hosts: str | None, options: dict[str, str]) -> None:
    url = parse_url(text)
    assert {key: value for key, value in url.query.items() if key != "charset"} == options
    assert (url.host, url.port, url.database) == (None, None, "db")
    assert host_of(url) == hosts
    assert parse_url(url_text(url)) == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mysql://root@a,b/db", "on MySQL name one"),
        ("postgresql://h1:x,h2/db", "'x' is not a port number"),
        ("postgresql://h1:70000,h2/db", "'70000' is not a port number"),
        ("postgresql://[::1,h2/db", "not a database URL"),
    ],
)
def test_hosts_that_make_no_sense(text: str, words: str) -> None:
    with pytest.raises(DatabaseURLError, match=words):
        parse_url(text)


def test_several_hosts_in_a_database_yml(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    file = tmp_path / "config/database.yml"
    entry = "production:\n  adapter: postgresql\n  database: q\n  host: h1,h2\n  port: {}\n"
    file.write_text(entry.format("5432,5433"))
    assert database_url(tmp_path, "production").query == {"host": "h1,h2", "port": "5432,5433"}
    file.write_text(entry.format("6000"))
    assert database_url(tmp_path, "production").query == {"host": "h1,h2", "port": "6000,6000"}
    file.write_text(entry.format("1,2,3"))
    with pytest.raises(UsageError, match="2 hosts and 3 ports"):
        database_url(tmp_path, "production")
    assert taken_apart("postgres://h1:1,h2:2/db") == {
        "adapter": "postgres",
        "database": "db",
        "host": "h1,h2",
        "port": "1,2",
    }


def test_the_first_host_that_takes_writes(
    make_postgresql: Callable[[str], URL], postgresql_template: str, postgresql_standby: URL, tmp_path: Path
) -> None:
    queue = make_postgresql(postgresql_template)
    folders = ",".join(quote(str(url.query["host"]), safe="") for url in (postgresql_standby, queue))
    shell = Shell(f"postgresql://postgres@{folders}/{queue.database}?target_session_attrs=read-write", tmp_path)
    done = shell.run("queues", "pause", "mailers", "--create")
    assert done.returncode == 0, done.stderr


def test_service_and_password_files(
    make_postgresql: Callable[[str], URL],
    postgresql_template: str,
    pooled: Pooled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service file may choose the schema too; a pooler that asks for a password shows that the file is read."""
    queue = make_postgresql(postgresql_template)
    execute(queue, "CREATE SCHEMA other", "ALTER TABLE solid_queue_pauses SET SCHEMA other")
    plain = {"auth_type": "plain", "ignore_startup_parameters": "options"}
    reached = pooled(queue, users=f'"app" "{SECRET}"', pool_mode="transaction", **plain)
    services, passwords = tmp_path / "services", tmp_path / "passwords"
    services.write_text(
        f"[shop]\nhost=127.0.0.1\nport={reached.port}\nuser=app\ndbname={queue.database}\noptions=-csearch_path=nowhere,public\n"
    )
    escaped = SECRET.replace(":", "\\:")
    passwords.write_text(f"127.0.0.1:{reached.port}:*:app:{escaped}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    with closing(Database(parse_url("postgresql:///?service=shop"))) as database, pytest.raises(AccessDeniedError):
        database.now()
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    with closing(Database(parse_url("postgresql:///?service=shop"))) as database:
        place = database.place()
    assert (place.database, place.schema, place.host) == (queue.database, "public", f"127.0.0.1:{reached.port}")
    monkeypatch.setenv("PGSERVICE", "shop")
    database = Database(parse_url("postgresql://"))
    assert database.place().name == place.name
    database.close()


@pytest.mark.only_on("mariadb")
def test_a_mysql_option_file(queue_url: URL, tmp_path: Path, worker_name: str) -> None:
    user, password = f"file_{worker_name}"[:32], SECRET.replace(":", "")
    execute(
        queue_url,
        f"CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'",
        f"GRANT ALL ON `{queue_url.database}`.* TO '{user}'@'%'",
    )
    file = tmp_path / "my.cnf"
    lines = [
        "[client]",
        f"user={user}",
        f'password="{password}"',
        f"host={queue_url.host}",
        f"port={queue_url.port or 3306}",
    ]
    group = "\n".join([*lines, ""])
    url = f"mysql:///{queue_url.database}?default_file={quote(str(file))}"
    try:
        with pytest.raises(DatabaseURLError, match="cannot read the option file"):
            Database(parse_url(url)).now()
        file.write_text(group.replace("client", "jq"))
        with pytest.raises(DatabaseURLError, match=r"no group \[client\]"):
            Database(parse_url(url)).now()
        database = Database(parse_url(f"{url}&default_group=jq"))
        assert database.place().writable
        database.close()
        file.write_text(f"{group}ssl-mode=VERIFY_IDENTITY\n")
        with pytest.raises(DatabaseURLError, match="ssl-mode, which jq cannot honour"):
            Database(parse_url(url)).now()
    finally:
        execute(queue_url, f"DROP USER '{user}'@'%'")
