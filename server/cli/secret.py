"""`secret`: add, list and drop signing keys. Users stay signed in when the keys change."""

from __future__ import annotations

from pathlib import Path

from stormcellar.private_files import locked, replace_private
from stormcellar.runtime.signing_key_file import (
    key_version,
    new_key,
    read_keys,
    read_lines,
    read_or_create_keys,
)

ACTIONS = ("rotate", "list", "drop")


def run(action: str, path: Path, which: str | None) -> str:
    """Apply *action* to the secret file at *path* and return the text to print, which holds no key.

    Raises:
        ValueError: One line: why the action is not possible. Nothing was changed.
        OSError: The file cannot be read or replaced.
    """
    if action == "rotate":
        return _advice([key_version(key) for key in add_first(path)])
    if action == "drop":
        return f"{drop(path, which or '')}: dropped; its cookies are valid until the server {_RELOADS}"
    return list_keys(path)


_RELOADS = "restarts or reloads its keys: kill -HUP PID"


def _advice(versions: list[str]) -> str:
    lines = [f"{versions[0]}: added; it signs after the server {_RELOADS}"]
    if len(versions) > 1:
        after = "after the longest lifetime of a session (--absolute, --remember)"
        lines.append(f"older keys still verify; {after}: secret drop {versions[-1]}")
    return "\n".join(lines)


def list_keys(path: Path) -> str:
    """Return one line for each key: its number, its version, and whether it signs or verifies."""
    try:
        keys = read_keys(path)
    except FileNotFoundError:
        return "no keys; the first start creates one"
    return "\n".join(
        f"{number}  {key_version(key)}  {'signs' if number == 1 else 'verifies'}"
        for number, key in enumerate(keys, 1)
    )


def add_first(path: Path) -> list[str]:
    """Add a new first key to the file and return all keys. A missing file is created.

    The other lines of the file stay unchanged.

    Raises:
        ValueError, OSError: See `run`.
    """
    with locked(path):
        if not path.exists():
            return read_or_create_keys(path)
        keys, lines = read_keys(path), read_lines(path)
        added = _new_key(keys)
        lines.insert([line.strip() for line in lines].index(keys[0]), added)
        _write(path, lines)
        return [added, *keys]


def _new_key(keys: list[str]) -> str:
    """Return a new key whose version differs from those of *keys*."""
    taken = {key_version(key) for key in keys}
    while key_version(key := new_key()) in taken:
        pass
    return key


def drop(path: Path, which: str) -> str:
    """Remove a key, not the one that signs, from the file and return its version.

    Args:
        which: The number of the key, counted from 1, or its version.

    Raises:
        ValueError, OSError: See `run`.
    """
    with locked(path):
        keys = _existing_keys(path)
        key = _named(keys, which)
        if key == keys[0]:
            raise ValueError(
                f"key 1, {key_version(key)}, cannot be dropped: it signs; add another first: secret rotate"
            )
        _write(path, [line for line in read_lines(path) if line.strip() != key])
        return key_version(key)


def _existing_keys(path: Path) -> list[str]:
    try:
        return read_keys(path)
    except FileNotFoundError:
        raise ValueError("there is no file of signing keys; the first start creates one") from None


def _named(keys: list[str], which: str) -> str:
    for number, key in enumerate(keys, 1):
        if which.lower() in (str(number), key_version(key)):
            return key
    raise ValueError("unknown key; show numbers and versions with: secret list")


def _write(path: Path, lines: list[str]) -> None:
    replace_private(path, "".join(f"{line}\n" for line in lines))
