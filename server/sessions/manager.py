"""`SessionManager`: the sessions of an application: cookies, store, and saves in flight."""

from __future__ import annotations

import time
from asyncio import Task
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import get_args

from stormcellar.errors import SessionEnded
from stormcellar.events import Events, Kind
from stormcellar.lifetime import Lifetime
from stormcellar.sessions.absence import DEFAULT_ON_REUSE, Absence, OnReuse
from stormcellar.sessions.account_check import AccountCheck, Accounts
from stormcellar.sessions.background import BackgroundWork
from stormcellar.sessions.cookie_attributes import DEFAULT_NAME, DEFAULT_SAMESITE, CookieAttributes
from stormcellar.sessions.cookies import Cookies, SessionId, is_handle
from stormcellar.sessions.csrf import FormTokens
from stormcellar.sessions.lifecycle import Lifecycle
from stormcellar.sessions.live.watch import Rechecks, SessionWatch
from stormcellar.sessions.record_writer import RecordWriter
from stormcellar.sessions.request_info import Client, FixedRequestInfo, Presence, RequestInfo, arrival_ms
from stormcellar.sessions.session import Session, state_of
from stormcellar.sessions.sign_in import sign_in_order
from stormcellar.sessions.signing import KeyRing
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Absent, Credential, Handle, Record, Store
from stormcellar.stores.records import TOMBSTONE_MS


