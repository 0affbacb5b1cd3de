"""The store contract: what every store of sessions guarantees.

A session's data is a map from key to JSON bytes. A write is a `Delta` (keys to put, keys to drop), applied
in one atomic, conditional operation on one record, so writes to different keys commute and parallel requests
lose no write. `stormcellar.stores.conformance.StoreContract` tests each guarantee below.

Stores read no clock, decode no values, log no data and never receive a secret.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
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
from stormcellar.stores.url import StoreURL


class Store(ABC):
    """Keeps sessions. Every result depends only on the arguments and the stored state.

    A record is **live** for a credential while it exists, its expiry is after `now_ms`, and the verifier is
    the current one, or the previous one within its grace. Whether the backend has already removed an expired
    record changes no result, except that of `destroy` and of a `load` after it.

    `now_ms` of `load`, `apply` and `rotate` is when the caller's request arrived, up to `TOMBSTONE_MS` before
    the call. So a backend keeps a record at least so long after its expiry, by its own clock.

    A **tombstone** takes the place of a destroyed record and has the time of that, nothing else. It is never
    live, has no user, and only `load`, `create` and `destroy` notice it. It ends by itself after
    `TOMBSTONE_MS`, by the backend's clock. A backend that is full may leave it out.

    Handles are never reused, and only `create` adds one, so nothing restores a destroyed session. A mutation
    is sent at most once. A cancelled call takes effect completely or not at all, and no other call receives
    its reply. A stored record that does not parse, or that has a time before 1970 or after the year 9999,
    counts as if it did not exist, except for `create` and `destroy`.

    Raises:
        StoreUnavailable: From any operation: no usable reply within the time-out.
        StoreFull: From a mutation other than `destroy`: nothing was written.
        StoreRefused: From any operation: the backend refuses the credentials, a right or its set-up.
    """

    shared: ClassVar[bool] = True
    """Whether all processes that open the same URL use the same sessions."""

    @classmethod
    @abstractmethod
    def from_url(cls, url: StoreURL, options: StoreOptions) -> Self:
        """Make a store without any I/O.

        Called by `open_store`. The login server opens its store once in each process, and once more to check
        the settings; that one is neither used nor closed.

        Args:
            url: The whole URL. `url.query` holds its parameters.

        Raises:
            ValueError: One line, without what may be a password: what is wrong with *url*.
        """

    @abstractmethod
    async def create(self, record: Record) -> None:
        """Insert *record*. The backend may remove it after its expiry.

        Raises:
            DuplicateSession: The handle exists, or has a tombstone; nothing was changed.
            ValueError: A data key is outside the grammar, or the user or a time is invalid; nothing was
                written. See `check_record`.
        """

    @abstractmethod
    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Return one atomic snapshot of the live session, or why there is none. Writes nothing.

        Returns:
            The record with the verifier presented. Otherwise SUPERSEDED, with the time of the rotation, if
            the session is live for another verifier; ENDED, with the time of the destroy, for any verifier
            while there is a tombstone; else UNKNOWN.
        """

    @abstractmethod
    async def find(self, handle: Handle, *, now_ms: int) -> Record | None:
        """Return one atomic snapshot of the live session whatever its verifier; None if it is not live.

        For background jobs and support, not for requests: it authorises nothing. Writes nothing.

        Returns:
            The record with its data and its current verifier.
        """

    @abstractmethod
    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        """Write *delta* if the session is live and every `expect` holds, and slide the expiry.

        One atomic step: all of the delta or none of it. `seen_ms`, which becomes *now_ms*, and the expiry
        never move back. An empty delta only records activity: a touch.

        Args:
            expires_ms: At most the deadline (not checked); None leaves the expiry and `seen_ms` as they are.

        Returns:
            GONE if the session is not live for this credential, whatever `expect` says; CONFLICT if an
            `expect` does not hold.
        """

    @abstractmethod
    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        """Replace the verifier, and everything else that changes at sign-in, in one atomic step.

        `expect` is tested first. Then, if `keep` is a set, every data key outside it is dropped, also one
        written since the load. Then the delta is applied. `rotated_ms`, user, `auth_ms`, client, expiry and
        deadline are set as given. `seen_ms`, which becomes `rotated_ms`, never moves back; `created_ms`
        stays. *now_ms* only judges whether the session is live.

        The verifier that was the current one stays live until `rotated_ms + grace_ms`: `load`, `apply` and
        `states` accept it. With `grace_ms` 0, at a change of privilege, every earlier verifier is dead at
        once, and a credential that is a previous one within its grace may rotate. With a grace only the
        current one may.

        Returns:
            GONE if the session is not live; CONFLICT if an `expect` does not hold, or if there is a
            `grace_ms` and the credential is a previous one within its grace. Of N parallel rotations with one
            credential exactly one is APPLIED; the others are GONE, with a `grace_ms` CONFLICT.
        """

    @abstractmethod
    async def destroy(self, handle: Handle, *, now_ms: int) -> bool:
        """End the session, whatever its verifier, and leave a tombstone in the same atomic step.

        Idempotent: a second call neither changes the tombstone nor extends it. It returns only if the end is
        as durable as after the first, which may have failed to confirm it. Works on a full backend.

        Args:
            now_ms: The time in the tombstone. It judges nothing.

        Returns:
            Whether there was a record, live or not, or anything else but a tombstone at its place.
        """

    @abstractmethod
    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        """Return every live session bound to *user* before the call, each once, with empty `data`.

        Raises:
            ValueError: The user is invalid.
        """

    def counters(self) -> Counters | None:
        """Return the tallies in the same backend: the same ones each time, closed with the store.

        None, unless overridden: this store has no tallies, so callers count elsewhere.
        """
        return None

    @abstractmethod
    async def ping(self) -> None:
        """Connect if necessary, prepare the backend (indexes), and check that it replies.

        Raises:
            StoreRefused: Wrong credentials or rights.
            ReplicasMissing: Nothing but replicas is missing, so that `/readyz` may pass.
        """

    async def server_times(self) -> AsyncIterator[int]:
        """Yield the present time of each server, asked for one after the other: Unix time in milliseconds.

        None at all, unless overridden: this store has no clock of its own, or may not read it.
        """
        nothing: tuple[int, ...] = ()
        for now_ms in nothing:
            yield now_ms

    @abstractmethod
    async def aclose(self) -> None:
        """Release the connections, and end every `gone` iterator. Idempotent."""


