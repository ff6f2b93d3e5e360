"""How well suspects are told from bystanders, on made-up fleets of 200 processes with and without a killer.

Some fleets have a twin: a class that is in flight wherever the killer is. .venv/bin/python bench/fleet.py
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def tests_fleet() -> ModuleType:
    """Load the made-up fleet of the tests; by its path, since the tests are not installed."""
    path = Path(__file__).resolve().parent.parent / "tests" / "support" / "invented_fleet.py"
    spec = spec_from_file_location("made_up_fleet", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Print the figures."""
    of = tests_fleet().figures()
    print(f"planted class among the first three, accused or tied: {of.found} of {of.seeds} seeds ({of.alone} accused)")
    print(f"nobody called a suspect without a killer: {of.clean} of {of.seeds} seeds")
    print(f"its twin never called a suspect: {of.twins} of {of.seeds} seeds")
    print(f"one accused put in another's place by a few looks more: {of.swapped} of {of.seeds} seeds")


if __name__ == "__main__":
    main()
