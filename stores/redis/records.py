"""The Redis hash that holds a session.

Metadata fields begin with `#`, which the grammar of data keys forbids; every other field is a data key.
Numbers are decimal, times are Unix time in milliseconds.

======  ====================================================================
`#v`    verifier
`#p`    previous verifier, only with a grace
`#g`    end of that grace
`#u`    user, absent while anonymous
`#c`    created
`#r`    rotated
`#a`    when the user last proved who they are, absent while anonymous
`#s`    seen
`#e`    expires
`#d`    deadline
`#m`    client
`#x`    when the session was destroyed: the only field of a tombstone
======  ====================================================================
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from stormcellar.stores.records import (
    TOMBSTONE_MS,
    Absent,
    Delta,
    Handle,
    Record,
    Rotation,
    Verifier,
    Why,
    are_times,
    check_user,
)

LOG = logging.getLogger(__name__)

META = ("#v", "#p", "#g", "#u", "#c", "#r", "#a", "#s", "#e", "#d", "#m")
STATE = (*META, "#x")
_STATE = tuple(name.encode() for name in STATE)

REPORTS_KEPT = 1024
"""How many handles are kept so that none is logged twice."""

Argument = str | bytes | int


def kept_ms(expires_ms: int, *, now_ms: int) -> int:
    """Return how long Redis keeps a key for a record that expires at *expires_ms*, in milliseconds.

    Relative, so that no session ends early where the caller's clock is behind the server's.
    """
    return max(0, expires_ms - now_ms) + TOMBSTONE_MS


def user_bytes(user: str) -> bytes:
    """Return *user* as it is stored."""
    check_user(user)
    return user.encode()


def record_arguments(record: Record) -> list[Argument]:
    """Return the fields and values of *record*, flat, as HSET takes them."""
    optional: dict[str, Argument | None] = {
        "#u": None if record.user is None else user_bytes(record.user),
        "#a": record.auth_ms,
    }
    fields: dict[str, Argument] = {
        "#v": record.verifier,
        "#c": record.created_ms,
        "#r": record.rotated_ms,
        "#s": record.seen_ms,
        "#e": record.expires_ms,
        "#d": record.deadline_ms,
        "#m": record.client,
        **{name: value for name, value in optional.items() if value is not None},
        **record.data,
    }
    return [part for pair in fields.items() for part in pair]


def rotation_arguments(rotation: Rotation) -> list[Argument]:
    """Return what *rotation* sets, in the order of `ROTATE`: new verifier to end of the grace."""
    return [
        rotation.new_verifier,
        rotation.rotated_ms,
        b"" if rotation.user is None else user_bytes(rotation.user),
        "" if rotation.auth_ms is None else rotation.auth_ms,
        rotation.client,
        rotation.expires_ms,
        rotation.deadline_ms,
        rotation.rotated_ms + rotation.grace_ms if rotation.grace_ms > 0 else "",
    ]


def expect_arguments(delta: Delta) -> list[Argument]:
    """Return the `expect` of *delta* as arguments of `expected()`: key, whether present, value."""
    arguments: list[Argument] = [len(delta.expect)]
    for key, value in delta.expect.items():
        arguments += [key, 0 if value is None else 1, b"" if value is None else value]
    return arguments


def write_arguments(delta: Delta) -> list[Argument]:
    """Return the keys that *delta* puts, with values, and those it drops, each after their number."""
    arguments: list[Argument] = [len(delta.put)]
    for key, value in delta.put.items():
        arguments += [key, value]
    return [*arguments, len(delta.drop), *delta.drop]


def keep_arguments(keep: frozenset[str] | None) -> list[Argument]:
    """Return the data keys that survive, after their number; -1 for all of them."""
    return [-1] if keep is None else [len(keep), *keep]


class Stored(NamedTuple):
    """A record as stored in Redis, with its current verifier."""

    record: Record
    previous: bytes | None
    grace_end_ms: int

    def seen_by(self, verifier: Verifier, *, now_ms: int) -> Record | Absent:
        """Return the record for *verifier*, or why it is not live."""
        record = self.record
        if record.expires_ms <= now_ms:
            return Absent(Why.UNKNOWN)
        if record.verifier == verifier:
            return record
        if self.previous == verifier.encode() and now_ms < self.grace_end_ms:
            return replace(record, verifier=verifier)
        return Absent(Why.SUPERSEDED, record.rotated_ms)

    def state(self, verifier: Verifier, *, now_ms: int) -> Record | Absent:
        """Return as `seen_by`, but a record that is live for another verifier with that one."""
        found = self.seen_by(verifier, now_ms=now_ms)
        return self.record if isinstance(found, Absent) and found.why is Why.SUPERSEDED else found


def parse(handle: Handle, fields: dict[bytes, Any]) -> Stored:
    """Read the fields of a hash, and remove our own from *fields*.

    Raises:
        KeyError, ValueError: The hash is not one of our records, or has a time that no calendar has.
    """
    take = fields.pop
    user, auth_ms = take(b"#u", None), take(b"#a", None)
    previous, grace_end_ms = take(b"#p", None), int(take(b"#g", 0))
    record = Record(  # by position, which takes a fifth less of the time
        handle,
        take(b"#v").decode("ascii"),
        None if user is None else user.decode(),
        int(take(b"#c")),
        int(take(b"#r")),
        None if auth_ms is None else int(auth_ms),
        int(take(b"#s")),
        int(take(b"#e")),
        int(take(b"#d")),
        take(b"#m"),
        {key.decode("ascii"): value for key, value in fields.items() if key[:1] != b"#"},
    )
    times = (record.created_ms, record.rotated_ms, record.auth_ms, record.seen_ms)
    if not are_times(*times, record.expires_ms, record.deadline_ms):
        raise ValueError("a time that no calendar has")
    return Stored(record, previous, grace_end_ms)


class Reader:
    """Parses replies, and logs each handle whose key holds neither a record nor a tombstone, once."""

    def __init__(self) -> None:
        self._reported: set[Handle] = set()

    def read(self, handle: Handle, reply: Any) -> Stored | Absent:
        """Return the record in a reply to HGETALL, or why there is none."""
        if type(reply) is list:
            pairs = iter(reply)
            return self._read(handle, dict(zip(pairs, pairs, strict=True)))
        return self._read(handle, reply)

    def read_meta(self, handle: Handle, reply: Any) -> Stored | Absent:
        """Return the record in a reply to HMGET of `STATE`, or of `META`, where a tombstone is UNKNOWN."""
        if type(reply) is list:
            pairs = zip(_STATE, reply, strict=False)
            return self._read(handle, {name: value for name, value in pairs if value is not None})
        return self._read(handle, reply)

    def _read(self, handle: Handle, fields: Any) -> Stored | Absent:
        if not fields:
            return Absent(Why.UNKNOWN)
        if type(fields) is dict:
            with suppress(KeyError, ValueError):
                if fields.keys() == {b"#x"}:
                    return Absent(Why.ENDED, int(fields[b"#x"]))
                return parse(handle, fields)
        self._report(handle)
        return Absent(Why.UNKNOWN)

    def _report(self, handle: Handle) -> None:
        if handle in self._reported:
            return
        if len(self._reported) >= REPORTS_KEPT:
            self._reported.clear()
        self._reported.add(handle)
        LOG.error("the key of session %r does not hold a record; the session counts as ended", handle)
