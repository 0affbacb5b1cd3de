"""The limits of a session's data, and which of it survives a sign-in. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from stormcellar.errors import SessionTooLarge
from stormcellar.stores import Delta

FLASH = "_flash:"
"""Prefix of the keys that hold flash messages."""
MAX_BYTES = 64 * 1024
MAX_KEYS = 256
MAX_DEPTH = 64
"""Maximum nesting of lists and objects: far below Python's recursion limit, so stored values can be read."""


def is_private_key(key: str) -> bool:
    """Whether *key* begins with `_`: what the server keeps, such as flash messages.

    An endpoint where clients read or write session data by key must leave these keys out.
    """
    return key.startswith("_")


def merge(data: Mapping[str, bytes], delta: Delta) -> dict[str, bytes]:
    """Return *data* as it is after *delta*."""
    merged = {**data, **delta.put}
    for key in delta.drop:
        merged.pop(key, None)
    return merged


def require_size(data: Mapping[str, bytes], *, before: Mapping[str, bytes]) -> None:
    """Raise SessionTooLarge if *data* exceeds 64 KiB (keys and values) or 256 keys, and grew from *before*.

    Parallel requests can exceed a limit together; such a session can still shrink, rotate and sign in.
    """
    is_too_large = (size := _size(data)) > MAX_BYTES and size > _size(before)
    if is_too_large or len(data) > max(MAX_KEYS, len(before)):
        raise SessionTooLarge(f"a session holds at most {MAX_BYTES} bytes and {MAX_KEYS} keys")


def surviving_keys(
    current: str | None, user: str, keep: Collection[str], *, messages: Collection[str] = ()
) -> frozenset[str] | None:
    """Return the keys that survive when *user* signs in to a session of *current*; None means all.

    Those in *keep* from an anonymous session, all from a session of the same user, none from another user's;
    and *messages*, the flash messages of this request, which may be saved already.
    """
    if current is None:
        return frozenset(keep).union(messages)
    return None if current == user else frozenset(messages)


def surviving_delta(delta: Delta, keep: frozenset[str]) -> Delta:
    """Return the part of *delta* that concerns the keys in *keep*, and its new flash messages."""
    put = {key: raw for key, raw in delta.put.items() if key in keep or key.startswith(FLASH)}
    return Delta(put, delta.drop & keep)


def surviving_data(data: Mapping[str, bytes], keep: frozenset[str] | None) -> Mapping[str, bytes]:
    """Return the part of *data* whose keys are in *keep*; None means all of it."""
    return data if keep is None else {key: raw for key, raw in data.items() if key in keep}


def _size(data: Mapping[str, bytes]) -> int:
    return sum(map(len, data)) + sum(map(len, data.values()))
