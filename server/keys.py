"""The secret file: signing keys, one a line, the first of which signs."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from server.cookies import KeyRing
from server.files import create_private, require_private

_HEADER = "# Signing keys, one a line: the first signs, all verify. Whoever has one can forge sessions.\n"
# Fewer different characters than this is a word, not a key: 32 random hex digits have 13 or more of 16.
_MIN_VARIETY = 10
# Long enough that no random key of 64 characters holds one by chance (below 1 in 10 million).
_PLACEHOLDERS = ("changeme", "change-me", "change_me", "secret", "password", "example", "insert")


def load_keys(path: Path) -> list[str]:
    """Return the signing keys of the file at *path*, which is made with a random one if it is missing.

    Raises:
        ValueError: One line: others may read the file, it holds no key, or one that is weak.
        OSError: The file cannot be read or made.
    """
    if not path.exists():
        # If another process was faster, its key is ours.
        with suppress(FileExistsError):
            create_private(path, _HEADER + secrets.token_urlsafe(48) + "\n")
    require_private(path)
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f"{path} holds no signing key; remove it to have one made")
    for number, key in enumerate(keys, 1):
        _require_strong(key, f"key {number} in {path}")
    KeyRing(keys)
    return keys


def _require_strong(key: str, where: str) -> None:
    advice = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
    if len(key.encode()) < 32:
        raise ValueError(f"{where} is shorter than 32 bytes; {advice}")
    if len(set(key)) < _MIN_VARIETY or any(word in key.lower() for word in _PLACEHOLDERS):
        raise ValueError(f"{where} is not random; {advice}")
