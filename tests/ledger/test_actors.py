"""Who acts is asked of the operating system, not of variables that anybody can set."""

import json
import os
import pwd
import socket

import pytest
from sqlalchemy import select

from solidjq import Database
from solidjq.database.functions import current_role
from solidjq.database.tables import operations
from solidjq.ledger import actors
from support.program import Shell
from support.queue import rows

HERE = f"{pwd.getpwuid(os.geteuid()).pw_name}@{socket.gethostname()}"


def test_a_variable_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert actors.actor() == HERE


@pytest.mark.parametrize(
    ("user", "environment", "expected"),
    [
        (0, {}, "root@web-1"),
        (0, {"SUDO_USER": "ada"}, "root@web-1, sudo by ada"),
        (0, {"SUDO_USER": "root"}, "root@web-1"),
        (0, {"SUDO_USER": ""}, "root@web-1"),
        (3_999_999_999, {}, "3999999999@web-1"),
        (0, {"SUDO_USER": "a\nb\x1b[2J\udcff"}, "root@web-1, sudo by a\\nb\\x1b[2J\\udcff"),
    ],
)
def test_sudo_and_users_without_a_name(user: int, environment: dict[str, str], expected: str) -> None:
    assert actors.describe(user, "web-1", environment) == expected


def test_what_is_too_long_for_a_column_is_cut() -> None:
    assert len(actors.describe(0, "web-1", {"SUDO_USER": "a" * 5000})) == 255
    assert len(actors.ci_job({"CIRCLECI": "true", "CIRCLE_USERNAME": "a" * 5000}) or "") == 255


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"CI": "true", "BUILD_NUMBER": "7"}, None),
        (
            {
                "GITHUB_ACTIONS": "true",
                "GITHUB_REPOSITORY": "shop/app",
                "GITHUB_RUN_ID": "123",
                "GITHUB_ACTOR": "ada",
            },
            "github: shop/app run 123 by ada",
        ),
        (
            {"GITLAB_CI": "true", "CI_PROJECT_PATH": "shop/app", "CI_JOB_ID": "9", "GITLAB_USER_LOGIN": "ada"},
            "gitlab: shop/app job 9 by ada",
        ),
        (
            {"JENKINS_URL": "https://ci.internal/", "JOB_NAME": "shop/recover", "BUILD_NUMBER": "7"},
            "jenkins: shop/recover build 7",
        ),
        (
            {
                "BUILDKITE": "true",
                "BUILDKITE_ORGANIZATION_SLUG": "shop",
                "BUILDKITE_PIPELINE_SLUG": "app",
                "BUILDKITE_BUILD_NUMBER": "4",
                "BUILDKITE_BUILD_CREATOR": "Ada L.",
            },
            "buildkite: shop/app build 4 by Ada L.",
        ),
        (
            {
                "CIRCLECI": "true",
                "CIRCLE_PROJECT_USERNAME": "shop",
                "CIRCLE_PROJECT_REPONAME": "app",
                "CIRCLE_BUILD_NUM": "5",
                "CIRCLE_USERNAME": "ada",
            },
            "circleci: shop/app build 5 by ada",
        ),
        ({"GITHUB_ACTIONS": "true"}, "github:"),
    ],
)
def test_the_job_of_a_ci_service(environment: dict[str, str], expected: str | None) -> None:
    assert actors.ci_job(environment) == expected


def test_an_operation_says_who_in_the_system_in_the_database_and_in_ci(
    database: Database, shell: Shell, kind: str
) -> None:
    ci = {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "shop/app", "GITHUB_RUN_ID": "123", "GITHUB_ACTOR": "ada"}
    shell.environment |= {"LOGNAME": "somebody-else", "SUDO_USER": "mallory", **ci}
    assert shell.run("enqueue", "PlainJob").returncode == 0
    (row,) = rows(database, operations)
    role = row["database_role"]
    assert role == {"sqlite": None, "postgresql": database.url.username, "mariadb": role}[kind]
    assert kind != "mariadb" or role.startswith(f"{database.url.username}@")
    assert row["actor"] == f"{HERE}, sudo by mallory"
    assert row["database_role"] == role
    assert row["ci_job"] == "github: shop/app run 123 by ada"
    for command in ("list", f"show {row['id']}"):
        shown = shell.run("operations", *command.split(), "-o", "json").stdout
        assert f'"actor": "{row["actor"]}"' in shown
        assert '"ci_job": "github: shop/app run 123 by ada"' in shown
        assert f'"database_role": {json.dumps(role)}' in shown
    listed = shell.run("operations", "list").stdout
    assert f"{HERE}, sudo by mallory" in listed
    assert "github: shop/app run 123 by ada" in listed


@pytest.mark.only_on("postgresql")
def test_the_role_that_logged_in_is_named_beside_the_one_that_acts(database: Database) -> None:
    with database.read() as connection:
        assert connection.scalar(select(current_role())) == database.url.username
        connection.exec_driver_sql("SET LOCAL ROLE pg_monitor")
        assert connection.scalar(select(current_role())) == f"pg_monitor by {database.url.username}"
