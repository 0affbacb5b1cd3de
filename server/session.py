"""`Session`: a mutable mapping that knows what it changed, and the verbs of a session's life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator, MutableMapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from server.contents import Contents, Unreadable
from server.cookies import SessionId, mint_secret
from server.keeper import Keeper
from server.request import CookieChange, Presence, Request
from stores import Delta, Record

log = logging.getLogger("stormcellar.session")


class Session(MutableMapping[str, Any]):
    """The session of one request: a mapping from key to JSON value.

    Keys match `[A-Za-z_][A-Za-z0-9_:-]{0,63}`. Values are what JSON has: None, bool, int, float, str, list,
    dict with str keys. Changes, nested ones too, are saved with the response as one atomic delta; a value
    that was only read is not written. Falsy while empty, so test `is not None` where that is meant.

    Made by `SessionManager.load`; one request, one task at a time.
    """

    def __init__(
        self,
        keeper: Keeper,
        request: Request,
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
        self.cookie = CookieChange.CLEAR if presence is Presence.ENDED else CookieChange.KEEP
        self.lock = asyncio.Lock()
        self.sealed: str | None = None
        self._contents = Contents(record.data if record is not None else {})
        self._reserved: str | None = None

    # --- who ---

    @property
    def user(self) -> str | None:
        """Who is signed in, or None."""
        return self.record.user if self.record is not None else None

    @property
    def handle(self) -> str | None:
        """What names this session in logs and lists; None while there is no record."""
        return self.record.handle if self.record is not None else None

    # --- the verbs ---

    async def login(self, user: str, *, keep: Collection[str] = (), auth_ms: int | None = None) -> None:
        """Sign *user* in, with a new session ID, in one atomic step; the old ID is dead from then on.

        Args:
            user: Any non-empty string that UTF-8 can encode.
            keep: The keys that survive sign-in from an anonymous session. Signing in again as the same user
                keeps everything, over another user nothing.
            auth_ms: When the user proved who they are, if that was before now: take it before the password
                is checked, so that a password change meanwhile counts.

        Raises:
            SignInRevoked: The account was disabled or changed meanwhile; nobody is signed in.
            InsecureTransport: This request must not be given a session cookie; nothing was done.
            StoreUnavailable: No answer. The cookie is untouched, unless the ID is known to have changed.
        """
        self._require_open()
        await _to_its_end(self._keeper.login(self, user, keep=keep, auth_ms=auth_ms))

    async def logout(self) -> None:
        """End the session in the store, then clear the cookie. Does nothing where there is none."""
        self._require_open()
        await self._keeper.logout(self)

    async def renew(self) -> None:
        """Change the session ID, at a change of privilege. Does nothing without a record.

        Raises:
            SessionChanged: The session ended or was rotated meanwhile.
        """
        self._require_open()
        await _to_its_end(self._keeper.renew(self))

    async def commit(self) -> None:
        """Save now what the response would save.

        Raises:
            SessionChanged, SessionEnded, SessionTooLarge, StoreUnavailable
        """
        self._require_open()
        await self._keeper.commit(self)

    async def modify(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace the value of *key* by `change(value)`, atomically against every other request.

        *change* is given the current value (None if absent) and may be called again if another request
        was faster. What else is pending is saved first.

        Returns:
            The new value. Where a safe request's session is over, it is given but not stored.

        Raises:
            SessionChanged: The session ended or was rotated, or others were faster for two seconds.
            SessionEnded, SessionTooLarge, StoreUnavailable
        """
        self._require_writable()
        return await self._keeper.modify(self, key, change)

    # --- the mapping ---

    def __getitem__(self, key: str) -> Any:
        try:
            return self._contents.read(key)
        except Unreadable:
            _log_unreadable(self.handle, key)
            raise

    def __setitem__(self, key: str, value: Any) -> None:
        self._require_writable()
        self._contents.write(key, value)

    def __delitem__(self, key: str) -> None:
        self._require_writable()
        self._contents.delete(key)

    def clear(self) -> None:
        """Remove every key, those with an unreadable value too."""
        self._require_writable()
        self._contents.clear()

    def __iter__(self) -> Iterator[str]:
        return iter([key for key in self._contents.names() if key in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(key in self for key in self._contents.names())

    def __repr__(self) -> str:
        return f"<Session {self.handle} {self.presence.name.lower()}>"

    # --- what the manager and the mixin need ---

    async def save(self, frozen: Delta) -> None:
        """Save what was pending when the handler finished; sealed or not.

        Waits for a verb that is still at work, and leaves out what that took back.
        """
        await self._keeper.commit(self, frozen)

    @property
    def is_busy(self) -> bool:
        """Whether a verb is at work, so that the cookie is not decided yet."""
        return self.lock.locked()

    @property
    def read_nothing(self) -> bool:
        """Whether no value was looked at, nor written."""
        return self._contents.is_untouched

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

    def wrote(self, delta: Delta, *, seen_ms: int, expires_ms: int) -> None:
        """Take over that *delta* was applied. Later changes of the same values still count."""
        assert self.record is not None
        data = {k: v for k, v in self.record.data.items() if k not in delta.drop} | dict(delta.put)
        self.record = replace(self.record, data=data, seen_ms=seen_ms, expires_ms=expires_ms)
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


async def _to_its_end(verb: Coroutine[Any, Any, None]) -> None:
    """Await *verb*, which goes on if the handler gives up on it: it may get the only copy of a new secret.

    It holds the session's lock meanwhile, for which the response waits.
    """
    await asyncio.shield(asyncio.ensure_future(verb))


@lru_cache(maxsize=1024)
def _log_unreadable(handle: str | None, key: str) -> None:
    # The cache makes this once per session and key, in bounded memory.
    log.error("session %s holds a value for %r that is not JSON; it reads as absent", handle, key)
