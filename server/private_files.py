"""Files that hold secrets: who may read them, and how they are made and replaced whole."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def read_private(path: Path) -> bytes:
    """Return the content of a file that only its owner may read, the owner being this user or root.

    Raises:
        ValueError: One line: what is wrong with its kind, its mode or its owner, and what to do.
        OSError: It cannot be read; FileNotFoundError if there is none.
    """
    # What is judged is what was opened, not what has that name a moment later. A FIFO must not block here.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_private(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def create_private(path: Path, text: str) -> None:
    """Write a new file that only its owner may read, whole or not at all.

    Raises:
        FileExistsError: There is one; it was not changed.
    """
    with _temporary_beside(path, text) as temporary:
        # A link, unlike a rename, fails if another process was faster, and the name never shows half a file.
        os.link(temporary, path)
    _sync_directory(path)


def replace_private(path: Path, text: str) -> None:
    """Replace the file by one that only its owner may read, in one step.

    Of a symbolic link, what it points to is replaced. The time of change is later than the one before, so
    that whoever looks at it misses no replacement. Root leaves the file to the user it belonged to.
    """
    target = Path(os.path.realpath(path))
    with _temporary_beside(target, text, succeeds=target) as temporary:
        os.replace(temporary, target)
    _sync_directory(target)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one at a time, of all processes, change the file at *path*; its directory is made if missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A file of its own: the other one is replaced, and with it a lock on it.
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def describe(error: OSError | ValueError) -> str:
    """Return one line about *error* for a person: the file, then the reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split())


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a file")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ValueError(f"{path} may be read by others: chmod 600 {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise ValueError(f"{path} belongs to another user: run this as uid {status.st_uid}, or chown it")


@contextmanager
def _temporary_beside(path: Path, text: str, *, succeeds: Path | None = None) -> Iterator[str]:
    """Write *text* to a file in the directory of *path* that is gone afterwards, unless it was renamed."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp opens with O_EXCL and mode 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if succeeds is not None:
                _succeed(succeeds, file.fileno())
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _succeed(path: Path, descriptor: int) -> None:
    """Give the new file the owner of the one at *path*, if there is one, and a later time of change."""
    try:
        old, new = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return
    if os.geteuid() == 0 and old.st_uid != new.st_uid:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    # The kernel's clock ticks a few hundred times a second, and the number of a deleted file is used again.
    if new.st_mtime_ns <= old.st_mtime_ns:
        os.utime(descriptor, ns=(new.st_atime_ns, old.st_mtime_ns + 1))


def _sync_directory(path: Path) -> None:
    """Make the new name itself survive a power cut."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
