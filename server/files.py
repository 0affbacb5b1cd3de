"""Files that hold secrets: who may read them, and how they are replaced whole."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def require_private(path: Path) -> None:
    """Raise ValueError unless only its owner may read *path*, and the owner is this user or root."""
    status = path.stat()
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ValueError(f"{path} may be read by others: chmod 600 {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise ValueError(f"{path} belongs to another user (uid {status.st_uid})")


def create_private(path: Path, text: str) -> None:
    """Write a new file that only its owner may read, whole or not at all.

    Raises:
        FileExistsError: There is one; it was not changed.
    """
    temporary = _write_temporary(path, text)
    try:
        # A link, unlike a rename, fails if another process was faster, and the name never shows half a file.
        os.link(temporary, path)
    finally:
        os.unlink(temporary)


def replace_private(path: Path, text: str) -> None:
    """Replace the file by one that only its owner may read, in one step."""
    temporary = _write_temporary(path, text)
    try:
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _write_temporary(path: Path, text: str) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp opens with O_EXCL and mode 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return temporary
