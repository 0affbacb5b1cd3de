"""`Lifecycle`: what each verb of a session does in the store, and within which limits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from stormcellar.errors import SessionChanged, SessionEnded
from stormcellar.events import Kind
from stormcellar.lifetime import Lifetime
from stormcellar.sessions.account_check import AccountCheck
from stormcellar.sessions.atomic_update import AtomicUpdate
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.data import json_values
from stormcellar.sessions.data.limits import FLASH
from stormcellar.sessions.record_writer import IdChange, RecordWriter
from stormcellar.sessions.request_info import CookieChange, marks_of
from stormcellar.sessions.sign_in import SignIn
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Delta, Outcome, Record, Store, StoreUnavailable

log = logging.getLogger("stormcellar.sessions")


class Lifecycle:
    """Runs the verbs of `Session`; each is one atomic step in the store. `SignIn` runs `login`.

    Args:
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(
        self,
        store: Store,
        writer: RecordWriter,
        *,
        lifetime: Lifetime,
        accounts: AccountCheck,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._writer = writer
        self._lifetime = lifetime
        self._accounts = accounts
        self._now_ms = now_ms
        self._update = AtomicUpdate(writer)
        self.sign_in = SignIn(store, writer, lifetime=lifetime, accounts=accounts, now_ms=now_ms)

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
            if state.is_late:
                self._drop_late(state, is_asked=frozen is None)
            elif state.record is None and state.is_opened:
                raise SessionEnded
            elif state.record is None:
                await self._writer.create(state, data=dict(delta.put))
            elif await self._writer.apply(state, delta) is not Outcome.APPLIED:
                raise SessionChanged

    async def logout(self, state: SessionState) -> None:
        """See `Session.logout`."""
        async with state.lock:
            cookie, messages = state.cookie, state.data.written(FLASH)
            record, reason = state.record, "logout"
            if record is None and state.unsettled is not None:
                record, reason = state.unsettled, "account"
            elif record is None and state.stale is not None:
                record = await self.renewed_from(state.stale)
            if record is not None:
                await self._writer.destroy(record, state.request, reason=reason)
            elif state.is_ended and state.stale is not None:
                # An earlier try may have ended it without the confirmation that this answer gives.
                await self._store.destroy(state.stale.handle, now_ms=self._now_ms())
            else:
                await self._writer.end_expired(state)
            if record is not None or not (state.stale is None or state.is_late):
                cookie = CookieChange.CLEAR
            state.end(cookie=cookie)
            for key, raw in messages.items():
                state.data.write(key, json_values.decode(raw))

    async def reload(self, state: SessionState) -> None:
        """See `Session.reload`."""
        async with state.lock:
            state.require_timely()
            if state.record is None:
                return
            found = await self._writer.read(state)
            if found is None or not await self._accounts.counts(found):
                raise SessionChanged
            state.set_loaded(found)

    async def renew(self, state: SessionState) -> None:
        """See `Session.renew`."""
        async with state.lock:
            state.require_timely()
            if state.record is not None:
                await self._rotate(state, self._same(state, state.record), reason="asked")

    async def limit(self, state: SessionState, seconds: float) -> None:
        """See `Session.expire_in`."""
        async with state.lock:
            state.require_timely()
            state.limit_s = min(seconds, state.limit_s or seconds)
            if state.record is not None:
                change = self._same(state, state.record)
                deadline_ms = state.limited(change.deadline_ms, self._now_ms())
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
                        self._writer.emit(Kind.RENEWED, state, reason="periodic")
                        return
        await self.commit(state, frozen)

    async def modify(self, state: SessionState, key: str, change: Callable[[Any], Any]) -> Any:
        """See `Session.modify`."""
        await self.commit(state)
        async with self._update.exclusive(state) as until, state.lock:
            state.require_timely()
            if state.record is not None:
                value = await self._update.replace(state, key, change, until=until)
            else:
                value = change(None)
                delta = Delta({key: json_values.encode(value)})
                await self._writer.create(state, data=dict(delta.put))
            state.set_value(key, value)
            return value

    async def renewed_from(self, sid: SessionId) -> Record | None:
        """Return the live session whose ID was *sid* before a periodic renewal, or None.

        An ID from before a sign-in is of another family: it has no power over the session of the user.
        """
        if self._lifetime.renew_s is None:
            return None
        record = await self._store.find(sid.handle, now_ms=self._now_ms())
        is_same = record is not None and marks_of(record).family == sid.family
        return record if is_same else None

    # --- pieces of the verbs; the caller holds state.lock ---

    def _drop_late(self, state: SessionState, *, is_asked: bool) -> None:
        """Drop what a late request wrote.

        Raises:
            SessionEnded: The handler asked for the save, or the request is unsafe and no sign-out.
        """
        if is_asked or not (state.request.is_safe or state.is_signed_out):
            raise SessionEnded
        log.warning("a change was not saved: the session ended, or its ID was rotated, during this request")
        state.data.drop_pending()

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
        self._writer.emit(Kind.RENEWED, state, reason=reason)
