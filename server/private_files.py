"""Files that hold secrets: checked permissions, atomic creation and replacement, locks."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_WAIT_S = 5.0
_RETRY_S = 0.02


class LockHeld(OSError):
    """Another process kept the lock for all of the time. Nothing was changed."""

    def __init__(self, lock: Path) -> None:
        advice = f"try again, or find the process with: fuser {lock}"
        super().__init__(errno.EWOULDBLOCK, f"another process holds the lock; {advice}", str(lock))


def read_private(path: Path) -> bytes:
    """Return the content of a file that others cannot read. The owner must be this user or root.

    A group of this process may read it too, as in secrets that are mounted: `root:GROUP 0440` in Kubernetes,
    `root:ssl-cert 0640` in Debian.

    Raises:
        ValueError: One line: what is wrong with its type, mode or owner, and what to do.
        OSError: The file cannot be read; FileNotFoundError if it is missing.
    """
    try:
        with _opened(path, os.O_RDONLY) as descriptor:
            status = os.fstat(descriptor)
            _require_regular(path, status)
            _require_private(path, status)
            return _content(descriptor)
    except PermissionError:
        _require_readable(path)
        raise


def read_regular(path: Path) -> bytes:
    """Return the content of a file that may be public. Raises as `read_private`, but not for the mode."""
    with _opened(path, os.O_RDONLY) as descriptor:
        _require_regular(path, os.fstat(descriptor))
        return _content(descriptor)


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
def locked(path: Path, *, until_s: float | None = None) -> Iterator[None]:
    """Hold the lock for changing the file at *path*, across processes. Creates a missing directory.

    The lock file has mode 0600 in every directory: each user who can open it can hold the lock.

    Args:
        until_s: When to give up, by `time.monotonic`; None: after `LOCK_WAIT_S`. One attempt is always made.

    Raises:
        LockHeld: Another process holds the lock.
        ValueError: One line: the lock file is not a file of this user or root.
        OSError: The lock file cannot be opened.
    """
    until_s = time.monotonic() + LOCK_WAIT_S if until_s is None else until_s
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A separate file: a lock on the file itself would be lost when the file is replaced.
    lock = path.with_name(f".{path.name}.lock")
    _create_lock_file(lock)
    # For writing: NFS grants an exclusive lock for nothing else.
    with _opened(lock, os.O_RDWR | os.O_NOFOLLOW) as descriptor:
        _make_private(lock, descriptor)
        # Not a blocking call: no signal and no time-out would end it in a thread.
        while not _is_locked(descriptor):
            if time.monotonic() >= until_s:
                raise LockHeld(lock)
            time.sleep(_RETRY_S)
        yield


def _create_lock_file(lock: Path) -> None:
    """Create the lock file if it is missing. If root does, it belongs to the owner of the directory."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, 0o600)
        if os.geteuid() == 0:
            directory = os.stat(lock.parent)
            os.fchown(descriptor, directory.st_uid, directory.st_gid)
    finally:
        os.close(descriptor)


def _make_private(lock: Path, descriptor: int) -> None:
    """Give the lock file mode 0600. It must be a regular file with one name, and not of a stranger."""
    status = os.fstat(descriptor)
    _require_regular(lock, status)
    if status.st_nlink != 1:
        raise ValueError(f"{lock} has a second name, a hard link; remove it")
    # The owner of the directory can replace the file in any case.
    _require_owner(lock, status, 0, os.geteuid(), os.stat(lock.parent).st_uid)
    if stat.S_IMODE(status.st_mode) != 0o600:
        os.fchmod(descriptor, 0o600)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def describe(error: OSError | ValueError) -> str:
    """Return *error* in one line for an operator: the file or directory, if it exists, then the reason.

    A name that does not exist is not repeated: it may be a secret in the wrong place.
    """
    if not isinstance(error, OSError) or error.strerror is None:
        return " ".join(str(error).split())
    found = None if error.filename is None else _existing(Path(os.fsdecode(error.filename)), error)
    return f"{found}: {error.strerror}" if found else error.strerror


def _existing(path: Path, error: OSError) -> Path | None:
    """Return *path* if it exists; if a directory above it caused *error*, return that directory."""
    if os.path.lexists(path):
        return path
    if error.errno not in (errno.ENOTDIR, errno.EACCES):
        return None
    return next((each for each in path.parents if os.path.lexists(each)), None)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open the file. Check the descriptor, not the path, which can change in between."""
    try:
        # O_NONBLOCK: a FIFO must not block.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise ValueError(f"{path} is a symbolic link; remove it") from exc
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file")


def _require_private(path: Path, status: os.stat_result) -> None:
    """Allow nobody else, except for reading by a group of this process: so secrets are mounted."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o037:
        raise ValueError(f"{path} is accessible to other users: {_advice(path, status)}")
    if mode & 0o040 and not _in_group_of(status):
        advice = f"add its user to this group, or in Kubernetes set fsGroup to it; else chmod g= {path}"
        raise ValueError(f"{path} is readable by group {status.st_gid}, which the server is not in: {advice}")
    _require_owner(path, status, 0, os.geteuid())


def _require_readable(path: Path) -> None:
    """Raise ValueError if the owner, the group or the mode of a file that cannot be opened is the reason."""
    try:
        status = os.stat(path)
    except OSError:
        return  # a directory above it may not be entered
    _require_regular(path, status)
    _require_private(path, status)
    right = 0o400 if status.st_uid == os.geteuid() else 0o040
    if not status.st_mode & right:
        raise ValueError(f"{path} is not readable by this user: {_advice(path, status)}")


def _advice(path: Path, status: os.stat_result) -> str:
    """Return how to give the file the mode that it needs."""
    # The owner of a mounted file is root, and on a read-only mount not even root can change its mode.
    is_mounted = status.st_uid == 0 != os.geteuid() or os.statvfs(path).f_flag & os.ST_RDONLY
    if not is_mounted:
        return f"chmod 600 {path}"
    if os.geteuid() == 0:
        return "mount it with mode 0400; in Kubernetes set defaultMode: 0400"
    return "give it mode 0440 and a group of the server; in Kubernetes set defaultMode: 0440 and fsGroup"


def _in_group_of(status: os.stat_result) -> bool:
    return status.st_gid in (os.getegid(), *os.getgroups())


def _require_owner(path: Path, status: os.stat_result, *owners: int) -> None:
    if status.st_uid not in owners:
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
