"""A database's password comes from a program of the user's, and stays out of every message and every record."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from solidjq import Database
from solidjq.database.urls import url_text
from solidjq.errors import RefusedError, UsageError
from solidjq.settings import password_command
from solidjq.settings.password_command import parse_command, read_password
from solidjq.settings.profiles import choose_profile
from solidjq.settings.sources import load_settings
from support.program import PASSWORD, Bare, Shell, assert_refused
from support.terminal import terminal


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("code", "password"),
    [
        ("print('p w=1')", "p w=1"),
        ("print('first\\nuser: x')", "first"),
        ("import sys; sys.stdout.write('x\\r\\n')", "x"),
        ("import sys; sys.stdout.write('no newline')", "no newline"),
        ("import sys; print(sys.stdin.read() or 'stdin is empty')", "stdin is empty"),
    ],
)
def test_the_first_line_is_the_password(code: str, password: str) -> None:
    assert read_password(python(code), "p") == password


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (f"print('{PASSWORD}'); raise SystemExit(3)", "failed with exit code 3"),
        ("", "printed no password"),
        ("print()", "printed no password"),
        ("print('a\\0b')", "printed no password"),
        ("import os; os.write(1, b'\\xff')", "no UTF-8"),
        ("while True: print('x' * 4096)", "printed more than"),
    ],
)
def test_what_is_no_password_is_an_error_without_it(code: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        read_password(python(code), "jq.toml: profiles.a.password_command")
    assert str(refused.value).startswith("jq.toml: profiles.a.password_command: ")
    assert PASSWORD not in str(refused.value)


def test_what_cannot_be_run() -> None:
    with pytest.raises(UsageError, match="cannot be run"):
        read_password(["/no/such/program"], "p")
    with pytest.raises(UsageError, match="cannot be run"):
        read_password(["a\0b"], "p")


@pytest.mark.parametrize("code", ["sleep 99", "sleep 99 & exit 0", "exec >&-; exec sleep 99"])
def test_a_command_that_does_not_end_is_killed(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that leaves its output to a child, or closes it: whichever way, nobody waits for ever."""
    monkeypatch.setattr(password_command, "PATIENCE", 0.2)
    with pytest.raises(UsageError, match="took longer"):
        read_password(["sh", "-c", code], "p")


def test_no_shell_reads_it() -> None:
    assert parse_command("echo '$HOME;' `x`") == ["echo", "$HOME;", "`x`"]
    assert parse_command("pass 'show") is None
    assert parse_command("  ") is None


# -- profiles ---------------------------------------------------------------------------------------------------------


def profile(folder: Path, text: str) -> Path:
    file = folder / "own.toml"
    file.write_text(f"[profiles.a]\n{text}\n")
    return file


def test_the_password_reaches_the_driver_and_no_message(tmp_path: Path) -> None:
    """Nothing listens there; the command has left a trace that it ran."""
    trace = tmp_path / "trace"
    for url in ("postgres://u@127.0.0.1:1/q", "mysql2://u@127.0.0.1:1/q"):
        command = f"sh -c 'echo {PASSWORD}; echo ran >> {trace}'"
        file = profile(tmp_path, f'database = "{url}"\npassword_command = "{command}"')
        done = Bare("", tmp_path).run("--config", str(file), "--profile", "a", "queues", "list")
        assert_refused(done, 3)
    assert trace.read_text() == "ran\nran\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'database = "postgres://u:{PASSWORD}@127.0.0.1:1/q"', "has a password already"),
        (f'database = "postgres://u@127.0.0.1:1/q?password={PASSWORD}"', "has a password already"),
        ('database = "sqlite:q.sqlite3"', "an SQLite file has no password"),
        ('database = "postgres://u@127.0.0.1:1/q"\nread_only = 1', "read_only"),
    ],
)
def test_a_command_beside_a_password_is_not_run(tmp_path: Path, text: str, words: str) -> None:
    trace = tmp_path / "trace"
    file = profile(tmp_path, f'{text}\npassword_command = "touch {trace}"')
    assert_refused(Bare("", tmp_path).run("--config", str(file), "--profile", "a", "queues", "list"), 2, words)
    assert not trace.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_named_file_that_others_may_write_runs_nothing(tmp_path: Path) -> None:
    file = profile(tmp_path, 'database = "postgres://u@h/q"\npassword_command = "touch never"')
    loaded = choose_profile(load_settings(file), "a")
    assert loaded is not None
    assert loaded.password_command == ("touch", "never")
    file.chmod(0o666)
    with pytest.raises(RefusedError, match=r"password_command is not run: everybody may write the file"):
        choose_profile(load_settings(file), "a")


def test_a_found_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JQ_CONFIG", raising=False)
    trace = tmp_path / "trace"
    (tmp_path / "jq.toml").write_text(
        'default_profile = "a"\n[profiles.a]\ndatabase = "postgres://u@127.0.0.1:1/q"\n'
        f'password_command = "touch {trace}"\n'
    )
    bare = Bare("", tmp_path, {"XDG_STATE_HOME": str(tmp_path)})
    for command in ("queues list", "--profile a queues list", "profiles list", "config list", "policy show", "doctor"):
        bare.run(*command.split())
    assert not trace.exists()


def test_a_command_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    file = profile(tmp_path, "database = 'postgres://u@h/q'\npassword_command = \"echo 'hunter2\"")
    done = Bare("", tmp_path).run("--config", str(file), "--profile", "a", "queues", "list")
    assert_refused(done, 2, "every quote closed")


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process write over its arguments")
@pytest.mark.parametrize(
    "arguments",
    [
        ["-d", f"postgres://u:{PASSWORD}@h/q", "x y"],
        [f"--database=mysql2://u:{PASSWORD}@h/q?sslmode=x"],
        [f"postgres://u@h/q?password={PASSWORD}"],
        [f"password='two {PASSWORD}'"],
        ["-d", f"postgres://u:{PASSWORD}@h/q", "-d", f"postgres://u:{PASSWORD}@h/q"],
    ],
)
def test_the_password_leaves_the_process_list(arguments: list[str]) -> None:
    code = (
        "import sys; from solidjq_cli.arguments import hide_passwords; hide_passwords();"
        "print(open('/proc/self/cmdline').read()); print(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    shown, kept = done.stdout.splitlines()
    assert PASSWORD not in shown
    assert kept == str(arguments)
    assert shown.count("\0") == len(arguments) + 3


@pytest.mark.only_on("postgresql")
def test_a_terminal_says_that_the_password_was_on_the_command_line(database: Database, shell: Shell) -> None:
    url = url_text(database.url.set(password=PASSWORD))
    shown = terminal(shell, "queues", "list", "--database", url, width=300)
    assert "jq: the password in --database is in the shell's history" in shown
    assert PASSWORD not in shown
    assert "history" not in terminal(shell, "queues", "list", JQ_DATABASE_URL=url)
    assert shell.run("queues", "list", "--database", url).stderr == "jq: no queues\n"
