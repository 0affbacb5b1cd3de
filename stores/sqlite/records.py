"""A row of the table `sessions` as a record, or as a tombstone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from stormcellar.stores.records import (
    TOMBSTONE_MS,
    Absent,
    Credential,
    Handle,
    Record,
    Verifier,
    Why,
    are_times,
)

_Row = tuple[
    str,
    Handle,
    Verifier,
    str | None,
    int,
    int,
    int | None,
    int,
    int,
    int,
    bytes,
    bytes,
    Verifier | None,
    int | None,
    None,
]
"""The types of the columns for a record: SQLite enforces none, and somebody may have edited the file."""

_DATA = msgspec.msgpack.Decoder(dict[str, bytes])


class Tombstone(NamedTuple):
    """What a destroyed record leaves."""

    ended_ms: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A record with its current verifier, and the one before while that has a grace."""

    record: Record
    previous: Verifier | None
    grace_until_ms: int

    def accepts(self, verifier: Verifier, now_ms: int) -> bool:
        """Return whether *verifier* is the current one, or the previous one within its grace."""
        is_previous = verifier == self.previous and now_ms < self.grace_until_ms
        return verifier == self.record.verifier or is_previous


def packed(data: Mapping[str, bytes]) -> bytes:
    """Return *data* as the value of its column: a MessagePack map from text to binary."""
    return msgspec.msgpack.encode(dict(data))


def parsed(row: Any) -> Stored | Tombstone | None:
    """Return what *row*, all columns of a session, stands for; None if it does not parse."""
    if row is None:
        return None
    if isinstance(row[-1], int):
        return Tombstone(row[-1]) if are_times(row[-1]) else None
    try:
        values = msgspec.convert(row, _Row, builtin_types=(bytes,))
        data = _DATA.decode(values[11])
    except msgspec.MsgspecError:
        return None
    _, handle, verifier, user, *_ = values
    client, _, previous, grace_until_ms, _ = values[10:]
    created, rotated, auth, seen, expires, deadline = values[4:10]
    if not are_times(created, rotated, auth, seen, expires, deadline):
        return None
    record = Record(handle, verifier, user, created, rotated, auth, seen, expires, deadline, client, data)
    return Stored(record, previous, grace_until_ms or 0)


def state(found: Stored | Tombstone | None, verifier: Verifier, now_ms: int) -> Record | Absent:
    """Return the live session, with *verifier* if that is live, or why there is none."""
    if isinstance(found, Tombstone):
        is_over = found.ended_ms + TOMBSTONE_MS <= now_ms
        return Absent(Why.UNKNOWN) if is_over else Absent(Why.ENDED, found.ended_ms)
    if found is None or found.record.expires_ms <= now_ms:
        return Absent(Why.UNKNOWN)
    if found.record.verifier == verifier or not found.accepts(verifier, now_ms):
        return found.record
    return replace(found.record, verifier=verifier)


def live(found: Stored | Tombstone | None, credential: Credential, now_ms: int) -> Stored | None:
    """Return *found* if it is live for *credential*."""
    if not isinstance(found, Stored) or found.record.expires_ms <= now_ms:
        return None
    return found if found.accepts(credential.verifier, now_ms) else None
