"""MySQL's option files, such as ``~/.my.cnf``: the driver reads one that a URL names, and this checks it beforehand.

The driver ignores a file that is missing, and options that it does not have; without its TLS options, a connection
would not be encrypted, or encrypted for anybody.
"""

import configparser
from pathlib import Path

from solidjq.errors import DatabaseURLError
from solidjq.files import read_file
from solidjq.text import one_line

_MOST_BYTES = 1_000_000
_HONOURED = {"ssl-ca", "ssl-capath", "ssl-cert", "ssl-key", "ssl-cipher"}


def check_option_file(path: str, group: str) -> None:
    """Raise DatabaseURLError if the driver cannot honour an option file's group, or the file or group is not there."""
    from pymysql.optionfile import Parser  # noqa: PLC0415  (only where a URL names a file)

    parser = Parser()
    try:
        file = Path(path).expanduser()
        parser.read_string(read_file(file, _MOST_BYTES).decode())
    except (OSError, RuntimeError, UnicodeDecodeError, configparser.Error) as error:
        raise DatabaseURLError(f"cannot read the option file {path}: {one_line(str(error))}") from error
    if not parser.has_section(group):
        raise DatabaseURLError(f"the option file {path} has no group [{group}]; name one with default_group")
    options = parser.options(group)
    if unknown := sorted(option for option in options if option.startswith(("ssl", "tls")) and option not in _HONOURED):
        raise DatabaseURLError(f"the option file {path} sets {unknown[0]}, which jq cannot honour; remove it there")
