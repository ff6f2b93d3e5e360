"""A Rails application of another: it opens no file of the driver's, and gets no secret that is not a database's."""

import os
from pathlib import Path

import pytest

from solidjq.errors import UsageError
from solidjq.rails import database_yml
from solidjq.rails.database_yml import database_url

NOBODY = 65_534
VARIABLES = {
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "SHOP_DATABASE_PASSWORD": "own",
    "SHOP_DATABASE_URL": "hunter2",
    "DB_HOST": "db.internal",
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("sslkey: /tmp/evil.so:x", "sslkey"),
        ("service: evil", "service"),
        ("url: postgres://h/q?passfile=/etc/shadow", "passfile"),
        ("password: <%= ENV['AWS_SECRET_ACCESS_KEY'] %>", "AWS_SECRET_ACCESS_KEY"),
        ("url: postgres://u:<%= ENV.fetch('AWS_SECRET_ACCESS_KEY') %>@h/q", "AWS_SECRET_ACCESS_KEY"),
        ("password: <%= ENV['SHOP_DATABASE_PASSWORD'] %>", None),
        ("url: postgres://u:<%= ENV['SHOP_DATABASE_PASSWORD'] %>@h/q", None),
        (
            "host: <%= ENV['SHOP_DATABASE_PASSWORD'] %>.evil.example",
            r"SHOP_DATABASE_PASSWORD in production\.primary\.host",
        ),
        ("username: <%= ENV.fetch('SHOP_DATABASE_PASSWORD') %>", "where no secret belongs"),
        ("application_name: <%= ENV['SHOP_DATABASE_URL'] || 'x' %>", "SHOP_DATABASE_URL"),
        ("host: <%= ENV['DB_HOST'] %>", None),
        ("sslkeylogfile: /root/.bashrc", "sslkeylogfile"),
        ("servicefile: /tmp/evil", "servicefile"),
        ("sslrootcert: /tmp/evil", "sslrootcert"),
        ("sslmode: require", None),
    ],
)
def test_an_application_of_another(tmp_path: Path, line: str, word: str | None) -> None:
    path = tmp_path / "config" / "database.yml"
    path.parent.mkdir()
    path.write_text(f"production:\n  adapter: postgresql\n  database: q\n  host: h\n  {line}\n")
    database_url(tmp_path, variables=VARIABLES)  # the user's own
    os.chown(path, NOBODY, -1)
    if word is None:
        database_url(tmp_path, variables=VARIABLES)
        return
    with pytest.raises(UsageError, match=rf"{word}.*others may write it: the file .* belongs to") as refused:
        database_url(tmp_path, variables=VARIABLES)
    assert "hunter2" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_users_own_variable_opens_files_and_a_file_that_is_gone_meanwhile_does_not(tmp_path: Path) -> None:
    path = tmp_path / "config" / "database.yml"
    path.parent.mkdir()
    path.write_text("production: {adapter: postgresql, database: q, sslkey: /tmp/evil.so:x}\n")
    os.chown(path, NOBODY, -1)
    own = {"DATABASE_URL": "postgres://h/q?sslkey=/own.key"}
    assert database_url(tmp_path, variables=own).query["sslkey"] == "/own.key"
    entry = database_yml._entry(tmp_path, None, None, {})
    path.unlink()  # between reading it and asking whose it is
    with pytest.raises(UsageError, match="cannot be examined"):
        database_yml._url(entry)
    assert database_url(tmp_path, variables=own).query["sslkey"] == "/own.key"
