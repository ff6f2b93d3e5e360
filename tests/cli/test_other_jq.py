"""The JSON processor is called jq too: its calls are passed on to it untouched, and ours never are."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from solidjq_cli import other_jq
from solidjq_cli.command_list import COMMANDS
from support.program import Shell
from support.terminal import terminal
from support.waiting import PATIENCE

OURS = Path(sys.executable).parent

# -- the decision -----------------------------------------------------------------------------------------------------

THEIRS = [
    "jq .",
    "jq .x file.json",
    "jq -r .x",
    "jq '.[0].job_id'",
    "jq 'map(.job_id)'",
    "jq -c 'map(select(.a > 1))' a.json b.json",
    "jq --arg name value '.[$name]'",
    "jq --arg command retry --argjson n 3 '{$command, $n}'",
    "jq -n --args '$ARGS' retry",
    "jq --slurpfile a file.json '$a'",
    "jq --indent 7 .",
    "jq --tab -rS keys",
    "jq -nr 1",
    "jq -n 'now | todate'",
    "jq -f retry.jq retry",
    "jq -rf program.jq failed",
    "jq --from-file program.jq",
    "jq -L modules -r .",
    "jq -Lmodules .",
    "jq -e .ok",
    "jq -V",
    "jq --build-configuration",
    "jq --raw-output0 .x",
    "jq -r",
    "jq keys",
    "jq length file.json",
    "jq type -c",
    "jq to_entries",
    "jq not",
    "jq null",
    "jq ''",
    "jq '. as $x | $x'",
    "jq '\"text\"'",
    "jq '[inputs]'",
    "jq '{a: 1}'",
    "jq '$ENV.HOME'",
    "jq @base64",
    "jq -- .x",
    "jq -- -.x",
    "jq 'retry.x'",
    "jq 'def f: 1; f'",
    "jq ..",
    "jq '..|numbers'",
    "jq 'if . then 1 else 2 end'",
]
NOT_THEIRS = [
    *(f"jq {command}" for command in COMMANDS),
    "jq failed list -o json",
    "jq retry --safe -n",
    "jq -n retry --safe",
    "jq -r failed list",
    "jq 'retry --safe'",
    "jq --database sqlite:queue.sqlite3 failed list",
    "jq -d queue.sqlite3 failed show .x",
    "jq --read-only .x",
    "jq --rails /srv/shop retry",
    "jq --help",
    "jq -h",
    "jq --version",
    "jq --which",
    # neither
    "jq list",
    "jq retyr --safe",
    "jq faild list",
    "jq help policy",
    "jq 4711",
    "jq d17",
    "jq 7f1c7b0e-44c1-4a3c-9f5c-0a2f3b1c2d3e",
    "jq --json",
    "jq --safe",
    "jq -y retry",
    "jq -",
    "jq postgres://app@db/queue",
    "jq sqlite:queue.sqlite3",
    "jq -o json",
]


@pytest.mark.parametrize("piped", [True, False])
@pytest.mark.parametrize("line", THEIRS)
def test_a_filter_is_meant_for_the_json_processor(line: str, piped: bool) -> None:  # noqa: FBT001
    assert other_jq.is_meant(shlex.split(line)[1:], piped=piped)


@pytest.mark.parametrize("piped", [True, False])
@pytest.mark.parametrize("line", NOT_THEIRS)
def test_commands_and_what_neither_understands_are_not(line: str, piped: bool) -> None:  # noqa: FBT001
    assert not other_jq.is_meant(shlex.split(line)[1:], piped=piped)


def test_no_argument_at_all_is_a_filter_only_where_there_is_input() -> None:
    assert other_jq.is_meant([], piped=True)
    assert not other_jq.is_meant([], piped=False)


def test_no_function_of_a_filter_is_called_like_a_command() -> None:
    assert not {*other_jq._FUNCTIONS.split()} & {*COMMANDS}


# -- passing on -------------------------------------------------------------------------------------------------------


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def installed(folder: Path) -> Path:
    """Put our program into this folder under the name jq, as an installation of its own."""
    folder.mkdir(parents=True)
    (folder / "jq").symlink_to(OURS / "solidjq")
    return folder / "jq"


def call(
    jq: Path, *arguments: str | bytes, path: list[Path], stdin: bytes = b"", **options: object
) -> subprocess.CompletedProcess[bytes]:
    env = {key: value for key, value in os.environ.items() if key != other_jq.PASSED_TO}
    env["PATH"] = os.pathsep.join([*map(str, path), "/usr/bin", "/bin"] if path else ["/nowhere"])
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [jq, *arguments], input=stdin, capture_output=True, env=env, timeout=PATIENCE, check=False, **options
    )


def test_arguments_input_and_exit_code_are_untouched(tmp_path: Path) -> None:
    ours = installed(tmp_path / "ours")
    program(tmp_path / "other" / "jq", "#!/bin/sh\nprintf '<%s>' \"$@\"\ncat\necho oops >&2\nexit 37\n")
    arguments = [b"-r", b"--arg", b"a", b"\xff\xfe", b"", b".x", b"postgres://app:secret@db/app"]
    done = call(ours, *arguments, path=[ours.parent, tmp_path / "other"], stdin=b"\0\xff\n" * 50_000)
    shown = b"".join(b"<%s>" % argument for argument in arguments)
    assert (done.returncode, done.stderr) == (37, b"oops\n")
    assert done.stdout == shown + b"\0\xff\n" * 50_000


def test_a_reader_that_has_read_enough_ends_it_silently(tmp_path: Path) -> None:
    """Python ignores SIGPIPE; a program that it becomes must not."""
    ours = installed(tmp_path / "ours")
    program(tmp_path / "other" / "jq", "#!/bin/sh\nkill -PIPE $$\nexit 3\n")
    assert call(ours, ".", path=[ours.parent, tmp_path / "other"]).returncode == -signal.SIGPIPE


def test_another_installation_of_ours_is_passed_over(tmp_path: Path) -> None:
    ours, second = installed(tmp_path / "ours"), installed(tmp_path / "second")
    (tmp_path / "folder" / "jq").mkdir(parents=True)
    (program(tmp_path / "locked" / "jq", "#!/bin/sh\nexit 9\n")).chmod(0o644)
    program(tmp_path / "other" / "jq", "#!/bin/sh\nexit 37\n")
    path = [ours.parent, second.parent, tmp_path / "folder", tmp_path / "locked", tmp_path / "other"]
    assert call(ours, ".", path=path).returncode == 37
    assert call(second, ".", path=path).returncode == 37


def test_a_shim_that_starts_jq_again_is_tried_once(tmp_path: Path) -> None:
    """As version managers' shims do: they start the first jq of a PATH that begins with us."""
    ours = installed(tmp_path / "ours")
    program(tmp_path / "shims" / "jq", f'#!/bin/sh\nexec {ours} "$@"\n')
    program(tmp_path / "other" / "jq", "#!/bin/sh\nexit 37\n")
    for path in ([ours.parent, tmp_path / "shims"], [tmp_path / "shims", ours.parent]):
        assert call(ours, ".", path=[*path, tmp_path / "other"]).returncode == 37


