"""The faults of SQLite that are known, and the errors of `sqlite3` in the terms of the contract."""

from __future__ import annotations

import errno
import sqlite3

from stormcellar.stores.errors import Problem, StoreFull, StoreRefused, StoreUnavailable

DRIVER_ERRORS = (sqlite3.Error, OSError)
"""What a call can raise: errors of SQLite and of the system, time-outs included."""

NO_SPACE = Problem("there is no space left for the SQLite file", "make room on its disk, or raise the quota")
LOCKED = Problem(
    "another program holds the lock of the SQLite file",
    "find it with `fuser` and end it, or wait until it is ready",
)
DAMAGED = Problem("the SQLite file is damaged", "stop the server, and restore a backup or move the file away")
FOREIGN = Problem("the SQLite file belongs to another program", "name another file in the URL")
NO_DATABASE = Problem("the file of the store is not an SQLite database", "name another file in the URL")
NEWER = Problem(
    "a newer version of this program has written the SQLite file", "use that version, or name another file"
)
NO_WAL = Problem(
    "the file system of the SQLite file has no shared memory for its write-ahead log",
    "keep the file on a local disk",
)
READ_ONLY = Problem(
    "the SQLite file is read-only for this user",
    "change the owner or mode of the file and its directory, or mount it for writing",
)
NO_DIRECTORY = Problem(
    "the directory of the SQLite file does not exist", "create it, or correct the path in the URL"
)
CANNOT_OPEN = Problem(
    "the SQLite file cannot be opened", "check that this user may write to it and to its directory"
)
SLOW = Problem("the disk of the SQLite file does not answer in time", "check the disk and its load")
DISK = Problem("the disk of the SQLite file reports an error", "check the disk and the log of the system")

_REFUSED = {
    "SQLITE_READONLY": READ_ONLY,
    "SQLITE_PERM": READ_ONLY,
    "SQLITE_CANTOPEN": CANNOT_OPEN,
    "SQLITE_CORRUPT": DAMAGED,
    "SQLITE_NOTADB": NO_DATABASE,
}
_UNAVAILABLE = {"SQLITE_BUSY": LOCKED, "SQLITE_LOCKED": LOCKED, "SQLITE_IOERR": DISK}
_REFUSED_BY_THE_SYSTEM = {
    errno.ENOENT: NO_DIRECTORY,
    errno.ENOTDIR: NO_DIRECTORY,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.EROFS: READ_ONLY,
}


def code_of(exc: BaseException) -> str:
    """Return the name of SQLite's primary error code, such as `SQLITE_BUSY`; empty if *exc* has none."""
    # https://www.sqlite.org/rescode.html: an extended code begins with the name of its primary one.
    return "_".join(getattr(exc, "sqlite_errorname", "").split("_")[:2])


def is_full(exc: BaseException) -> bool:
    """Return whether *exc* reports that there is no space."""
    is_of_system = isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)
    return is_of_system or code_of(exc) == "SQLITE_FULL"


def store_error(operation: str, exc: BaseException) -> StoreUnavailable:
    """Return the error that a store raises for *exc*. Its message is the operation alone."""
    if is_full(exc):
        return StoreFull(operation, NO_SPACE)
    if isinstance(exc, TimeoutError):
        return StoreUnavailable(operation, SLOW)
    refused = _REFUSED.get(code_of(exc))
    if isinstance(exc, OSError):
        refused = _REFUSED_BY_THE_SYSTEM.get(exc.errno or 0, CANNOT_OPEN)
    if refused is not None:
        return StoreRefused(operation, refused)
    return StoreUnavailable(operation, _UNAVAILABLE.get(code_of(exc)))
