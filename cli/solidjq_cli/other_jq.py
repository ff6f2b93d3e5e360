"""The other program named ``jq``, the JSON processor: which calls are meant for it, where it is, and passing them on.

Nothing here is imported when the first argument is a command of ours.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from typing import TYPE_CHECKING

from solidjq_cli.command_list import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# What `jq --which` answers for beside this shell: Debian's defaults, close to those of every other system.
ELSEWHERE = {
    "cron": "/usr/bin:/bin",
    "sudo": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# Lists the programs that a call was passed on to. One of them that starts `jq` again, as the shims of version managers
# do, comes back here; it is not tried twice.
PASSED_TO = "SOLIDJQ_PASSED_TO"

# The JSON processor's options, 1.5 to 1.8, by how many values follow. --help, -h and --version are ours.
_LETTERS = frozenset("abcCejMnrRsSV")
_LETTERS_WITH_VALUE = frozenset("fL")
_WORDS = {
    0: "seq stream stream-errors slurp raw-input null-input compact-output tab color-output monochrome-output "
    "ascii-output unbuffered sort-keys raw-output raw-output0 join-output exit-status binary args jsonargs "
    "build-configuration debug-dump-disasm debug-trace debug-trace=all strip-comments",
    1: "indent from-file library-path",
    2: "arg argjson slurpfile rawfile argfile",
}
# Its functions without parameters, 1.5 to 1.8: a filter may be one word.
_FUNCTIONS = (
    "abs acos acosh add all any arrays ascii ascii_downcase ascii_upcase asin asinh atan atanh booleans builtins cbrt "
    "ceil combinations cos cosh debug empty env erf erfc error exp exp10 exp2 explode expm1 fabs false finites first "
    "flatten floor frexp from_entries fromdate fromdateiso8601 fromjson gamma get_search_list getpath gmtime halt "
    "halt_error have_decnum have_literal_numbers implode infinite input input_filename input_line_number inputs "
    "isempty isfinite isinfinite isnan isnormal iterables j0 j1 keys keys_unsorted last leaf_paths length lgamma "
    "lgamma_r localtime log log10 log1p log2 logb ltrim max min mktime modf modulemeta nan nearbyint normals not now "
    "null nulls numbers objects paths pow10 recurse recurse_down reverse rint round rtrim scalars significand sin sinh "
    "sort sqrt stderr strings tan tanh tgamma to_entries toarray toboolean todate todateiso8601 tojson tonumber "
    "tostream tostring transpose trim true trunc type unique utf8bytelength values y0 y1"
)
# A mistyped command, an id, a database's URL. Any other text has a character that only a filter has.
_NO_FILTER = re.compile(r"[\w-]+|[\w+]+:.*", re.DOTALL)


def is_meant(arguments: Sequence[str], *, piped: bool) -> bool:
    """Return whether these arguments of ``jq`` are plainly meant for the JSON processor.

    ``piped`` says whether standard input is a pipe, a file or a socket. A command of ours is always ours, and so is
    what neither program understands: our error message suggests what was meant.
    """
    if not arguments:
        return piped
    options = False
    rest = iter(arguments)
    for argument in rest:
        if argument == "--" or not argument.startswith("-"):
            word = next(rest, "") if argument == "--" else argument
            return not COMMANDS.keys() & word.split()[:1] and (
                options or word in _FUNCTIONS.split() or _NO_FILTER.fullmatch(word) is None
            )
        values = _values_after(argument)
        if values is None:
            return False
        if argument == "--from-file" or (argument[1] != "-" and "f" in argument):
            return True  # the filter is in a file, and the words are the names of more files
        options = True
        for _ in range(values):
            next(rest, None)
    return options


def _values_after(argument: str) -> int | None:
    """Return how many values follow this option of the JSON processor; None if it is not one of its options."""
    if argument.startswith("--"):
        return next((values for values, words in _WORDS.items() if argument[2:] in words.split()), None)
    letters = argument[1:]
    if not argument.startswith("-") or not letters:
        return None
    if letters[0] == "L":  # -L takes its value in the same word too
        return 1 if letters == "L" else 0
    if not set(letters) <= _LETTERS | _LETTERS_WITH_VALUE:
        return None
    return sum(letter in _LETTERS_WITH_VALUE for letter in letters)


def pass_on_if_meant() -> str | None:
    """Become the JSON processor if this call is meant for it, with arguments and input untouched.

    Return None if the call is ours, else why it could not be passed on, in words.
    """
    if not is_meant(sys.argv[1:], piped=_is_piped()):
        return None
    passed_to = [path for path in os.environ.get(PASSED_TO, "").split(os.pathsep) if path]
    processors = others_on(os.get_exec_path())
    path = next((path for path in processors if path not in passed_to), None)
    if path is None:
        return (
            "this is a call of the JSON processor, and there is no other jq on PATH; "
            "this jq recovers jobs whose worker died: see jq --help"
        )
    # Python ignores these, and an ignored signal stays ignored: `jq . file | head -1` would end with an error.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(  # noqa: S606  (no shell is wanted)
            path, [path, *sys.argv[1:]], {**os.environ, PASSED_TO: os.pathsep.join([*passed_to, path])}
        )
    except OSError as error:
        return f"this is a call of the JSON processor, and {path} cannot be run: {error.strerror}"


def _is_piped() -> bool:
    try:
        mode = os.fstat(0).st_mode
    except OSError:  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def others_on(folders: Iterable[str]) -> Iterator[str]:
    """Yield the programs named ``jq`` in these folders that are not this one, another installation of it included."""
    return (path for path in programs("jq", folders) if not is_ours(path))


def programs(name: str, folders: Iterable[str]) -> Iterator[str]:
    """Yield the programs of this name in these folders, in their order."""
    for folder in folders:
        path = os.path.join(folder or os.curdir, name)  # noqa: PTH118  (pathlib is not loaded for a filter)
        if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112
            yield path


def is_ours(path: str) -> bool:
    """Return whether a program is this one: the scripts that pip, pipx and uv write name its package."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return b"solidjq_cli" in file.read(4096)
    except OSError:  # may be run, but not be read
        return False


def here() -> str:
    """Return the path of the script ``solidjq`` by which this program, whatever it was called, can be started."""
    folder, name = os.path.split(os.path.abspath(sys.argv[0]))  # noqa: PTH100
    if name not in {"jq", "solidjq"}:  # python -m solidjq_cli
        import sysconfig  # noqa: PLC0415

        folder = sysconfig.get_path("scripts")
    return os.path.join(folder, "solidjq")  # noqa: PTH118


def which() -> Iterator[str]:
    """Yield lines that say which program answers to ``jq`` and ``solidjq``: in this shell, under cron, under sudo."""
    yield f"this program    {here()}"
    other = next(others_on(os.get_exec_path()), None)
    yield f"JSON processor  {other or 'no other jq on PATH'}"
    for place, path in {"PATH": os.pathsep.join(os.get_exec_path()), **ELSEWHERE}.items():
        folders = path.split(os.pathsep)
        yield ""
        yield f"{place}: {path}" if place in ELSEWHERE else "this shell:"
        for name in ("jq", "solidjq"):
            yield f"  {name:<8} {_answer(name, folders)}"


def _answer(name: str, folders: Sequence[str]) -> str:
    path = next(programs(name, folders), None)
    if path is None:
        return "not found" if name == "jq" else f"not found: write {here()}"
    return f"{path} ({'this program' if is_ours(path) else 'another program'})"
