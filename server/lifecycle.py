"""What each verb of a session's life does to the store, under which limits. No Tornado here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol
from weakref import WeakValueDictionary

from server import values
from server.errors import SessionChanged, SessionEnded, SignInRevoked
from server.events import Event, Events, Kind
from server.lifetime import Lifetime
from server.request import CookieChange, Presence, Request
from server.rules import by_sign_in, confine, decoded, survivors
from server.session import Session
from server.writer import Rotation, Writer
from stores import Absent, Delta, Outcome, Record, Store, StoreUnavailable
from stores.base import check_keys

MODIFY_PATIENCE_S = 2.0


class Accounts(Protocol):
    """What sessions ask of an account directory."""

    def valid_after(self, user: str) -> int | None:
        """Return the Unix time in ms that a sign-in must be later than to count; None: no such account."""


class Lifecycle:
    """Carries out what `Session` asks for; each verb is one atomic step in the store.

    Args:
        admit: Asked before a visitor's session is made; whatever it raises is the answer.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        lifetime: Lifetime,
        accounts: Accounts | None,
        events: Events,
        admit: Callable[[Request], Awaitable[None]] | None,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._lifetime = lifetime
        self._accounts = accounts
        self._events = events
        self._admit = admit
        self._clock = clock
        self._writer = Writer(store, lifetime=lifetime, now_ms=self.now_ms)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def now_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return int(self._clock() * 1000)

    def counts(self, record: Record) -> bool:
        """Whether the account behind *record* still stands behind that sign-in."""
        if self._accounts is None or record.user is None:
            return True
        after = self._accounts.valid_after(record.user)
        return after is not None and record.auth_ms is not None and record.auth_ms > after

    async def commit(self, session: Session, frozen: Delta | None = None) -> None:
        """Save what is pending, or of *frozen* what remains, creating the record if there is none.

        Raises:
            SessionEnded, SessionChanged, SessionTooLarge, InsecureTransport, StoreUnavailable
        """
        async with session.lock:
            delta = session.pending() if frozen is None else session.remaining(frozen)
            if delta is None:
                return
            if not _may_store(session):
                session.abandon()
            elif session.record is None:
                await self._create(session, data=dict(delta.put))
            elif await self._writer.apply(session, delta) is not Outcome.APPLIED:
                raise SessionChanged

    async def login(
        self, session: Session, user: str, *, keep: Collection[str], auth_ms: int | None, remember: bool
    ) -> None:
        """See `Session.login`."""
        if not isinstance(user, str) or not user:
            raise ValueError("user must be a non-empty string")
        if isinstance(keep, str | bytes):
            raise TypeError("keep must be a collection of keys, not one string")
        check_keys(keep)
        user.encode()
        async with session.lock:
            again = session.user == user
            is_remembered = self._is_remembered(session, asked=remember, again=again)
            change = Rotation(
                user=user,
                auth_ms=self.now_ms() if auth_ms is None else auth_ms,
                deadline_ms=self._lifetime.deadline_ms(self.now_ms(), is_remembered=is_remembered),
                is_remembered=is_remembered,
                keep=survivors(session, user, keep),
            )
            await self._bind(session, change)
            await self._confirm(session)
            self.tell(Kind.AUTHENTICATED, session, reason="again" if again else "sign-in")
        await self._end_beyond_limit(session, user)

    async def logout(self, session: Session) -> None:
        """See `Session.logout`."""
        async with session.lock:
            cookie = session.cookie
            if session.record is not None:
                await self._store.destroy(session.record.handle)
                self.tell(Kind.DESTROYED, session, reason="logout")
                cookie = CookieChange.CLEAR
            session.ended(cookie=cookie)

    async def renew(self, session: Session) -> None:
        """See `Session.renew`."""
        async with session.lock:
            if session.record is not None:
                await self._replace_id(session, self._unchanged(session, session.record), reason="asked")

    async def limit(self, session: Session, seconds: float) -> None:
        """See `Session.expire_in`."""
        async with session.lock:
            record = session.record
            if record is None:
                session.limit_s = seconds
                return
            change = self._unchanged(session, record)
            deadline_ms = min(record.deadline_ms, self.now_ms() + round(1000 * seconds))
            await self._replace_id(session, replace(change, deadline_ms=deadline_ms), reason="limited")

    async def renew_in_passing(self, session: Session, frozen: Delta) -> None:
        """See `Session.save`. The response depends on what is saved, not on the renewal.

        Whoever renewed it first, or ended it, decides; *frozen* is then saved as `commit` does, under the old
        ID, which the grace covers.
        """
        async with session.lock:
            record, delta = session.record, session.remaining(frozen)
            if record is not None and session.cookie is CookieChange.KEEP:
                grace_ms = round(1000 * self._lifetime.grace_s)
                change = replace(self._unchanged(session, record), grace_ms=grace_ms)
                with suppress(*(() if delta else (StoreUnavailable,))):
                    outcome = await self._writer.rotate(session, delta or Delta(), change)
                    if outcome is Outcome.APPLIED:
                        self.tell(Kind.RENEWED, session, reason="periodic")
                        return
        await self.commit(session, frozen)

    async def modify(self, session: Session, key: str, change: Callable[[Any], Any]) -> Any:
        """See `Session.modify`."""
        await self.commit(session)
        async with self._turn(session) as until, session.lock:
            if session.record is not None:
                value = await self._modify_until_applied(session, key, change, until=until)
            elif _may_store(session):
                value = change(None)
                delta = Delta({key: values.encode(value)})
                await self._create(session, data=dict(delta.put))
            else:
                return change(None)
            session.replaced(key, value)
            return value

    async def touch(self, session: Session) -> None:
        """Record that the session was used. Whatever the outcome, no response depends on it."""
        await self._writer.touch(session)

    def expires_ms(self, session: Session) -> int:
        """Return when *session*, which has a record, ends if nothing happens after this request."""
        return self._writer.expires_ms(session, now_ms=self.now_ms())

    def tell(
        self, kind: Kind, session: Session, *, reason: str | None = None, handle: str | None = None
    ) -> None:
        """Emit an event about *session*, or about another by its *handle*."""
        address = session.request.client.address
        about = handle or session.handle
        self._events.emit(Event(kind, self.now_ms(), about, session.user, address, reason))

    # --- pieces of the verbs; each holds session.lock ---

    async def _create(
        self, session: Session, *, data: dict[str, bytes], user: str | None = None, **options: Any
    ) -> None:
        if user is None and self._admit is not None:
            await self._admit(session.request)
        await self._writer.create(session, data=data, user=user, **options)
        self.tell(Kind.CREATED, session)

    async def _bind(self, session: Session, change: Rotation) -> None:
        pending = session.pending() or Delta()
        delta = pending if change.keep is None else confine(pending, change.keep)
        if session.record is not None:
            if await self._writer.rotate(session, delta, change) is Outcome.APPLIED:
                session.confine(session.record.data)
                return
            # A double click, or a logout elsewhere: who proved their password gets a session of their own.
            delta = Delta()
        await self._create(
            session,
            data=dict(delta.put),
            user=change.user,
            auth_ms=change.auth_ms,
            is_remembered=change.is_remembered,
        )
        session.confine(delta.put)

    def _unchanged(self, session: Session, record: Record) -> Rotation:
        return Rotation(
            user=record.user,
            auth_ms=record.auth_ms,
            deadline_ms=record.deadline_ms,
            is_remembered=self._writer.is_remembered(session),
        )

    async def _replace_id(self, session: Session, change: Rotation, *, reason: str) -> None:
        if await self._writer.rotate(session, session.pending() or Delta(), change) is not Outcome.APPLIED:
            raise SessionChanged
        self.tell(Kind.RENEWED, session, reason=reason)

    def _is_remembered(self, session: Session, *, asked: bool, again: bool) -> bool:
        """Whether a sign-in is one that lasts; who only proves again who they are keeps what they had."""
        return self._lifetime.remember_s is not None and (asked or (again and session.is_remembered))

    async def _confirm(self, session: Session) -> None:
        record = session.record
        if record is None or self.counts(record):
            return
        self.tell(Kind.DESTROYED, session, reason="account")
        # First, so that nobody is signed in even if the store fails: the record does not count either way.
        session.ended(cookie=CookieChange.CLEAR)
        await self._store.destroy(record.handle)
        raise SignInRevoked

    async def _end_beyond_limit(self, session: Session, user: str) -> None:
        limit = self._lifetime.max_per_user
        if limit is None:
            return
        records = await self._store.of_user(user, now_ms=self.now_ms())
        for record in sorted(records, key=by_sign_in, reverse=True)[limit:]:
            if await self._store.destroy(record.handle):
                self.tell(Kind.DESTROYED, session, reason="limit", handle=record.handle)

    @asynccontextmanager
    async def _turn(self, session: Session) -> AsyncIterator[float]:
        """Let one modify() at a time through per session inside this process, so that those never collide.

        Yields when to give up, on the loop's clock.
        """
        until = asyncio.get_running_loop().time() + MODIFY_PATIENCE_S
        turn = self._turns.setdefault(session.handle, asyncio.Lock()) if session.handle else asyncio.Lock()
        try:
            async with asyncio.timeout_at(until):
                await turn.acquire()
        except TimeoutError:
            raise SessionChanged from None
        try:
            yield until
        finally:
            turn.release()

    async def _modify_until_applied(
        self, session: Session, key: str, change: Callable[[Any], Any], *, until: float
    ) -> Any:
        # Looked at between the attempts only: a write that is cut short may have happened.
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            assert session.record is not None and session.sid is not None
            raw = session.record.data.get(key)
            value = change(decoded(raw))
            outcome = await self._writer.apply(session, Delta({key: values.encode(value)}, expect={key: raw}))
            if outcome is Outcome.APPLIED:
                return value
            if outcome is Outcome.GONE or loop.time() > until:
                raise SessionChanged
            attempt += 1
            # Jitter, so that two processes that met once do not meet again in step.
            await asyncio.sleep(random.uniform(0, 0.001 * 2 ** min(attempt, 6)))  # noqa: S311
            found = await self._store.load(session.sid.credential, now_ms=self.now_ms())
            if isinstance(found, Absent):
                raise SessionChanged
            session.saw(key, found.data.get(key))


def _may_store(session: Session) -> bool:
    """Whether a write may reach a record. One that comes after the session's end never makes a new one.

    Raises:
        SessionEnded: It may not, and an unsafe request must be told.
    """
    if session.presence in (Presence.SUPERSEDED, Presence.ENDED) and not session.request.is_safe:
        raise SessionEnded
    return session.presence in (Presence.NONE, Presence.LIVE)
