"""How well suspects are told from bystanders, on made-up fleets of 200 processes with and without a killer.

.venv/bin/python bench/fleet.py
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from solidjq.incidents.death_cases import JobStanding
from solidjq.incidents.suspects import rank


def tests_fleet() -> ModuleType:
    """Load the made-up fleet of the tests; by its path, since the tests are not installed."""
    path = Path(__file__).resolve().parent.parent / "tests" / "support" / "invented_fleet.py"
    spec = spec_from_file_location("made_up_fleet", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(seeds: int = 100) -> tuple[int, int]:
    """Count the seeds where the planted class is among the first three suspects, and where nobody is one without it."""
    simulate = tests_fleet().simulate
    found = clean = 0
    for seed in range(seeds):
        fleet = simulate(seed, killer=True)
        classes = rank(fleet.cases, fleet.exposure).classes
        found += fleet.planted in {each.name for each in classes[:3] if each.standing is JobStanding.SUSPECT}
        fleet = simulate(seed, killer=False)
        ranking = rank(fleet.cases, fleet.exposure)
        clean += JobStanding.SUSPECT not in {each.standing for each in (*ranking.classes, *ranking.jobs)}
    return found, clean


def main() -> None:
    """Print both figures."""
    seeds = 100
    found, clean = figures(seeds)
    print(f"planted class among the first three suspects: {found} of {seeds} seeds")
    print(f"nobody called a suspect without a killer: {clean} of {seeds} seeds")


if __name__ == "__main__":
    main()
