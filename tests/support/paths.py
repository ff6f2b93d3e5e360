"""Where things are in this repository."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
PROGRAMS = ROOT / "tests" / "programs"  # what tests start as processes of their own, and the jobs that workers import
