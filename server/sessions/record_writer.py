"""`RecordWriter`: the three ways in which a session writes its record: create, apply, rotate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stormcellar.errors import InsecureTransport
from stormcellar.lifetime import Lifetime
from stormcellar.sessions.data_limits import merge, require_size, surviving_data
from stormcellar.sessions.request_info import Marks
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Delta, Outcome, Record, Rotation, Store

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

    Raises:
        InsecureTransport: From methods that set a cookie. Nothing was written.
        SessionTooLarge: From methods that write data. Nothing was written.
        StoreUnavailable: From every method; the state is unchanged.

    Args:
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(self, store: Store, *, lifetime: Lifetime, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._lifetime = lifetime
        self._now_ms = now_ms

    async def create(
        self,
        state: SessionState,
        *,
        data: dict[str, bytes],
        before: Mapping[str, bytes] = MappingProxyType({}),
        user: str | None = None,
        auth_ms: int | None = None,
        marks: Marks = Marks(),  # noqa: B008  immutable
    ) -> None:
        """Create the record of a new session, with a new ID.

        Args:
            before: The data of the session that this one replaces; only growth beyond it is refused.
        """
        self._require_transport(state)
        require_size(data, before=before)
        sid, now_ms = state.mint(), self._now_ms()
        deadline_ms = self._lifetime.deadline_ms(now_ms, is_remembered=marks.is_remembered)
        if state.limit_s is not None:
            deadline_ms = min(deadline_ms, now_ms + round(1000 * state.limit_s))
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
            client=state.request.client.encode(marks),
            data=data,
        )
        await self._store.create(record)
        state.set_record(record, sid)

    async def apply(self, state: SessionState, delta: Delta) -> Outcome:
        """Save *delta*, and slide the expiry."""
        record, sid = state.record, state.sid
        assert record is not None and sid is not None
        data = merge(record.data, delta)
        require_size(data, before=record.data)
        now_ms = self._now_ms()
        expires_ms = self.expires_ms(state, now_ms=now_ms)
        outcome = await self._store.apply(sid.credential, delta, now_ms=now_ms, expires_ms=expires_ms)
        if outcome is Outcome.APPLIED:
            state.set_written(
                data, seen_ms=max(record.seen_ms, now_ms), expires_ms=max(record.expires_ms, expires_ms)
            )
        return outcome

    async def rotate(self, state: SessionState, delta: Delta, change: IdChange) -> Outcome:
        """Rotate the ID, save *delta*, and set the fields of *change*; see `Store.rotate`."""
        record, sid = state.record, state.sid
        assert record is not None and sid is not None
        kept = surviving_data(record.data, change.keep)
        data = merge(kept, delta)
        self._require_transport(state)
        require_size(data, before=kept)
        new, now_ms = sid.renewed() if change.grace_ms else sid.rotated(), self._now_ms()
        client = state.request.client.encode(change.marks)
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
            now_ms=now_ms,
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
        sid, now_ms = state.sid, self._now_ms()
        if state.record is not None and sid is not None:
            expires_ms = self.expires_ms(state, now_ms=now_ms)
            await self._store.apply(sid.credential, _TOUCH, now_ms=now_ms, expires_ms=expires_ms)

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

    def _require_transport(self, state: SessionState) -> None:
        if not state.request.may_set_cookie:
            log.error(
                "no session cookie for %s: plain HTTP, and the client or the Host is beyond this machine; "
                "serve over TLS with SessionManager(secure=True), or run.py --behind-proxy",
                state.request.client.address,
            )
            raise InsecureTransport
