"""``make test-mysql``: get a real MySQL, start it, and run the tests of MariaDB on it.

MySQL comes from Debian's packages: those of unstable, as no other release has it, by the mirror and the keys that this
machine's own apt uses. They are unpacked in ``.mysql``, with every library that they need, and never installed; no
root is needed. Arguments are pytest's. A run of all tests that is green is recorded in ``tests/data/mysql.json``, which
docs/compatibility.md reads.

On another system, name a running server in JQ_TEST_MYSQL_URL for plain ``make test``.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/programs")]

from compatibility import MYSQL_RECORD, documented_tests  # noqa: E402
from sqlalchemy import text  # noqa: E402

from support.servers import connected, mariadb, server_folder  # noqa: E402

CACHE = ROOT / ".mysql"
MYSQLD = CACHE / "mysqld"
PACKAGE = "mysql-server-core"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# What a test of MariaDB is called, by the database that it runs on, or by its subject.
SELECTION = "mariadb or mysql or test_tls"
# Not through the machine's linker, whose libraries may be older.
LAUNCHER = """#!/bin/sh
usr=$(dirname "$(readlink -f "$0")")/root/usr
libraries=$(echo "$usr"/lib/*-linux-gnu)
exec "$libraries"/ld-linux-*.so.* --library-path "$libraries" "$usr/sbin/mysqld" "$@" \\
  --basedir="$usr" --lc-messages-dir="$usr/share/mysql" --plugin-dir="$usr/lib/mysql/plugin"
"""


def get_mysql() -> None:
    """Download and unpack MySQL and its libraries, unless they are there."""
    if MYSQLD.exists():
        return
    if missing := [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]:
        sys.exit(f"test-mysql: {missing[0]} is needed; elsewhere name a running MySQL: JQ_TEST_MYSQL_URL=... make test")
    shutil.rmtree(CACHE, ignore_errors=True)
    apt = CACHE / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "parts"):
        (apt / folder).mkdir(parents=True)
    signed = f"[signed-by={KEYS}] " if KEYS.exists() else ""
    (apt / "sources.list").write_text(f"deb {signed}{_mirror()} sid main\n")
    (apt / "status").touch()  # nothing is installed: all that MySQL needs is downloaded
    (apt / "apt.conf").write_text(
        f'Dir::State "{apt}"; Dir::State::status "{apt}/status"; Dir::Cache "{apt}/cache";\n'
        f'Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "{apt}/parts";\n'
        'APT::Install-Recommends "false"; APT::Sandbox::User "root"; Acquire::Languages "none";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    for command in (["update"], ["install", "--yes", "--download-only", PACKAGE]):
        subprocess.run(["apt-get", "--quiet", "--quiet", *command], env=environment, check=True)
    for package in (apt / "cache/archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, CACHE / "root"], check=True)
    shutil.rmtree(apt)
    MYSQLD.write_text(LAUNCHER)
    MYSQLD.chmod(0o755)


def _mirror() -> str:
    """Return the mirror of Debian that this machine's apt uses."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    for uri in listed:
        if uri.rstrip("/").endswith("/debian"):
            return uri
    return sys.exit("test-mysql: apt knows no mirror of Debian; run: apt-get update")


def passed_tests(report: Path) -> set[str]:
    """Return the tests that passed in every variant, as ``file::function``, of pytest's report in JUnit's format."""
    passed: dict[str, bool] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  (pytest has just written it)
        name = f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name'].partition('[')[0]}"
        passed[name] = passed.get(name, True) and len(case) == 0  # a failure, an error or a skip is a child
    return {name for name, well in passed.items() if well}


def main(arguments: list[str]) -> int:
    """Run the tests, record a run of all that is green, and return pytest's exit code."""
    get_mysql()
    report = CACHE / "report.xml"
    os.environ["JQ_TEST_MYSQLD"] = str(MYSQLD)
    with server_folder("mysql") as folder, mariadb(folder=folder) as url:
        with connected(url) as connection:
            version = str(connection.scalar(text("SELECT version()"))).partition("-")[0]
        os.environ |= {"JQ_TEST_MYSQL_URL": str(url), "JQ_TEST_REQUIRE_MARIADB": "1"}
        pytest = Path(sys.executable).with_name("pytest")
        command = [pytest, "-k", SELECTION, f"--junitxml={report}", "-n", "auto", "--dist", "loadgroup", *arguments]
        ended = subprocess.run(command, cwd=ROOT, check=False).returncode
    if ended == 0 and not arguments:
        tests = sorted(passed_tests(report) & documented_tests())
        MYSQL_RECORD.write_text(f"{json.dumps({'version': version, 'tests': tests}, indent=2)}\n")
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
