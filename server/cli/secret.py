"""`secret`: add, list and drop signing keys, so that keys change and nobody is signed out."""

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
    """Carry out *action* on the secret file at *path* and return what to show; never a key.

    Raises:
        ValueError: One line that says why not; nothing was changed.
        OSError: The file cannot be read or replaced.
    """
    if action == "rotate":
        return _advice([key_version(key) for key in add_first(path)])
    if action == "drop":
        return f"{drop(path, which or '')}: dropped; cookies it signed count until the server {_READS_AGAIN}"
    return list_keys(path)


_READS_AGAIN = "is started anew or reads its keys again: kill -HUP PID"


def _advice(versions: list[str]) -> str:
    lines = [f"{versions[0]}: added; it signs once the server {_READS_AGAIN}"]
    if len(versions) > 1:
        after = "after the longest that a session may last (--absolute, --remember)"
        lines.append(f"the older ones still count; {after}: secret drop {versions[-1]}")
    return "\n".join(lines)


def list_keys(path: Path) -> str:
    """Return a line for each key: its number, its version, and what it is for."""
    try:
        keys = read_keys(path)
    except FileNotFoundError:
        return "no keys; the first start makes one"
    return "\n".join(
        f"{number}  {key_version(key)}  {'signs' if number == 1 else 'verifies'}"
        for number, key in enumerate(keys, 1)
    )


def add_first(path: Path) -> list[str]:
    """Put a new key before those in the file, which is made if missing, and return them all.

    Whatever else stands in the file stays where it is.

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
    """Return one whose version none of *keys* has."""
    taken = {key_version(key) for key in keys}
    while key_version(key := new_key()) in taken:
        pass
    return key


def drop(path: Path, which: str) -> str:
    """Take a key that does not sign out of the file and return its version.

    Args:
        which: Its number, the first being 1, or its version.

    Raises:
        ValueError, OSError: See `run`.
    """
    with locked(path):
        keys = read_keys(path)
        key = _named(keys, which)
        if key == keys[0]:
            advice = "and the only one" if len(keys) == 1 else "so it cannot go"
            raise ValueError(
                f"key 1, {key_version(key)}, is the one that signs, {advice}; first: secret rotate"
            )
        _write(path, [line for line in read_lines(path) if line.strip() != key])
        return key_version(key)


def _named(keys: list[str], which: str) -> str:
    for number, key in enumerate(keys, 1):
        if which.lower() in (str(number), key_version(key)):
            return key
    raise ValueError("there is no such key; their numbers and versions: secret list")


def _write(path: Path, lines: list[str]) -> None:
    replace_private(path, "".join(f"{line}\n" for line in lines))
