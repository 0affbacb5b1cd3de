"""`Writer`: the three ways in which a session reaches its record: create, apply, rotate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stormcellar.errors import InsecureTransport
from stormcellar.lifetime import Lifetime
from stormcellar.sessions.data_limits import kept_of, merge, require_size
from stormcellar.sessions.session import Session
from stormcellar.stores import Delta, Outcome, Record, Store

log = logging.getLogger("stormcellar.sessions")

_TOUCH = Delta()


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a change of the session ID sets besides; see `Store.rotate`."""

    user: str | None
    auth_ms: int | None
    deadline_ms: int
    is_remembered: bool
    keep: frozenset[str] | None = None
    grace_ms: int = 0


class Writer:
    """Writes to the store, within the limits, and tells the session what was written.

    Each method is one atomic step in the store. The caller holds `session.lock`.

    Raises:
        InsecureTransport: From what would set a cookie. Nothing was written.
        SessionTooLarge: From what writes data. Nothing was written.
        StoreUnavailable: From any; the session knows of nothing written.

    Args:
        now_ms: Unix time in milliseconds.
    """

    def __init__(self, store: Store, *, lifetime: Lifetime, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._lifetime = lifetime
        self._now_ms = now_ms

    async def create(
        self,
        session: Session,
        *,
        data: dict[str, bytes],
        before: Mapping[str, bytes] = MappingProxyType({}),
        user: str | None = None,
        auth_ms: int | None = None,
        is_remembered: bool = False,
    ) -> None:
        """Make the record of a new session, with an ID of its own.

        Args:
            before: What *data* was in the session that this one takes the place of.
        """
        self._require_transport(session)
        require_size(data, before=before)
        sid, now_ms = session.mint(), self._now_ms()
        deadline_ms = self._lifetime.deadline_ms(now_ms, is_remembered=is_remembered)
        if session.limit_s is not None:
            deadline_ms = min(deadline_ms, now_ms + round(1000 * session.limit_s))
        expires_ms = self._lifetime.expires_ms(
            user=user, now_ms=now_ms, deadline_ms=deadline_ms, is_remembered=is_remembered
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
            client=session.request.client.encode(is_remembered=is_remembered),
            data=data,
        )
        await self._store.create(record)
        session.became(record, sid)

    async def apply(self, session: Session, delta: Delta) -> Outcome:
        """Save *delta*, and slide the expiry."""
        record, sid = session.record, session.sid
        assert record is not None and sid is not None
        data = merge(record.data, delta)
        require_size(data, before=record.data)
        now_ms = self._now_ms()
        expires_ms = self.expires_ms(session, now_ms=now_ms)
        outcome = await self._store.apply(sid.credential, delta, now_ms=now_ms, expires_ms=expires_ms)
        if outcome is Outcome.APPLIED:
            session.wrote(
                data, seen_ms=max(record.seen_ms, now_ms), expires_ms=max(record.expires_ms, expires_ms)
            )
        return outcome

    async def rotate(self, session: Session, delta: Delta, change: Rotation) -> Outcome:
        """Change the ID, save *delta*, and set what is given; see `Store.rotate`."""
        record, sid = session.record, session.sid
        assert record is not None and sid is not None
        kept = kept_of(record.data, change.keep)
        data = merge(kept, delta)
        self._require_transport(session)
        require_size(data, before=kept)
        new, now_ms = sid.renewed() if change.grace_ms else sid.rotated(), self._now_ms()
        client = session.request.client.encode(is_remembered=change.is_remembered)
        expires_ms = self._lifetime.expires_ms(
            user=change.user,
            now_ms=now_ms,
            deadline_ms=change.deadline_ms,
            is_remembered=change.is_remembered,
        )
        outcome = await self._store.rotate(
            sid.credential,
            new.credential.verifier,
            delta,
            keep=change.keep,
            user=change.user,
            auth_ms=change.auth_ms,
            client=client,
            now_ms=now_ms,
            expires_ms=expires_ms,
            deadline_ms=change.deadline_ms,
            grace_ms=change.grace_ms,
        )
        if outcome is Outcome.APPLIED:
            session.became(
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

    async def touch(self, session: Session) -> None:
        """Slide the expiry alone. Needs no lock: it changes nothing that the session knows."""
        sid, now_ms = session.sid, self._now_ms()
        if session.record is not None and sid is not None:
            expires_ms = self.expires_ms(session, now_ms=now_ms)
            await self._store.apply(sid.credential, _TOUCH, now_ms=now_ms, expires_ms=expires_ms)

    def expires_ms(self, session: Session, *, now_ms: int) -> int:
        """Return when *session*, which has a record and is active now, ends if nothing more happens."""
        record = session.record
        assert record is not None
        return self._lifetime.expires_ms(
            user=record.user,
            now_ms=now_ms,
            deadline_ms=record.deadline_ms,
            is_remembered=self.is_remembered(session),
        )

    def is_remembered(self, session: Session) -> bool:
        """Whether *session* has the limits of those who are kept signed in."""
        return self._lifetime.remember_s is not None and session.is_remembered

    def _require_transport(self, session: Session) -> None:
        if not session.request.may_set_cookie:
            log.error(
                "no session cookie for %s: plain HTTP, and the client or the Host is beyond this machine; "
                "serve over TLS with SessionManager(secure=True), or run.py --behind-proxy",
                session.request.client.address,
            )
            raise InsecureTransport
