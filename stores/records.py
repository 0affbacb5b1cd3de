"""The values that a store is given and returns.

A store decodes none of them: data, client and verifier are opaque.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, NewType

Handle = NewType("Handle", str)
"""22 characters of base64url (16 random bytes). The key of a record. Locates, authorises nothing."""

Verifier = NewType("Verifier", str)
"""43 characters of base64url: SHA-256 of the secret in the cookie. Opaque to stores."""

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_:-]{0,63}")
"""The grammar of a data key. It leaves `#`, `$` and `.` to the stores for their own fields."""


def check_keys(keys: Iterable[str]) -> None:
    """Raise ValueError for the first of *keys* outside the grammar `KEY`."""
    for key in keys:
        _check_key(key)


# An application uses few keys, again and again. What raises is not kept, so nobody fills this with long ones.
@lru_cache(maxsize=1024)
def _check_key(key: str) -> None:
    if not KEY.fullmatch(key):
        raise ValueError(f"session key {key!r} does not match {KEY.pattern}")


def check_user(user: str | None) -> None:
    """Raise ValueError for a user that no store can keep: empty, or with a lone surrogate."""
    try:
        is_kept = user is None or bool(user.encode())
    except UnicodeEncodeError:
        is_kept = False
    if not is_kept:
        raise ValueError("a user is non-empty text without lone surrogates")


class Credential(NamedTuple):
    """What a request presents: which record, and the proof that it may use it."""

    handle: Handle
    verifier: Verifier


@dataclass(frozen=True, slots=True, init=False)
class Record:
    """One stored session. Every `*_ms` is Unix time in milliseconds."""

    handle: Handle
    verifier: Verifier
    """As presented, if loaded; the current one from `of_user` and `scan`."""
    user: str | None
    """None while anonymous; else any non-empty text that UTF-8 can encode."""
    created_ms: int
    rotated_ms: int
    """When this verifier was issued."""
    auth_ms: int | None
    """When the user last proved who they are."""
    seen_ms: int
    """Last recorded activity."""
    expires_ms: int
    """Idle expiry; slides; never after the deadline."""
    deadline_ms: int
    """Absolute expiry; moved only by `Store.rotate`."""
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
        # One is made in every request, and the setters of the slots take half the time of the
        # `object.__setattr__` that a frozen dataclass calls by itself.
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
        """The handle and the verifier together."""
        return Credential(self.handle, self.verifier)


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
    """Compare-and-set: every one must hold for anything to be written; None means absent."""

    def __post_init__(self) -> None:
        for keys in (self.put, self.drop, self.expect):
            if keys:
                check_keys(keys)
        if self.drop and (both := self.drop & self.put.keys()):
            raise ValueError(f"keys both put and dropped: {', '.join(sorted(both))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A new session ID, and all that changes with it at sign-in or renewal. Times are Unix milliseconds.

    Raises:
        ValueError: The user is empty or has a lone surrogate.
    """

    new_verifier: Verifier
    user: str | None
    auth_ms: int | None
    """When the user last proved who they are."""
    client: bytes
    expires_ms: int
    deadline_ms: int
    keep: frozenset[str] | None
    """The data keys that survive, or None for all of them. What the delta puts is written besides."""
    delta: Delta = field(default_factory=Delta)
    grace_ms: int = 0
    """How long the previous verifier stays live. For periodic renewal, never at a change of privilege."""

    def __post_init__(self) -> None:
        check_user(self.user)


class Outcome(Enum):
    """What became of a conditional write. Only APPLIED changed anything."""

    APPLIED = "applied"
    GONE = "gone"
    CONFLICT = "conflict"


class Absent(Enum):
    """Why a load found no session."""

    SUPERSEDED = "superseded"
    """A live record has this handle, under another verifier."""
    ENDED = "ended"
    """No live record has this handle."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What every store is given besides its URL.

    Raises:
        ValueError: An empty prefix, or a limit that is not positive.
    """

    prefix: str = "stormcellar"
    """Begins every key, channel and collection name, so that applications share a backend unseen."""
    timeout_s: float = 2.0
    """The budget of one call, every retry included."""
    connect_timeout_s: float = 1.0
    max_sessions: int = 100_000
    """Bounds a store that keeps its sessions in this process; others ignore it."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[ -#%-~]{1,64}", self.prefix) or self.prefix.startswith("system."):
            raise ValueError("store prefix must be 1 to 64 printable ASCII characters without '$'")
        for name in ("timeout_s", "connect_timeout_s", "max_sessions"):
            if not getattr(self, name) > 0:
                raise ValueError(f"store {name} must be positive, not {getattr(self, name)!r}")


DEFAULT_OPTIONS = StoreOptions()
"""Where the default of each option is read from."""
