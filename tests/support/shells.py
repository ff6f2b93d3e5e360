"""The shells themselves with our completions: a line is typed, and read back when the shell has completed it."""

import os
import re
import select
import shlex
import shutil
import subprocess
import termios
from pathlib import Path
from typing import Protocol

import pytest

from solidjq_cli.completion_scripts.parts import PROGRAMS
from support.paths import ROOT
from support.waiting import PATIENCE

COMPLETIONS = ROOT / "completions"


class Shell(Protocol):
    """A shell with our completions."""

    def candidates(self, typed: str) -> set[str]: ...


class Terminal:
    """A shell on a terminal. INSERT makes it insert all candidates; TELL makes it tell the line, and clear it."""

    INSERT, TELL = b"\x07", b"\x0e"

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.folder = folder
        self._terminal, inner = os.openpty()
        termios.tcsetwinsize(inner, (50, 250))
        self._process = subprocess.Popen(
            arguments,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=folder,
            env=environment(folder),
            start_new_session=True,
        )
        os.close(inner)
        self._read_until("READY>")

    def candidates(self, typed: str) -> set[str]:
        line = self.type(typed, self.INSERT).rpartition("LINE<")[2]
        return plain(typed, shlex.split(line[typed.rfind(" ") + 1 :])) if line != typed else set()

    def type(self, typed: str, key: bytes) -> str:
        """Return all that is on the screen when the shell is done, the line it told at the end."""
        os.write(self._terminal, typed.encode() + key + self.TELL)
        return self._read_until(">LINE")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _read_until(self, end: str) -> str:
        read = b""  # a part may end within a character
        while end.encode() not in read:
            assert select.select([self._terminal], [], [], PATIENCE)[0], f"no {end!r} after {read!r}"
            read += os.read(self._terminal, 65536)
        return read.decode(errors="replace").partition(end)[0]


class Bash(Terminal):
    RC = rf"""
        PS1='READY>'
        tell() {{ printf 'LINE<%s>LINE' "$READLINE_LINE"; READLINE_LINE=; }}
        bind 'set bell-style none'
        bind '"\C-g": insert-completions'
        bind -x '"\C-n": tell'
        source {COMPLETIONS}/jq.bash
        source {COMPLETIONS}/solidjq.bash
        [[ ! -f made-up.bash ]] || source made-up.bash
    """

    def __init__(self, folder: Path, more: str = "") -> None:
        (folder / ".bashrc").write_text(self.RC + more)
        super().__init__(["bash", "--noprofile", "--rcfile", str(folder / ".bashrc"), "-i"], folder)


class Zsh(Terminal):
    RC = r"""
        PS1='READY>'
        setopt no_beep
        autoload -U compinit && compinit -u -D
        tell() { print -rn -- "LINE<$BUFFER>LINE"; BUFFER= }
        zle -N tell
        zle -C insert-all complete-word _generic
        zstyle ':completion:insert-all:*' completer _all_matches _complete
        zstyle ':completion:insert-all:*' insert true
        zstyle ':completion:*' list-colors ''
        bindkey '^G' insert-all
        bindkey '^N' tell
        bindkey '^P' list-choices
    """
    LIST = b"\x10"

    def __init__(self, folder: Path, before: str = f"fpath=(~/functions {COMPLETIONS} $fpath)", more: str = "") -> None:
        (folder / ".zshrc").write_text(f"{before}\n{self.RC}\n{more}\n")
        super().__init__(["zsh", "-d", "-i"], folder)


class Fish:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        installed = folder / ".config/fish/completions"
        installed.mkdir(parents=True, exist_ok=True)
        (folder / ".local/share/fish").mkdir(parents=True, exist_ok=True)  # fish itself would make it, at some time
        for program in PROGRAMS:
            shutil.copy(COMPLETIONS / f"{program}.fish", installed)

    def candidates(self, typed: str) -> set[str]:
        return plain(typed, [line.partition("\t")[0] for line in self.lines(typed)])

    def lines(self, typed: str) -> list[str]:
        return run(["fish", "-c", "complete -C $argv[1]", typed], self.folder).splitlines()

    def close(self) -> None:
        """Nothing is left running."""


SHELLS = {"bash": Bash, "zsh": Zsh, "fish": Fish}
MADE_UP = {"bash": "made-up.bash", "zsh": "functions/_made_up", "fish": ".config/fish/completions/made-up.fish"}


def plain(typed: str, words: list[str]) -> set[str]:
    """Leave out what one shell adds and another does not: an = or > before a value, an = or / behind a name."""
    before = re.search(r"(\S*[=>])?[^=>\s]*$", typed)
    assert before
    return {word.removeprefix(before[1] or "").rstrip("=/") for word in words}


def environment(folder: Path) -> dict[str, str]:
    home = {"HOME": str(folder), "ZDOTDIR": str(folder), "XDG_CONFIG_HOME": str(folder / ".config")}
    return {"PATH": f"{folder}/bin:{os.environ['PATH']}", "TERM": "dumb", "LC_ALL": "C.UTF-8", **home}


def run(arguments: list[str], folder: Path) -> str:
    return subprocess.run(
        arguments, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
