"""What Redis holds for a session: one hash.

Metadata fields begin with `#`, which the grammar of data keys forbids; every other field is a data key.
Numbers are decimal, times are Unix time in milliseconds.

======  ====================================================================
`#v`    verifier
`#p`    previous verifier, only while it has a grace
`#g`    when that grace ends
`#u`    user, absent while anonymous
`#c`    created
`#r`    rotated
`#a`    when the user last proved who they are, absent while anonymous
`#s`    seen
`#e`    expires
`#d`    deadline
`#m`    client
======  ====================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from stores.base import Absent, Delta, Handle, Record, Verifier, check_user

LOG = logging.getLogger(__name__)

META = ("#v", "#p", "#g", "#u", "#c", "#r", "#a", "#s", "#e", "#d", "#m")

REPORTS_KEPT = 1024
"""How many handles are remembered so as not to report the same one again."""

Argument = str | bytes | int


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


def expect_arguments(delta: Delta) -> list[Argument]:
    """Return what *delta* expects as `expected()` takes it: key, whether present, value."""
    arguments: list[Argument] = [len(delta.expect)]
    for key, value in delta.expect.items():
        arguments += [key, 0 if value is None else 1, b"" if value is None else value]
    return arguments


def write_arguments(delta: Delta) -> list[Argument]:
    """Return what *delta* puts and drops as `write()` takes it."""
    arguments: list[Argument] = [len(delta.put)]
    for key, value in delta.put.items():
        arguments += [key, value]
    return [*arguments, len(delta.drop), *delta.drop]


def keep_arguments(keep: frozenset[str] | None) -> list[Argument]:
    """Return the data keys that survive, after their number; -1 for all of them."""
    return [-1] if keep is None else [len(keep), *keep]


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it lies in Redis, with its current verifier."""

    record: Record
    previous: bytes | None
    grace_end_ms: int

    def seen_by(self, verifier: Verifier, *, now_ms: int) -> Record | Absent:
        """Return the record as *verifier* may see it, or why not. Only here SUPERSEDED is told from ENDED."""
        record = self.record
        if record.expires_ms <= now_ms:
            return Absent.ENDED
        if record.verifier == verifier:
            return record
        if self.previous == verifier.encode() and now_ms < self.grace_end_ms:
            return replace(record, verifier=verifier)
        return Absent.SUPERSEDED


def parse(handle: Handle, fields: Mapping[bytes, bytes]) -> Stored:
    """Read the fields of a hash.

    Raises:
        KeyError, ValueError: This is not a record of ours.
    """
    user, auth_ms = fields.get(b"#u"), fields.get(b"#a")
    record = Record(
        handle=handle,
        verifier=Verifier(fields[b"#v"].decode("ascii")),
        user=None if user is None else user.decode(),
        created_ms=int(fields[b"#c"]),
        rotated_ms=int(fields[b"#r"]),
        auth_ms=None if auth_ms is None else int(auth_ms),
        seen_ms=int(fields[b"#s"]),
        expires_ms=int(fields[b"#e"]),
        deadline_ms=int(fields[b"#d"]),
        client=fields[b"#m"],
        data={key.decode("ascii"): value for key, value in fields.items() if not key.startswith(b"#")},
    )
    return Stored(record, fields.get(b"#p"), int(fields.get(b"#g", b"0")))


class Reader:
    """Reads replies, and reports each handle at which something else than a record is stored, once."""

    def __init__(self) -> None:
        self._reported: set[Handle] = set()

    def read(self, handle: Handle, reply: Any) -> Stored | None:
        """Return the record in a reply to HGETALL or to HMGET of `META`; None if there is none of ours."""
        if isinstance(reply, list):
            pairs = zip(META, reply, strict=True)
            reply = {name.encode(): value for name, value in pairs if value is not None}
        if reply == {}:
            return None
        if isinstance(reply, dict):
            with suppress(KeyError, ValueError):
                return parse(handle, reply)
        self._report(handle)
        return None

    def _report(self, handle: Handle) -> None:
        if handle in self._reported:
            return
        if len(self._reported) >= REPORTS_KEPT:
            self._reported.clear()
        self._reported.add(handle)
        LOG.error("what is stored for session %r is no record and counts as ended", handle)
