"""config/database.yml is read as data: what Rails would use is found, and no Ruby ever runs."""

from pathlib import Path

import pytest

from solidjq import Database
from solidjq.database.urls import url_text
from solidjq.errors import UsageError
from solidjq.rails.database_yml import database_url
from support.program import Shell
from support.queue import add_jobs, plain_jobs

PLAIN = """
default: &default
  adapter: postgresql
  encoding: unicode
  pool: <%= ENV.fetch("RAILS_MAX_THREADS") { 5 } %>

development:
  <<: *default
  database: shop_development
  password: <%= Rails.application.credentials.dig(:db, :password) %>

production:
  primary: &primary
    <<: *default
    database: shop_production
    username: shop
    password: <%= ENV["SHOP_DATABASE_PASSWORD"] %>
    host: <%= ENV.fetch("DB_HOST", "db.internal") %>
    port: <%= ENV['DB_PORT'] || 5433 %>
  cache:
    <<: *primary
    database: shop_cache
  queue:
    <<: *primary
    database: shop_production_queue
    migrations_paths: db/queue_migrate
"""


def application(folder: Path, text: str) -> Path:
    (folder / "config").mkdir()
    (folder / "config" / "database.yml").write_text(text)
    return folder


def url(folder: Path, text: str, environment: str | None = None, **variables: str) -> str:
    return url_text(database_url(application(folder, text), environment, variables=variables))


def production(settings: str) -> str:
    return "production:\n" + "".join(f"  {line}\n" for line in settings.strip().splitlines())


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        (
            PLAIN,
            {"SHOP_DATABASE_PASSWORD": "s:e@c/r#t"},
            "postgresql+psycopg://shop:s%3Ae%40c%2Fr%23t@db.internal:5433/shop_production_queue",
        ),
        (
            PLAIN,
            {"DB_HOST": "::1", "DB_PORT": "1"},
            "postgresql+psycopg://shop@[::1]:1/shop_production_queue",
        ),
        # What a URL says wins; what it leaves out stays.
        (PLAIN, {"QUEUE_DATABASE_URL": "postgres://q@h/queue"}, "postgresql+psycopg://q@h:5433/queue"),
        (
            PLAIN,
            {"QUEUE_DATABASE_URL": "postgres://h?sslmode=require", "SHOP_DATABASE_PASSWORD": "s"},
            "postgresql+psycopg://shop:s@h:5433/shop_production_queue?sslmode=require",
        ),
        (
            production("adapter: mysql2\nurl: mysql2://u@h\ndatabase: q\npassword: p\nhost: lost\npool: 5"),
            {"DATABASE_URL": "mysql2://x@y/z"},  # the entry's own comes first
            "mysql+pymysql://u:p@h/q?charset=utf8mb4",
        ),
        (
            production("adapter: postgresql\nurl: <%= ENV['Q'] %>\ndatabase: q"),
            {"DATABASE_URL": "postgres://u@h"},  # where the entry's own is nil, the variable counts
            "postgresql+psycopg://u@h/q",
        ),
        (
            production("primary:\n  database: only\n  password: <%= Rails.application.credentials.db %>"),
            {"PRIMARY_DATABASE_URL": "postgres://u:p@h", "DATABASE_URL": "postgres://x@y/z"},
            "postgresql+psycopg://u:p@h/only",
        ),
        ("development: {adapter: sqlite3}", {"DATABASE_URL": "postgres://u@h/x"}, "postgresql+psycopg://u@h/x"),
        ("production: postgres://u@h/x", {}, "postgresql+psycopg://u@h/x"),
        (
            production("adapter: postgresql\ndatabase: q\nhost: /run/pg\nreplica: false\nconnection_retries: 3"),
            {},
            "postgresql+psycopg:///q?host=%2Frun%2Fpg",
        ),
        (
            production("adapter: postgresql\ndatabase: q\npool: <%= Integer(ENV.fetch('P', 1)) %>"),
            {},
            "postgresql+psycopg:///q",
        ),
        (PLAIN, {"DATABASE_URL": "postgres://q@h/primary", "DB_PORT": "7"}, ":7/shop_production_queue"),
        (
            production("adapter: mysql2\ndatabase: q\nsocket: /run/m.sock"),
            {},
            "mysql+pymysql:///q?charset=utf8mb4&unix_socket=",
        ),
        (
            production("adapter: trilogy\ndatabase: q\nhost: h\nencoding: utf8mb4"),
            {},
            "mysql+pymysql://h/q?charset=utf8mb4",
        ),
        (production("url: <%= ENV['Q'] %>"), {"Q": "mysql2://u@h/q"}, "mysql+pymysql://u@h/q"),
        (
            production("adapter: postgresql\ndatabase: q"),
            {"DATABASE_URL": "postgres://u@h/x"},
            "postgresql+psycopg://u@h/x",
        ),
        (
            production("adapter: postgresql\ndatabase: q\nschema_search_path: jobs\nprepared_statements: false"),
            {},
            "postgresql+psycopg:///q?options=-csearch_path",
        ),
        (production("primary:\n  adapter: postgresql\n  database: only"), {}, "postgresql+psycopg:///only"),
        (
            production("adapter: postgresql\ndatabase: \"<%= ENV.fetch('N') { 'a' } %>_b\""),
            {},
            "postgresql+psycopg:///a_b",
        ),
        (production("adapter: postgresql\ndatabase: q\n# <%# system('x') %>"), {}, "postgresql+psycopg:///q"),
    ],
)
def test_what_rails_would_use(tmp_path: Path, text: str, variables: dict[str, str], expected: str) -> None:
    assert expected in url(tmp_path, text, **variables)


