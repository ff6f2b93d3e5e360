"""The program ``jq``."""

import gc
import os
import sys
from pathlib import Path

from solidjq_cli import exits


def program_name() -> str:
    """Return the name this program was called by, however it was started."""
    called = Path(sys.argv[0]).name
    return called if called in {"jq", "solidjq"} else "jq"


def main() -> int:
    """Run the command line; return its exit code."""
    # Imports and big results make many objects and next to no garbage: looked for this rarely, it costs a tenth less.
    gc.set_threshold(50_000, 20, 20)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # text that the terminal's encoding lacks must not end in a stack trace
            reconfigure(errors="backslashreplace")
    from solidjq_cli.app import app  # noqa: PLC0415  (after the streams are safe)

    try:
        for argument in sys.argv:
            argument.encode()
    except UnicodeEncodeError:
        exits.say("the command line is not UTF-8 text")
        return exits.Exit.USAGE
    try:
        app(prog_name=program_name())
    except KeyboardInterrupt:
        return exits.Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001  (the ladder ends here)
        # What could not be written is lost; Python must not try again at exit, and say so on three more lines.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return exits.report(error)
    return exits.Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
