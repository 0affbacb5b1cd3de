"""`SessionState`: where a request's session stands. For the verbs and the mixin, not for handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from stormcellar.sessions.cookies import SessionId, mint_secret
from stormcellar.sessions.keeper import Keeper
from stormcellar.sessions.request_info import CookieChange, Presence, Requesting, decoded_client
from stormcellar.sessions.tracked_data import Contents
from stormcellar.stores import Delta, Record


class SessionState:
    """The record behind a request, as loaded and as written since, and what becomes of the cookie."""

    cookie = CookieChange.KEEP
    sealed: str | None = None
    limit_s: float | None = None
    """What `expire_in` said in this request, of the record there is and of one that is still to come."""
    unsettled: Record | None = None
    """The record of a sign-in that does not count since its account changed just now; see `Standing`."""
    _lock: asyncio.Lock | None = None
    _reserved: str | None = None

    def __init__(
        self,
        keeper: Keeper,
        request: Requesting,
        presence: Presence,
        *,
        sid: SessionId | None = None,
        record: Record | None = None,
    ) -> None:
        self._keeper = keeper
        self.request = request
        self.presence = presence
        self.sid = sid
        self.record = record
        self._contents = Contents({} if record is None else record.data)
        if presence is Presence.ENDED:
            self.cookie = CookieChange.CLEAR

    @property
    def is_remembered(self) -> bool:
        """Whether its user asked to be kept signed in."""
        return self.record is not None and decoded_client(self.record.client).get("remember") is True

    @property
    def is_busy(self) -> bool:
        """Whether a verb is at work, so that the cookie is not decided yet."""
        return self._lock is not None and self._lock.locked()

    @property
    def lock(self) -> asyncio.Lock:
        """What a verb holds while it is at work."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    @property
    def is_unchanged(self) -> bool:
        """Whether nothing can be pending, and no verb is at work. Looks at no value."""
        return self._contents.is_unchanged and (self._lock is None or not self._lock.locked())

    @property
    def is_private(self) -> bool:
        """Whether a response to this request may show what only its browser should see."""
        is_users = self.record is not None and self.record.user is not None
        return is_users or not self._contents.is_untouched

    def pending(self) -> Delta | None:
        """Return what changed since the load, or None.

        Raises:
            NotJSON: A value was made so by a nested change.
        """
        return self._contents.pending()

    def remaining(self, frozen: Delta) -> Delta | None:
        """Return the part of *frozen*, pending at its time, that no verb has saved or taken back since."""
        return self._contents.remaining(frozen)

    def reserve(self) -> str:
        """Return the secret that the next session made for this request will have.

        A form rendered before it is known whether there will be a session is bound to this.
        """
        self._reserved = self._reserved or mint_secret()
        return self._reserved

    @property
    def reserved(self) -> str | None:
        """The secret that was promised to a form and has not been used for a session."""
        return self._reserved

    def mint(self) -> SessionId:
        """Return the ID of a new session, with the reserved secret if there is one."""
        return SessionId.mint(self._reserved)

    def became(self, record: Record, sid: SessionId) -> None:
        """Take over *record*, just written, whose ID the browser must be given."""
        self.record = record
        self.sid = sid
        self.presence = Presence.LIVE
        self.cookie = CookieChange.SET
        self._reserved = None
        self._contents.stored_is(record.data)

    def wrote(self, data: Mapping[str, bytes], *, seen_ms: int, expires_ms: int) -> None:
        """Take over that the record holds *data* now. Later changes of the same values still count."""
        was = self.record
        assert was is not None
        # In every request that writes, and `dataclasses.replace` takes three times as long.
        self.record = Record(
            was.handle,
            was.verifier,
            was.user,
            was.created_ms,
            was.rotated_ms,
            was.auth_ms,
            seen_ms,
            expires_ms,
            was.deadline_ms,
            was.client,
            data,
        )
        self._contents.stored_is(data)

    def saw(self, key: str, raw: bytes | None) -> None:
        """Take over what the store holds of *key* now; the rest stays as loaded, or it would look changed."""
        assert self.record is not None
        data = {k: v for k, v in self.record.data.items() if k != key}
        self.record = replace(self.record, data=data if raw is None else {**data, key: raw})
        self._contents.stored_is(self.record.data)

    def replaced(self, key: str, value: Any) -> None:
        """Take over that *value* was stored under *key*, whatever the handler knew of it before."""
        self._contents.replaced(key, value)

    def ended(self, *, cookie: CookieChange) -> None:
        """Take over that this request signed the session out."""
        self.record = None
        self.sid = None
        self.presence = Presence.OVER
        self.cookie = cookie
        self._contents = Contents({})

    def confine(self, keys: Collection[str]) -> None:
        """Forget every value but those of *keys*; objects the handler holds of those stay live."""
        self._contents.confine(keys)

    def abandon(self) -> None:
        """Drop what is pending; the handler can still read it."""
        self._contents.abandon()

    def forget(self) -> None:
        """Drop what is pending and what was read."""
        self._contents.confine(())

    def seal(self, reason: str) -> None:
        """Refuse every change from here on, with *reason*."""
        self.sealed = reason

    def _require_open(self) -> None:
        if self.sealed:
            raise RuntimeError(f"the session can no longer change: {self.sealed}")

    def _require_writable(self) -> None:
        self._require_open()
        if self.presence is Presence.OVER:
            raise RuntimeError("this request signed the session out; only login() may follow")