class Announcing(Store):
    """A store that announces which sessions end, for processes that hold connections of these sessions.

    Optional: callers test for it with `isinstance`.
    """

    @abstractmethod
    def gone(self) -> AsyncGenerator[Handle | None, None]:
        """Yield None when listening begins, then the handle of each destroy and rotation without grace.

        It reconnects by itself, and yields None again each time that it may have missed some: the receiver
        then checks every session that it holds with `states`. A backend that cannot push yields nothing, not
        even None. Best effort all the same, so receivers also poll. It may yield a handle again, or one that
        only expired, so receivers confirm with `states`. Expiry as such is not announced. Ends with
        `aclose()` of the store or of the iterator; a listener that stops earlier closes the iterator, for
        instance with `contextlib.aclosing`.
        """

    @abstractmethod
    async def states(
        self, credentials: Iterable[Credential], *, now_ms: int
    ) -> dict[Credential, Record | Absent]:
        """Return for each of *credentials*, any number, what has become of its session. Writes nothing.

        As `load`, with `data` left empty, and with one difference: a session that is live for another
        verifier is returned, with its current one. So `record.verifier == credential.verifier` tells
        whether the credential is live. Exact for each, but not one snapshot.
        """


class Scannable(Store):
    """A store that can list all sessions. Optional: callers test for it with `isinstance`."""

    @abstractmethod
    def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        """Yield the live records with their data, in bounded memory. A handle may appear twice."""
