"""Whether ``jq work`` lives, by the file that ``--alive-file`` names. Asks no database and loads no SQLAlchemy."""

import os
import time
from pathlib import Path

from solidjq.monitoring.levels import CheckReport, Level, Measure, above

CHECK = "alive-file"


def check_alive_file(path: Path, max_age: float) -> CheckReport:
    """Judge the file by when it was last touched; critical if that is more than ``max_age`` seconds ago, or ahead.

    A time ahead means that the clock was set back: then it says nothing of the process, however dead it is.
    """
    try:
        touched = os.stat(path, follow_symlinks=False).st_mtime  # noqa: PTH116  (lstat by another name)
    except OSError as error:
        return _report(path, Level.CRITICAL, f"{path} cannot be read ({error.strerror}): the supervisor does not run")
    age = time.time() - touched
    if age > max_age:
        words = f"{path} was touched {age:.0f} s ago, more than {max_age:g} s: the supervisor hangs or is dead"
        return _report(path, Level.CRITICAL, words, age, max_age)
    if -age > max_age:
        return _report(
            path, Level.CRITICAL, f"{path} was touched {-age:.0f} s ahead of this host's clock", age, max_age
        )
    return _report(path, Level.OK, f"{path} was touched {max(0.0, age):.0f} s ago", age, max_age)


def _report(path: Path, level: Level, text: str, age: float | None = None, max_age: float | None = None) -> CheckReport:
    value = None if age is None else round(max(0.0, age), 3)
    crit = None if max_age is None else above(max_age)
    return CheckReport(CHECK, [Measure(path.name, level, text, value, "s" if age is not None else "", crit=crit)], text)
