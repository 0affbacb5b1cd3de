"""`Lifecycle`: what each verb of a session does in the store, and within which limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from stormcellar.errors import SessionChanged, SignInRevoked
from stormcellar.events import Events, Kind
from stormcellar.lifetime import Lifetime
from stormcellar.sessions import json_values
from stormcellar.sessions.account_check import AccountCheck
from stormcellar.sessions.atomic_update import AtomicUpdate
from stormcellar.sessions.data_limits import FLASH, merge, surviving_data, surviving_delta, surviving_keys
from stormcellar.sessions.record_writer import IdChange, RecordWriter
from stormcellar.sessions.request_info import CookieChange, Marks, RequestInfo
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Absent, Delta, Handle, Outcome, Record, Store, StoreUnavailable


class Lifecycle:
    """Runs the verbs of `Session`; each is one atomic step in the store.

    Args:
        admit: Awaited before a visitor's session is created; an exception it raises refuses the session.
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(
        self,
        store: Store,
        writer: RecordWriter,
        *,
        lifetime: Lifetime,
        accounts: AccountCheck | None,
        events: Events,
        admit: Callable[[RequestInfo], Awaitable[None]] | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._writer = writer
        self._lifetime = lifetime
        self._accounts = accounts
        self._events = events
        self._admit = admit
        self._now_ms = now_ms
        self._update = AtomicUpdate(store, writer, now_ms=now_ms)

    async def commit(self, state: SessionState, frozen: Delta | None = None) -> None:
        """Save what is pending, or what remains of *frozen*, and create the record if there is none.

        Args:
            frozen: What was pending when the handler finished.

        Raises:
            SessionEnded, SessionChanged, SessionTooLarge, InsecureTransport, StoreUnavailable
        """
        async with state.lock:
            delta = state.data.pending() if frozen is None else state.data.remaining(frozen)
            if delta is None:
                return
            if not state.may_store():
                state.data.drop_pending()
            elif state.record is None:
                await self._create(state, data=dict(delta.put))
            elif await self._writer.apply(state, delta) is not Outcome.APPLIED:
                raise SessionChanged

    async def login(
        self,
        state: SessionState,
        user: str,
        *,
        keep: Collection[str],
        auth_ms: int | None,
        remember: bool | None,
        afresh: bool,
    ) -> None:
        """See `Session.login`."""
        async with state.lock:
            before, handle = state.user, state.handle
            account = None if self._accounts is None else await self._accounts.account_id(user)
            marks = Marks(self._is_remembered(state, user, remember), account)
            deadline_ms = self._lifetime.deadline_ms(self._now_ms(), is_remembered=marks.is_remembered)
            change = IdChange(
                user=user,
                auth_ms=self._now_ms() if auth_ms is None else auth_ms,
                deadline_ms=self._limited(state, deadline_ms),
                marks=marks,
                keep=surviving_keys(before, user, keep),
            )
            is_rotated = await self._bind(state, change, afresh=afresh)
            await self._check_account(state)
            if is_rotated and before not in (None, user):
                self._emit(Kind.DESTROYED, state, reason="replaced", handle=handle, user=before)
            self._emit(Kind.AUTHENTICATED, state, reason="again" if before == user else "sign-in")
        if self._lifetime.max_per_user is not None:
            await self._end_oldest(state, user, self._lifetime.max_per_user)

    async def logout(self, state: SessionState) -> None:
        """See `Session.logout`."""
        async with state.lock:
            cookie, messages = state.cookie, state.data.unsaved(FLASH)
            if state.record is not None:
                if await self._store.destroy(state.record.handle, now_ms=self._now_ms()):
                    self._emit(Kind.DESTROYED, state, reason="logout")
                cookie = CookieChange.CLEAR
            elif state.unsettled is not None:
                await self._end_unsettled(state, state.unsettled)
                cookie = CookieChange.CLEAR
            state.end(cookie=cookie)
            for key, message in messages.items():
                state.data.write(key, message)

    async def reload(self, state: SessionState) -> None:
        """See `Session.reload`."""
        async with state.lock:
            if state.record is None or state.sid is None:
                return
            found = await self._store.load(state.sid.credential, now_ms=self._now_ms())
            if isinstance(found, Absent) or not await self._counts(found):
                raise SessionChanged
            state.set_loaded(found)

    async def renew(self, state: SessionState) -> None:
        """See `Session.renew`."""
        async with state.lock:
            if state.record is not None:
                await self._rotate(state, self._same(state, state.record), reason="asked")

    async def limit(self, state: SessionState, seconds: float) -> None:
        """See `Session.expire_in`."""
        async with state.lock:
            state.limit_s = min(seconds, state.limit_s or seconds)
            if state.record is not None:
                change = self._same(state, state.record)
                deadline_ms = self._limited(state, change.deadline_ms)
                await self._rotate(state, replace(change, deadline_ms=deadline_ms), reason="limited")

    async def commit_and_renew(self, state: SessionState, frozen: Delta) -> None:
        """Save what remains of *frozen* and rotate the ID, if no other request rotated or ended it.

        Otherwise *frozen* is saved under the old ID, which is still valid during the grace. The response
        depends on what is saved, not on the rotation.
        """
        async with state.lock:
            record, delta = state.record, state.data.remaining(frozen)
            if record is not None and state.cookie is CookieChange.KEEP:
                grace_ms = round(1000 * self._lifetime.grace_s)
                change = replace(self._same(state, record), grace_ms=grace_ms)
                with suppress(*(() if delta else (StoreUnavailable,))):
                    outcome = await self._writer.rotate(state, delta or Delta(), change)
                    if outcome is Outcome.APPLIED:
                        self._emit(Kind.RENEWED, state, reason="periodic")
                        return
        await self.commit(state, frozen)

    async def modify(self, state: SessionState, key: str, change: Callable[[Any], Any]) -> Any:
        """See `Session.modify`."""
        await self.commit(state)
        async with self._update.exclusive(state) as until, state.lock:
            if state.record is not None:
                value = await self._update.replace(state, key, change, until=until)
            elif state.may_store():
                value = change(None)
                delta = Delta({key: json_values.encode(value)})
                await self._create(state, data=dict(delta.put))
            else:
                return change(None)
            state.set_value(key, value)
            return value

    # --- pieces of the verbs; the caller holds state.lock ---

    async def _create(
        self, state: SessionState, *, data: dict[str, bytes], user: str | None = None, **options: Any
    ) -> None:
        if user is None and self._admit is not None:
            await self._admit(state.request)
        await self._writer.create(state, data=data, user=user, **options)
        self._emit(Kind.CREATED, state)

    async def _bind(self, state: SessionState, change: IdChange, *, afresh: bool) -> bool:
        """Give the user this session under a new ID, or another session; return whether it is this one."""
        pending = state.data.pending() or Delta()
        delta = pending if change.keep is None else surviving_delta(pending, change.keep)
        kept: Mapping[str, bytes] = {}
        held = state.record
        if held is not None:
            if await self._writer.rotate(state, delta, change) is Outcome.APPLIED:
                state.retain(state.record.data if state.record else ())
                return True
            left = await self._end_renewed(state)
            if left is None and not afresh:
                raise SessionChanged
            # A double click, or a sign-out elsewhere: who proved a password gets a session of their own.
            kept = {} if left is None else surviving_data(left.data, change.keep)
            delta = surviving_delta(delta, frozenset()) if left is None else delta
        await self._create(
            state,
            data=merge(kept, delta),
            before=kept,
            user=change.user,
            auth_ms=change.auth_ms,
            marks=change.marks,
        )
        # Of the values read before, keep the unchanged ones: others would overwrite newer ones.
        fresh = [key for key, raw in kept.items() if held is not None and held.data.get(key) == raw]
        state.retain({*fresh, *delta.put})
        if state.unsettled is not None:
            await self._end_unsettled(state, state.unsettled)
        return False

    async def _end_renewed(self, state: SessionState) -> Record | None:
        """End the session whose ID was renewed periodically during this request; return its record.

        The old ID cannot rotate it, so the user gets another session. Of several requests that try this, one
        succeeds; after a sign-out, none.
        """
        assert state.sid is not None
        found = await self._store.load(state.sid.credential, now_ms=self._now_ms())
        if isinstance(found, Absent) or not await self._store.destroy(found.handle, now_ms=self._now_ms()):
            return None
        self._emit(Kind.DESTROYED, state, reason="replaced", handle=found.handle, user=found.user)
        return found

    async def _end_unsettled(self, state: SessionState, record: Record) -> None:
        if await self._store.destroy(record.handle, now_ms=self._now_ms()):
            self._emit(Kind.DESTROYED, state, reason="account", handle=record.handle, user=record.user)

    def _limited(self, state: SessionState, deadline_ms: int) -> int:
        if state.limit_s is None:
            return deadline_ms
        return min(deadline_ms, self._now_ms() + round(1000 * state.limit_s))

    def _same(self, state: SessionState, record: Record) -> IdChange:
        """Return a change of the ID that changes nothing else."""
        return IdChange(
            user=record.user,
            auth_ms=record.auth_ms,
            deadline_ms=record.deadline_ms,
            marks=state.marks._replace(is_remembered=self._writer.is_remembered(state)),
        )

    async def _rotate(self, state: SessionState, change: IdChange, *, reason: str) -> None:
        delta = state.data.pending() or Delta()
        if await self._writer.rotate(state, delta, change) is not Outcome.APPLIED:
            raise SessionChanged
        self._emit(Kind.RENEWED, state, reason=reason)

    def _is_remembered(self, state: SessionState, user: str, remember: bool | None) -> bool:
        """Whether the session lasts after sign-in; a second proof by the same user changes nothing."""
        if self._lifetime.remember_s is None:
            return False
        return state.user == user and state.marks.is_remembered if remember is None else remember

    async def _counts(self, record: Record) -> bool:
        return self._accounts is None or await self._accounts.counts(record)

    async def _check_account(self, state: SessionState) -> None:
        record = state.record
        if record is None or await self._counts(record):
            return
        self._emit(Kind.DESTROYED, state, reason="account")
        # Before the store call, so that nobody is signed in even if that fails: the record counts for nobody.
        state.end(cookie=CookieChange.CLEAR)
        await self._store.destroy(record.handle, now_ms=self._now_ms())
        raise SignInRevoked

    async def _end_oldest(self, state: SessionState, user: str, limit: int) -> None:
        records = await self._store.of_user(user, now_ms=self._now_ms())
        for record in sorted(records, key=sign_in_order, reverse=True)[limit:]:
            if await self._store.destroy(record.handle, now_ms=self._now_ms()):
                self._emit(Kind.DESTROYED, state, reason="limit", handle=record.handle, user=user)

    def _emit(
        self,
        kind: Kind,
        state: SessionState,
        *,
        reason: str | None = None,
        handle: str | None = None,
        user: str | None = None,
    ) -> None:
        """Emit an event about the session of this request, or about the one of *handle* and *user*."""
        if not self._events.subscribers:
            return
        if handle is None and state.record is not None:
            handle, user = state.record.handle, state.record.user
        address = state.request.client.address
        self._events.emit(kind, handle=handle, user=user, address=address, reason=reason)


def sign_in_order(record: Record) -> tuple[int, Handle]:
    """Return the sort key for sessions by sign-in; the handle decides between two of one millisecond."""
    return record.auth_ms or 0, record.handle
