"""The store contract: where sessions live, and what every store promises.

A session's data is a map from key to JSON bytes. A write is a `Delta` (keys to put, keys to drop), applied
in one atomic, conditional operation on one record, so writes to different keys commute and parallel
requests lose nothing. `stormcellar.stores.conformance.StoreContract` holds each promise below as a test.

Stores read no clock, decode no values, log no data and never see a secret.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from typing import ClassVar, Self

from stormcellar.stores.counters import Counters
from stormcellar.stores.records import (
    Absent,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    StoreOptions,
)


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
    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        """Replace the verifier, and with it everything that changes at sign-in, in one step.

        `expect` is tested first; then, where `keep` is a set, every data key outside it is dropped, also one
        written since the load; then the delta applies. User, `auth_ms`, client, expiry and deadline are set
        as given and `rotated_ms` to *now_ms*; `seen` never moves back; `created_ms` stays.

        With `grace_ms` the previous verifier stays live so long for `load`, `apply` and `alive`; 0 ends any
        earlier grace too.

        Returns:
            GONE if the session is not live; CONFLICT if an `expect` does not hold or the credential is a
            previous one within its grace. Of N parallel rotations with one credential exactly one is APPLIED.
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
        """Release the connections, and end every `gone` iterator. Idempotent."""


class Announcing(Store):
    """A store that announces which sessions end, so that other processes need not ask for each.

    Optional: callers test for it with `isinstance`.
    """

    @abstractmethod
    def gone(self) -> AsyncIterator[Handle]:
        """Yield the handle of each destroy, and of each rotation without grace, from the first `anext` on.

        Best effort: reconnects by itself and may miss some, so receivers confirm and poll with `alive`.
        Expiry is not announced. Ends with `aclose()` of the store or of the iterator.
        """

    @abstractmethod
    async def alive(self, credentials: Iterable[Credential], *, now_ms: int) -> set[Credential]:
        """Return which of any number of *credentials* are live; exact for each, not one snapshot."""


class Scannable(Store):
    """A store that can list all of its sessions. Optional: callers test for it with `isinstance`."""

    @abstractmethod
    def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        """Yield the live records with their data, in bounded memory. A handle may come twice."""
