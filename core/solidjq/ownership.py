"""Who else may change a file, by its owner, its folders and the links to it; ssh and git make the same checks."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path

MOST_LINKS = 40  # as Linux follows at most
_ROOT = 0


def weakness(path: Path, *, user: int | None = None, temporary: bool = False) -> str | None:
    """Return in words who besides ``user`` and root may change this file; None if nobody may.

    ``user`` is by default the process's effective user: under sudo that is root, and a file of the user who called sudo
    is another's. The file, each folder above it, and each link on the way with its folders must belong to this user or
    root, and be writable by no group and no others. A user's own group, with no other member, counts as that user. A
    folder in which everybody may write, but nobody may replace the files of others (/tmp), may stand above the file's
    own folder; with ``temporary`` it may be the file's own folder, too. A file that cannot be examined counts as weak.
    """
    user = os.geteuid() if user is None else user
    try:
        for place, direct in _places(path):
            if problem := _problem(place, direct=direct and not temporary, user=user):
                return problem
    except OSError as error:
        return f"it cannot be examined: {error.strerror}"
    return None


def _places(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the file and every link and folder on the way to it, each with its kind."""
    pending = [*reversed(path.absolute().parts)]
    here, links = Path(pending[-1]), 0
    while pending:
        part = pending.pop()
        here = here.parent if part == ".." else here / part
        if here.is_symlink():
            links += 1
            if links > MOST_LINKS:
                raise OSError(0, "too many links")
            yield here.parent, True
            yield here, True
            target = here.readlink()
            pending += reversed(target.parts)
            here = here.parent
        else:
            yield here, len(pending) <= 1


def _problem(place: Path, *, direct: bool, user: int) -> str | None:
    found = place.lstat()
    kind = "the folder" if stat.S_ISDIR(found.st_mode) else "the link" if stat.S_ISLNK(found.st_mode) else "the file"
    if found.st_uid not in {user, _ROOT}:
        return f"{kind} {place} belongs to {user_name(found.st_uid)}"
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if stat.S_ISLNK(found.st_mode) or (sticky and not direct):
        return None
    if found.st_mode & stat.S_IWOTH:
        return f"everybody may write {kind} {place}"
    if found.st_mode & stat.S_IWGRP and _has_access_list(place):  # the bit is the list's mask then
        return f"the access control list of {kind} {place} lets others write"
    if found.st_mode & stat.S_IWGRP and not _is_private(found.st_gid, found.st_uid):
        return f"group {_group_name(found.st_gid)} may write {kind} {place}"
    return None


def _has_access_list(place: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except (OSError, AttributeError):  # a file system or an operating system without them
        return False


@cache
def _is_private(group: int, owner: int) -> bool:
    """Whether only the owner is in a group: many systems give each user a group, and make files that it may write.

    It has the user's name: of other groups, a directory service need not list every member.
    """
    try:
        entry, name = grp.getgrgid(group), pwd.getpwuid(owner).pw_name
    except KeyError:
        return False
    members = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == group or user.pw_name in entry.gr_mem}
    return entry.gr_name == name and members == {owner}


def user_name(user: int) -> str:
    """Return the name of a user, or ``user 1000`` for an id without one."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _group_name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
