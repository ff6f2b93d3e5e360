"""The program itself: run it on a database, and check how it ended."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from solidjq.database.urls import url_text
from support.waiting import PATIENCE
from support.zygote import AT_START, Running, Zygote

JQ = ("-m", "solidjq_cli")  # what Python runs
Done = subprocess.CompletedProcess[str]


@dataclass
class Shell:
    """``jq`` run as a program, on one database, in a folder of its own."""

    url: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    fresh: bool = False  # each run starts a Python of its own, and imports what it needs itself

    def run(self, *arguments: str, stdin: str = "", url: str | None = None) -> Done:
        """Run a command to its end; what it said is shown if the test fails."""
        done = self._run(arguments, stdin, self.env(url))
        sys.stderr.write(f"$ jq {' '.join(arguments)}\n{done.stderr}# {done.returncode}\n")
        return done

    def _run(self, arguments: Sequence[str], stdin: str, env: dict[str, str]) -> Done:
        if not self._fresh():
            return zygote().run(list(arguments), stdin, env, self.folder, PATIENCE)
        return subprocess.run(
            [sys.executable, "-m", "solidjq_cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=env,
            cwd=self.folder,
            timeout=PATIENCE,
            check=False,
        )

    def _fresh(self) -> bool:
        return self.fresh or any(name in self.environment for name in AT_START)

    def line(self, line: str) -> Done:
        """Run a line of bash, in which ``jq`` is this program."""
        script = f'jq() {{ "{sys.executable}" -m solidjq_cli "$@"; }}; set -o pipefail; {line}'
        return subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            env={**self.env(), "PYTHONUNBUFFERED": ""},  # as for most people; it changes what a lost pipe does
            cwd=self.folder,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, *arguments: str, program: Sequence[str] = JQ) -> subprocess.Popen[str] | Running:
        """Start a command and leave it running."""
        if program is JQ and not self._fresh():
            return zygote().start_piped(arguments, self.env(), self.folder)
        return subprocess.Popen(
            [sys.executable, *program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env(),
            cwd=self.folder,
        )

    def env(self, url: str | None = None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in {"JQ_DATABASE_URL", "JQ_DEBUG"}}
        # The PostgreSQL of the tests has just come up; prune would wait a while before it took anybody for dead.
        return {**kept, "JQ_PRUNE_FORCE": "1", "JQ_DATABASE_URL": self.url if url is None else url, **self.environment}


@cache
def zygote() -> Zygote:
    """Return the one of this test process."""
    return Zygote()


class Bare(Shell):
    """An environment that names no database."""

    def env(self, url: str | None = None) -> dict[str, str]:
        return {key: value for key, value in super().env(url).items() if key != "JQ_DATABASE_URL"}


PASSWORD = "hunter2"  # noqa: S105  (of users that the tests make)


def assert_refused(done: Done, code: int, *words: str) -> None:
    """Check that a command refused in one line, which says these words, and printed nothing else."""
    line = done.stderr.removesuffix("\n")
    assert (done.returncode, done.stdout, line.count("\n")) == (code, "", 0), done.stderr
    assert line.startswith("jq: ")
    assert [word for word in words if word not in line] == [], line
    assert "unexpected error" not in line
    assert PASSWORD not in line


@pytest.fixture
def shell(queue_url: URL, tmp_path: Path) -> Shell:
    """Run ``jq`` as a program on this test's database."""
    return Shell(url_text(queue_url), tmp_path)
