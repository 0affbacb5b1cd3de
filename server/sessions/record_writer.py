"""`RecordWriter`: how a session writes its record (create, apply, rotate) and reads it again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stormcellar.errors import InsecureTransport
from stormcellar.events import Events, Kind
from stormcellar.lifetime import Lifetime
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.data.limits import merge, require_size, surviving_data
from stormcellar.sessions.request_info import Marks, RequestInfo, arrival_ms
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Absent, Delta, Outcome, Record, Rotation, Store

log = logging.getLogger("stormcellar.sessions")

_TOUCH = Delta()


@dataclass(frozen=True, slots=True)
class IdChange:
    """What changes together with the session ID; see `Store.rotate`."""

    user: str | None
    auth_ms: int | None
    deadline_ms: int
    marks: Marks
    keep: frozenset[str] | None = None
    grace_ms: int = 0


class RecordWriter:
    """Writes to the store, within the limits, and updates the state with what was written.

    Each method is one atomic step in the store. The caller holds `state.lock`.

    Args:
        admit: Awaited before a visitor's session is created; an exception it raises refuses the session.
        now_ms: Returns Unix time in milliseconds.

    Raises:
        InsecureTransport: From methods that set a cookie. Nothing was written.
        SessionTooLarge: From methods that write data. Nothing was written.
        StoreUnavailable: From every method; the state is unchanged.
    """

    def __init__(
        self,
        store: Store,
        *,
        lifetime: Lifetime,
        events: Events,
        admit: Callable[[RequestInfo], Awaitable[None]] | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._lifetime = lifetime
        self._events = events
        self._admit = admit
        self._now_ms = now_ms

    async def create(
        self,
        state: SessionState,
        *,
        data: dict[str, bytes],
        user: str | None = None,
        auth_ms: int | None = None,
        marks: Marks = Marks(),  # noqa: B008  immutable
    ) -> None:
        """Create the record of a new session, with a new ID."""
        if user is None and self._admit is not None:
            await self._admit(state.request)
        self._require_transport(state)
        require_size(data, before={})
        sid, now_ms = state.mint(), self._now_ms()
        deadline_ms = self._lifetime.deadline_ms(
            now_ms, is_remembered=marks.is_remembered, is_visitor=user is None
        )
        deadline_ms = state.limited(deadline_ms, now_ms)
        expires_ms = self._lifetime.expires_ms(
            user=user, now_ms=now_ms, deadline_ms=deadline_ms, is_remembered=marks.is_remembered
        )
        record = Record(
            *sid.credential,
            user=user,
            created_ms=now_ms,
            rotated_ms=now_ms,
            auth_ms=auth_ms,
            seen_ms=now_ms,
            expires_ms=expires_ms,
            deadline_ms=deadline_ms,
            client=self._client(state, marks, sid),
            data=data,
        )
        await self._store.create(record)
        state.set_record(record, sid)
        self.emit(Kind.CREATED, state)

    async def apply(self, state: SessionState, delta: Delta) -> Outcome:
        """Save *delta*, and slide the expiry, unless the session was opened by its handle."""
        record, credential = state.record, state.credential
        assert record is not None and credential is not None
        data = merge(record.data, delta)
        require_size(data, before=record.data)
        now_ms = self._now_ms()
        arrived_ms = arrival_ms(state.request, now_ms)
        expires_ms = None if state.is_opened else self.expires_ms(state, now_ms=now_ms)
        outcome = await self._store.apply(credential, delta, now_ms=arrived_ms, expires_ms=expires_ms)
        if outcome is Outcome.GONE and state.is_opened and (now := await self.read(state)) is not None:
            # The ID was rotated meanwhile.
            state.set_loaded(now)
            return await self.apply(state, delta)
        if outcome is Outcome.APPLIED and expires_ms is None:
            state.set_written(data, seen_ms=record.seen_ms, expires_ms=record.expires_ms)
        elif outcome is Outcome.APPLIED and expires_ms is not None:
            state.set_written(
                data, seen_ms=max(record.seen_ms, arrived_ms), expires_ms=max(record.expires_ms, expires_ms)
            )
        return outcome

    async def read(self, state: SessionState) -> Record | None:
        """Return what is stored now; None if the session ended, or is no longer this browser's or user's."""
        record, credential = state.record, state.credential
        assert record is not None and credential is not None
        arrived_ms = arrival_ms(state.request, self._now_ms())
        if state.is_opened:
            found = await self._store.find(record.handle, now_ms=arrived_ms)
            return found if found is not None and found.user == record.user else None
        loaded = await self._store.load(credential, now_ms=arrived_ms)
        return None if isinstance(loaded, Absent) else loaded

    async def rotate(self, state: SessionState, delta: Delta, change: IdChange) -> Outcome:
        """Rotate the ID, save *delta*, and set the fields of *change*; see `Store.rotate`."""
        record, sid = state.record, state.sid
        assert record is not None and sid is not None
        kept = surviving_data(record.data, change.keep)
        data = merge(kept, delta)
        self._require_transport(state)
        require_size(data, before=kept)
        new, now_ms = sid.renewed() if change.grace_ms else sid.rotated(), self._now_ms()
        client = self._client(state, change.marks, new)
        expires_ms = self._lifetime.expires_ms(
            user=change.user,
            now_ms=now_ms,
            deadline_ms=change.deadline_ms,
            is_remembered=change.marks.is_remembered,
        )
        outcome = await self._store.rotate(
            sid.credential,
            Rotation(
                new_verifier=new.credential.verifier,
                rotated_ms=now_ms,
                user=change.user,
                auth_ms=change.auth_ms,
                client=client,
                expires_ms=expires_ms,
                deadline_ms=change.deadline_ms,
                keep=change.keep,
                delta=delta,
                grace_ms=change.grace_ms,
            ),
            now_ms=arrival_ms(state.request, now_ms),
        )
        if outcome is Outcome.APPLIED:
            state.set_record(
                Record(
                    *new.credential,
                    user=change.user,
                    created_ms=record.created_ms,
                    rotated_ms=now_ms,
                    auth_ms=change.auth_ms,
                    seen_ms=max(record.seen_ms, now_ms),
                    expires_ms=expires_ms,
                    deadline_ms=change.deadline_ms,
                    client=client,
                    data=data,
                ),
                new,
            )
        return outcome

    async def touch(self, state: SessionState) -> None:
        """Record that the session was used, and slide its expiry. Changes no state, so it needs no lock."""
        credential, now_ms = state.credential, self._now_ms()
        if state.record is not None and credential is not None:
            expires_ms = self.expires_ms(state, now_ms=now_ms)
            arrived_ms = arrival_ms(state.request, now_ms)
            await self._store.apply(credential, _TOUCH, now_ms=arrived_ms, expires_ms=expires_ms)

    async def destroy(self, record: Record, request: RequestInfo, *, reason: str) -> bool:
        """End the session of *record*; return False if it had ended already."""
        ended = await self._store.destroy(record.handle, now_ms=self._now_ms())
        if ended:
            self.emit_destroyed(record, request, reason=reason)
        return ended

    async def end_expired(self, state: SessionState) -> None:
        """End the session of the cookie if it has only expired: by a clock that is behind it is live."""
        if state.is_expired and state.stale is not None:
            await self._store.destroy(state.stale.handle, now_ms=self._now_ms())

    def emit_destroyed(self, record: Record, request: RequestInfo, *, reason: str) -> None:
        """Emit the event that the session of *record* ended."""
        handle, user, address = record.handle, record.user, request.client.address or None
        self._events.emit(Kind.DESTROYED, handle=handle, user=user, address=address, reason=reason)

    def emit(self, kind: Kind, state: SessionState, *, reason: str | None = None) -> None:
        """Emit an event about the session of this request."""
        if self._events.subscribers:
            address = state.request.client.address or None
            self._events.emit(kind, handle=state.handle, user=state.user, address=address, reason=reason)

    def expires_ms(self, state: SessionState, *, now_ms: int) -> int:
        """Return when a session with a record, active now, expires if nothing more happens."""
        record = state.record
        assert record is not None
        return self._lifetime.expires_ms(
            user=record.user,
            now_ms=now_ms,
            deadline_ms=record.deadline_ms,
            is_remembered=self.is_remembered(state),
        )

    def is_remembered(self, state: SessionState) -> bool:
        """Whether the session has the limits of a user who is kept signed in."""
        return self._lifetime.remember_s is not None and state.marks.is_remembered

    def _client(self, state: SessionState, marks: Marks, sid: SessionId) -> bytes:
        family = None if self._lifetime.renew_s is None else sid.family
        return state.request.client.encode(marks._replace(family=family))

    def _require_transport(self, state: SessionState) -> None:
        if not state.request.may_set_cookie:
            log.error(
                "no session cookie for %s: plain HTTP, and the client or the Host is beyond this machine; "
                "serve over TLS with SessionManager(secure=True), or run.py --behind-proxy",
                state.request.client.address,
            )
            raise InsecureTransport
