"""``solidjq link-jq``: the short name, where no other program has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from solidjq_cli import options
from solidjq_cli.render import note


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("link-jq")(link_jq)


def link_jq(
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Where to put the link.  [default: beside solidjq]"),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the link.")] = False,
    yes: options.YesOption = False,
) -> None:
    """Make the short name, jq, a link to solidjq.

    A program that has this name is never replaced.

    Filters such as jq '.[0]' go on to the JSON processor, which is the next jq on PATH.

    \b
    Examples:
      solidjq link-jq
      solidjq link-jq --folder ~/bin --yes
      solidjq link-jq --remove
    """
    from solidjq_cli import other_jq

    program = Path(other_jq.here())
    link = (folder or program.parent).absolute() / "jq"
    if remove:
        _remove(link)
    elif link.exists() and other_jq.is_ours(str(link)):
        note(f"{link} is this program already; nothing was changed")
    else:
        _make(link, program, yes=yes)


def _is_link_to_us(link: Path) -> bool:
    """Return whether this is a link that this command made, even if it leads nowhere by now."""
    return link.is_symlink() and link.readlink().name == "solidjq"


def _remove(link: Path) -> None:
    from solidjq.errors import RefusedError

    if _is_link_to_us(link):
        link.unlink()
        note(f"removed {link}")
    elif os.path.lexists(link):
        raise RefusedError(f"{link} is not a link to solidjq; nothing was removed")
    else:
        note(f"there is no {link}; nothing was changed")


def _make(link: Path, program: Path, *, yes: bool) -> None:
    from solidjq.errors import RefusedError, UsageError
    from solidjq_cli import moving, other_jq

    taken = f"{link} is another program, and stays; link it elsewhere: solidjq link-jq --folder DIR"
    if os.path.lexists(link) and not _is_link_to_us(link):
        raise RefusedError(taken)
    if not (program.exists() and link.parent.is_dir()):
        raise UsageError(f"there is no {link.parent if program.exists() else program}")
    if not yes:
        if not moving.on_a_terminal():
            raise RefusedError(f"to link {link} to {program}, add --yes; nothing was changed")
        moving.confirm(f"link {link} to {program}?", place="")
    if _is_link_to_us(link):
        link.unlink()
    try:
        link.symlink_to("solidjq" if link.parent == program.parent else program)
    except FileExistsError:  # made since
        raise RefusedError(taken) from None
    except OSError as error:
        raise UsageError(f"cannot link {link}: {error.strerror}") from None
    note(f"linked {link} to {program}")
    first = next(other_jq.programs("jq", os.get_exec_path()), None)
    if first is None or not other_jq.is_ours(first):
        note(f"the jq of your PATH is {first or 'none'}: put {link.parent} first in PATH")
