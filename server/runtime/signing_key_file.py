"""The secret file: signing keys, one a line, the first of which signs."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from stormcellar.private_files import create_private, read_private
from stormcellar.sessions.signing import KeyRing

log = logging.getLogger("stormcellar.keys")

_HEADER = "# Signing keys, one a line: the first signs, all verify. Whoever has one can forge sessions.\n"
_ADVICE = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
# Of 32 random hex digits, the least varied of keys, less than one in a million has fewer than this.
_MIN_VARIETY = 8
# Each long enough that no random key of 64 characters holds one by chance (below 1 in 10 million).
_PLACEHOLDERS = (
    *("changeme", "change-me", "change_me", "secret", "password", "example", "insert", "replace"),
    *("generate", "your_own", "your-own", "random"),
    # Keys that tutorials on Tornado print and that countless repositories have copied.
    *("oetzkxqagaydkl5gemgejjfuyh7eqnp2xdtp1o/vo=", "bzjc2swbqlkos6gkhn/vb9oxwqt8s0r0krvj5/xj89e="),
)


def load_keys(path: Path) -> list[str]:
    """Return the signing keys of the file at *path*, which is made with a random one if it is missing.

    Raises:
        ValueError: One line: others may read the file, it holds no key, or one that is weak.
        OSError: The file cannot be read or made.
    """
    try:
        return read_keys(path)
    except FileNotFoundError:
        # If another process was faster, its key is ours.
        with suppress(FileExistsError):
            create_private(path, _HEADER + new_key() + "\n")
            log.info("made a signing key: %s", path)
        return read_keys(path)


def read_keys(path: Path) -> list[str]:
    """Return the signing keys of the file at *path*, and make none.

    Raises:
        ValueError, OSError: See `load_keys`; FileNotFoundError if there is no such file.
    """
    keys = [line for line in map(str.strip, read_lines(path)) if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f"{path} holds no signing key; remove it to have one made")
    for number, key in enumerate(keys, 1):
        _require_strong(key, f"key {number} in {path}")
    try:
        KeyRing(keys)
    except ValueError as exc:
        raise ValueError(f"{path}: {exc}") from None
    return keys


def read_lines(path: Path) -> list[str]:
    """Return the lines of the file at *path*, keys or not; for errors see `load_keys`."""
    try:
        return read_private(path).decode().splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; {_ADVICE}") from None


def new_key() -> str:
    """Return a new random signing key."""
    return secrets.token_urlsafe(48)


def version(key: str) -> str:
    """Return what names *key* in cookies and to people, 4 hex digits, and tells nothing about it."""
    return f"{KeyRing([key]).first:04x}"


def _require_strong(key: str, where: str) -> None:
    if len(key.encode()) < 32:
        raise ValueError(f"{where} is shorter than 32 bytes; {_ADVICE}")
    if not _looks_random(key) or any(word in key.lower() for word in _PLACEHOLDERS):
        raise ValueError(f"{where} is not random; {_ADVICE}")


def _looks_random(key: str) -> bool:
    """Whether *key* is neither a few characters, nor one piece over and over, nor a run such as abcdef."""
    is_repetition = key in (key + key)[1:-1]
    steps = Counter(ord(after) - ord(before) for before, after in pairwise(key))
    is_run = max(steps.values()) > len(key) / 3
    return len(set(key)) >= _MIN_VARIETY and not is_repetition and not is_run
