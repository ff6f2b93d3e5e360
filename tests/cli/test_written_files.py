"""Files that commands write where others put a link, a pipe or a device: it is neither followed nor lost."""

import os
import stat
from pathlib import Path

import pytest

from solidjq import Database
from solidjq.files import replaced
from support.deaths import die
from support.program import Shell
from support.queue import add_jobs, plain_jobs

WRITERS = ["metrics --file", "incidents report d1 --html", "retry --class * --plan-out"]


@pytest.fixture
def kind() -> str:
    """Files are the same on every database."""
    return "sqlite"


def test_only_a_file_is_replaced(database: Database, shell: Shell, tmp_path: Path) -> None:
    add_jobs(database, *plain_jobs(1))
    die(database)
    secret = tmp_path / "secret"
    secret.write_text("what only its owner may change")
    for name, target in (("device", "/dev/null"), ("stdout", "/proc/self/fd/1"), ("link", secret), ("lost", "nowhere")):
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    names = ("device", "stdout", "link", "lost", "pipe", "folder")
    before = [(tmp_path / name).lstat().st_ino for name in names]
    for writer in WRITERS:
        for name in names:
            done = shell.run(*writer.split(), name)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), (writer, name, done.stderr)
            assert "cannot be written" in done.stderr
        assert shell.run(*writer.split(), "file").returncode == 0
    assert [(tmp_path / name).lstat().st_ino for name in names] == before
    assert secret.read_text() == "what only its owner may change"
    assert list(tmp_path.glob(".jq-*")) == []


def test_the_rights_of_a_file(tmp_path: Path) -> None:
    """They do not come from what was there before; without a mode the umask decides."""
    path = tmp_path / "file"
    path.touch(0o666)
    before = os.umask(0o027)
    try:
        for mode, rights in ((0o600, 0o600), (0o644, 0o644), (None, 0o640)):
            with replaced(path, mode) as file:
                file.write(b"x")
            assert stat.S_IMODE(path.stat().st_mode) == rights
    finally:
        os.umask(before)
