"""Actors: who acts, as the operating system and the environment say it."""

import os
import pwd
import socket
from collections.abc import Mapping
from typing import NamedTuple

from solidjq.text import printable

LONGEST = 255  # characters that MySQL stores of an actor or a CI job


def actor() -> str:
    """Return who acts, as ``user@host``: the effective user; ``root@web-1, sudo by ada`` if sudo started it.

    A user without a name, as in a container, is its number. ``LOGNAME`` and ``USER`` name nobody: anyone can set them.
    """
    return describe(os.geteuid(), socket.gethostname(), os.environ)


def describe(user: int, host: str, environment: Mapping[str, str]) -> str:
    """Return, as ``actor`` does, who acts: the user with this number, on this host, in this environment."""
    name = _user_name(user)
    caller = environment.get("SUDO_USER")
    sudo = f", sudo by {caller}" if caller and caller != name else ""
    return _stored(f"{name}@{host}{sudo}")


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _stored(text: str) -> str:
    return printable(text)[:LONGEST]


class _Service(NamedTuple):
    """A CI service: the variable by which it is recognised, and those that name the job, its run and its author."""

    name: str
    mark: str
    project: tuple[str, ...]
    word: str
    number: str
    author: str


_SERVICES = (
    _Service("github", "GITHUB_ACTIONS", ("GITHUB_REPOSITORY",), "run", "GITHUB_RUN_ID", "GITHUB_ACTOR"),
    _Service("gitlab", "GITLAB_CI", ("CI_PROJECT_PATH",), "job", "CI_JOB_ID", "GITLAB_USER_LOGIN"),
    _Service("jenkins", "JENKINS_URL", ("JOB_NAME",), "build", "BUILD_NUMBER", "BUILD_USER_ID"),
    _Service(
        "buildkite",
        "BUILDKITE",
        ("BUILDKITE_ORGANIZATION_SLUG", "BUILDKITE_PIPELINE_SLUG"),
        "build",
        "BUILDKITE_BUILD_NUMBER",
        "BUILDKITE_BUILD_CREATOR",
    ),
    _Service(
        "circleci",
        "CIRCLECI",
        ("CIRCLE_PROJECT_USERNAME", "CIRCLE_PROJECT_REPONAME"),
        "build",
        "CIRCLE_BUILD_NUM",
        "CIRCLE_USERNAME",
    ),
)


def ci_job(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the CI job that this runs in: ``github: owner/repo run 123 by ada``; None outside of a known service."""
    service = next((service for service in _SERVICES if environment.get(service.mark)), None)
    if service is None:
        return None
    project = "/".join(part for name in service.project if (part := environment.get(name)))
    number = environment.get(service.number)
    author = environment.get(service.author)
    words = [project, f"{service.word} {number}" if number else "", f"by {author}" if author else ""]
    return _stored(" ".join([f"{service.name}:", *(part for part in words if part)]))
