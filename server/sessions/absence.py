"""`Absence`: what a request is whose cookie refers to no live session."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal

from stormcellar.events import Events, Kind
from stormcellar.sessions.account_check import AccountCheck
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.lifecycle import Lifecycle
from stormcellar.sessions.record_writer import RecordWriter
from stormcellar.sessions.request_info import CookieChange, Presence, RequestInfo, arrival_ms
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Absent, Record, Why

RACE_MS = 30_000
"""How long the response with a newer cookie may take to reach the browser."""

OnReuse = Literal["tell", "end"]
DEFAULT_ON_REUSE: OnReuse = "tell"


class Absence:
    """Decides whether such a request is late or a visitor's, and what happens to its cookie.

    A request that was on its way when the session ended or its ID was rotated is late: its response must not
    replace a newer cookie. Any other request is a visitor's.

    Args:
        on_reuse: See `SessionManager`.
        spawn: Runs a coroutine in the background.
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        writer: RecordWriter,
        *,
        accounts: AccountCheck,
        events: Events,
        on_reuse: OnReuse,
        spawn: Callable[[Coroutine[Any, Any, Any]], object],
        now_ms: Callable[[], int],
    ) -> None:
        self._lifecycle = lifecycle
        self._writer = writer
        self._accounts = accounts
        self._events = events
        self._on_reuse = on_reuse
        self._spawn = spawn
        self._now_ms = now_ms

    async def of_absent(self, sid: SessionId, request: RequestInfo, absent: Absent) -> SessionState:
        """Return the state of a request whose session the store does not have."""
        reason = absent.why.value
        if absent.since_ms is not None and self._is_late(request, absent.since_ms):
            state = SessionState(request, Presence.LATE, stale=sid)
        elif absent.why is not Why.SUPERSEDED:
            state = _visitor(sid, request, CookieChange.CLEAR)
            state.is_expired = absent.why is Why.UNKNOWN
        elif (record := await self._lifecycle.renewed_from(sid)) is None:
            # The response with the newer cookie may still be on its way.
            state = _visitor(sid, request, CookieChange.KEEP)
        else:
            reason, cookie = "reused", CookieChange.KEEP
            if self._on_reuse == "end":
                await self._writer.destroy(record, request, reason=reason)
                cookie = CookieChange.CLEAR
            state = _visitor(sid, request, cookie)
        state.is_ended = absent.why is Why.ENDED
        address = request.client.address or None
        self._events.emit(Kind.REJECTED, handle=sid.handle, address=address, reason=reason)
        return state

    def _is_late(self, request: RequestInfo, since_ms: int) -> bool:
        now_ms = self._now_ms()
        # A later time is that of a clock that was wrong; until then every write would be refused.
        return arrival_ms(request, now_ms) - RACE_MS < since_ms < now_ms + RACE_MS

    async def of_revoked(self, sid: SessionId, request: RequestInfo, record: Record) -> SessionState:
        """Return the state of a request whose account no longer allows the sign-in; end its session."""
        if await self._accounts.is_changing(record):
            # Nobody is signed in by it, but the request may be the one that changes the account: keep both
            # its record and its cookie.
            return SessionState(request, Presence.LATE, stale=sid, unsettled=record)
        self._spawn(self._writer.destroy(record, request, reason="account"))
        return _visitor(sid, request, CookieChange.CLEAR)


def _visitor(sid: SessionId, request: RequestInfo, cookie: CookieChange) -> SessionState:
    state = SessionState(request, Presence.NONE, stale=sid)
    state.cookie = cookie
    return state
