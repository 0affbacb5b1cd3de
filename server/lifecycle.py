"""What each verb of a session's life does to the store, under which limits. No Tornado here."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Protocol
from weakref import WeakValueDictionary

from server import values
from server.errors import InsecureTransport, SessionChanged, SessionEnded, SignInRevoked
from server.lifetime import Lifetime
from server.request import CookieChange, Presence
from server.rules import by_sign_in, confine, decoded, merge, require_size, survivors
from server.session import Session
from stores import Absent, Delta, Outcome, Record, Store

log = logging.getLogger("stormcellar.sessions")

MODIFY_PATIENCE_S = 2.0


class Accounts(Protocol):
    """What sessions ask of an account directory."""

    def valid_after(self, user: str) -> int | None:
        """Return the Unix time in ms that a sign-in must be later than to count; None: no such account."""


class Lifecycle:
    """Carries out what `Session` asks for; each verb is one atomic step in the store.

    Args:
        clock: Unix time in seconds.
    """

    def __init__(
        self, store: Store, *, lifetime: Lifetime, accounts: Accounts | None, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._lifetime = lifetime
        self._accounts = accounts
        self._clock = clock
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

    async def commit(self, session: Session, delta: Delta | None = None) -> None:
        """Save *delta*, or else what is pending, creating the record if there is none.

        Raises:
            SessionEnded, SessionChanged, SessionTooLarge, InsecureTransport, StoreUnavailable
        """
        async with session.lock:
            delta = delta or session.pending()
            if delta is None:
                return
            if session.presence in (Presence.SUPERSEDED, Presence.ENDED):
                if session.request.is_safe:
                    session.forget()
                    return
                raise SessionEnded
            if session.record is None:
                await self._create(session, user=None, auth_ms=None, data=dict(delta.put))
            elif await self._apply(session, delta) is not Outcome.APPLIED:
                raise SessionChanged

    async def login(self, session: Session, user: str, *, keep: Collection[str], auth_ms: int | None) -> None:
        """See `Session.login`."""
        if not isinstance(user, str) or not user:
            raise ValueError("user must be a non-empty string")
        if isinstance(keep, str):
            raise TypeError("keep must be a collection of keys, not one string")
        user.encode()
        async with session.lock:
            self._require_transport(session)
            auth_ms = self.now_ms() if auth_ms is None else auth_ms
            await self._bind(session, user, survivors(session, user, keep), auth_ms)
        await self._confirm(session, user, auth_ms)
        await self._end_beyond_limit(user)

    async def logout(self, session: Session) -> None:
        """See `Session.logout`."""
        async with session.lock:
            cookie = session.cookie
            if session.record is not None:
                await self._store.destroy(session.record.handle)
                cookie = CookieChange.CLEAR
            session.ended(cookie=cookie)

    async def renew(self, session: Session) -> None:
        """See `Session.renew`."""
        async with session.lock:
            record = session.record
            if record is None:
                return
            delta = session.pending() or Delta()
            outcome = await self._rotate(
                session,
                delta,
                keep=None,
                user=record.user,
                auth_ms=record.auth_ms,
                deadline_ms=record.deadline_ms,
            )
            if outcome is not Outcome.APPLIED:
                raise SessionChanged

    async def modify(self, session: Session, key: str, change: Callable[[Any], Any]) -> Any:
        """See `Session.modify`. One at a time per session inside this process, so that none collide."""
        await self.commit(session)
        if session.presence in (Presence.SUPERSEDED, Presence.ENDED):
            raise SessionEnded
        if session.record is None:
            session[key] = change(None)
            await self.commit(session)
            return session[key]
        turn = self._turns.setdefault(session.record.handle, asyncio.Lock())
        try:
            async with asyncio.timeout(MODIFY_PATIENCE_S), turn, session.lock:
                return await self._modify_until_applied(session, key, change)
        except TimeoutError:
            raise SessionChanged from None

    async def touch(self, session: Session) -> None:
        """Record that the session was used. Whatever the outcome, no response depends on it."""
        record, sid, now_ms = session.record, session.sid, self.now_ms()
        if record is not None and sid is not None:
            expires_ms = self._expires_ms(record, now_ms)
            await self._store.apply(sid.credential, Delta(), now_ms=now_ms, expires_ms=expires_ms)

    # --- pieces of the verbs; each holds session.lock ---

    async def _create(
        self, session: Session, *, user: str | None, auth_ms: int | None, data: dict[str, bytes]
    ) -> None:
        if not data and user is None:
            return
        self._require_transport(session)
        require_size(data)
        sid, now_ms = session.mint(), self.now_ms()
        deadline_ms = self._lifetime.deadline_ms(now_ms)
        record = Record(
            *sid.credential,
            user=user,
            created_ms=now_ms,
            rotated_ms=now_ms,
            auth_ms=auth_ms,
            seen_ms=now_ms,
            expires_ms=self._lifetime.expires_ms(user=user, now_ms=now_ms, deadline_ms=deadline_ms),
            deadline_ms=deadline_ms,
            client=session.request.client.encode(),
            data=data,
        )
        await self._store.create(record)
        session.became(record, sid)

    async def _apply(self, session: Session, delta: Delta) -> Outcome:
        record, sid = session.record, session.sid
        assert record is not None and sid is not None
        require_size(merge(record.data, delta))
        now_ms = self.now_ms()
        expires_ms = self._expires_ms(record, now_ms)
        outcome = await self._store.apply(sid.credential, delta, now_ms=now_ms, expires_ms=expires_ms)
        if outcome is Outcome.APPLIED:
            session.wrote(
                delta, seen_ms=max(record.seen_ms, now_ms), expires_ms=max(record.expires_ms, expires_ms)
            )
        return outcome

    async def _rotate(
        self,
        session: Session,
        delta: Delta,
        *,
        keep: frozenset[str] | None,
        user: str | None,
        auth_ms: int | None,
        deadline_ms: int,
    ) -> Outcome:
        record, sid = session.record, session.sid
        assert record is not None and sid is not None
        kept = {key: raw for key, raw in record.data.items() if keep is None or key in keep}
        data = merge(kept, delta)
        require_size(data)
        new, now_ms = sid.rotated(), self.now_ms()
        client = session.request.client.encode()
        expires_ms = self._lifetime.expires_ms(user=user, now_ms=now_ms, deadline_ms=deadline_ms)
        verifier = new.credential.verifier
        outcome = await self._store.rotate(
            sid.credential,
            verifier,
            delta,
            keep=keep,
            user=user,
            auth_ms=auth_ms,
            client=client,
            now_ms=now_ms,
            expires_ms=expires_ms,
            deadline_ms=deadline_ms,
        )
        if outcome is Outcome.APPLIED:
            session.became(
                replace(
                    record,
                    verifier=verifier,
                    user=user,
                    auth_ms=auth_ms,
                    client=client,
                    rotated_ms=now_ms,
                    seen_ms=max(record.seen_ms, now_ms),
                    expires_ms=expires_ms,
                    deadline_ms=deadline_ms,
                    data=data,
                ),
                new,
            )
        return outcome

    async def _bind(self, session: Session, user: str, keep: frozenset[str] | None, auth_ms: int) -> None:
        pending = session.pending() or Delta()
        delta = pending if keep is None else confine(pending, keep)
        if session.record is not None:
            deadline_ms = self._lifetime.deadline_ms(self.now_ms())
            outcome = await self._rotate(
                session, delta, keep=keep, user=user, auth_ms=auth_ms, deadline_ms=deadline_ms
            )
            if outcome is Outcome.APPLIED:
                session.confine(session.record.data)
                return
            # A double click, or a logout elsewhere: who proved their password gets a session of their own.
            delta = Delta()
        await self._create(session, user=user, auth_ms=auth_ms, data=dict(delta.put))
        session.confine(delta.put)

    async def _confirm(self, session: Session, user: str, auth_ms: int) -> None:
        if session.record is None or self.counts(session.record):
            return
        await self._store.destroy(session.record.handle)
        session.ended(cookie=CookieChange.CLEAR)
        raise SignInRevoked

    async def _end_beyond_limit(self, user: str) -> None:
        limit = self._lifetime.max_per_user
        if limit is None:
            return
        records = await self._store.of_user(user, now_ms=self.now_ms())
        for record in sorted(records, key=by_sign_in, reverse=True)[limit:]:
            await self._store.destroy(record.handle)

    async def _modify_until_applied(self, session: Session, key: str, change: Callable[[Any], Any]) -> Any:
        attempt = 0
        while True:
            assert session.record is not None and session.sid is not None
            raw = session.record.data.get(key)
            value = change(decoded(raw))
            outcome = await self._apply(session, Delta({key: values.encode(value)}, expect={key: raw}))
            if outcome is Outcome.APPLIED:
                return value
            if outcome is Outcome.GONE:
                raise SessionChanged
            attempt += 1
            # Jitter, so that two processes that met once do not meet again in step.
            await asyncio.sleep(random.uniform(0, min(0.001 * 2**attempt, 0.05)))  # noqa: S311
            found = await self._store.load(session.sid.credential, now_ms=self.now_ms())
            if isinstance(found, Absent):
                raise SessionChanged
            session.record = found

    # --- rules ---

    def _expires_ms(self, record: Record, now_ms: int) -> int:
        return self._lifetime.expires_ms(user=record.user, now_ms=now_ms, deadline_ms=record.deadline_ms)

    def _require_transport(self, session: Session) -> None:
        if not session.request.may_set_cookie:
            log.error(
                "no session cookie for %s: plain HTTP beyond loopback; serve over TLS and set secure=True",
                session.request.client.address,
            )
            raise InsecureTransport
