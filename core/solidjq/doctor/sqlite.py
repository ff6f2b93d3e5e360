"""Checks of an SQLite file."""

import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from solidjq.doctor.checks import MANY_BYTES, DoctorFinding, DoctorTerms, Severity

NETWORKED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "glusterfs", "ceph", "fuse.s3fs"})


def _pragma(connection: Connection, name: str) -> Any:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def _file(connection: Connection) -> Path:
    """Return the main database's file."""
    return Path(next(str(row[2]) for row in connection.exec_driver_sql("PRAGMA database_list") if row[1] == "main"))


def find_journal(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find a journal mode other than WAL."""
    mode = str(_pragma(connection, "journal_mode"))
    if mode in {"off", "memory"}:
        yield DoctorFinding(
            f"the journal mode is {mode}: a process that dies during a write can destroy the database",
            f"sqlite3 {_file(connection)} 'PRAGMA journal_mode = WAL'",
        )
    elif mode != "wal":
        yield DoctorFinding(
            f"the journal mode is {mode}: readers and writers block each other, and workers find the database busy",
            f"sqlite3 {_file(connection)} 'PRAGMA journal_mode = WAL'",
            Severity.WARNING,
        )


def find_file_system(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find a file on a network file system."""
    path = _file(connection).resolve()
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    kind = file_system(path, mounts)
    if kind in NETWORKED:
        yield DoctorFinding(
            f"{path} is on a network file system ({kind}): its locks do not work, and the database gets damaged",
            "move it to a local disk, or use a database server",
        )


def find_access(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find a file that every user of this host may read or write."""
    path = _file(connection).resolve()
    if not all(_mode(folder) & stat.S_IXOTH for folder in path.parents):  # others cannot get to it
        return
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))]
    for rights, verb, why, severity in (
        (stat.S_IWOTH, "write", "they can enqueue jobs that your workers run", Severity.ERROR),
        (stat.S_IROTH, "read", "the arguments of jobs are in it", Severity.WARNING),
    ):
        if open_files := [file for file in files if _mode(file) & rights]:
            names = " ".join(map(shlex.quote, map(str, open_files)))
            yield DoctorFinding(
                f"every user of this host may {verb} {open_files[0]}: {why}", f"chmod o-rwx {names}", severity
            )
            return


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def file_system(path: Path, mounts: list[str]) -> str | None:
    """Return the type of the file system that contains a path, from the lines of /proc/mounts."""
    depth, kind = -1, None
    for line in mounts:
        parts = line.split(" ")
        if len(parts) > 2:  # noqa: PLR2004
            point = Path(parts[1].replace("\\040", " "))
            if path.is_relative_to(point) and len(point.parts) >= depth:
                depth, kind = len(point.parts), parts[2]
    return kind


def find_integrity(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find damage of the file."""
    problems = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(5)")]
    if problems != ["ok"]:
        yield DoctorFinding(
            f"the file is damaged: {'; '.join(problems)}",
            "stop all programs, keep a copy of the file, its -wal and -shm, and recover what can be read: "
            f"sqlite3 {_file(connection)} .recover",
        )


def find_bloat(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find a file with more free space than data, and a write-ahead log that has grown large."""
    free, pages, size = (int(_pragma(connection, name)) for name in ("freelist_count", "page_count", "page_size"))
    if free * size > MANY_BYTES and free * 2 > pages:
        yield DoctorFinding(
            f"{free * size // 2**20} MB of the file's {pages * size // 2**20} MB are free space",
            f"sqlite3 {_file(connection)} VACUUM, at a quiet hour: it blocks every writer",
            Severity.NOTE,
        )
    log = _file(connection).with_name(_file(connection).name + "-wal")
    if log.exists() and log.stat().st_size > MANY_BYTES:
        yield DoctorFinding(
            f"the write-ahead log has grown to {log.stat().st_size // 2**20} MB: a long read transaction keeps it",
            "end the program that holds the transaction (find it with lsof); then PRAGMA wal_checkpoint(TRUNCATE)",
            Severity.WARNING,
        )