class SessionManager:
    """The sessions of an application; one per process.

    Args:
        store: Where the sessions are stored.
        secrets: Signing keys of at least 32 bytes; the first signs, all verify.
        lifetime: The limits of a session's life.
        secure: The application is served over TLS: the cookie is `__Host-` and Secure. Without it a request
            that is not loopback gets no session cookie.
        cookie_name: Without the prefix, which *secure* adds.
        accounts: If given, a session of a user counts only while `valid_after` allows it.
        samesite: The SameSite attribute of the cookies: `Lax`, `Strict` or `None`.
        cookie_domain: Also send the cookies to the subdomains of this domain, such as `example.org`.
        cookie_partitioned: Keep separate cookies under each site that shows this one in a frame.
        cookie_priority: `Low`, `Medium` or `High`: which cookies Chromium keeps if there are too many.
        admit: Awaited before a visitor's session is created; an exception it raises refuses the session.
        on_reuse: What to do if a session ID that was renewed away comes back long after, which may be a
            stolen one: `tell` emits an event `rejected` with the reason `reused`, `end` also ends the
            session.
        rechecks: How often the store is asked about sessions that sockets and streams hold.
        clock: Returns Unix time in seconds.

    Raises:
        ValueError: A key or *on_reuse* is not valid, or an argument for the cookies; see `CookieAttributes`.
    """

    def __init__(
        self,
        store: Store,
        *,
        secrets: Sequence[bytes | str],
        lifetime: Lifetime = Lifetime(),  # noqa: B008  frozen
        secure: bool = False,
        cookie_name: str = DEFAULT_NAME,
        accounts: Accounts | None = None,
        samesite: str = DEFAULT_SAMESITE,
        cookie_domain: str | None = None,
        cookie_partitioned: bool = False,
        cookie_priority: str | None = None,
        admit: Callable[[RequestInfo], Awaitable[None]] | None = None,
        on_reuse: OnReuse = DEFAULT_ON_REUSE,
        rechecks: Rechecks = Rechecks(),  # noqa: B008  frozen
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(store, Store):
            raise TypeError(f"store must be a Store, not {type(store).__name__}: write open_store(url)")
        if on_reuse not in get_args(OnReuse):
            raise ValueError(f"on_reuse must be 'tell' or 'end', not {on_reuse!r}")
        self.store = store
        self.lifetime = lifetime
        self.secure = secure
        self.events = Events(self.now_ms)
        """Session and sign-in events; see `stormcellar.events`."""
        self.clock = clock
        self._touch_after_ms = 1000 * lifetime.touch_after_s
        self.sends_unasked = lifetime.renew_s is not None or lifetime.anonymous_remember_s is not None
        """Whether a response may set the cookie although the handler changed nothing."""
        self.background = BackgroundWork()
        """Tasks that `aclose` waits for."""
        self._accounts = AccountCheck(accounts, now_ms=self.now_ms)
        self._writer = RecordWriter(
            store, lifetime=lifetime, events=self.events, admit=admit, now_ms=self.now_ms
        )
        self.lifecycle = Lifecycle(
            store, self._writer, lifetime=lifetime, accounts=self._accounts, now_ms=self.now_ms
        )
        self._absence = Absence(
            self.lifecycle,
            self._writer,
            accounts=self._accounts,
            events=self.events,
            on_reuse=on_reuse,
            spawn=self.background.spawn,
            now_ms=self.now_ms,
        )
        self._make_cookies = partial(
            Cookies,
            attributes=CookieAttributes(
                cookie_name,
                secure=secure,
                samesite=samesite,
                domain=cookie_domain,
                partitioned=cookie_partitioned,
                priority=cookie_priority,
            ),
            # The store decides about the deadline; the signature only saves it pointless loads.
            max_age_s=lifetime.longest_s + 86_400,
            clock=clock,
        )
        self.use_keys(secrets)
        self.watch = SessionWatch(
            store, accounts=self._accounts, events=self.events, now_ms=self.now_ms, rechecks=rechecks
        )
        """The sessions that sockets, streams and long handlers of this process hold."""

    def now_ms(self) -> int:
        """Return Unix time in milliseconds by this manager's clock."""
        return int(self.clock() * 1000)

    def use_keys(self, secrets: Sequence[bytes | str]) -> None:
        """Sign with the first of *secrets* from now on, and accept what any of them signed.

        Raises:
            ValueError: A key is not valid; the present keys stay.
        """
        keys = KeyRing(secrets)
        self.cookies = self._make_cookies(keys)
        self.forms = FormTokens(keys.derive("form token"))

    # --- the session of a request ---

    async def load(self, sid: SessionId | None, request: RequestInfo) -> Session:
        """Return the session of *sid*: one store call, none without a cookie.

        Raises:
            StoreUnavailable: No answer.
        """
        if sid is None:
            state = SessionState(request, Presence.NONE)
        else:
            found = await self.store.load(sid.credential, now_ms=arrival_ms(request, self.now_ms()))
            if isinstance(found, Absent):
                state = await self._absence.of_absent(sid, request, found)
            elif self._accounts.accepts_all or await self._accounts.counts(found):
                state = SessionState(request, Presence.LIVE, sid=sid, record=found)
            else:
                state = await self._absence.of_revoked(sid, request, found)
        return Session(self.lifecycle, state)

    def empty(self, request: RequestInfo, reason: str) -> Session:
        """Return a session without data that cannot change because of *reason*, for an error page."""
        state = SessionState(request, Presence.NONE)
        state.seal(reason)
        return Session(self.lifecycle, state)

    def reject(self, request: RequestInfo) -> None:
        """Emit an event for a cookie whose signature is invalid."""
        self.events.emit(Kind.REJECTED, address=request.client.address or None, reason="cookie")

    def touch(self, state: SessionState) -> Task[None] | None:
        """Record in the background that the session was used, if that is due, and return the task."""
        record, now_ms = state.record, self.now_ms()
        if record is None or now_ms - record.seen_ms < self._touch_after_ms:
            return None
        if not self.lifetime.wants_touch(record, now_ms=now_ms):
            return None
        return self.background.spawn(self._writer.touch(state))

    def wants_renewal(self, state: SessionState) -> bool:
        """Whether the session ID is old enough to be rotated; see `Lifetime.renew_s`."""
        record = state.record
        if self.lifetime.renew_s is None or record is None or not state.request.may_set_cookie:
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
        """Return the whole seconds until *session* expires if nothing more happens; None without a record.

        If this request counts as activity, it is included.
        """
        record, now_ms = session.record, self.now_ms()
        if record is None:
            return None
        expires_ms = record.expires_ms
        if self.lifetime.wants_touch(record, now_ms=now_ms):
            expires_ms = max(expires_ms, self._writer.expires_ms(state_of(session), now_ms=now_ms))
        return max(0, expires_ms - now_ms) // 1000

    def deadline_left_s(self, session: Session) -> int | None:
        """Return the whole seconds until *session* ends, active or not; None without a record."""
        return self._deadline_left_s(session.record)

    def cookie_max_age_s(self, state: SessionState) -> int | None:
        """Return how long the browser keeps the session cookie, in seconds; None: until it closes."""
        record = state.record
        if record is not None and record.user is None and self.lifetime.anonymous_remember_s is not None:
            now_ms = self.now_ms()
            return (self._writer.expires_ms(state, now_ms=now_ms) - now_ms) // 1000
        return self._deadline_left_s(record) if self._writer.is_remembered(state) else None

    def _deadline_left_s(self, record: Record | None) -> int | None:
        return None if record is None else max(0, record.deadline_ms - self.now_ms()) // 1000

    # --- the sessions of a user ---

    async def of_user(self, user: str) -> list[Record]:
        """Return the sessions of *user* that count, newest sign-in first; `data` is empty."""
        counting = [record for record in await self._records(user) if await self._accounts.counts(record)]
        return sorted(counting, key=sign_in_order, reverse=True)

    async def revoke(self, user: str, handle: str, *, address: str | None = None) -> bool:
        """End the session *handle* of *user*; return False if *user* has no such session.

        Args:
            address: Of the client that asked for it, for the event.
        """
        found = [record for record in await self._records(user) if record.handle == handle]
        return bool(found) and await self._revoke(found[0], address)

    async def revoke_others(self, user: str, *, than: str, address: str | None = None) -> int:
        """End every session of *user* except the one with the handle *than*; return how many.

        This includes sessions that no longer count, and what expired lately: other clocks may be behind.
        """
        others = [each for each in await self._records(user, slack_ms=TOMBSTONE_MS) if each.handle != than]
        return sum([await self._revoke(record, address) for record in others])

    @asynccontextmanager
    async def open(self, which: str | Credential) -> AsyncIterator[Session]:
        """Open a live session without its browser, for a background job, a socket or support::

            async with sessions.open(handle) as session:
                session.flash("Your report is ready.")

        What the block changes is saved at its end, as one atomic delta; after an exception nothing is saved.
        It is no activity of the user, and the session keeps its ID.

        Args:
            which: A handle, or a credential: then the session must be live for it.

        Raises:
            SessionEnded: There is no such session, or a message was left after `logout`.
            SessionChanged: It ended, or another user signed in, while the block ran; nothing was saved.
            SessionTooLarge, StoreUnavailable
        """
        record = await self._find(which)
        if not isinstance(record, Record) or not await self._accounts.counts(record):
            raise SessionEnded
        session = Session(self.lifecycle, SessionState.opened(record))
        try:
            yield session
            state_of(session).require_awaited()
            await session.commit()
        finally:
            state_of(session).seal("its block has ended")

    async def _find(self, which: str | Credential) -> Record | Absent | None:
        if isinstance(which, Credential):
            return await self.store.load(which, now_ms=self.now_ms())
        return await self.store.find(Handle(which), now_ms=self.now_ms()) if is_handle(which) else None

    async def _records(self, user: str, *, slack_ms: int = 0) -> list[Record]:
        return await self.store.of_user(user, now_ms=self.now_ms() - slack_ms)

    async def _revoke(self, record: Record, address: str | None) -> bool:
        request = FixedRequestInfo(Client(address or "", ""))
        return await self._writer.destroy(record, request, reason="revoked")

    async def drain(self) -> None:
        """Wait for the work in flight."""
        await self.background.drain()

    async def aclose(self) -> None:
        """Tell those who hold a session, wait for the work in flight, then close the store. Idempotent."""
        await self.watch.aclose()
        await self.drain()
        await self.store.aclose()
