"""The locked dependencies of a release: complete, with hashes, within the bounds of the project, and those tested."""

import re
import tomllib
from collections.abc import Collection
from importlib.metadata import requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.paths import ROOT

LOCK = (ROOT / "release" / "requirements.lock").read_text()
LINE = re.compile(r"(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?: ; (?P<marker>.+?))? \\")


def locked() -> dict[str, str]:
    """Return the version of each dependency that a release has on this machine."""
    entries = [LINE.fullmatch(line) for line in LOCK.splitlines() if line[:1].isalnum()]
    assert all(entries), "a line of the lock is of another form"
    requirements = [Requirement(entry[0].removesuffix("\\")) for entry in entries if entry]
    return {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in requirements
        if each.marker is None or each.marker.evaluate()
    }


def test_every_file_has_a_hash_and_no_host_is_named() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 10
    for entry in entries:
        head, *hashes = entry.rstrip().split(" \\\n")
        assert "==" in head
        assert hashes
        assert [text for text in hashes if not re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", text)] == []
    assert "://" not in LOCK


def test_the_lock_agrees_with_the_project_and_is_complete() -> None:
    """Each dependency, and each of theirs, is in it in a version that whoever asks for it allows; nothing else is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = locked()
    pending = [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["top"])]
    reached: set[str] = set()
    looked_at: set[tuple[str, frozenset[str]]] = set()
    while pending:
        wanted = pending.pop()
        name = canonicalize_name(wanted.name)
        assert name in versions, f"{name} is not locked; run: make lock"
        assert wanted.specifier.contains(versions[name]), f"{wanted}: {versions[name]} is locked; run: make lock"
        if (name, frozenset(wanted.extras)) not in looked_at:
            pending += [each for each in map(Requirement, requires(name) or []) if applies(each, wanted.extras)]
        reached.add(name)
        looked_at.add((name, frozenset(wanted.extras)))
    assert reached == set(versions)


def applies(requirement: Requirement, extras: Collection[str]) -> bool:
    """Whether a package whose extras these are needs it on this machine."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))


def test_the_tests_run_on_what_is_locked() -> None:
    versions = locked()
    assert {name: version(name) for name in versions} == versions