def test_an_application_without_a_file_has_its_variable(tmp_path: Path) -> None:
    found = database_url(tmp_path, variables={"DATABASE_URL": "postgres://u@h/x"})
    assert url_text(found) == "postgresql+psycopg://u@h/x"
    with pytest.raises(UsageError, match="DATABASE_URL is empty"):
        database_url(tmp_path, variables={"DATABASE_URL": ""})


@pytest.mark.parametrize("url", ["sqlite3:storage/x.sqlite3", "sqlite3:storage/x.sqlite3?pool=5"])
def test_a_relative_file_of_a_variable_is_one_of_the_application(tmp_path: Path, url: str) -> None:
    folder = application(tmp_path, production("adapter: sqlite3\ndatabase: y"))
    assert database_url(folder, variables={"DATABASE_URL": url}).database == str(tmp_path / "storage" / "x.sqlite3")


def test_the_environment_is_chosen_as_in_rails(tmp_path: Path) -> None:
    text = "a: {adapter: postgresql, database: da}\nproduction: {adapter: postgresql, database: dp}\n"
    folder = application(tmp_path, text)
    for environment, variables, expected in (
        (None, {}, "dp"),
        (None, {"RAILS_ENV": "a"}, "da"),
        ("production", {"RAILS_ENV": "a"}, "dp"),
    ):
        assert database_url(folder, environment, variables=variables).database == expected


