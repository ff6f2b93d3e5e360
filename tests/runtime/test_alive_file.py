"""``jq work --alive-file``: touched while the supervisor's loop turns, whether or not the database answers."""

import os
import signal
import time
from pathlib import Path

import pytest

from solidjq import Database
from solidjq.database.urls import url_text
from solidjq.errors import RefusedError, UsageError
from solidjq.runtime.alive_file import STUCK, AliveFile
from solidjq.runtime.wakeup import Wakeup
from support.paths import PROGRAMS
from support.program import Shell
from support.proxies import proxied
from support.runtime import Runtime
from support.waiting import PATIENCE, until


def is_touched(path: Path) -> bool:
    """Wait until the file is touched; it must have been made before."""
    os.utime(path, (1, 1))
    return bool(until(lambda: path.exists() and path.stat().st_mtime > 1, f"{path.name} is touched"))


def rests(path: Path) -> bool:
    """Whether nobody touches the file for a while in which it would have been touched ten times."""
    os.utime(path, (1, 1))
    time.sleep(0.2)
    return path.stat().st_mtime == 1


def test_it_is_touched_while_the_loop_turns(tmp_path: Path) -> None:
    path, wakeup = tmp_path / "alive", Wakeup()
    with AliveFile(path, wakeup, 0.02):
        assert wakeup.longest == 0.02
        assert is_touched(path)
        wakeup.turned_at -= STUCK + 1  # as if the main thread had hung since
        until(lambda: rests(path), "it is left alone")
        wakeup.wait(0)
        assert is_touched(path)
        path.unlink()  # as a cleaner of temporary files does
        until(path.exists, "it is made again")
    assert not path.exists()


def test_files_that_it_may_not_have(tmp_path: Path) -> None:
    """It removes its file at the end: so it takes none that has contents, and none of another supervisor."""
    notes = tmp_path / "notes"
    notes.write_text("dear diary")
    link = tmp_path / "link"
    link.symlink_to(notes)
    os.mkfifo(tmp_path / "pipe")
    for path in (notes, link, tmp_path, tmp_path / "missing" / "alive", tmp_path / "pipe"):
        with pytest.raises(UsageError, match="--alive-file"):
            AliveFile(path, Wakeup())
    assert notes.read_text() == "dear diary"
    with AliveFile(tmp_path / "alive", Wakeup()), pytest.raises(RefusedError, match="another jq work"):
        AliveFile(tmp_path / "alive", Wakeup())


def test_whoever_may_write_its_folder_chooses_no_file_that_is_touched_or_deleted(tmp_path: Path) -> None:
    """Its name may become a link or another's file, and its folder a link to another folder."""
    folder, victims = tmp_path / "folder", tmp_path / "victims"
    for each in (folder, victims):
        each.mkdir()
    victim = victims / "alive"
    victim.touch()
    os.utime(victim, (1, 1))
    with AliveFile(folder / "alive", Wakeup(), 0.02) as alive:
        (tmp_path / "link").symlink_to(victim)
        (tmp_path / "link").replace(folder / "alive")  # at once: a file that is missing is made again
        until(lambda: alive._failed, "the link is noticed")
        (folder / "alive").unlink()
        until((folder / "alive").exists, "the file is made again")
        folder.rename(tmp_path / "moved")
        folder.symlink_to(victims)
        assert is_touched(tmp_path / "moved" / "alive")
    assert victim.stat().st_mtime == 1
    assert not (tmp_path / "moved" / "alive").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_not_taken(tmp_path: Path) -> None:
    """Its owner could touch it, so that dead workers looked alive."""
    path = tmp_path / "alive"
    path.touch()
    os.chown(path, 65534, 65534)
    with pytest.raises(UsageError, match="belongs to nobody"):
        AliveFile(path, Wakeup())
    assert path.exists()


@pytest.mark.sqlite_only
def test_a_supervisor_touches_it_until_it_is_frozen_or_ends(runtime: Runtime, tmp_path: Path, shell: Shell) -> None:
    path = tmp_path / "alive"
    runtime.start("--alive-file", "alive", heartbeat=0.02)
    runtime.worker()
    assert is_touched(path)
    assert shell.run("check", "alive-file", "alive", "--max-age", "1m").returncode == 0
    supervisor = runtime.supervisor
    assert supervisor is not None
    supervisor.send_signal(signal.SIGSTOP)
    until(lambda: rests(path), "the frozen supervisor touches nothing")
    supervisor.send_signal(signal.SIGCONT)
    assert is_touched(path)
    supervisor.terminate()
    assert supervisor.wait(PATIENCE) == 0
    assert not path.exists()


@pytest.mark.only_on("postgresql")
def test_a_database_that_is_away_stops_no_touch(shell: Shell, database: Database, tmp_path: Path) -> None:
    """Neither at the start nor later: a probe must not restart workers because their database hiccups."""
    path = tmp_path / "alive"
    shell.environment["PYTHONPATH"] = str(PROGRAMS)
    with proxied(database.url) as (proxy, url):
        proxy.cut()
        shell.url = url_text(url)
        runtime = Runtime(database, shell)
        runtime.start("--alive-file", "alive", heartbeat=0.02)
        runtime.wait_for_log("waits for the database")
        assert is_touched(path)
        proxy.heal()
        runtime.worker()
        proxy.silence()  # no answer and no error: whoever asks waits
        assert is_touched(path)
        proxy.cut()
        runtime.wait_for_log("heartbeat failed")
        assert is_touched(path)
        assert runtime.stop()[0] in {0, 3}  # 3: it could not deregister
    assert not path.exists()
