"""``make mutants``: break lines of the core, one at a time, and print those that no test misses.

Works on a copy of the working tree (without files that git does not know), which is removed afterwards. The seed alone
decides which lines are broken. For each, the tests of the module's room run until one fails. Ends with 1 if a mutant
survived.
"""

import argparse
import ast
import random
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CORE = Path("core/solidjq")
LONGEST = 1800  # seconds that the tests of one mutant may take; one that makes them hang is caught

PAIRS: list[tuple[type[ast.cmpop], type[ast.cmpop]]] = [
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
]
SWAPPED = {one: other for pair in PAIRS for one, other in (pair, pair[::-1])}
CLAUSES = {"with_for_update", "distinct", "order_by", "limit"}  # of a statement, which works without them


class Mutant(NamedTuple):
    """One change of a module: its bytes from ``start`` to ``end`` become ``text``."""

    path: Path
    line: int
    start: int
    end: int
    text: str


def replacements(node: ast.AST) -> Iterator[ast.AST | None]:
    """Yield what may stand in place of this node; None removes a statement."""
    match node:
        case ast.Compare(left, [operator], right):
            yield ast.Compare(left, [SWAPPED[type(operator)]()], right)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.BinOp(left, ast.Add() | ast.Sub() as operator, right):
            yield ast.BinOp(left, ast.Sub() if isinstance(operator, ast.Add) else ast.Add(), right)
        case ast.BinOp(left, ast.BitAnd(), _) | ast.UnaryOp(ast.Not() | ast.Invert(), left):
            yield left
        case ast.Constant(value) if type(value) is int:
            yield ast.Constant(value + 1)
        case ast.Call(ast.Attribute(statement, "where"), guards):
            for guard in guards:
                rest = [other for other in guards if other is not guard]
                yield ast.Call(node.func, rest, []) if rest else statement
        case ast.Call(ast.Attribute(statement, name)) if name in CLAUSES:
            yield statement
        case ast.Expr(ast.Call(function)) if not ast.unparse(function).startswith("log."):
            yield None


def mutants_of(copy: Path, path: Path) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    source = (copy / path).read_bytes()
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    for node in ast.walk(ast.parse(source)):
        for new in replacements(node):
            assert isinstance(node, ast.expr | ast.stmt)
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            start = begins[node.lineno - 1] + node.col_offset
            end = begins[node.end_lineno - 1] + node.end_col_offset
            yield Mutant(path, node.lineno, start, end, "pass" if new is None else f"({ast.unparse(new)})")


@contextmanager
def copied() -> Iterator[tuple[Path, Path]]:
    """Copy the working tree; yield the copy, and a Python that imports the core and the command line from there."""
    with tempfile.TemporaryDirectory(prefix="solidjq-mutants-") as folder:
        copy = Path(folder) / "copy"
        commit = git("stash", "create") or "HEAD"  # the changes that are not committed too
        git("worktree", "add", "--quiet", "--detach", str(copy), commit)
        try:
            environment = copy / ".venv"
            venv.create(environment, symlinks=True)
            (packages,) = environment.glob("lib/python*/site-packages")
            paths = (copy / "core", copy / "cli", sysconfig.get_path("purelib"))
            (packages / "copy.pth").write_text("\n".join(map(str, paths)))
            yield copy, environment / "bin" / "python"
        finally:
            git("worktree", "remove", "--force", str(copy))


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def tests_of(path: Path) -> str:
    """Return the folder of tests that mirrors a module's room; of the ground, that of the whole."""
    room = path.relative_to(CORE).parts[0]
    return f"tests/{room}" if (ROOT / "tests" / room).is_dir() else "tests/whole"


def passes(python: Path, copy: Path, tests: Sequence[str]) -> bool:
    """Whether these tests pass; if they hang, they do not."""
    command = [str(python), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(command, cwd=copy, capture_output=True, timeout=LONGEST, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (also where it is not a terminal: a run takes long)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", default=["queue"], help="files or rooms of core/solidjq (queue)")
    parser.add_argument("--seed", type=int, default=0, help="which lines to break; the same seed breaks the same (0)")
    parser.add_argument("--count", type=int, default=10, help="how many lines to break (10)")
    parser.add_argument("--tests", help="what pytest runs instead of the room's tests: 'tests/queue -k dispatch'")
    options = parser.parse_args()
    with copied() as (copy, python):
        chosen = [copy / CORE / name for name in options.modules]
        files = [file for each in chosen for file in (sorted(each.rglob("*.py")) if each.is_dir() else [each])]
        everything = [mutant for file in files for mutant in mutants_of(copy, file.relative_to(copy))]
        picked = random.Random(options.seed).sample(everything, min(options.count, len(everything)))  # noqa: S311
        say(f"{len(picked)} of {len(everything)} mutants, --seed {options.seed}")
        tests = {each.path: shlex.split(options.tests or tests_of(each.path)) for each in picked}
        for arguments in {tuple(each) for each in tests.values()}:
            if not passes(python, copy, arguments):
                sys.exit(f"without any mutant, this fails already: pytest {shlex.join(arguments)}")
        survivors = 0
        for mutant in picked:
            module = copy / mutant.path
            source = module.read_bytes()
            module.write_bytes(source[: mutant.start] + mutant.text.encode() + source[mutant.end :])
            if passes(python, copy, tests[mutant.path]):
                survivors += 1
                was = " ".join(source[mutant.start : mutant.end].decode().split())
                say(f"{mutant.path}:{mutant.line}: survived: {was}  ->  {mutant.text}")
            module.write_bytes(source)
    say(f"{survivors} of {len(picked)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
