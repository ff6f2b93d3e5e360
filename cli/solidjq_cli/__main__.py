"""The program ``jq``."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from pathlib import Path

from solidjq_cli import arguments, exits
from solidjq_cli.command_list import COMMANDS


def call_of_another() -> str | None:
    """Become the JSON processor, which is called ``jq`` too, if this call is meant for it.

    Return None if the call is ours, else why it could not be passed on, in words.
    """
    if Path(sys.argv[0]).name != "jq" or COMMANDS.keys() & sys.argv[1:2]:
        return None
    from solidjq_cli import other_jq  # noqa: PLC0415  (costs our own commands nothing)

    return other_jq.pass_on_if_meant()


def main() -> int:
    """Run the command line and seal what it has recorded; return its exit code."""
    code = _run()
    # Whoever could not reach the database would only wait for it again.
    if code != exits.Exit.DATABASE:
        _seal(interrupted=code == exits.Exit.INTERRUPTED)
    return code


def _seal(*, interrupted: bool) -> None:
    from solidjq_cli import session  # noqa: PLC0415  (the command has loaded it)

    try:
        session.seal(interrupted=interrupted)
    except KeyboardInterrupt:  # a later command seals it
        return
    except Exception as error:  # noqa: BLE001  (what was done is done, and its exit code says so)
        exits.report(error)


def _collect_sooner(phase: str, _collected: object) -> None:
    if phase == "stop":
        gc.callbacks.remove(_collect_sooner)
        gc.set_threshold(20_000, 20, 20)


def _run() -> int:
    # Imports make many objects and no garbage: a short command, of up to 130,000 objects, never collects. A long one
    # does, and then soon again: its batches leave a thousand objects each in cycles.
    gc.set_threshold(130_000, 20, 20)
    gc.callbacks.append(_collect_sooner)
    # Where one was closed (>&-), what is written goes nowhere, and no file that is opened takes its place.
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # text that the terminal's encoding lacks must not end in a stack trace
            reconfigure(errors="backslashreplace")
    arguments.hide_passwords()
    try:
        for argument in sys.argv:
            argument.encode()
    except UnicodeEncodeError:
        exits.say("the command line is not UTF-8 text")
        return exits.Exit.USAGE
    try:
        from solidjq_cli.app import app  # noqa: PLC0415  (after the streams are safe; a signal may arrive meanwhile)

        app(prog_name=arguments.program_name())
    except SystemExit as leaving:
        if not isinstance(leaving.code, int):  # text, which Python prints
            raise
        if isinstance(leaving.__context__, BrokenPipeError):  # in a help text, which no command printed
            exits.drop_output()
            return exits.Exit.UNREAD
        return leaving.code
    except KeyboardInterrupt:
        return exits.Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001  (the ladder ends here)
        # What could not be written is lost. Else Python would try again at exit, and print three more lines about it.
        exits.drop_output()
        from solidjq_cli import session  # noqa: PLC0415  (app has loaded it by now)

        return exits.report(error, session.source())
    return exits.Exit.DONE


def program() -> int:
    """Run the command line, then end the process without freeing every module; the entry point of ``jq``."""
    status: int | None = None

    def leave() -> None:
        """End at once: Python would free every module's objects one by one, a tenth of a short command's time.

        Registered first, so it runs last: threads have ended, and every other exit handler has run.
        """
        if status is None or "solidjq.registry" in sys.modules:  # with jobs loaded, whose files may still be open
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):  # Python will meet it too, and report it
            return
        os._exit(status)

    atexit.register(leave)
    if reason := call_of_another():
        exits.say(reason)
        return exits.Exit.USAGE
    exits.raise_when_stopped()
    code = main()
    from solidjq_cli import session  # noqa: PLC0415  (main has loaded it by now)

    session.close()
    status = code
    return code


if __name__ == "__main__":
    sys.exit(program())
