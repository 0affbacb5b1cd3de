"""`Session`: a mutable mapping that knows what it changed, and the verbs of a session's life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

from server import values
from server.cookies import SessionId, mint_secret
from server.request import CookieChange, Presence, Request
from stores import Delta, Record

log = logging.getLogger("stormcellar.session")


class Keeper(Protocol):
    """What carries out the verbs of a session, each as one atomic step in the store."""

    async def commit(self, session: Session, delta: Delta | None = None) -> None:
        """Save *delta*, or else what is pending."""

    async def login(self, session: Session, user: str, *, keep: Collection[str], auth_ms: int | None) -> None:
        """Sign *user* in with a new ID."""

    async def logout(self, session: Session) -> None:
        """End the session."""

    async def renew(self, session: Session) -> None:
        """Change the ID."""

    async def modify(self, session: Session, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace one value atomically."""


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
        self._values: dict[str, Any] = {}
        self._watched: set[str] = set()
        self._dropped: set[str] = set()
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
            StoreUnavailable: No answer; the cookie is untouched.
        """
        self._require_open()
        await self._keeper.login(self, user, keep=keep, auth_ms=auth_ms)

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
        await self._keeper.renew(self)

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
            The new value.

        Raises:
            SessionChanged: The session ended or was rotated, or others were faster for two seconds.
        """
        self._require_open()
        return await self._keeper.modify(self, key, change)

    # --- the mapping ---

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            self._values[key] = self._read(key)
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._require_writable()
        Delta(put={key: values.encode(value)})
        self._values[key] = value
        self._watched.add(key)
        self._dropped.discard(key)

    def __delitem__(self, key: str) -> None:
        self._require_writable()
        self[key]
        del self._values[key]
        self._watched.discard(key)
        if key in self._stored:
            self._dropped.add(key)

    def __iter__(self) -> Iterator[str]:
        names = [*self._stored, *(key for key in self._values if key not in self._stored)]
        return iter([key for key in names if key in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __repr__(self) -> str:
        return f"<Session {self.handle} {self.presence.name.lower()}>"

    @property
    def _stored(self) -> Mapping[str, bytes]:
        return self.record.data if self.record is not None else {}

    def _read(self, key: str) -> Any:
        if self.record is None or key in self._dropped or key not in self.record.data:
            raise KeyError(key)
        try:
            value = values.decode(self.record.data[key])
        except values.NotJSON:
            _log_unreadable(self.record.handle, key)
            raise KeyError(key) from None
        if isinstance(value, list | dict):
            self._watched.add(key)
        return value

    # --- what the manager and the mixin need ---

    async def save(self, delta: Delta) -> None:
        """Save *delta*, frozen when the handler finished; sealed or not."""
        await self._keeper.commit(self, delta)

    @property
    def read_nothing(self) -> bool:
        """Whether no value was looked at, nor written."""
        return not (self._values or self._dropped)

    def pending(self) -> Delta | None:
        """Return what changed since the load, or None.

        Raises:
            NotJSON: A value was made so by a nested change.
        """
        if not (self._watched or self._dropped):
            return None
        put = {}
        for key in self._watched:
            raw = values.encode(self._values[key])
            if not self._is_stored(key, raw):
                put[key] = raw
        return Delta(put, frozenset(self._dropped)) if put or self._dropped else None

    def _is_stored(self, key: str, raw: bytes) -> bool:
        stored = self.record.data.get(key) if self.record is not None else None
        if stored is None or stored == raw:
            return stored == raw
        try:
            # Another writer's JSON may have other spaces; what counts is the value.
            return values.encode(values.decode(stored)) == raw
        except values.NotJSON:
            return False

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
        secret, self._reserved = self._reserved, None
        return SessionId.mint(secret)

    def became(self, record: Record, sid: SessionId) -> None:
        """Take over *record*, just written, whose ID the browser must be given."""
        self.record = record
        self.sid = sid
        self.presence = Presence.LIVE
        self.cookie = CookieChange.SET
        self._dropped.clear()

    def confine(self, keys: Collection[str]) -> None:
        """Forget every value but those of *keys*; objects the handler holds of those stay its own."""
        self._values = {key: value for key, value in self._values.items() if key in keys}
        self._watched &= self._values.keys()
        self._dropped.clear()

    def wrote(self, delta: Delta, *, seen_ms: int, expires_ms: int) -> None:
        """Take over that *delta* was applied. Later changes of the same values still count."""
        assert self.record is not None
        data = {k: v for k, v in self.record.data.items() if k not in delta.drop} | dict(delta.put)
        self.record = replace(self.record, data=data, seen_ms=seen_ms, expires_ms=expires_ms)
        self._dropped -= delta.drop

    def ended(self, *, cookie: CookieChange) -> None:
        """Take over that this request signed the session out."""
        self.record = None
        self.sid = None
        self.presence = Presence.OVER
        self.cookie = cookie
        self.forget()

    def forget(self) -> None:
        """Drop what is pending and what was read."""
        self.confine(())

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


@lru_cache(maxsize=1024)
def _log_unreadable(handle: str, key: str) -> None:
    # The cache makes this once per session and key, in bounded memory.
    log.error("session %s holds a value for %r that is not JSON; it reads as absent", handle, key)
