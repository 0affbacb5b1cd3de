"""What each verb of a session's life does to the store, under which limits. No Tornado here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from stormcellar.errors import SessionChanged, SignInRevoked
from stormcellar.events import Events, Kind
from stormcellar.lifetime import Lifetime
from stormcellar.sessions import json_values as values
from stormcellar.sessions.account_check import Standing
from stormcellar.sessions.atomic_update import Modifier
from stormcellar.sessions.data_limits import by_sign_in, confine, kept_of, may_store, merge, survivors
from stormcellar.sessions.record_writer import Rotation, Writer
from stormcellar.sessions.request_info import CookieChange, Requesting
from stormcellar.sessions.session import Session
from stormcellar.stores import Absent, Delta, Outcome, Record, Store, StoreUnavailable
from stormcellar.stores.base import check_keys


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
        standing: Standing,
        events: Events,
        admit: Callable[[Requesting], Awaitable[None]] | None,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._lifetime = lifetime
        self._standing = standing
        self._events = events
        self._admit = admit
        self._clock = clock
        self._writer = Writer(store, lifetime=lifetime, now_ms=self.now_ms)
        self._modifier = Modifier(store, self._writer, now_ms=self.now_ms)

    def now_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return int(self._clock() * 1000)

    async def commit(self, session: Session, frozen: Delta | None = None) -> None:
        """Save what is pending, or of *frozen* what remains, creating the record if there is none.

        Raises:
            SessionEnded, SessionChanged, SessionTooLarge, InsecureTransport, StoreUnavailable
        """
        async with session.lock:
            delta = session.pending() if frozen is None else session.remaining(frozen)
            if delta is None:
                return
            if not may_store(session):
                session.abandon()
            elif session.record is None:
                await self._create(session, data=dict(delta.put))
            elif await self._writer.apply(session, delta) is not Outcome.APPLIED:
                raise SessionChanged

    async def login(
        self,
        session: Session,
        user: str,
        *,
        keep: Collection[str],
        auth_ms: int | None,
        remember: bool | None,
        afresh: bool,
    ) -> None:
        """See `Session.login`."""
        if not isinstance(user, str) or not user:
            raise ValueError("user must be a non-empty string")
        if isinstance(keep, str | bytes):
            raise TypeError("keep must be a collection of keys, not one string")
        check_keys(keep)
        user.encode()
        async with session.lock:
            before, handle = session.user, session.handle
            is_remembered = self._is_remembered(session, user, remember)
            deadline_ms = self._lifetime.deadline_ms(self.now_ms(), is_remembered=is_remembered)
            change = Rotation(
                user=user,
                auth_ms=self.now_ms() if auth_ms is None else auth_ms,
                deadline_ms=self._limited(session, deadline_ms),
                is_remembered=is_remembered,
                keep=survivors(session, user, keep),
            )
            is_rotated = await self._bind(session, change, afresh=afresh)
            await self._confirm(session)
            if is_rotated and before not in (None, user):
                self.tell(Kind.DESTROYED, session, reason="replaced", handle=handle, user=before)
            self.tell(Kind.AUTHENTICATED, session, reason="again" if before == user else "sign-in")
        await self._end_beyond_limit(session, user)

    async def logout(self, session: Session) -> None:
        """See `Session.logout`."""
        async with session.lock:
            cookie = session.cookie
            if session.record is not None:
                if await self._store.destroy(session.record.handle):
                    self.tell(Kind.DESTROYED, session, reason="logout")
                cookie = CookieChange.CLEAR
            elif session.unsettled is not None:
                await self._end_unsettled(session)
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
            session.limit_s = min(seconds, session.limit_s or seconds)
            if session.record is not None:
                change = self._unchanged(session, session.record)
                deadline_ms = self._limited(session, change.deadline_ms)
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
        async with self._modifier.turn(session) as until, session.lock:
            if session.record is not None:
                value = await self._modifier.replace(session, key, change, until=until)
            elif may_store(session):
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
        self,
        kind: Kind,
        session: Session,
        *,
        reason: str | None = None,
        handle: str | None = None,
        user: str | None = None,
    ) -> None:
        """Emit an event about *session*, or about another by its *handle* and *user*."""
        if handle is None:
            handle, user = session.handle, session.user
        address = session.request.client.address
        self._events.emit(kind, handle=handle, user=user, address=address, reason=reason)

    # --- pieces of the verbs; each holds session.lock ---

    async def _create(
        self, session: Session, *, data: dict[str, bytes], user: str | None = None, **options: Any
    ) -> None:
        if user is None and self._admit is not None:
            await self._admit(session.request)
        await self._writer.create(session, data=data, user=user, **options)
        self.tell(Kind.CREATED, session)

    async def _bind(self, session: Session, change: Rotation, *, afresh: bool) -> bool:
        """Give the user this session under a new ID, or another one; return whether it is this one."""
        pending = session.pending() or Delta()
        delta = pending if change.keep is None else confine(pending, change.keep)
        kept: Mapping[str, bytes] = {}
        held = session.record
        if held is not None:
            if await self._writer.rotate(session, delta, change) is Outcome.APPLIED:
                session.confine(session.record.data if session.record else ())
                return True
            left = await self._take_over(session)
            if left is None and not afresh:
                raise SessionChanged
            # A double click, or a logout elsewhere: who proved their password gets a session of their own.
            kept = {} if left is None else kept_of(left.data, change.keep)
            delta = Delta() if left is None else delta
        await self._create(
            session,
            data=merge(kept, delta),
            before=kept,
            user=change.user,
            auth_ms=change.auth_ms,
            is_remembered=change.is_remembered,
        )
        # Of what was read before, only what is still so: it would be written over what is newer.
        fresh = [key for key, raw in kept.items() if held is not None and held.data.get(key) == raw]
        session.confine({*fresh, *delta.put})
        await self._end_unsettled(session)
        return False

    async def _take_over(self, session: Session) -> Record | None:
        """End the session that was renewed in passing while this request was under way; return its record.

        Its ID cannot be rotated by the old one, so it goes on as another session. Of several requests that
        try it one succeeds, and after a sign-out none.
        """
        assert session.sid is not None
        found = await self._store.load(session.sid.credential, now_ms=self.now_ms())
        if isinstance(found, Absent) or not await self._store.destroy(found.handle):
            return None
        self.tell(Kind.DESTROYED, session, reason="replaced", handle=found.handle, user=found.user)
        return found

    async def _end_unsettled(self, session: Session) -> None:
        record = session.unsettled
        if record is not None and await self._store.destroy(record.handle):
            self.tell(Kind.DESTROYED, session, reason="account", handle=record.handle, user=record.user)

    def _limited(self, session: Session, deadline_ms: int) -> int:
        if session.limit_s is None:
            return deadline_ms
        return min(deadline_ms, self.now_ms() + round(1000 * session.limit_s))

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

    def _is_remembered(self, session: Session, user: str, asked: bool | None) -> bool:
        """Whether a sign-in is one that lasts; a proof, for which nobody is asked, leaves it as it was."""
        if self._lifetime.remember_s is None:
            return False
        return session.user == user and session.is_remembered if asked is None else asked

    async def _confirm(self, session: Session) -> None:
        record = session.record
        if record is None or self._standing.counts(record):
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
                self.tell(Kind.DESTROYED, session, reason="limit", handle=record.handle, user=user)
