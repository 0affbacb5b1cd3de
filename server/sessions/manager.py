"""`SessionManager`: an application's sessions, with their cookies, their store and the work in flight."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from stormcellar.events import Events, Kind
from stormcellar.lifetime import Lifetime
from stormcellar.sessions.account_check import Accounts, Standing
from stormcellar.sessions.cookies import Cookies, SessionId
from stormcellar.sessions.csrf import FormTokens
from stormcellar.sessions.data_limits import by_sign_in
from stormcellar.sessions.lifecycle import Lifecycle
from stormcellar.sessions.request_info import Presence, Requesting
from stormcellar.sessions.session import Session
from stormcellar.sessions.signing import KeyRing
from stormcellar.stores import Absent, Handle, Record, Store, StoreUnavailable

log = logging.getLogger("stormcellar.sessions")

_NEWS = {Absent.SUPERSEDED: (Kind.REJECTED, "superseded"), Absent.ENDED: (Kind.EXPIRED, None)}
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
        samesite: Of the cookies: `Lax`, or `Strict`.
        admit: Asked before a visitor's session is made; whatever it raises is the answer.
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
        samesite: str = "Lax",
        admit: Callable[[Requesting], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.lifetime = lifetime
        self.secure = secure
        self._touch_after_ms = 1000 * lifetime.touch_after_s
        self.events = Events(self.now_ms)
        """Tells what happens; see `stormcellar.events`."""
        self._standing = Standing(accounts, now_ms=self.now_ms)
        self.lifecycle = Lifecycle(
            store, lifetime=lifetime, standing=self._standing, events=self.events, admit=admit, clock=clock
        )
        self._make_cookies = partial(
            Cookies,
            name=cookie_name,
            secure=secure,
            samesite=samesite,
            # A day beyond the deadline: the store decides, the signature only bounds what it is asked.
            max_age_s=lifetime.longest_s + 86_400,
            clock=clock,
        )
        self.use_keys(secrets)
        self._tasks: set[asyncio.Task[Any]] = set()

    def now_ms(self) -> int:
        """Return Unix time in milliseconds by this manager's clock."""
        return self.lifecycle.now_ms()

    def use_keys(self, secrets: Sequence[bytes | str]) -> None:
        """Sign with the first of *secrets* from now on, and accept what any of them signed.

        Raises:
            ValueError: Keys that will not do; the ones in use stay.
        """
        keys = KeyRing(secrets)
        self.cookies = self._make_cookies(keys)
        self.forms = FormTokens(keys.derive("form token"))

    # --- a request's session ---

    async def load(self, sid: SessionId | None, request: Requesting) -> Session:
        """Return the session behind *sid*: one store call, none without a cookie.

        Raises:
            StoreUnavailable: No answer.
        """
        if sid is None:
            return Session(self.lifecycle, request, Presence.NONE)
        found = await self.store.load(sid.credential, now_ms=self.now_ms())
        if isinstance(found, Absent):
            kind, reason = _NEWS[found]
            self._tell(kind, sid.handle, request, reason=reason)
            return Session(self.lifecycle, request, _PRESENCE[found], sid=sid)
        if not self._standing.counts(found):
            if self._standing.is_changing(found):
                # Nobody is signed in by it, but neither record nor cookie is taken from whoever changes it.
                session = Session(self.lifecycle, request, Presence.SUPERSEDED, sid=sid)
                session.unsettled = found
                return session
            self._tell(Kind.DESTROYED, found.handle, request, user=found.user, reason="account")
            self.spawn(self.store.destroy(found.handle))
            return Session(self.lifecycle, request, Presence.ENDED, sid=sid)
        return Session(self.lifecycle, request, Presence.LIVE, sid=sid, record=found)

    def reject(self, request: Requesting) -> None:
        """Tell of a cookie that is no ID which we signed."""
        self._tell(Kind.REJECTED, None, request, reason="cookie")

    def touch(self, session: Session) -> None:
        """Record in the background that the session was used, if that is due."""
        record, now_ms = session.record, self.now_ms()
        if record is None or now_ms - record.seen_ms < self._touch_after_ms:
            return
        if self.lifetime.wants_touch(record, now_ms=now_ms):
            self.spawn(self.lifecycle.touch(session))

    def wants_renewal(self, session: Session) -> bool:
        """Whether the session ID is old enough to be changed in passing; see `Lifetime.renew_s`."""
        record = session.record
        if self.lifetime.renew_s is None or record is None or not session.request.may_set_cookie:
            return False
        return self.lifetime.wants_renewal(record, now_ms=self.now_ms())

    def is_recent(self, session: Session, *, within_s: float | None = None) -> bool:
        """Whether the user of *session* proved who they are less than *within_s* seconds ago.

        Args:
            within_s: None: `Lifetime.reauth_s`.
        """
        if session.record is None or session.record.auth_ms is None:
            return False
        within_s = self.lifetime.reauth_s if within_s is None else within_s
        return self.now_ms() - session.record.auth_ms < 1000 * within_s

    def idle_left_s(self, session: Session) -> int | None:
        """Return the whole seconds until *session* ends if nothing more happens; None without a record.

        Where this request counts as activity it is as if that was recorded already.
        """
        record, now_ms = session.record, self.now_ms()
        if record is None:
            return None
        due = self.lifetime.wants_touch(record, now_ms=now_ms)
        expires_ms = max(record.expires_ms, self.lifecycle.expires_ms(session) if due else 0)
        return max(0, expires_ms - now_ms) // 1000

    def deadline_left_s(self, session: Session) -> int | None:
        """Return the whole seconds until *session* ends whatever happens; None without a record."""
        record = session.record
        return None if record is None else max(0, record.deadline_ms - self.now_ms()) // 1000

    # --- a user's sessions ---

    async def of_user(self, user: str) -> list[Record]:
        """Return the sessions of *user* that count, newest sign-in first; `data` is empty."""
        records = await self.store.of_user(user, now_ms=self.now_ms())
        return sorted(filter(self._standing.counts, records), key=by_sign_in, reverse=True)

    async def revoke(self, user: str, handle: str, *, address: str | None = None) -> bool:
        """End one session of *user*; False if they have none by that handle, whoever else may.

        Args:
            address: Of the client that asked for it, for the event.
        """
        return handle in await self._handles(user) and await self._revoke(user, Handle(handle), address)

    async def revoke_others(self, user: str, *, than: str, address: str | None = None) -> int:
        """End every session of *user* but the one with the handle *than*; return how many.

        Those too that do not count any more, so that nothing is left of them.
        """
        others = [handle for handle in await self._handles(user) if handle != than]
        return sum([await self._revoke(user, each, address) for each in others])

    async def _handles(self, user: str) -> list[Handle]:
        return [record.handle for record in await self.store.of_user(user, now_ms=self.now_ms())]

    async def _revoke(self, user: str, handle: Handle, address: str | None) -> bool:
        removed = await self.store.destroy(handle)
        if removed:
            self.events.emit(Kind.DESTROYED, handle=handle, user=user, address=address, reason="revoked")
        return removed

    def _tell(
        self,
        kind: Kind,
        handle: str | None,
        request: Requesting,
        *,
        user: str | None = None,
        reason: str | None = None,
    ) -> None:
        address = request.client.address
        self.events.emit(kind, handle=handle, user=user, address=address, reason=reason)

    # --- work in flight ---

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run *work* so that no hang-up cancels it and `aclose` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
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
