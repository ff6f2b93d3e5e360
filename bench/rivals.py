"""The peers: an environment of their own, and one small script each (bench/peers), run as a program."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from watch import HERE, CrashedError, last_line

ENVIRONMENT = HERE / ".venv"
REQUIREMENTS = HERE / "requirements-peers.txt"
NAMES = ("pgqueuer", "procrastinate", "oban", "ox", "firm", "huey")


class Peer:
    """One of them."""

    def __init__(self, name: str, python: Path) -> None:
        self.name = name
        self._python = python

    @cached_property
    def about(self) -> dict[str, Any]:
        """What it says of itself: versions, settings, the query that is true when nothing is left; else its error."""
        try:
            told: dict[str, Any] = self.ask("about", "")
        except CrashedError as error:
            return {"error": f"crashed: {error}"}
        return told

    def settings(self, verb: str) -> list[tuple[str, dict[str, Any]]] | str:
        """Return the settings, each with its label, under which a verb is measured; else why it takes no part."""
        found: list[tuple[str, dict[str, Any]]] | str = self.about.get("error") or self.about.get(verb, [])
        return found

    def command(self, verb: str, **given: object) -> list[str]:
        """Spell the command line of a verb."""
        return [str(self._python), str(HERE / "peers" / f"with_{self.name}.py"), verb, json.dumps(given)]

    @staticmethod
    def environment(url: str) -> dict[str, str]:
        """Say where the database is."""
        return {"BENCH_DATABASE_URL": url, "PYTHONPATH": str(HERE)}

    def ask(self, verb: str, url: str, **given: object) -> Any:
        """Run a verb to its end; return its answer. Raises CrashedError with the last line that its script wrote."""
        ran = subprocess.run(  # noqa: S603  (the bench's own scripts)
            self.command(verb, **given),
            env={**os.environ, **self.environment(url)},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise CrashedError(last_line(ran.stderr))
        return json.loads(last_line(ran.stdout))


def peers(names: Sequence[str], tell: Callable[[str], object]) -> list[Peer]:
    """Return these peers; make their environment first if it is not there or older than their requirements."""
    if not names:
        return []
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / ".ready"
    if not ready.exists() or ready.stat().st_mtime < REQUIREMENTS.stat().st_mtime:
        tell(f"installing the peers into {ENVIRONMENT.name} ...")
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        subprocess.run([newest_python(), "-m", "venv", str(ENVIRONMENT)], check=True)  # noqa: S603
        wanted = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
        # One by one: what cannot be installed is missing in its own rows alone, and is tried again in the next run.
        install = [str(python), "-m", "pip", "install", "--quiet"]
        failed = [each for each in wanted if subprocess.run([*install, each], check=False).returncode]  # noqa: S603
        if failed:
            tell(f"could not install {', '.join(failed)}")
        else:
            ready.touch()
    return [Peer(name, python) for name in names]


def newest_python() -> str:
    """Find a Python of at least 3.12, which Oban needs; else this one."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = [str(path) for minor in ("3.13", "3.12") for path in sorted(versions.glob(f"{minor}*/bin/python"))]
    for candidate in (sys.executable, "python3.13", "python3.12", "python3", *installed):
        question = [candidate, "-c", "import sys, venv; sys.exit(sys.version_info < (3, 12))"]
        try:
            if subprocess.run(question, capture_output=True, check=False).returncode == 0:  # noqa: S603
                return candidate
        except OSError:
            continue
    return sys.executable
