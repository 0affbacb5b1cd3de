"""The values that a store takes and returns. Data, client and verifier are opaque to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, NewType

Handle = NewType("Handle", str)
"""22 characters of base64url (16 random bytes). The key of a record. It locates and authorises nothing."""

Verifier = NewType("Verifier", str)
"""43 characters of base64url: SHA-256 of the secret in the cookie. Opaque to stores."""

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_:-]{0,63}")
"""The grammar of a data key. Stores may use `#`, `$` and `.` in their own fields."""

TOMBSTONE_MS = 600_000
"""How long a backend keeps a tombstone, and a record after its expiry: `now_ms` may be so old."""

LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, after which no calendar of Python has a date."""


def check_keys(keys: Iterable[str]) -> None:
    """Raise ValueError for the first of *keys* outside the grammar `KEY`."""
    for key in keys:
        _check_key(key)


# An application uses the same few keys. Refused keys raise and are not cached, so nobody can fill the cache.
@lru_cache(maxsize=1024)
def _check_key(key: str) -> None:
    if not KEY.fullmatch(key):
        raise ValueError(f"session key {key!r} does not match {KEY.pattern}")


def check_user(user: str | None) -> None:
    """Raise ValueError for a user that a store cannot keep: empty, or with a lone surrogate."""
    try:
        is_kept = user is None or bool(user.encode())
    except UnicodeEncodeError:
        is_kept = False
    if not is_kept:
        raise ValueError("a user must be non-empty text without lone surrogates")


def are_times(*times_ms: int | None) -> bool:
    """Return whether each of *times_ms* that is not None is between 1970 and the year 9999."""
    for time_ms in times_ms:  # noqa: SIM110 - every load comes here, and all() takes twice the time
        if time_ms is not None and not 0 <= time_ms <= LATEST_MS:
            return False
    return True


class Credential(NamedTuple):
    """What a request presents: the handle of a record, and the verifier that authorises its use."""

    handle: Handle
    verifier: Verifier


@dataclass(frozen=True, slots=True, init=False)
class Record:
    """One stored session. Every `*_ms` is Unix time in milliseconds."""

    handle: Handle
    verifier: Verifier
    """As presented, from `load`; the current one, from `find`, `of_user` and `scan`."""
    user: str | None
    """None while anonymous; otherwise any non-empty text that UTF-8 can encode."""
    created_ms: int
    rotated_ms: int
    """When this verifier was issued."""
    auth_ms: int | None
    """When the user last proved who they are."""
    seen_ms: int
    """Last recorded activity."""
    expires_ms: int
    """Idle expiry. It slides, never past the deadline."""
    deadline_ms: int
    """Absolute expiry. Only `Store.rotate` moves it."""
    client: bytes = b""
    """JSON about the client (address, agent), opaque to stores."""
    data: Mapping[str, bytes] = field(default_factory=dict)
    """Key to UTF-8 JSON, opaque to stores; an empty value is allowed."""

    def __init__(
        self,
        handle: Handle,
        verifier: Verifier,
        user: str | None,
        created_ms: int,
        rotated_ms: int,
        auth_ms: int | None,
        seen_ms: int,
        expires_ms: int,
        deadline_ms: int,
        client: bytes = b"",
        data: Mapping[str, bytes] | None = None,
    ) -> None:
        # Every request with a session makes one. The setters of the slots take 1.1 us, the generated __init__
        # with its `object.__setattr__` 2.1 us, in a load from memory of 4 us.
        _set_handle(self, handle)
        _set_verifier(self, verifier)
        _set_user(self, user)
        _set_created(self, created_ms)
        _set_rotated(self, rotated_ms)
        _set_auth(self, auth_ms)
        _set_seen(self, seen_ms)
        _set_expires(self, expires_ms)
        _set_deadline(self, deadline_ms)
        _set_client(self, client)
        _set_data(self, {} if data is None else data)

    @property
    def credential(self) -> Credential:
        """The handle and the verifier."""
        return Credential(self.handle, self.verifier)


