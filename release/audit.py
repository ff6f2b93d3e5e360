"""Check the locked dependencies for known vulnerabilities; write what a release consists of as a bill of materials.

Run by ``make audit``; ``ARGS=URL`` asks a source of your own, such as a mirror, with OSV's interface. Where no source
answers for every dependency, nothing was checked: that is said, and the exit code is 3.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "release" / "requirements.lock"
NOT_CHECKED = 3


def main() -> int:
    """Run both; return the exit code."""
    bill = ROOT / "dist" / "sbom.cdx.json"
    bill.parent.mkdir(exist_ok=True)
    program = Path(sys.executable).parent
    subprocess.run(
        [program / "cyclonedx-py", "requirements", LOCK, "--pyproject", ROOT / "pyproject.toml", "-o", bill],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    print(f"bill of materials: {bill.relative_to(ROOT)}")
    # Without markers: what only Windows installs is checked, too.
    locked = re.findall(r"^[\w.-]+==[^\s;]+", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    own = [["osv", "--osv-url", url] for url in sys.argv[1:]]
    for source, *options in own or [["pypi"], ["osv"]]:
        with NamedTemporaryFile("w", suffix=".txt") as requirements:
            requirements.write("\n".join(locked))
            requirements.flush()
            command = ["--requirement", requirements.name, "--disable-pip", "--no-deps", "--format", "json"]
            command += ["--vulnerability-service", source, *options, "--progress-spinner", "off"]
            done = subprocess.run(
                [program / "pip-audit", *command],
                capture_output=True,
                text=True,
                check=False,
            )
        checked, vulnerable = read_report(done.stdout)
        if checked == len(locked):
            print(f"known vulnerabilities: {len(vulnerable)} in {checked} dependencies, says {source}")
            print("".join(f"  {line}\n" for line in vulnerable), end="")
            return 1 if vulnerable else 0
    print("known vulnerabilities: NOT CHECKED, no source of advisories answered", file=sys.stderr)
    return NOT_CHECKED


def read_report(text: str) -> tuple[int, list[str]]:
    """Return how many dependencies were checked, and each vulnerability in words; none if any was skipped."""
    try:
        dependencies = json.loads(text)["dependencies"]
    except (ValueError, LookupError):
        return 0, []
    if any("skip_reason" in dependency for dependency in dependencies):
        return 0, []
    vulnerable = [
        f"{dependency['name']} {dependency['version']}: {found['id']}, fixed in {found['fix_versions'] or 'no version'}"
        for dependency in dependencies
        for found in dependency["vulns"]
    ]
    return len(dependencies), vulnerable


if __name__ == "__main__":
    sys.exit(main())
