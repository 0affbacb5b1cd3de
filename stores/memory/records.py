"""The format in which the memory store keeps a session: one bytes object.

It takes a fifth of the memory of a record's objects, and the garbage collector does not traverse bytes.

The usual form is a head of fixed size, then the user, the client and the data. All times except the first are
32-bit offsets from the creation, and the verifier is the 32 bytes that its base64url encodes. A record that
does not fit (a grace, a time more than 24 days away, a verifier of another form) is stored whole with
`marshal`. Only the process that wrote an entry reads it.
"""

from __future__ import annotations

import math
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import replace
from marshal import dumps, loads
from struct import Struct, error

from stormcellar.stores.records import Absent, Credential, Handle, Record, Verifier, Why

_HEAD = Struct("<Bq5i32sHH")
"""Kind, created; rotated, sign-in, seen, expires, deadline; verifier; the lengths of user and client."""
_USER_AT = _HEAD.size

# Parts of the head, for callers that need no more.
_LIVENESS = Struct("<x q i 8x i 4x 32s")
_LISTING = Struct("<x q 8x i i 36x H")
_SLIDING, _SLIDING_AT, _SLIDING_END = Struct("<ii"), 17, 25
_LENGTHS, _LENGTHS_AT = Struct("<HH"), 61

_WITHOUT_AUTH, _WITH_AUTH, _OTHER = 0, 1, 2
"""The kinds of entry: without a time of sign-in, with one, and not of the usual form."""

_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_FROM_BASE64 = bytes.maketrans(b"+/", b"-_")


def pack(record: Record, *, previous: Verifier | None = None, grace_until_ms: int = 0) -> bytes:
    """Return *record*, without its handle, as bytes.

    Args:
        previous: The verifier that the last rotation replaced, if it has a grace.
    """
    user = b"" if record.user is None else record.user.encode()
    verifier, created_ms, auth_ms = _raw(record.verifier), record.created_ms, record.auth_ms
    if verifier is None or previous is not None:
        return _pack_other(record, previous, grace_until_ms)
    try:
        head = _HEAD.pack(
            _WITHOUT_AUTH if auth_ms is None else _WITH_AUTH,
            created_ms,
            record.rotated_ms - created_ms,
            0 if auth_ms is None else auth_ms - created_ms,
            record.seen_ms - created_ms,
            record.expires_ms - created_ms,
            record.deadline_ms - created_ms,
            verifier,
            len(user),
            len(record.client),
        )
    except error:
        return _pack_other(record, previous, grace_until_ms)
    return b"".join((head, user, record.client, _pack_data(record.data)))


def unpack(packed: bytes, handle: Handle) -> Record:
    """Return the record that `pack` received, with a new dict of its data."""
    if packed[0] == _OTHER:
        return replace(_whole(packed)[0], handle=handle)
    own = Verifier(_text(_LIVENESS.unpack_from(packed)[3]))
    record = load(packed, handle, own, -math.inf)
    assert isinstance(record, Record)
    return record


def load(packed: bytes, handle: Handle, verifier: Verifier, now_ms: float) -> Record | Absent:
    """Return the record for *verifier*, with a new dict of its data, or why it is not live."""
    if packed[0] == _OTHER:
        whole = _whole(packed)[0]
        return absence(packed, verifier, now_ms) or replace(whole, handle=handle, verifier=verifier)
    kind, created_ms, rotated, auth, seen, expires, deadline, raw, user, client = _HEAD.unpack_from(packed)
    if created_ms + expires <= now_ms:
        return Absent(Why.UNKNOWN)
    # `_text` inlined: every request that reads a session comes here.
    if b2a_base64(raw).translate(_FROM_BASE64, b"=\n").decode() != verifier:
        return Absent(Why.SUPERSEDED, created_ms + rotated)
    client_at = _USER_AT + user
    data_at = client_at + client
    return Record(
        handle,
        verifier,
        packed[_USER_AT:client_at].decode() if user else None,
        created_ms,
        created_ms + rotated,
        created_ms + auth if kind else None,
        created_ms + seen,
        created_ms + expires,
        created_ms + deadline,
        packed[client_at:data_at],
        loads(packed[data_at:]),  # noqa: S302
    )


