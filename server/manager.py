"""`SessionManager`: an application's sessions, with their cookies, their store and the work in flight."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from server.cookies import Cookies, KeyRing, SessionId
from server.csrf import FormTokens
from server.lifecycle import Accounts, Lifecycle
from server.lifetime import Lifetime
from server.request import Presence, Request
from server.rules import by_sign_in
from server.session import Session
from stores import Absent, Record, Store, StoreUnavailable

log = logging.getLogger("stormcellar.sessions")

_PRESENCE = {Absent.SUPERSEDED: Presence.SUPERSEDED, Absent.ENDED: Presence.ENDED}


class SessionManager:
    """Keeps the sessions of an application; one a process.

    Args:
        store: Where they live.
        secrets: Signing keys of at least 32 bytes; the first signs, all verify.
        lifetime: The limits of a session's life.
        secure: The application is served over TLS: the cookie is `__Host-` and Secure. Without it a request
            that is not loopback gets no session cookie.
        cookie_name: Without the prefix, which *secure* adds.
        accounts: If given, a session of a user counts only while `valid_after` says so.
        clock: Unix time in seconds.

    Raises:
        ValueError: Keys or a cookie name that will not do.
    """

    def __init__(
        self,
        store: Store,
        *,
        secrets: Sequence[bytes | str],
        lifetime: Lifetime = Lifetime(),  # noqa: B008  frozen
        secure: bool = False,
        cookie_name: str = "id",
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        keys = KeyRing(secrets)
        self.store = store
        self.lifetime = lifetime
        self.secure = secure
        self.lifecycle = Lifecycle(store, lifetime=lifetime, accounts=accounts, clock=clock)
        # A day beyond the deadline: the store decides, the signature only bounds what it is asked.
        max_age_s = lifetime.absolute_s + 86_400
        self.cookies = Cookies(keys, name=cookie_name, secure=secure, max_age_s=max_age_s, clock=clock)
        self.forms = FormTokens(keys.derive("form token"))
        self._tasks: set[asyncio.Task[Any]] = set()

    def now_ms(self) -> int:
        """Return Unix time in milliseconds by this manager's clock."""
        return self.lifecycle.now_ms()

    # --- a request's session ---

    async def load(self, sid: SessionId | None, request: Request) -> Session:
        """Return the session behind *sid*: one store call, none without a cookie.

        Raises:
            StoreUnavailable: No answer.
        """
        if sid is None:
            return Session(self.lifecycle, request, Presence.NONE)
        found = await self.store.load(sid.credential, now_ms=self.now_ms())
        if isinstance(found, Absent):
            return Session(self.lifecycle, request, _PRESENCE[found], sid=sid)
        if not self.lifecycle.counts(found):
            self.spawn(self.store.destroy(found.handle))
            return Session(self.lifecycle, request, Presence.ENDED, sid=sid)
        return Session(self.lifecycle, request, Presence.LIVE, sid=sid, record=found)

    def touch(self, session: Session) -> None:
        """Record in the background that the session was used, if that is due."""
        record = session.record
        if record is not None and self.lifetime.wants_touch(record, now_ms=self.now_ms()):
            self.spawn(self.lifecycle.touch(session))

    # --- a user's sessions ---

    async def of_user(self, user: str) -> list[Record]:
        """Return the sessions of *user* that count, newest sign-in first; `data` is empty."""
        records = await self.store.of_user(user, now_ms=self.now_ms())
        return sorted(filter(self.lifecycle.counts, records), key=by_sign_in, reverse=True)

    async def revoke(self, user: str, handle: str) -> bool:
        """End one session of *user*; False if they have none by that handle, whoever else may."""
        own = [record.handle for record in await self.of_user(user) if record.handle == handle]
        return any([await self.store.destroy(handle) for handle in own])

    async def revoke_others(self, user: str, *, than: str) -> int:
        """End every session of *user* but the one with the handle *than*; return how many."""
        others = [record.handle for record in await self.of_user(user) if record.handle != than]
        return sum([await self.store.destroy(handle) for handle in others])

    # --- work in flight ---

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run *work* so that no hang-up cancels it and `aclose` waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._landed)
        return task

    async def drain(self) -> None:
        """Wait for the work in flight."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Wait for the work in flight, then close the store. Idempotent."""
        await self.drain()
        await self.store.aclose()

    def _landed(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        known = isinstance(error, StoreUnavailable)
        log.warning("background work failed: %s", error, exc_info=None if known else error)
