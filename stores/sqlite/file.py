"""The file of the database: its path in the URL, its checks, and the opening of a connection."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from stormcellar.stores.errors import Problem, StoreRefused
from stormcellar.stores.sqlite.errors import NO_DIRECTORY, READ_ONLY
from stormcellar.stores.sqlite.schema import prepare

Identity = tuple[int, int]

NO_FILE = Problem("what the store URL names is not a regular file", "name another file in the URL")
SECOND_NAME = Problem(
    "the SQLite file has a second name, a hard link; through both at once it would be damaged",
    "remove one of them",
)
REPLACED = Problem(
    "the SQLite file was removed or replaced, and the write-ahead log of the old one is still there",
    "stop all servers that use it, remove the files that end in -wal and -shm, and start the servers again",
)


def path_in(url: str) -> Path:
    """Return the absolute path of the file in `sqlite:PATH`, `sqlite:///PATH` or `sqlite:////PATH`.

    With three slashes the path is relative, as in SQLAlchemy; with four it is absolute.

    Raises:
        ValueError: One line: what is wrong with the URL. It repeats no part of it.
    """
    path = url.partition(":")[2]
    if path.startswith("//"):
        host, slash, path = path[2:].partition("/")
        if host or not slash:
            raise ValueError("an SQLite URL has no host: write sqlite:PATH, or sqlite:////PATH")
    if "?" in path:
        raise ValueError("an SQLite URL has no parameters: what follows its `?` is not supported")
    if path == ":memory:":
        raise ValueError("for sessions in memory use the store 'memory:'")
    if not path or "\0" in path or path.endswith("/"):
        raise ValueError("an SQLite URL needs the path of a file, such as sqlite:sessions.db")
    return Path(os.path.abspath(path))


class DatabaseFile:
    """The file at a path. It is used by two threads, and knows which file was at the path before.

    A write-ahead log belongs to one file. SQLite would take it for the log of whatever file stands beside it,
    and so damage a file that was put in the place of the one in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opening = Lock()
        # The file that was opened last, and its log.
        self._opened: tuple[Identity | None, Identity | None] = (None, None)

    def connect(self, *, wait_s: float) -> tuple[sqlite3.Connection, Identity | None]:
        """Open a connection for the present thread. Creates the file, and the tables in it.

        Args:
            wait_s: How long this and each later statement waits for the locks of other programs.

        Returns:
            The connection, and which file it uses.

        Raises:
            StoreRefused: The file, its mode, its log or its content is not suitable.
        """
        with self._opening:
            # SQLite puts the log beside the file itself, not beside a link to it.
            self._path = Path(os.path.realpath(self._path))
            self.require_own_log()
            self._check()
            db = self._connected(wait_s)
            self._opened = self.identity(), _identity(self._log)
            return db, self._opened[0]

    def identity(self) -> Identity | None:
        """Return which file is at the path at present; None if there is none."""
        return _identity(self._path)

    def require_own_log(self) -> None:
        """Raise StoreRefused if the file is another one than before, and the log still that of the other."""
        file, log = self._opened
        if log is not None and self.identity() != file and _identity(self._log) == log:
            raise StoreRefused("open", REPLACED)

    @property
    def _log(self) -> Path:
        return self._path.with_name(f"{self._path.name}-wal")

    def _connected(self, wait_s: float) -> sqlite3.Connection:
        # With `rw` SQLite itself creates no file: its mode would follow the umask.
        uri = f"file:{quote(str(self._path))}?mode=rw"
        db = sqlite3.connect(uri, uri=True, timeout=wait_s, isolation_level=None)
        try:
            # What was answered must survive a power failure: each commit waits for the disk.
            db.execute("PRAGMA synchronous = FULL")
            db.text_factory = _text
            prepare(db, until_s=time.monotonic() + wait_s)
            db.execute("SELECT 1 FROM sessions").fetchone()  # opens the log
        except BaseException:
            db.close()
            raise
        return db

    def _check(self) -> None:
        # Only by path: if this process opened and closed the file, all locks of SQLite on it would end.
        # https://www.sqlite.org/howtocorrupt.html, 2.2
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            self._create()
            return
        if not stat.S_ISREG(status.st_mode):
            raise StoreRefused("open", NO_FILE)
        if status.st_nlink > 1:
            raise StoreRefused("open", SECOND_NAME)
        if status.st_mode & 0o007:
            # A group may have rights: Kubernetes gives them to that of `fsGroup` at each mount.
            what = f"the SQLite file {self._path} is accessible to other users"
            raise StoreRefused("open", Problem(what, f"chmod o= {self._path}"))
        if not os.access(self._path, os.R_OK | os.W_OK):
            raise StoreRefused("open", READ_ONLY)

    def _create(self) -> None:
        """Create an empty file that only its owner can read. If root does, its directory's owner gets it."""
        if not self._path.parent.is_dir():
            raise StoreRefused("open", NO_DIRECTORY)
        if _identity(self._log) is not None:
            raise StoreRefused("open", REPLACED)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return  # another process was faster
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            if os.geteuid() == 0:
                directory = os.stat(self._path.parent)
                os.fchown(descriptor, directory.st_uid, directory.st_gid)
        finally:
            os.close(descriptor)


def _identity(path: Path) -> Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _text(raw: bytes) -> str | bytes:
    """Return *raw* as text; as it is if it is none, so that its row alone does not parse."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
