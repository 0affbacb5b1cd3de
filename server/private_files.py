"""Files that hold secrets: checked permissions, atomic creation and replacement, locks."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def read_private(path: Path) -> bytes:
    """Return the content of a file that only its owner can read; the owner must be this user or root.

    Raises:
        ValueError: One line: what is wrong with its type, mode or owner, and what to do.
        OSError: The file cannot be read; FileNotFoundError if it is missing.
    """
    # Check the opened file, not the path, which can change in between. O_NONBLOCK: a FIFO must not block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_private(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def create_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, in one step.

    Raises:
        FileExistsError: The file exists; it was not changed.
    """
    with _temporary_file(path, text) as temporary:
        # A link, unlike a rename, fails if another process was faster.
        os.link(temporary, path)
    _sync_directory(path)


def replace_private(path: Path, text: str) -> None:
    """Replace the file by one that only its owner can read, in one step.

    Follows a symbolic link. The new modification time is later than the old one, so that every replacement is
    visible in it. If root replaces the file, its owner stays the same.
    """
    target = Path(os.path.realpath(path))
    with _temporary_file(target, text, replaces=target) as temporary:
        os.replace(temporary, target)
    _sync_directory(target)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for changing the file at *path*, across processes. Creates a missing directory."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A separate file: a lock on the file itself would be lost when the file is replaced.
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def describe(error: OSError | ValueError) -> str:
    """Return *error* in one line for an operator: the file, then the reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split())


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ValueError(f"{path} is accessible to other users: chmod 600 {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise ValueError(f"{path} belongs to another user: run this as uid {status.st_uid}, or chown it")


@contextmanager
def _temporary_file(path: Path, text: str, *, replaces: Path | None = None) -> Iterator[str]:
    """Write *text* to a temporary file beside *path*; delete it at the end unless renamed."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp opens with O_EXCL and mode 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if replaces is not None:
                _copy_owner_and_time(replaces, file.fileno())
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _copy_owner_and_time(path: Path, descriptor: int) -> None:
    """Give the new file the owner of the one at *path*, if that exists, and a later modification time."""
    try:
        old, new = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return
    if os.geteuid() == 0 and old.st_uid != new.st_uid:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    # The kernel's clock ticks only a few hundred times a second, and inode numbers are reused.
    if new.st_mtime_ns <= old.st_mtime_ns:
        os.utime(descriptor, ns=(new.st_atime_ns, old.st_mtime_ns + 1))


def _sync_directory(path: Path) -> None:
    """Make the new directory entry survive a power failure."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
