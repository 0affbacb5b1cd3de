"""The secret file: signing keys, one per line. The first signs, all verify."""

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

_HEADER = "# Signing keys, one per line: the first signs, all verify. With a key, sessions can be forged.\n"
_ADVICE = "create one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
# Distinct characters. Fewer than one in a million keys of 32 random hex digits, the least varied, have fewer.
_MIN_VARIETY = 8
# Each is long enough that a random key of 64 characters contains it with a chance below 1 in 10 million.
_PLACEHOLDERS = (
    *("changeme", "change-me", "change_me", "secret", "password", "example", "insert", "replace"),
    *("generate", "your_own", "your-own", "random"),
    # Keys that are printed in Tornado tutorials and copied into many repositories.
    *("oetzkxqagaydkl5gemgejjfuyh7eqnp2xdtp1o/vo=", "bzjc2swbqlkos6gkhn/vb9oxwqt8s0r0krvj5/xj89e="),
)


def read_or_create_keys(path: Path) -> list[str]:
    """Return the signing keys of the file at *path*. A missing file is created with one random key.

    Raises:
        ValueError: One line: the file is accessible to others, has no key, or has a weak one.
        OSError: The file cannot be read or created.
    """
    try:
        return read_keys(path)
    except FileNotFoundError:
        # If another process creates the file first, its key is used.
        with suppress(FileExistsError):
            create_private(path, _HEADER + new_key() + "\n")
            log.info("created a file with a signing key")
        return read_keys(path)


def read_keys(path: Path) -> list[str]:
    """Return the signing keys of the file at *path*.

    Raises:
        ValueError, OSError: See `read_or_create_keys`; FileNotFoundError if the file is missing.
    """
    keys = [line for line in map(str.strip, read_lines(path)) if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f"{path} has no signing key; remove the file to have one created")
    for number, key in enumerate(keys, 1):
        _require_strong(key, f"key {number} in {path}")
    try:
        KeyRing(keys)
    except ValueError as exc:
        raise ValueError(f"{path}: {exc}") from None
    return keys


def read_lines(path: Path) -> list[str]:
    """Return the lines of the file at *path*; for errors see `read_or_create_keys`."""
    try:
        return read_private(path).decode().splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; {_ADVICE}") from None


def new_key() -> str:
    """Return a new random signing key."""
    return secrets.token_urlsafe(48)


def key_version(key: str) -> str:
    """Return the version of *key*, 4 hex digits: it names the key in cookies and in listings."""
    return f"{KeyRing([key]).first:04x}"


def _require_strong(key: str, where: str) -> None:
    if len(key.encode()) < 32:
        raise ValueError(f"{where} is shorter than 32 bytes; {_ADVICE}")
    if not _looks_random(key) or any(word in key.lower() for word in _PLACEHOLDERS):
        raise ValueError(f"{where} is not random; {_ADVICE}")


def _looks_random(key: str) -> bool:
    """Whether *key* has varied characters, is not a repetition, and is not a sequence such as abcdef."""
    is_repetition = key in (key + key)[1:-1]
    steps = Counter(ord(after) - ord(before) for before, after in pairwise(key))
    is_run = max(steps.values()) > len(key) / 3
    return len(set(key)) >= _MIN_VARIETY and not is_repetition and not is_run
