"""`Session`: a mutable mapping that knows what it changed, and the verbs of a session's life."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Coroutine, Iterator, MutableMapping
from functools import lru_cache
from secrets import token_hex
from typing import Any

from stormcellar.sessions.state import SessionState
from stormcellar.sessions.tracked_data import Unreadable
from stormcellar.stores import Delta

log = logging.getLogger("stormcellar.session")

FLASH = "_flash:"
"""Begins the keys of messages for the next page."""


class Session(SessionState, MutableMapping[str, Any]):
    """The session of one request: a mapping from key to JSON value.

    Keys match `[A-Za-z_][A-Za-z0-9_:-]{0,63}`. Values are what JSON has: None, bool, int, float, str, list,
    dict with str keys. Changes, nested ones too, are saved with the response as one atomic delta; a value
    that was only read is not written. Falsy while empty, so test `is not None` where that is meant.

    Made by `SessionManager.load`; one request, one task at a time.
    """

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

    async def login(
        self,
        user: str,
        *,
        keep: Collection[str] = (),
        auth_ms: int | None = None,
        remember: bool | None = None,
        afresh: bool = True,
    ) -> None:
        """Sign *user* in, with a new session ID, in one atomic step; the old ID is dead from then on.

        Args:
            user: Any non-empty string that UTF-8 can encode.
            keep: The keys that survive sign-in from an anonymous session. Signing in again as the same user
                keeps everything, over another user nothing.
            auth_ms: When the user proved who they are, if that was before now: take it before the password
                is checked, so that a password change meanwhile counts.
            remember: Keep them signed in when the browser closes, within `Lifetime.remember_s`; without that
                setting it means nothing. None: as they were, if it is the same user.
            afresh: If the session ended or was rotated meanwhile, make them another one, as for somebody who
                fills in a sign-in form. False: raise SessionChanged, as for a proof within the session.

        Raises:
            SessionChanged: Not *afresh*, and the session ended or was rotated meanwhile; nothing was done.
            SignInRevoked: The account was disabled or changed meanwhile; nobody is signed in.
            InsecureTransport: This request must not be given a session cookie; nothing was done.
            StoreUnavailable: No answer. The cookie is untouched, unless the ID is known to have changed.
        """
        self._require_open()
        await _to_its_end(
            self._keeper.login(self, user, keep=keep, auth_ms=auth_ms, remember=remember, afresh=afresh)
        )

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

    async def expire_in(self, seconds: float) -> None:
        """End this session in so many seconds whatever its activity: never later than it would have ended.

        Changes the session ID; where there is no record yet, the one that this request makes is so limited.
        Holds until a later request signs somebody in, or takes a proof, which starts the time anew.

        Raises:
            ValueError: Not a positive number.
            SessionChanged: The session ended or was rotated meanwhile.
        """
        self._require_writable()
        if not 0 < seconds < math.inf:
            raise ValueError(f"a session expires in a positive number of seconds, not {seconds!r}")
        await _to_its_end(self._keeper.limit(self, seconds))

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

    # --- messages for the next page ---

    def flash(self, message: str) -> None:
        """Keep *message*, plain text, for the next page that asks for `flashes()`.

        Each has a key of its own, which iteration leaves out, so that parallel requests lose none.
        """
        if not isinstance(message, str) or not message:
            raise ValueError("a message is a non-empty string")
        number = len(self._flash_keys())
        self[f"{FLASH}{number:03}:{token_hex(8)}"] = message

    def flashes(self) -> list[str]:
        """Return the messages that wait, oldest first, and forget them."""
        keys = self._flash_keys()
        messages = [self[key] for key in keys]
        for key in keys:
            del self[key]
        return [message for message in messages if isinstance(message, str)]

    def _flash_keys(self) -> list[str]:
        return sorted(key for key in self._contents.names() if key.startswith(FLASH) and key in self)

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
        names = self._contents.names()
        return iter([key for key in names if not key.startswith(FLASH) and key in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __repr__(self) -> str:
        return f"<Session {self.handle} {self.presence.name.lower()}>"

    # --- what the mixin needs ---

    async def save(self, frozen: Delta, *, renew: bool = False) -> None:
        """Save what was pending when the handler finished; sealed or not.

        Waits for a verb that is still at work, and leaves out what that took back.

        Args:
            renew: Change the session ID in passing, if nothing happens to it meanwhile.
        """
        await (self._keeper.renew_in_passing if renew else self._keeper.commit)(self, frozen)


async def _to_its_end(verb: Coroutine[Any, Any, None]) -> None:
    """Await *verb*, which goes on if the handler gives up on it: it may get the only copy of a new secret.

    It holds the session's lock meanwhile, for which the response waits.
    """
    await asyncio.shield(asyncio.get_running_loop().create_task(verb))


@lru_cache(maxsize=1024)
def _log_unreadable(handle: str | None, key: str) -> None:
    # The cache makes this once per session and key, in bounded memory.
    log.error("session %s holds a value for %r that is not JSON; it reads as absent", handle, key)
