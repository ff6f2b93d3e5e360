"""The files of docs/deploying: each is read by its own tool, each command line by ours, and the grace suffices."""

import configparser
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from solidjq_cli.app import app
from support.paths import ROOT
from support.shells import needs

FOLDER = ROOT / "docs" / "deploying"
MARGIN = 10  # seconds beyond the shutdown timeout, as docs/runtime.md says
HEROKU = 30  # seconds between its two signals
SYSTEMD, KUBERNETES = sorted(FOLDER.glob("systemd/*")), sorted(FOLDER.glob("kubernetes/*"))


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def unit(path: Path) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(path)
    return parser["Service"]


def container(name: str) -> dict[str, Any]:
    spec = read_yaml(FOLDER / "kubernetes" / name)["spec"]
    spec = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]
    found: dict[str, Any] = spec["containers"][0]
    return found


def dockerfile(instruction: str) -> str:
    (found,) = re.findall(rf"^{instruction} (.*)$", (FOLDER / "container/Dockerfile").read_text(), re.MULTILINE)
    return str(found)


def crontab() -> list[str]:
    lines = (FOLDER / "crontab").read_text().splitlines()
    return [line.split(maxsplit=5)[5] for line in lines if line.startswith("*")]


WORKERS = container("workers.yaml")
GRACE = {  # a command line that runs workers -> the seconds until it is killed
    unit(FOLDER / "systemd/solidjq-work.service")["ExecStart"]: int(unit(SYSTEMD[-1])["TimeoutStopSec"]),
    shlex.join(WORKERS["command"]): read_yaml(FOLDER / "kubernetes/workers.yaml")["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ],
    read_yaml(FOLDER / "kamal/deploy.yml")["servers"]["jobs"]["cmd"]: read_yaml(FOLDER / "kamal/deploy.yml")[
        "drain_timeout"
    ],
    (FOLDER / "Procfile").read_text().removeprefix("jobs: exec ").strip(): HEROKU,
    shlex.join(json.loads(dockerfile("CMD"))): int(
        read_yaml(FOLDER / "container/compose.yml")["services"]["jobs"]["stop_grace_period"].removesuffix("s")
    ),
}
OTHERS = [
    unit(FOLDER / "systemd/solidjq-recover.service")["ExecStart"],
    unit(FOLDER / "systemd/solidjq-watch.service")["ExecStart"],
    shlex.join(container("recover.yaml")["command"]),
    *(shlex.join(WORKERS[probe]["exec"]["command"]) for probe in ("startupProbe", "livenessProbe")),
    *crontab(),
]


def parsed(line: str) -> dict[str, Any]:
    """Read a command line as the program does, without running it; return the values of its options."""
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)
    assert Path(words[0]).name == "solidjq", "the name that no other program has"
    context = command.make_context("solidjq", words[1:])
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    values: dict[str, Any] = context.params
    return values


def test_every_file_is_in_the_list() -> None:
    listed = set(re.findall(r"\]\(([\w/.-]+)\)", (FOLDER / "README.md").read_text()))
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()} - {"README.md"} == {
        name for name in listed if not name.startswith("..")
    }


@pytest.mark.parametrize("line", [*GRACE, *OTHERS])
def test_each_command_line_is_one_of_ours(line: str) -> None:
    parsed(line)


@pytest.mark.parametrize(("line", "grace"), GRACE.items())
def test_workers_have_time_to_end(line: str, grace: int) -> None:
    assert parsed(line)["shutdown_timeout"] + MARGIN <= grace


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_kubernetes_takes_it(path: Path) -> None:
    kubernetes_validate.validate(read_yaml(path), kubernetes_validate.latest_version(), strict=True)


def test_a_probe_looks_at_the_file_that_the_worker_touches() -> None:
    (mount,) = WORKERS["volumeMounts"]
    path = parsed(shlex.join(WORKERS["command"]))["alive_file"]
    assert str(path).startswith(mount["mountPath"] + "/")
    assert all(str(path) in WORKERS[probe]["exec"]["command"] for probe in ("startupProbe", "livenessProbe"))


def test_systemd_takes_it(tmp_path: Path) -> None:
    needs("systemd-analyze")
    for path in SYSTEMD:
        # It looks whether the program is there.
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/local/bin/solidjq", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", *(tmp_path / path.name for path in SYSTEMD)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "solidjq" in line]) == (0, []), done.stderr
    service = unit(FOLDER / "systemd/solidjq-work.service")
    assert (service["KillMode"], service["OOMPolicy"]) == ("mixed", "continue")


def test_cron_takes_it() -> None:
    needs("crontab")
    done = subprocess.run(["crontab", "-n", FOLDER / "crontab"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
