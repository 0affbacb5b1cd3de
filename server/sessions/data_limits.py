"""The rules of a session's data, without I/O: what survives a sign-in, what fits, what comes first."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from stormcellar.errors import SessionEnded, SessionTooLarge
from stormcellar.sessions import json_values as values
from stormcellar.sessions.request_info import Presence
from stormcellar.sessions.session import Session
from stormcellar.stores import Delta, Handle, Record

MAX_BYTES = 64 * 1024
MAX_KEYS = 256


def survivors(session: Session, user: str, keep: Collection[str]) -> frozenset[str] | None:
    """Which keys outlive a sign-in: an anonymous session's allowlist, all of one's own, none of another's."""
    if session.user is None:
        return frozenset(keep)
    return None if session.user == user else frozenset()


def confine(delta: Delta, keep: frozenset[str]) -> Delta:
    """Return the part of *delta* that concerns the keys of *keep*."""
    return Delta({key: raw for key, raw in delta.put.items() if key in keep}, delta.drop & keep)


def kept_of(data: Mapping[str, bytes], keep: frozenset[str] | None) -> Mapping[str, bytes]:
    """Return what *keep* leaves of *data*; None leaves all of it."""
    return data if keep is None else {key: raw for key, raw in data.items() if key in keep}


def may_store(session: Session) -> bool:
    """Whether a write may reach a record. One that comes after the session's end never makes a new one.

    Raises:
        SessionEnded: It may not, and an unsafe request must be told.
    """
    if session.presence in (Presence.SUPERSEDED, Presence.ENDED) and not session.request.is_safe:
        raise SessionEnded
    return session.presence in (Presence.NONE, Presence.LIVE)


def merge(data: Mapping[str, bytes], delta: Delta) -> dict[str, bytes]:
    """Return *data* as it is after *delta*."""
    merged = {**data, **delta.put}
    for key in delta.drop:
        merged.pop(key, None)
    return merged


def require_size(data: Mapping[str, bytes], *, before: Mapping[str, bytes]) -> None:
    """Raise SessionTooLarge if *data* passes 64 KiB (keys and values) or 256 keys, and grew from *before*.

    Parallel requests may pass a limit together; such a session can still shrink, rotate and sign in.
    """
    is_too_large = _size(data) > MAX_BYTES and _size(data) > _size(before)
    if is_too_large or len(data) > max(MAX_KEYS, len(before)):
        raise SessionTooLarge(f"a session holds at most {MAX_BYTES} bytes and {MAX_KEYS} keys")


def by_sign_in(record: Record) -> tuple[int, Handle]:
    """Order sessions by their sign-in; the handle decides between two of one millisecond."""
    return record.auth_ms or 0, record.handle


def decoded(raw: bytes | None) -> Any:
    """Return the value of *raw*; None if it is absent or not JSON."""
    with suppress(values.NotJSON):
        return values.decode(raw) if raw is not None else None
    return None


def _size(data: Mapping[str, bytes]) -> int:
    return sum(map(len, data)) + sum(map(len, data.values()))