def test_without_another_jq_it_says_so(tmp_path: Path) -> None:
    ours = installed(tmp_path / "ours")
    done = subprocess.run(
        [sys.executable, OURS / "solidjq", "--version"], capture_output=True, timeout=PATIENCE, check=True
    )
    assert b"solidjq" in done.stdout
    call_alone = "import sys; sys.argv = ['jq', '.x']; from solidjq_cli.__main__ import program; sys.exit(program())"
    env = {**os.environ, "PATH": str(ours.parent)}
    done = subprocess.run(
        [sys.executable, "-c", call_alone], capture_output=True, env=env, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert done.stderr.decode().startswith("jq: this is a call of the JSON processor, and there is no other jq on PATH")
    assert done.stderr.count(b"\n") == 1


def test_what_cannot_be_run_is_named(tmp_path: Path) -> None:
    ours = installed(tmp_path / "ours")
    broken = program(tmp_path / "other" / "jq", "#!/no/such/interpreter\n")
    done = call(ours, ".x", path=[ours.parent, broken.parent])
    assert (done.returncode, done.stdout) == (2, b"")
    assert str(broken).encode() in done.stderr


def test_called_solidjq_nothing_is_passed_on(tmp_path: Path) -> None:
    program(tmp_path / "other" / "jq", "#!/bin/sh\nexit 37\n")
    done = call(OURS / "solidjq", ".x", path=[tmp_path / "other"])
    assert (done.returncode, b"no such command '.x'" in done.stderr) == (2, True)


def test_our_own_commands_load_nothing_of_it() -> None:
    code = (
        "import sys; from solidjq_cli.__main__ import main, call_of_another\n"
        "sys.argv = ['/bin/jq', 'policy', '--help']\n"
        "assert call_of_another() is None\nmain()\nassert 'solidjq_cli.other_jq' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=PATIENCE, check=True)


@pytest.mark.sqlite_only
def test_both_work_in_one_line(shell: Shell, tmp_path: Path) -> None:
    real = next(other_jq.others_on(os.get_exec_path()), None)
    if real is None:
        pytest.skip("the JSON processor is not installed")
    ours = installed(tmp_path / "ours")
    assert shell.run("enqueue", "send", "--queue", "mail").returncode == 0
    done = subprocess.run(
        ["/bin/sh", "-c", "jq queues list -o json | jq -r '.[0].queue_name'; jq -n '\"a\"|halt_error(7)'"],
        env={**shell.env(), "PATH": f"{ours.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("mail\n", "a", 7)


# -- which, and the short name ----------------------------------------------------------------------------------------


def test_which_names_who_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = installed(tmp_path / "ours")
    shutil.copy(OURS / "solidjq", tmp_path / "ours" / "solidjq")
    other = program(tmp_path / "other" / "jq", "#!/bin/sh\n")
    monkeypatch.setattr(other_jq, "ELSEWHERE", {"cron": str(other.parent), "sudo": f"/nowhere:{ours.parent}"})
    monkeypatch.setenv("PATH", f"{ours.parent}:{other.parent}")
    monkeypatch.setattr(sys, "argv", [str(ours), "--which"])
    assert "\n".join(other_jq.which()) == (
        f"this program    {ours.parent}/solidjq\n"
        f"JSON processor  {other}\n"
        f"\nthis shell:\n"
        f"  jq       {ours} (this program)\n"
        f"  solidjq  {ours.parent}/solidjq (this program)\n"
        f"\ncron: {other.parent}\n"
        f"  jq       {other} (another program)\n"
        f"  solidjq  not found: write {ours.parent}/solidjq\n"
        f"\nsudo: /nowhere:{ours.parent}\n"
        f"  jq       {ours} (this program)\n"
        f"  solidjq  {ours.parent}/solidjq (this program)"
    )
    monkeypatch.setenv("PATH", "/nowhere")
    assert "JSON processor  no other jq on PATH" in [*other_jq.which()]
    assert "  jq       not found" in [*other_jq.which()]


@pytest.mark.sqlite_only
def test_the_short_name_is_linked_after_asking_and_replaces_nothing(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    link = folder / "jq"
    at = ("link-jq", "--folder", str(folder))

    assert shell.run(*at).returncode == 5
    assert "nothing was changed" in terminal(shell, *at, typed="n\n")
    assert not link.is_symlink()

    shown = terminal(shell, *at, typed="y\n")
    assert f"linked {link}" in " ".join(shown.split())
    assert link.resolve() == (OURS / "solidjq").resolve()
    assert subprocess.run([link, "--version"], capture_output=True, check=True).stdout.startswith(b"jq (solidjq) ")
    assert "already" in shell.run(*at).stderr

    assert shell.run(*at, "--remove").returncode == 0
    assert not link.is_symlink()
    assert shell.run(*at, "--remove").returncode == 0

    link.symlink_to(tmp_path / "gone" / "solidjq")  # of an installation that was removed
    assert shell.run(*at, "--yes").returncode == 0
    assert link.exists()
    link.unlink()

    program(link, "#!/bin/sh\n")
    for more in ("--yes", "--remove"):
        refused = shell.run(*at, more)
        assert (refused.returncode, str(link) in refused.stderr) == (5, True)
        assert link.read_text() == "#!/bin/sh\n"
    assert shell.run("link-jq", "--folder", str(tmp_path / "gone"), "--yes").returncode == 2