def check_record(record: Record) -> None:
    """Raise ValueError for a record that a store cannot keep.

    Its keys must match `KEY`, its user must be one that `check_user` accepts, and each of its times must be
    between 1970 and the year 9999.
    """
    check_keys(record.data)
    check_user(record.user)
    times = (record.created_ms, record.rotated_ms, record.auth_ms, record.seen_ms)
    _check_times(*times, record.expires_ms, record.deadline_ms)


def _check_times(*times_ms: int | None) -> None:
    if not are_times(*times_ms):
        raise ValueError("every time of a session must be in Unix milliseconds, from 1970 to the year 9999")


(
    _set_handle,
    _set_verifier,
    _set_user,
    _set_created,
    _set_rotated,
    _set_auth,
    _set_seen,
    _set_expires,
    _set_deadline,
    _set_client,
    _set_data,
) = (vars(Record)[field.name].__set__ for field in fields(Record))


@dataclass(frozen=True, slots=True)
class Delta:
    """A conditional change of one session's data.

    Raises:
        ValueError: A key is outside the grammar, or is both put and dropped.
    """

    put: Mapping[str, bytes] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    expect: Mapping[str, bytes | None] = field(default_factory=dict)
    """Compare-and-set: nothing is written unless each key has this value; None means absent."""

    def __post_init__(self) -> None:
        for keys in (self.put, self.drop, self.expect):
            if keys:
                check_keys(keys)
        if self.drop and (both := self.drop & self.put.keys()):
            raise ValueError(f"keys both put and dropped: {', '.join(sorted(both))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A new verifier, and all that changes with it at sign-in or renewal. `*_ms` as in `Record`.

    Raises:
        ValueError: The user is empty or has a lone surrogate, or a time is before 1970 or after 9999.
    """

    new_verifier: Verifier
    rotated_ms: int
    """When the new verifier is issued."""
    user: str | None
    auth_ms: int | None
    """When the user last proved who they are."""
    client: bytes
    expires_ms: int
    deadline_ms: int
    keep: frozenset[str] | None
    """The data keys that survive, or None for all. The delta is applied afterwards."""
    delta: Delta = field(default_factory=Delta)
    grace_ms: int = 0
    """How long after `rotated_ms` the previous verifier stays live. 0 at a change of privilege."""

    def __post_init__(self) -> None:
        check_user(self.user)
        _check_times(self.rotated_ms, self.auth_ms, self.expires_ms, self.deadline_ms)


class Outcome(Enum):
    """The result of a conditional write. Only APPLIED changed anything."""

    APPLIED = "applied"
    GONE = "gone"
    CONFLICT = "conflict"


class Why(Enum):
    """Why there is no session."""

    SUPERSEDED = "superseded"
    """A live record has this handle, under another verifier."""
    ENDED = "ended"
    """The session was destroyed; its tombstone is still there."""
    UNKNOWN = "unknown"
    """No trace of it; also every expired record, removed already or not."""


class Absent(NamedTuple):
    """Why a load found no session, and since when."""

    why: Why
    since_ms: int | None = None
    """Unix time in milliseconds: SUPERSEDED: when the current verifier was issued, `Record.rotated_ms`.
    ENDED: when the session was destroyed, the `now_ms` of that `destroy`. UNKNOWN: None."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The options of every store, besides its URL.

    Raises:
        ValueError: An empty prefix, or a limit that is not positive.
    """

    prefix: str = "stormcellar"
    """Begins every key, channel and collection name, so that applications can share a backend."""
    timeout_s: float = 2.0
    """The time-out of one call, retries included."""
    connect_timeout_s: float = 1.0
    max_sessions: int = 100_000
    """Limits a store that keeps its sessions in this process; others ignore it."""
    max_memory: int = 256 * 1024 * 1024
    """Bytes, as `max_sessions`."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[ -#%-~]{1,64}", self.prefix) or self.prefix.startswith("system."):
            raise ValueError("store prefix must be 1 to 64 printable ASCII characters without '$'")
        for name in ("timeout_s", "connect_timeout_s", "max_sessions", "max_memory"):
            if not getattr(self, name) > 0:
                raise ValueError(f"store {name} must be positive, not {getattr(self, name)!r}")


DEFAULT_OPTIONS = StoreOptions()