@pytest.mark.parametrize("path", ["storage/q.sqlite3", '<%= Rails.root.join("storage", "q.sqlite3") %>'])
def test_a_relative_file_is_one_of_the_application(tmp_path: Path, path: str) -> None:
    found = database_url(application(tmp_path, production(f"adapter: sqlite3\ndatabase: {path}")), variables={})
    assert found.database == str(tmp_path / "storage" / "q.sqlite3")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (production("adapter: postgresql\npassword: <%= Rails.application.credentials.db %>"), "credentials.db"),
        (production("adapter: postgresql\ndatabase: <%= `id` %>"), "jq does not evaluate"),
        (production("adapter: postgresql\ndatabase: <%= ENV['A'] + 'x' %>"), "ENV['A'] + 'x'"),
        (production('adapter: postgresql\ndatabase: <%= ENV["A"] || "#{system(1)}" %>'), "jq does not evaluate"),
        (production("adapter: postgresql\ndatabase: <%= ENV.fetch('GONE') %>"), "GONE, which is not set"),
        (production("adapter: oracle\ndatabase: q"), "'oracle' are not supported"),
        (production("adapter: postgresql\ndatabase: q\nport: ssh"), "'ssh' is not a port number"),
        ("<% if x %>\nproduction: {adapter: postgresql}\n<% end %>", "line 1 is Ruby"),
        ("production: !ruby/object:Gem::Installer {}", "is not YAML"),
        ("a: {b: c}", "has no environment 'production'; it has a"),
        ("- 1", "it has none"),
        ("a: [", "line 1 is not YAML"),
        ("[" * 50_000, "is not YAML"),
        ("#" * 1_000_001, "too big"),
    ],
    ids=range(14),
)
def test_what_only_ruby_understands_is_an_error_that_shows_it(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        url(tmp_path, text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        "<%= 'hunter2'.strip %>",
        "<%= ENV['A'] || 'hunter2||'.strip %>",
        "<%= %q(hunter2) %>",
        "*hunter2",
        "!hunter2 x",
    ],
)
@pytest.mark.parametrize("key", ["password", "url"])
def test_an_error_shows_no_password(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(UsageError) as refused:
        url(tmp_path, production(f"adapter: postgresql\n{key}: {value}"))
    assert "***" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_presence_is_not_of_the_empty(tmp_path: Path) -> None:
    text = production("adapter: postgresql\ndatabase: q\nhost: <%= ENV['H'].presence || 'd' %>")
    assert url(tmp_path, text, H="") == "postgresql+psycopg://d/q"


def test_text_like_our_own_mark_stays(tmp_path: Path) -> None:
    assert url(tmp_path, production("adapter: postgresql\ndatabase: jq-tag-9-gat")).endswith("/jq-tag-9-gat")


@pytest.mark.parametrize(
    ("production", "expected"),
    [
        ("{<<: [*a, *b]}", "x@one/a"),
        ("{<<: [*b, *a]}", "x@two/a"),
        ("{<<: *b, database: q}", "x@two/q"),
        ("{database: q, <<: *a}", "x@one/a"),  # as in Ruby: the later one counts
        ("{<<: *b, <<: *a}", "x@one/a"),
        ("{<<: [*a, {hostname: 9}], <<: , <<: 3}", "x@one/a"),
        ("&p {<<: *a, <<: *p}", "x@one/a"),
    ],
)
def test_merges_as_in_ruby(tmp_path: Path, production: str, expected: str) -> None:
    shared = "a: &a {adapter: postgresql, username: x, host: one, database: a}\nb: &b {host: two, username: x}\n"
    if "*a" not in production:
        production = production.replace("<<", "adapter: postgresql, <<")
    assert url(tmp_path, f"{shared}production: {production}") == f"postgresql+psycopg://{expected}"


def test_merges_of_merges_do_no_harm(tmp_path: Path) -> None:
    levels = "\n".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    text = "a0: &a0 {adapter: postgresql, database: q}\n" + levels + "\nproduction:\n  <<: *a11\n"
    assert url(tmp_path, text) == "postgresql+psycopg:///q"


def test_aliases_of_aliases_do_no_harm(tmp_path: Path) -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    text = "a0: &a0 [x]\n" + levels + "\n" + production("adapter: postgresql\ndatabase: q\nvariables: *a11")
    assert url(tmp_path, text) == "postgresql+psycopg:///q"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*database\.yml.*--rails"):
        database_url(tmp_path, variables={})


@pytest.mark.sqlite_only
def test_the_command(database: Database, shell: Shell, tmp_path: Path) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    folder = tmp_path / "shop"
    folder.mkdir()
    application(folder, f"test: {{adapter: sqlite3, database: '{database.url.database}'}}\n")
    shell.environment["JQ_DATABASE_URL"] = "sqlite:/nowhere"  # the command line comes first
    found = shell.run("--rails", str(folder), "--env", "test", "jobs", "show", str(job_id), "-o", "ids")
    assert (found.returncode, found.stdout) == (0, f"{job_id}\n"), found.stderr
    wrong = shell.run("--rails", str(folder), "queues", "list")
    assert wrong.returncode == 2
    assert "no environment 'production'; it has test; choose with --env" in wrong.stderr
    twice = shell.run("--rails", str(folder), "queues", "list", "-d", "sqlite:x")
    assert (twice.returncode, "leave one out" in twice.stderr) == (2, True)


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("adapter: mysql2\ndatabase: q\nsslverify: true", "sslverify"),
        ("adapter: trilogy\ndatabase: q\ntls_min_version: 3", "tls_min_version"),
        ("adapter: mysql2\ndatabase: q\nflags: [SSL]", "flags"),
        ("adapter: mysql2\ndatabase: q\ninit_command: SELECT 1", "init_command"),
        ("adapter: mysql2\ndatabase: q\nurl: mysql2://h/q?x=1", "x"),
        ("adapter: postgresql\ndatabase: q\nsslmoed: verify-full", "sslmoed"),
        ("adapter: postgresql\ndatabase: q\nurl: postgres://h?conninfo=x", "conninfo"),
        ("adapter: sqlite3\ndatabase: q\nreadonly: true", "readonly"),
        ("adapter: sqlite3\ndatabase: file:q?vfs=x", "vfs"),
        ("adapter: sqlite3\nurl: sqlite3:q?vfs=x", "vfs"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused_with_its_place(tmp_path: Path, entry: str, key: str) -> None:
    with pytest.raises(UsageError, match=rf"/config/database\.yml: production\.primary(\.url)?: .* option '{key}'"):
        url(tmp_path, production(entry))


def test_keys_of_gems_are_ignored_as_rails_does(tmp_path: Path) -> None:
    text = production("adapter: postgresql\ndatabase: q\nmakara: {sticky: true}\nowner: team-jobs\n7: x\nsslmode: [a]")
    with pytest.raises(UsageError, match="sslmode is not one text"):
        url(tmp_path, text)
    (tmp_path / "config" / "database.yml").write_text(text.replace("[a]", "require"))
    assert url_text(database_url(tmp_path, variables={})) == "postgresql+psycopg:///q?sslmode=require"


@pytest.mark.parametrize("variable", ["DATABASE_URL", "PRIMARY_DATABASE_URL"])
def test_an_error_of_a_variables_url_names_the_variable(tmp_path: Path, variable: str) -> None:
    folder = application(tmp_path, production("adapter: postgresql\ndatabase: q"))
    for text in ("postgres://h/q?conninfo=x", "oracle://h/q", "postgres:x"):
        with pytest.raises(UsageError, match=f"^{variable}: "):
            database_url(folder, variables={variable: text})
