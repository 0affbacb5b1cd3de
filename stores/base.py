"""The store contract: where sessions live, and what every store promises.

A session's data is a map from key to JSON bytes. A write is a `Delta` (keys to put, keys to drop), applied
in one atomic, conditional operation on one record, so writes to different keys commute and parallel
requests lose nothing. `stormcellar.stores.conformance.StoreContract` holds each promise below as a test.

Stores read no clock, decode no values, log no data and never see a secret.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import lru_cache
from typing import ClassVar, NamedTuple, NewType, Self

from stormcellar.stores.counters import Counters

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


class Store(ABC):
    """Keeps sessions. Every answer depends on the arguments and the stored state alone.

    A record is **live** for a credential while it exists, its expiry is after `now_ms`, and the verifier is
    the current one, or the previous one within its grace. Whether the backend has reaped a dead record
    makes no difference to any answer, `destroy` aside.

    Handles are never reused and only `create` brings one into being, so nothing resurrects a destroyed
    session. A mutation is sent at most once. A cancelled call happened whole or not at all, and its reply
    reaches nobody else. A stored record that does not parse counts as ended.

    Raises:
        StoreUnavailable: From any operation: no usable answer within the time-out.
        StoreFull: From a mutation other than `destroy`: nothing was written.
        StoreRefused: From any operation: the backend refuses our credentials.
    """

    shared: ClassVar[bool] = True
    """Whether several processes that open the same URL see the same sessions."""

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Make a store without any I/O, or raise ValueError (one line) for a bad *url*."""

    @abstractmethod
    async def create(self, record: Record) -> None:
        """Insert *record*, which expires by itself at its expiry.

        Raises:
            DuplicateSession: The handle exists; nothing was changed.
            ValueError: A data key is outside the grammar, or the user is none; nothing was written.
        """

    @abstractmethod
    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Return one atomic snapshot of the live session, or why there is none. Writes nothing."""

    @abstractmethod
    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        """Write *delta* if the session is live and every `expect` holds, and slide the expiry.

        One atomic step: all of the delta or none of it. `seen` and the expiry never move back. An empty
        delta is the touch.

        Args:
            expires_ms: At most the deadline (not checked); None leaves the expiry and `seen` as they are.

        Returns:
            GONE if the session is not live for this credential, whatever `expect` says; CONFLICT if an
            `expect` does not hold.
        """

    @abstractmethod
    async def rotate(
        self,
        credential: Credential,
        new_verifier: Verifier,
        delta: Delta,
        *,
        keep: frozenset[str] | None,
        user: str | None,
        auth_ms: int | None,
        client: bytes,
        now_ms: int,
        expires_ms: int,
        deadline_ms: int,
        grace_ms: int = 0,
    ) -> Outcome:
        """Replace the verifier, and with it everything that changes at sign-in, in one step.

        `expect` is tested first; then, where *keep* is a set, every data key outside it is dropped, also one
        written since the load; then *delta* applies. User, `auth_ms`, client, expiry, deadline and
        `rotated_ms` are set as given; `seen` never moves back; `created_ms` stays.

        Args:
            keep: The data keys that survive, or None for all of them.
            grace_ms: How long the previous verifier stays live for `load`, `apply` and `alive`. For periodic
                renewal only, never at a change of privilege. 0 ends any earlier grace too.

        Returns:
            GONE if the session is not live; CONFLICT if an `expect` does not hold or the credential is a
            previous one within its grace. Of N parallel rotations with one credential exactly one is APPLIED.

        Raises:
            ValueError: The user is empty or has a lone surrogate; nothing was written.
        """

    @abstractmethod
    async def destroy(self, handle: Handle) -> bool:
        """End the session whatever its verifier. Idempotent; works on a full backend.

        Returns:
            Whether a record was removed.
        """

    @abstractmethod
    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        """Return every live session of *user* bound before the call, each once, `data` left empty."""

    @abstractmethod
    async def alive(self, credentials: Iterable[Credential], *, now_ms: int) -> set[Credential]:
        """Return which of any number of *credentials* are live; exact for each, not one snapshot."""

    @abstractmethod
    def gone(self) -> AsyncIterator[Handle]:
        """Yield the handle of each destroy, and of each rotation without grace, from the first `anext` on.

        Best effort: reconnects by itself and may miss some, so receivers confirm and poll with `alive`.
        Expiry is not announced. Ends with `aclose()` of the store or of the iterator.
        """

    @abstractmethod
    def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        """Yield the live records with their data, in bounded memory. A handle may come twice."""

    def counters(self) -> Counters | None:
        """Return the tallies kept in the same backend: the same ones each time, closed with the store.

        None, unless overridden: this store counts nothing, so whoever needs to count does so elsewhere.
        """
        return None

    @abstractmethod
    async def ping(self) -> None:
        """Connect if need be, make the backend ready (indexes), and check that it answers.

        Raises:
            StoreRefused: Wrong credentials or rights.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End every `gone` iterator and release the connections. Idempotent."""
