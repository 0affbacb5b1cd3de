"""`SessionState`: the session of one request, for the session layer and web adapters; not for handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import replace
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any, Self

from stormcellar.errors import SessionEnded
from stormcellar.sessions.cookies import SessionId, mint_secret
from stormcellar.sessions.data.tracked import TrackedData
from stormcellar.sessions.request_info import (
    Client,
    CookieChange,
    FixedRequestInfo,
    Marks,
    Presence,
    RequestInfo,
    marks_of,
)
from stormcellar.stores import Record


class SessionState:
    """The record of a request's session, its changed data, and what the response does to the cookie.

    Args:
        sid: The session ID of the request's cookie, if its session is live.
        record: As loaded; None if the session is not live.
        stale: The session ID of the request's cookie, if its session is not live.
        unsettled: The record of a sign-in that does not count because its account changed a moment ago.
    """

    cookie = CookieChange.KEEP
    sealed: str | None = None
    """Why the session can no longer change; None while it can."""
    is_opened = False
    """Whether the session was opened by its handle, without a browser: the record's ID stays as it is, and
    what is done is no activity of the user."""
    is_ended = False
    """Whether the session of `stale` was ended, as far as the store knows: the end may be unconfirmed."""
    is_signed_out = False
    """Whether this request ended the session."""
    is_expired = False
    """Whether the session of `stale` is over only because of its expiry, or has left no trace."""
    limit_s: float | None = None
    """The argument of `expire_in` in this request; also limits a record that is created later."""
    reserved: str | None = None
    """The secret that a form of this response is bound to, until a session uses it."""
    _lock: asyncio.Lock | None = None

    def __init__(
        self,
        request: RequestInfo,
        presence: Presence,
        *,
        sid: SessionId | None = None,
        record: Record | None = None,
        stale: SessionId | None = None,
        unsettled: Record | None = None,
    ) -> None:
        self.request = request
        self.presence = presence
        self.sid = sid
        self.record = record
        self.credential = None if sid is None else sid.credential
        self.stale = stale
        self.unsettled = unsettled
        self.is_late = presence is Presence.LATE
        self.data = TrackedData({} if record is None else record.data)
        self.called: list[tuple[str, Coroutine[Any, Any, Any]]] = []

    @classmethod
    def opened(cls, record: Record) -> Self:
        """Return the state of a session that is opened by its handle, without a browser."""
        request = FixedRequestInfo(Client("", ""), is_safe=False, may_set_cookie=False)
        state = cls(request, Presence.LIVE, record=record)
        state.credential = record.credential
        state.is_opened = True
        return state

    # --- what it is now ---

    @property
    def user(self) -> str | None:
        """Who is signed in, or None."""
        return None if self.record is None else self.record.user

    @property
    def handle(self) -> str | None:
        """The handle of the record, or None."""
        return None if self.record is None else self.record.handle

    @property
    def marks(self) -> Marks:
        """What the session layer stored about the session besides the data."""
        return Marks() if self.record is None else marks_of(self.record)

    @property
    def is_busy(self) -> bool:
        """Whether a verb is running, so that the cookie is not decided yet."""
        return self._lock is not None and self._lock.locked()

    @property
    def is_unchanged(self) -> bool:
        """Whether no data can have changed and no verb is running. Compares no value."""
        return self.data.is_unchanged and (self._lock is None or not self._lock.locked())

    @property
    def is_private(self) -> bool:
        """Whether the response may contain what no other browser should see."""
        return (self.record is not None and self.record.user is not None) or not self.data.is_untouched

    @property
    def lock(self) -> asyncio.Lock:
        """The lock that a verb holds while it runs."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    def require_timely(self) -> None:
        """Raise SessionEnded if the request is late."""
        if self.is_late:
            raise SessionEnded

    def require_open(self) -> None:
        """Raise RuntimeError if the session is sealed."""
        if self.sealed:
            raise RuntimeError(f"the session can no longer change: {self.sealed}")

    def require_awaited(self) -> None:
        """Raise RuntimeError if a verb of the session was called without `await`: it did nothing."""
        called, self.called = self.called, []
        for verb, coroutine in called:
            if getcoroutinestate(coroutine) == CORO_CREATED:
                raise RuntimeError(f"session.{verb}() did nothing, since it was called without await")

    def require_browser(self) -> None:
        """Raise RuntimeError if the session is sealed, or no browser can get a new session ID."""
        self.require_open()
        if self.is_opened:
            raise RuntimeError("a session opened by its handle keeps its ID: no browser would get a new one")

    def require_writable(self) -> None:
        """Raise RuntimeError if the session is sealed, or this request signed it out."""
        self.require_open()
        if self.presence is Presence.SIGNED_OUT:
            raise RuntimeError("this request signed the session out; only login() and flash() may follow")

    def limited(self, deadline_ms: int, now_ms: int) -> int:
        """Return *deadline_ms*, or what `expire_in` in this request leaves of it."""
        return deadline_ms if self.limit_s is None else min(deadline_ms, now_ms + round(1000 * self.limit_s))

    # --- secrets ---

    def reserve(self) -> str:
        """Return the secret of the next session that this request creates.

        A form that is rendered before a session exists is bound to it.
        """
        self.reserved = self.reserved or mint_secret()
        return self.reserved

    def mint(self) -> SessionId:
        """Return the ID of a new session, with the reserved secret if there is one."""
        return SessionId.mint(self.reserved)

    # --- what the store holds now ---

    def set_record(self, record: Record, sid: SessionId) -> None:
        """Record that *record* was created or rotated; the response sets the cookie to *sid*."""
        self.record = record
        self.sid = sid
        self.credential = sid.credential
        self.presence = Presence.LIVE
        self.is_late = False
        self.cookie = CookieChange.SET
        self.reserved = None
        self.data.set_stored(record.data)

    def set_written(self, data: Mapping[str, bytes], *, seen_ms: int, expires_ms: int) -> None:
        """Record that the store now holds *data*; values changed since are still pending."""
        was = self.record
        assert was is not None
        # `dataclasses.replace` takes three times as long, and every request that writes runs this.
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
        self.data.set_stored(data)

    def set_loaded(self, record: Record) -> None:
        """Record that the store now holds *record*; unsaved changes stay."""
        self.record = record
        self.credential = record.credential
        self.data.reload(record.data)

    def set_stored_value(self, key: str, raw: bytes | None) -> None:
        """Record what the store now holds under *key*. Other keys stay as loaded, or they look changed."""
        assert self.record is not None
        data = {k: v for k, v in self.record.data.items() if k != key}
        self.record = replace(self.record, data=data if raw is None else {**data, key: raw})
        self.data.set_stored(self.record.data)

    def set_value(self, key: str, value: Any) -> None:
        """Record that *value* was stored under *key*, instead of what the handler read before."""
        self.data.set_value(key, value)

    def end(self, *, cookie: CookieChange) -> None:
        """Record that this request ended the session."""
        self.record = None
        self.sid = None
        self.credential = None
        self.presence = Presence.SIGNED_OUT
        self.is_signed_out = True
        self.cookie = cookie
        self.data = TrackedData({})

    # --- changes that are not saved ---

    def retain(self, keys: Collection[str]) -> None:
        """Drop every value but those of *keys*; objects that the handler holds of those stay tracked."""
        self.data.retain(keys)

    def drop_data(self) -> None:
        """Drop what is pending and what was read."""
        self.data.retain(())

    def seal(self, reason: str) -> None:
        """Refuse every later change, with *reason*."""
        self.sealed = reason