def absence(packed: bytes, verifier: Verifier, now_ms: float) -> Absent | None:
    """Return why the session is not live for *verifier*, or None if it is."""
    if packed[0] != _OTHER:
        created_ms, rotated, expires, raw = _LIVENESS.unpack_from(packed)
        if created_ms + expires <= now_ms:
            return Absent(Why.UNKNOWN)
        return None if _text(raw) == verifier else Absent(Why.SUPERSEDED, created_ms + rotated)
    record, previous, grace_until_ms = _whole(packed)
    if record.expires_ms <= now_ms:
        return Absent(Why.UNKNOWN)
    if verifier == record.verifier or (verifier == previous and now_ms < grace_until_ms):
        return None
    return Absent(Why.SUPERSEDED, record.rotated_ms)


def state(packed: bytes, credential: Credential, now_ms: float) -> Record | Absent:
    """Return the live record without data, with its own verifier if that of *credential* is not live."""
    handle, verifier = credential
    absent = absence(packed, verifier, now_ms)
    if absent and absent.why is not Why.SUPERSEDED:
        return absent
    record = unpack(packed, handle)
    return replace(record, data={}, verifier=record.verifier if absent else verifier)


def listing(packed: bytes) -> tuple[str | None, int, int]:
    """Return the values by which a session is listed: user, seen, expires."""
    if packed[0] == _OTHER:
        record = _whole(packed)[0]
        return record.user, record.seen_ms, record.expires_ms
    created_ms, seen, expires, length = _LISTING.unpack_from(packed)
    user = packed[_USER_AT : _USER_AT + length].decode() if length else None
    return user, created_ms + seen, created_ms + expires


def data_of(packed: bytes) -> dict[str, bytes]:
    """Return a new dict of the data."""
    if packed[0] == _OTHER:
        return dict(_whole(packed)[0].data)
    data: dict[str, bytes] = loads(packed[_data_at(packed) :])  # noqa: S302
    return data


def with_data(packed: bytes, data: Mapping[str, bytes]) -> bytes:
    """Return *packed* with this data."""
    if packed[0] != _OTHER:
        return packed[: _data_at(packed)] + _pack_data(data)
    record, previous, grace_until_ms = _whole(packed)
    return pack(replace(record, data=data), previous=previous, grace_until_ms=grace_until_ms)


def with_times(packed: bytes, *, seen_ms: int, expires_ms: int) -> bytes:
    """Return *packed* with these times."""
    if packed[0] != _OTHER:
        created_ms = _LIVENESS.unpack_from(packed)[0]
        try:
            times = _SLIDING.pack(seen_ms - created_ms, expires_ms - created_ms)
        except error:
            pass
        else:
            return packed[:_SLIDING_AT] + times + packed[_SLIDING_END:]
    record, previous, grace_until_ms = _whole(packed)
    record = replace(record, seen_ms=seen_ms, expires_ms=expires_ms)
    return pack(record, previous=previous, grace_until_ms=grace_until_ms)


def _whole(packed: bytes) -> tuple[Record, Verifier | None, int]:
    """Return the record without its handle, the previous verifier, and the end of its grace."""
    if packed[0] != _OTHER:
        return unpack(packed, Handle("")), None, 0
    fields, previous, grace_until_ms = loads(packed[1:])  # noqa: S302
    return Record(Handle(""), *fields), previous, grace_until_ms


def _data_at(packed: bytes) -> int:
    user, client = _LENGTHS.unpack_from(packed, _LENGTHS_AT)
    return int(_USER_AT + user + client)


def _pack_data(data: Mapping[str, bytes]) -> bytes:
    try:
        return dumps(dict(data) if type(data) is not dict else data, 4)
    except ValueError:
        # Keys or values of a subclass.
        return dumps(_plain_data(data), 4)


def _pack_other(record: Record, previous: Verifier | None, grace_until_ms: int) -> bytes:
    fields = (
        _plain(record.verifier),
        record.user if record.user is None else _plain(record.user),
        record.created_ms,
        record.rotated_ms,
        record.auth_ms,
        record.seen_ms,
        record.expires_ms,
        record.deadline_ms,
        record.client,
        _plain_data(record.data),
    )
    return bytes((_OTHER,)) + dumps((fields, previous, grace_until_ms), 4)


def _plain_data(data: Mapping[str, bytes]) -> dict[str, bytes]:
    return {_plain(key): bytes(value) for key, value in data.items()}


def _plain(text: str) -> str:
    """Return *text*, which may be of a subclass, as a plain str, which `marshal` needs."""
    return str.__str__(text)


def _raw(verifier: str) -> bytes | None:
    """Return the 32 bytes that *verifier* encodes canonically in base64url, or None."""
    try:
        raw = a2b_base64(verifier.encode().translate(_TO_BASE64) + b"=")
    except ValueError:
        return None
    return raw if len(raw) == 32 and _text(raw) == verifier else None


def _text(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).translate(_FROM_BASE64, b"=").decode()
